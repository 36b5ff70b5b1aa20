"""Hostile and odd pictures and names, made from one seed: what both arms must survive alike.

`pictures()` yields specimens, each with what must come of it; `names()` yields file names. As a
script it writes all of them into a folder, to be tried with any program:

    python tests/hostile_corpus.py some/folder
"""

import argparse
import base64
import functools
import io
import random
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

if __name__ == "__main__":  # the project is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from lambda_function.image_transform import FORMATS
from metrics.common.cli import DONE, run_script, script_parser, some_path
from metrics.common.streams import start_script

SEED = 20261124
SIZE = (64, 48)
ORIENTATION = 0x0112
# What turns an upright picture into the stored one, from the EXIF specification.
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}

# What an output shows in its quarters: upper left and right, lower left and right.
Quarters = tuple[tuple[int, int, int], ...]
RED, LIME, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
COLOURS: Quarters = (RED, LIME, BLUE, WHITE)
GREYS: Quarters = tuple((level,) * 3 for level in (76, 150, 29, 255))  # COLOURS in ITU-R 601 luma
FLAT: Quarters = (BLUE,) * 4
ERROR, ANYTHING = "error", "anything"
GROUPS = (
    *("turned", "jpegs", "frames", "transparent", "deep", "shapes", "profiles", "with_junk"),
    *("other_formats", "truncated", "misnamed", "oversized", "bombs", "damaged"),
)


class Specimen(NamedTuple):
    """A file. `outcome` is what its output shows, ERROR, or ANYTHING: alike in both arms, then."""

    name: str
    data: bytes
    outcome: Quarters | str


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    output = io.BytesIO()
    image.save(output, kind, **options)
    return output.getvalue()


def quarters(width: int = SIZE[0], height: int = SIZE[1], colours: Quarters = COLOURS):
    """A picture of four colours, so that every turn, flip and swap of channels shows."""
    image = Image.new("RGB", (2, 2))
    image.putdata(colours)
    return image.resize((width, height), Image.Resampling.NEAREST)


def pictures() -> Iterator[Specimen]:
    """All specimens; their names are unique, and some lie in folders."""
    for group in GROUPS:
        yield from specimens(group)


def specimens(group: str) -> Iterator[Specimen]:
    for name, data, outcome in globals()[group]():
        yield Specimen(f"{group}/{name}", data, outcome)


# --- what can be read -----------------------------------------------------------------------------


def turned() -> Iterator[tuple]:
    for orientation, transpose in STORED.items():
        image = quarters() if transpose is None else quarters().transpose(transpose)
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        for kind in ("JPEG", "PNG", "WEBP", "TIFF", "MPO"):
            yield f"{orientation}.{kind.lower()}", encoded(image, kind, exif=exif), COLOURS
    exif[ORIENTATION] = 9
    yield "9.jpg", encoded(quarters(), "JPEG", exif=exif), COLOURS
    large = quarters(1700, 1300).transpose(STORED[6])
    exif[ORIENTATION] = 6
    yield "large 6.jpg", encoded(large, "JPEG", exif=exif), COLOURS
    yield "broken EXIF.png", encoded(quarters(), exif=b"no TIFF header here"), COLOURS


def ycck() -> bytes:
    """As Adobe's programs write CMYK: C, M and Y as luma and chroma, all inverted. Pillow writes
    four channels as they are, inverted, and the marker says 0 (unknown) where 2 stands for YCCK."""
    cyan, magenta, yellow, black = quarters().convert("CMYK").split()
    chroma = Image.merge("RGB", (cyan, magenta, yellow)).convert("YCbCr").split()
    inverted = [channel.point(lambda value: 255 - value) for channel in chroma]
    data = bytearray(encoded(Image.merge("CMYK", (*inverted, black)), "JPEG", quality=95))
    transform = data.index(b"Adobe") + 11
    assert data[transform] == 0
    data[transform] = 2
    return bytes(data)


# Pillow writes none of these: made with libjpeg-turbo 2.1 (cjpeg -arithmetic, -progressive,
# -sample 4x1,1x1,1x1) from quarters().
ARITHMETIC = (
    "|JeWF01!$>Nk#wx0RR9200961|JwjV00;&K2L=TQ2L}fU2?z=d6b%du3k(?&6Au&}8Xq1V8XO!TBrYc)A}k{u94I#_"
    "EHE)NG&CP4IXyTsJT5adGXL8ELjeg12@DGi7!3^=G9erxGBPqUGBPqUGBPqUGBPqUGBPqUGBPqUGBPqUGBPqUGBPqU"
    "GBPqUGBPqUGBPqUGBW?k01*fPFaSUU0U-ba5di}c0sqVZ3IGrg1pyEd1^?Or3<CiG0ucid06zf#0H73$Qr71-"
    "CuZVj2wxr3kjG`Pyjd>oDP)I|uNugP#&lu;jGr0H=d@EOPH$4+I7d>Gc9+2a*#"
)
ARITHMETIC_PROGRESSIVE = (
    "|JeWF01!$>Nk#wx0RR9200961|JwjV00;&K2L=TQ2L}fU2?z=d6b%du3k(?&6Au&}8Xq1V8XO!TBrYc)A}k{u94I#_"
    "EHE)NG&CP4IXyTsJT5adGXL8ELjeg12@DGi7!3^=G9erxGBPqUGBPqUGBPqUGBPqUGBPqUGBPqUGBPqUGBPqUGBPqU"
    "GBPqUGBPqUGBPqUGBW?l01*fPFaSUU0U-"
    "ba5di}c0sqVZ1^^HN5dYc$3<CiG0uTcb0006106wy5p>rYwYV${4P?c_%0it040Q+8!L_rz(Bbd#zKZatpS;M*wU_J"
    "iD<P&|wZvV^x1P}%P+5iXv0RRC70;vDY00a>Q|Jncu0RsU6KLN1+%m4%t1^?Or2mt~C0Y3q-"
    "|I7dc5C#9*00;pA00ut-sQ=6W1P}%P+5iXv0RRC%A*lb_01N{G00IC50000GWBr>`n^fyaFq|-"
    ")|I7dc5e5I+00;pC0RcY{u>Z^e1Q7-Q+5iXv0s#R(5U~Hu00a;P|Jncu0RaF3KM<(@*#"
)
SUBSAMPLED_411 = (
    "|JeWF01!$>Nk#wx0RR9200961|JwjV00;&K2L=TQ2L}fU2?z=d6b%du3k(?&6Au&}8Xq1V8XO!TBrYc)A}k{u94I#_"
    "EHE)NG&CP4IXyTsJT5adGXL8ELjeg12@DGi7!3^=G9erxGBPqUGBPqUGBPqUGBPqUGBPqUGBPqUGBPqUGBPqUGBPqU"
    "GBPqUGBPqUGBPqUGBW?b01*fPFaSUU0YLx)5di}c0sq7R7XSeP0RaF20000000000000072nPSe02B}b0000000000"
    "0000000000|HJ?n0RRI500000000000000000svL1^>hV6cGUc00000000000000000030+5ij#0RRFK0}%i}0OG(5"
    "o+?lQq+XhUC0Ytl0i<4<fF)WAPywV~g8;7##^L~uX|U)Ai!r!>BbsbF0piSVAPDB0|Je"
)


def jpegs() -> Iterator[tuple]:
    image, restarts = quarters(), {"restart_marker_blocks": 1}
    yield "CMYK.jpg", encoded(image.convert("CMYK"), "JPEG"), COLOURS
    yield "CMYK.tif", encoded(image.convert("CMYK"), "TIFF"), COLOURS
    yield "YCCK.jpg", ycck(), COLOURS
    yield "grey.jpg", encoded(image.convert("L"), "JPEG"), GREYS
    yield "progressive.jpg", encoded(image, "JPEG", progressive=True), COLOURS
    yield "RGB.jpg", encoded(image, "JPEG", keep_rgb=True), COLOURS
    for subsampling in ("4:4:4", "4:2:2", "4:2:0"):
        data = encoded(image, "JPEG", subsampling=subsampling)
        yield f"{subsampling.replace(':', '')}.jpg", data, COLOURS
    yield "411.jpg", base64.b85decode(SUBSAMPLED_411), COLOURS
    yield "arithmetic.jpg", base64.b85decode(ARITHMETIC), COLOURS
    yield "arithmetic progressive.jpg", base64.b85decode(ARITHMETIC_PROGRESSIVE), COLOURS
    yield "restarts.jpg", encoded(image, "JPEG", **restarts), COLOURS
    broken = encoded(image, "JPEG", **restarts)
    yield "wrong restarts.jpg", broken.replace(b"\xff\xd3", b"\xff\xd6"), ANYTHING
    yield "no restarts.jpg", broken.replace(b"\xff\xd3", b""), ANYTHING
    yield "12 bit.jpg", _frame_header(encoded(image, "JPEG"), precision=12), ERROR
    yield "16 bit.jpg", _frame_header(encoded(image, "JPEG"), precision=16), ERROR
    yield "lossless.jpg", _frame_header(encoded(image, "JPEG"), marker=0xC3), ERROR
    yield "hierarchical.jpg", _frame_header(encoded(image, "JPEG"), marker=0xC5), ERROR
    yield "two components.jpg", _frame_header(encoded(image, "JPEG"), components=2), ERROR
    yield "many scans.jpg", many_scans(64, 48, 500), ANYTHING


def _frame_header(jpeg: bytes, **changes: int) -> bytes:
    """A JPEG whose frame header says otherwise than its content."""
    data, start = bytearray(jpeg), jpeg.index(b"\xff\xc0")
    for what, value in changes.items():
        if what in ("width", "height"):
            place = start + (7 if what == "width" else 5)
            data[place : place + 2] = value.to_bytes(2)
        else:
            data[start + {"marker": 1, "precision": 4, "components": 9}[what]] = value
    return bytes(data)


def many_scans(width: int, height: int, scans: int) -> bytes:
    """A grey progressive JPEG whose scans say "no change" in a few bytes, and are each a pass over
    all blocks: 16 ms at 179 megapixels, so that 1 MB of them takes a minute."""

    def segment(marker: int, body: bytes) -> bytes:
        return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body

    def scan(first: int, last: int, body: bytes) -> bytes:
        return segment(0xDA, bytes([1, 1, 0, first, last, 0])) + body

    one_code = bytes([1] + 15 * [0])  # a single symbol, whose code is one bit
    blocks = -(-width // 8) * -(-height // 8)
    runs = "".join("0" + 14 * "1" for _ in range(-(-blocks // 32767)))  # 32,767 blocks unchanged
    runs += -len(runs) % 8 * "1"
    nothing = int(runs, 2).to_bytes(len(runs) // 8).replace(b"\xff", b"\xff\0")
    head = segment(0xDB, bytes(1) + 64 * b"\1")
    head += segment(0xC2, struct.pack(">BHHB", 8, height, width, 1) + b"\1\x11\0")
    head += segment(0xC4, b"\0" + one_code + b"\0") + segment(0xC4, b"\x10" + one_code + b"\xe0")
    body = scan(0, 0, bytes(blocks // 8 + 2)) + scans * scan(1, 63, nothing)
    return b"\xff\xd8" + head + body + b"\xff\xd9"


def frames() -> Iterator[tuple]:
    others = [Image.new("RGB", SIZE, colour) for colour in ("black", "grey")]
    for kind in ("GIF", "WEBP", "PNG", "TIFF", "MPO", "AVIF"):
        data = encoded(quarters(), kind, save_all=True, append_images=others)
        yield f"three frames.{kind.lower()}", data, COLOURS
    head, frame = _gif_parts()
    yield "twenty thousand frames.gif", head + 20_000 * frame + b";", COLOURS


def _gif_parts() -> tuple[bytes, bytes]:
    """Everything before the first frame of a GIF, and that frame."""
    data = encoded(quarters(8, 6), "GIF")
    start = data.index(b",", 13 + 3 * 2 ** ((data[10] & 7) + 1))
    return data[:start], data[start:-1]


def transparent() -> Iterator[tuple]:
    """The upper left quarter is transparent over red, and must be white."""
    shown = (WHITE, *COLOURS[1:])
    alpha = quarters(colours=((0, 0, 0), WHITE, WHITE, WHITE)).convert("L")
    rgba, la = quarters().convert("RGBA"), quarters().convert("LA")
    palette = quarters().convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
    hidden = palette.getpixel((0, 0))
    with_alpha = palette.convert("PA")
    for image in (rgba, la, with_alpha):
        image.putalpha(alpha)
    grey = (WHITE, *GREYS[1:])
    for kind in ("PNG", "TIFF", "WEBP"):
        options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
        yield f"RGBA.{kind.lower()}", encoded(rgba, kind, **options), shown
    for kind in ("PNG", "TIFF"):
        yield f"LA.{kind.lower()}", encoded(la, kind), grey
    yield "PA.tif", encoded(with_alpha, "TIFF"), shown
    for kind in ("PNG", "GIF"):
        yield f"palette.{kind.lower()}", encoded(palette, kind, transparency=hidden), shown
    yield "colour key.png", encoded(quarters(), transparency=RED), shown
    yield "grey key.png", encoded(quarters().convert("L"), transparency=76), grey
    opaque = bytes(index != hidden and 255 for index in range(4))
    yield "palette alphas.png", encoded(palette, transparency=opaque), shown


def deep() -> Iterator[tuple]:
    levels = quarters().convert("L")
    grey16 = Image.frombytes("I;16", SIZE, b"".join(2 * bytes([v]) for v in levels.tobytes()))
    yield "grey 16.png", encoded(grey16), GREYS
    yield "grey 16.tif", encoded(grey16, "TIFF"), GREYS
    big_endian = Image.frombytes("I;16B", SIZE, grey16.tobytes())
    yield "grey 16 big-endian.tif", encoded(big_endian, "TIFF"), GREYS
    yield (
        "float fractions.tif",
        encoded(levels.convert("F").point(lambda v: v / 255), "TIFF"),
        GREYS,
    )
    yield "float.tif", encoded(levels.convert("F"), "TIFF"), ERROR
    yield "grey 16.ppm", encoded(levels.convert("I").point(lambda v: v * 257), "PPM"), GREYS
    yield "integers.tif", encoded(levels.convert("I").point(lambda v: v * 257), "TIFF"), ERROR
    yield "nan.tif", encoded(Image.new("F", SIZE, float("nan")), "TIFF"), ERROR
    yield "infinite.tif", encoded(Image.new("F", SIZE, float("inf")), "TIFF"), ERROR
    rows = [quarters().crop((0, y, SIZE[0], y + 1)).tobytes() for y in range(SIZE[1])]
    pixels = b"".join(b"\0" + bytes(v for value in row for v in (value, value)) for row in rows)
    yield "RGB 16.png", png(*SIZE, 16, 2, pixels), COLOURS
    black = (0, 0, 0)
    yield (
        "1 bit.png",
        encoded(quarters(colours=(black, WHITE, WHITE, black)).convert("1")),
        (
            *(black, WHITE),
            *(WHITE, black),
        ),
    )


def shapes() -> Iterator[tuple]:
    for width, height in ((1, 1), (20_000, 1), (1, 20_000), (65_000, 2)):
        image = Image.new("RGB", (width, height), "blue")
        for kind in ("JPEG", "PNG"):
            yield f"{width}x{height}.{kind.lower()}", encoded(image, kind), FLAT


def profiles() -> Iterator[tuple]:
    for name, profile in PROFILES.items():
        mode = {"grey": "L", "CMYK": "CMYK"}.get(name, "RGB")
        image, shown = quarters().convert(mode), GREYS if mode == "L" else COLOURS
        yield f"{name}.jpg", encoded(image, "JPEG", icc_profile=profile()), shown
        yield f"{name}.tif", encoded(image, "TIFF", icc_profile=profile()), shown
        if mode != "CMYK":
            yield f"{name}.png", encoded(image, icc_profile=profile()), shown


@functools.cache
def srgb() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def changed_header(space: bytes) -> Callable[[], bytes]:
    """An sRGB profile that says it is for another colour space."""
    return lambda: srgb()[:16] + space + srgb()[20:]


def swapped_primaries() -> bytes:
    """A profile in which red is blue: who applies it gets other colours than anybody would miss."""
    profile = srgb()
    return profile.replace(b"rXYZ", b"tmp!").replace(b"bXYZ", b"rXYZ").replace(b"tmp!", b"bXYZ")


PROFILES: dict[str, Callable[[], bytes]] = {
    "sRGB": srgb,
    "red is blue": swapped_primaries,
    "grey": changed_header(b"GRAY"),
    "CMYK": changed_header(b"CMYK"),
    "of another space": changed_header(b"CMYK"),
    "broken": lambda: b"no profile",
    "cut": lambda: srgb()[:200],
    "huge": lambda: srgb() + random.Random(SEED).randbytes(900_000),
}


def with_junk() -> Iterator[tuple]:
    junk = random.Random(SEED).randbytes(65_536)
    for kind in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM"):
        yield f"junk after.{kind.lower()}", encoded(quarters(), kind) + junk, COLOURS


def other_formats() -> Iterator[tuple]:
    """A picture in each further format that Pillow can write and that is not refused."""
    done = {"JPEG", "PNG", "GIF", "WEBP", "TIFF", "MPO", "PALM", "PDF", "MSP", "SPIDER", "XBM"}
    for kind in sorted(set(Image.SAVE) & set(FORMATS) - done):
        image = quarters(64, 64)  # icons are square
        image = image.convert("P", palette=Image.Palette.ADAPTIVE) if kind == "BLP" else image
        yield f"picture.{kind.lower()}", encoded(image, kind), COLOURS
    yield "top down.bmp", _top_down_bmp(), COLOURS
    yield "plain.ppm", b"P3 2 2 255 " + b" ".join(b"%d %d %d" % c for c in COLOURS), COLOURS


def _top_down_bmp() -> bytes:
    data = bytearray(encoded(quarters().transpose(Image.Transpose.FLIP_TOP_BOTTOM), "BMP"))
    data[22:26] = struct.pack("<i", -SIZE[1])
    return bytes(data)


# --- what cannot, or must not, be read ------------------------------------------------------------


def truncated() -> Iterator[tuple]:
    blotches = random.Random(SEED).randbytes(3 * SIZE[0] * SIZE[1])
    image = Image.frombytes("RGB", SIZE, blotches)
    kinds = {kind: {} for kind in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "AVIF", "JPEG2000")}
    for kind, options in {**kinds, "progressive": {"progressive": True}}.items():
        data = encoded(image, "JPEG" if kind == "progressive" else kind, **options)
        for eighth in range(1, 8):
            cut = data[: len(data) * eighth // 8]
            yield f"{eighth} of 8.{kind.lower()}", cut, ERROR


def misnamed() -> Iterator[tuple]:
    yield "png.jpg", encoded(quarters()), COLOURS
    yield "jpeg.png", encoded(quarters(), "JPEG"), COLOURS
    yield "gif.webp", encoded(quarters(), "GIF"), COLOURS
    yield "webp.tiff", encoded(quarters(), "WEBP"), COLOURS
    yield "no extension", encoded(quarters(), "JPEG"), COLOURS
    yield "jpeg.txt", encoded(quarters(), "JPEG"), COLOURS
    for name, data in NO_PICTURES.items():
        yield f"{name}.jpg", data, ERROR


def zipped() -> bytes:
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w") as archive:
        archive.writestr("picture.png", encoded(quarters()))
    return output.getvalue()


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
WMF = b"\xd7\xcd\xc6\x9a\0\0" + bytes(4) + b"\x40\0\x40\0\x60\0" + bytes(6) + b"\x01\0\x09\0"


def iptc(inner: bytes) -> bytes:
    """An IPTC file: any other format may lie in it."""
    fields = ((3, 60, b"\3\1"), (3, 20, b"\0\n"), (3, 30, b"\0\n"), (3, 120, b"\5"), (8, 10, inner))
    return b"".join(struct.pack(">BBBH", 28, a, b, len(body)) + body for a, b, body in fields)


NO_PICTURES = {
    "zero bytes": b"",
    "one byte": b"\xff",
    "text": b"not a picture\n",
    "html": b"<!doctype html><img src=x onerror=alert(1)>",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect/></svg>',
    "pdf": b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog >>\nendobj\n%%EOF\n",
    "zip": zipped(),
    "EPS": EPS,
    "WMF": WMF + bytes(60),
    "EPS in IPTC": iptc(EPS),
    "picture in IPTC": iptc(encoded(quarters())),
    "MPEG": b"\0\0\1\xb3\x10\0\x10\x11" + bytes(64),
    "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(64),
    "GRIB": b"GRIB\0\0\0\1" + bytes(64),
    "BUFR": b"BUFR\0\0\0\1" + bytes(64),
    "zeros": bytes(10_000),
    "random": random.Random(SEED).randbytes(10_000),
    "JPEG header": encoded(quarters(), "JPEG")[:40],
}


def oversized() -> Iterator[tuple]:
    """Headers that claim 60,000 x 60,000 pixels, or what their format allows."""
    image, claim = quarters(), 60_000
    jpeg = _frame_header(encoded(image, "JPEG"), width=claim, height=claim)
    yield "claim.jpg", jpeg, ERROR
    progressive = encoded(image, "JPEG", progressive=True).replace(b"\xff\xc2", b"\xff\xc0")
    patched = _frame_header(progressive, width=claim, height=claim, marker=0xC2)
    yield "claim progressive.jpg", patched, ERROR
    yield "claim.png", png(claim, claim, 8, 6, bytes(100)), ERROR
    yield "zeros.png", png(20_000, 10_000, 1, 0, bytes(10_000 * 2501)), ERROR
    yield "narrow.png", png(1, 2_000_000, 1, 0, bytes(4_000_000)), ERROR
    yield "wide.png", png(40_000_000, 1, 1, 0, bytes(5_000_001)), ERROR
    for kind, format, places in (
        ("gif", "<H", (6, 8)),
        ("bmp", "<i", (18, 22)),
        ("webp", "<H", (26, 28)),
        ("qoi", ">I", (4, 8)),
        ("tga", "<H", (12, 14)),
        ("dds", "<I", (16, 12)),
        ("sgi", ">H", (6, 8)),
        ("pcx", "<H", (8, 10)),
    ):
        most = 16_383 if kind == "webp" else claim
        data = bytearray(encoded(image, kind))
        for place in places:
            struct.pack_into(format, data, place, most)
        yield f"claim.{kind}", bytes(data), ERROR
    yield "claim.ppm", b"P6 60000 60000 255\n" + bytes(100), ERROR
    tiff = encoded(image, "TIFF")
    for tag, value in ((256, SIZE[0]), (257, SIZE[1])):
        entry, claimed = struct.pack("<HHI", tag, 4, 1), struct.pack("<HHII", tag, 4, 1, claim)
        tiff = tiff.replace(entry + struct.pack("<I", value), claimed)
    assert tiff != encoded(image, "TIFF")
    yield "claim.tif", tiff, ERROR
    siz = struct.pack(">II", *SIZE)
    yield "claim.j2k", _claimed(encoded(image, "JPEG2000", no_jp2=True), siz, claim), ERROR
    yield "claim.avif", _claimed(encoded(image, "AVIF"), siz, claim), ERROR
    yield "claim.ico", icon(png(claim, claim, 8, 6, bytes(100))), ERROR


def _claimed(data: bytes, size: bytes, claim: int) -> bytes:
    assert size in data
    return data.replace(size, struct.pack(">II", claim, claim))


def icon(inner: bytes) -> bytes:
    """An icon whose directory says 256x256, whatever the PNG inside does."""
    entry = struct.pack("<BBBBHHII", 0, 0, 0, 0, 1, 32, len(inner), 22)
    return struct.pack("<HHH", 0, 1, 1) + entry + inner


def png_chunk(name: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4) + name + body + zlib.crc32(name + body).to_bytes(4)


def png(width: int, height: int, bits: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    """A PNG of rows that each begin with a filter byte; `extra` chunks stand before them."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            png_chunk(b"IHDR", header),
            extra,
            png_chunk(b"IDAT", zlib.compress(rows)),
            png_chunk(b"IEND", b""),
        )
    )


def small_png(extra: bytes) -> bytes:
    """quarters() at 2x2, with further chunks."""
    pixels = [
        bytes(value for colour in row for value in colour) for row in (COLOURS[:2], COLOURS[2:])
    ]
    return png(2, 2, 8, 2, b"".join(b"\0" + row for row in pixels), extra)


def bombs() -> Iterator[tuple]:
    """Small files that unpack to much where nobody looks for it: beside the pixels."""
    zeros = zlib.compress(bytes(100_000_000), 9)
    texts = {
        "zTXt": b"a\0\0" + zeros,
        "iTXt": b"a\0\1\0\0\0" + zeros,
        "iCCP": b"a\0\0" + zeros,
    }
    for name, body in texts.items():
        yield f"{name}.png", small_png(png_chunk(name.encode(), body)), ANYTHING
    megabyte = png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1_000_000), 9))
    yield "hundred texts.png", small_png(100 * megabyte), ANYTHING
    yield "many chunks.png", small_png(50_000 * png_chunk(b"juNk", b"")), COLOURS
    yield "pixels.ico", icon(png(13_000, 13_000, 1, 0, bytes(13_000 * 1626))), ERROR
    yield "overlapping tags.tif", overlapping_tags(), ANYTHING
    yield "overlapping tags.png", small_png(png_chunk(b"eXIf", overlapping_tags())), ANYTHING


def overlapping_tags() -> bytes:
    """A TIFF whose 5,000 tags all point at the same megabyte."""
    entries = [struct.pack("<HHII", tag, 7, 1_000_000, 70_000) for tag in range(40_000, 45_000)]
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    return (b"II*\0" + struct.pack("<I", 8) + directory).ljust(70_000, b"\0") + bytes(1_000_000)


def damaged() -> Iterator[tuple]:
    good = encoded(quarters())
    place = good.index(b"IDAT")
    length = int.from_bytes(good[place - 4 : place])
    checksum = place + 4 + length
    yield "header CRC.png", good[:29] + bytes(4) + good[33:], ERROR
    yield "pixels CRC.png", good[:checksum] + bytes(4) + good[checksum + 4 :], ANYTHING
    yield "no end.png", good[: good.index(b"IEND") - 4], ANYTHING
    middle = place + 4 + length // 2
    yield "pixels.png", good[:middle] + b"\xff\xff" + good[middle + 2 :], ANYTHING
    loop = bytearray(encoded(quarters(), "TIFF"))
    start = int.from_bytes(loop[4:8], "little")
    next_directory = start + 2 + 12 * int.from_bytes(loop[start : start + 2], "little")
    loop[next_directory : next_directory + 4] = loop[4:8]
    yield "loop of directories.tif", bytes(loop), COLOURS
    pages = encoded(quarters(), "TIFF", save_all=True, append_images=[Image.new("L", (1, 1))] * 200)
    yield "many directories.tif", pages, COLOURS
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="3"/>')
    yield "turned by XMP.png", encoded(quarters().rotate(180), pnginfo=info), COLOURS
    yield "long comment.gif", encoded(quarters(), "GIF", comment=b"x" * 70_000), COLOURS
    yield "no colours.png", encoded(quarters().convert("P")).replace(b"PLTE", b"PLTX"), ANYTHING
    random_bytes = random.Random(SEED)
    for kind in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "AVIF", "JPEG2000"):
        for number in range(3):
            data = bytearray(encoded(quarters(), kind))
            for _ in range(5):
                data[random_bytes.randrange(len(data))] = random_bytes.randrange(256)
            yield f"five bytes {number}.{kind.lower()}", bytes(data), ANYTHING


# --- names ----------------------------------------------------------------------------------------

HOSTILE_NAMES = [
    *(
        " leading and trailing space .jpg ",
        "a b.jpg",
        "a+b.jpg",
        "a%2Bb.jpg",
        "100%.jpg",
        "%00.jpg",
    ),
    *("a#b.jpg", "a?b.jpg", "a&b=c.jpg", "a;b,c.jpg", "single'quote.jpg", 'double"quote.jpg'),
    *("new\nline.jpg", "carriage\rreturn.jpg", "both\r\n.jpg", "tab\t.jpg", "\n", "\t.jpg"),
    *("caf\N{LATIN SMALL LETTER E WITH ACUTE}.jpg", "cafe\N{COMBINING ACUTE ACCENT}.jpg"),
    *("\N{FOX FACE}.jpg", "\N{WOMAN}\N{ZERO WIDTH JOINER}\N{ROCKET}.jpg", "\u4e2d\u6587.jpg"),
    *("right\N{RIGHT-TO-LEFT OVERRIDE}gpj.exe", "\N{RIGHT-TO-LEFT MARK}.jpg", "\ufeffbom.jpg"),
    *("\N{LINE SEPARATOR}.jpg", "\N{NEXT LINE}.jpg", "\N{NO-BREAK SPACE}.jpg", "\x7f.jpg"),
    *("-rf.jpg", "--help", "-", "=cmd()|'x'!A0.jpg", "@SUM(1).jpg", "+1.jpg", "=1+1"),
    *("..a", "a..", "...", "a..b.jpg", ". ", ".. .jpg", ".hidden.jpg", "~", "trailing dot."),
    *("back\\slash.jpg", "..\\..\\up.jpg", "C:\\x.jpg", "a:b.jpg", "a|b.jpg", "a*b.jpg", "<b>.jpg"),
    *("CON", "con.jpg", "NUL.jpg", "LPT1.jpg", "$HOME.jpg", "`id`.jpg", "$(id).jpg", "%s%n.jpg"),
    *("Case.jpg", "case.jpg", "CASE.JPG", "a.jpg", "a.jpg.jpg", "a.jpeg", "a.png.JPG"),
    *("input/input/x.jpg", "processed/x.jpg", "metrics/lambda_metrics.csv", "folder.jpg/x.jpg"),
    *("<script>alert(1)</script>".replace("/", "\\") + ".jpg", "{{7*7}}.jpg", "${7*7}.jpg"),
    "x" * 251 + ".jpg",
    "\N{LATIN SMALL LETTER E WITH ACUTE}" * 125 + ".jpg",  # 254 bytes
    "/".join(["d" * 200] * 4) + "/deep.jpg",
]


def names() -> Iterator[str]:
    """Names that both arms must bring back exactly; no two of them share an output."""
    yield from HOSTILE_NAMES
    letters = random.Random(SEED)
    alphabet = " +%&#?=\"'\\\n\t;:,.-_~!@$^*()[]{}|<>`aA0\u00e9e\u0301\u202e\U0001f98a"
    for number in range(20):
        text = "".join(letters.choices(alphabet, k=letters.randint(1, 30)))
        yield f"{number}{text}.jpg"


def write_corpus(folder: Path) -> None:
    """All specimens and names, and links: one inside, one to the outside, one that dangles, one
    back up."""
    for name, data, _ in pictures():
        _write(folder / "pictures" / name, data)
    for number, name in enumerate(names()):
        _write(folder / "names" / name, name_picture(number))
    links = folder / "links"
    _write(links / "deep" / "er" / "file.png", encoded(quarters()))
    _write(folder.with_name(f"{folder.name}-outside") / "outside.png", encoded(quarters()))
    (links / "inside.png").symlink_to(links / "deep" / "er" / "file.png")
    (links / "outside").symlink_to(folder.with_name(f"{folder.name}-outside").absolute())
    (links / "dangling.png").symlink_to("nowhere")
    (links / "loop.png").symlink_to("loop.png")
    (links / "deep" / "up").symlink_to(links.absolute())


LINKED = ("links/deep/er/file.png", "links/inside.png", "links/outside/outside.png")


def name_picture(number: int) -> bytes:
    """A picture that can be told from those of all other names."""
    return encoded(Image.new("RGB", (32, 32), (number % 256, 100, 200)), "JPEG", quality=90)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def main(argv: list[str] | None = None) -> int:
    parser = script_parser(__doc__)
    parser.usage = "%(prog)s FOLDER"
    parser.add_argument("folder", type=some_path, metavar="FOLDER", help="where to write them")
    return run_script(run, parser.parse_args(argv))


def run(args: argparse.Namespace) -> int:
    write_corpus(args.folder)
    return DONE


if __name__ == "__main__":
    sys.exit(start_script(main))
