"""Every kind of picture comes out in its true colours, or as an error that says what it is.

The pictures are written by tifffile and imagecodecs, or by hand, in the meaning that their headers
declare, and read back by those: Pillow is not asked what is right. "Right" is within NEAR levels.
"""

import functools
import io
import itertools
import struct
import zlib
from collections.abc import Callable, Iterator

import imagecodecs
import numpy as np
import pytest
import tifffile
from hostile_corpus import COLOURS, GREYS, Quarters, encoded, quarters
from PIL import Image, ImageStat

from lambda_function.file_kinds import kind_of
from lambda_function.image_transform import UnreadableImage, transform_image

pytestmark = pytest.mark.filterwarnings("ignore")  # of Pillow's, about odd tags
NEAR = 12
WIDTH, HEIGHT = 64, 48
PLACES = ((0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75))
RIGHT, ERROR = "right", "error"


def plane(levels: tuple) -> np.ndarray:
    """Quarters of these numbers, or of these tuples of numbers."""
    corners = np.array(levels, float).reshape(2, 2, *np.shape(levels[0]))
    return corners.repeat(HEIGHT // 2, 0).repeat(WIDTH // 2, 1)


GREY = plane(tuple(level for level, _, _ in GREYS)) / 255
RGB = plane(COLOURS) / 255
OPAQUE = np.ones((HEIGHT, WIDTH, 1))


def stored(fractions: np.ndarray, kind: str, white: float | None = None) -> np.ndarray:
    """Fractions of white as numbers of a type; `white` is the type's largest by default."""
    if np.dtype(kind).kind == "f":
        return (fractions * (white or 1)).astype(kind)
    return np.round(fractions * float(white or np.iinfo(kind).max)).astype(kind)


def shown(data: bytes) -> list[tuple[float, ...]]:
    image = Image.open(io.BytesIO(transform_image(data)))
    boxes = [(int(x * image.width), int(y * image.height)) for x, y in PLACES]
    return [tuple(ImageStat.Stat(image.crop((x - 8, y - 8, x + 8, y + 8))).mean) for x, y in boxes]


def verdict(data: bytes, expected: Quarters) -> str:
    """RIGHT, the error, or the colours that are shown instead."""
    try:
        found = shown(data)
    except UnreadableImage as error:
        return f"{ERROR}: {error}"
    near = np.abs(np.array(found) - np.array(expected)).max() <= NEAR
    return RIGHT if near else f"shows {np.round(found).tolist()}"


def wrong(cases: Iterator[tuple[str, bytes, Quarters]]) -> tuple[dict[str, str], set[str]]:
    """What is neither right nor an error, and the names of what is right."""
    verdicts = {name: verdict(data, expected) for name, data, expected in cases}
    others = {name: v for name, v in verdicts.items() if not v.startswith((RIGHT, ERROR))}
    return others, {name for name, v in verdicts.items() if v == RIGHT}


def tiff(array: np.ndarray, byteorder: str = "<", bigtiff: bool = False, **options) -> bytes:
    """As tifffile writes it, and reads it back."""
    file = io.BytesIO()
    with tifffile.TiffWriter(file, byteorder=byteorder, bigtiff=bigtiff) as writer:
        writer.write(array, metadata=None, **options)
    is_lossy = options.get("compression") in ("jpeg", "webp", "jpegxl", "jpeg2000")
    if not is_lossy and not np.array_equal(tifffile.imread(io.BytesIO(file.getvalue())), array):
        raise ValueError("tifffile does not read back what it wrote")  # 9 bits, big-endian
    return file.getvalue()


def made(make: Callable[[], bytes]) -> bytes | None:
    """None where tifffile has no such kind of TIFF."""
    try:
        return make()
    except (ValueError, TypeError, KeyError, NotImplementedError, RuntimeError):
        return None


# --- TIFF -----------------------------------------------------------------------------------------

TYPES = ("u1", "u2", "u4", "u8", "i1", "i2", "i4", "f2", "f4", "f8")
LOSSLESS = (None, "lzw", "zlib", "packbits", "zstd", "lzma")
ANY_COMPRESSION = (*LOSSLESS, "webp", "jpeg", "jpegxl", "jpeg2000", "png", "lerc")


def greys(byteorder: str) -> Iterator[tuple[str, bytes, Quarters]]:
    for kind, photometric, compression, predictor in itertools.product(
        TYPES, ("minisblack", "miniswhite"), ANY_COMPRESSION, (False, True)
    ):
        levels = GREY if photometric == "minisblack" else 1 - GREY
        options = {"photometric": photometric, "compression": compression, "predictor": predictor}
        data = made(functools.partial(tiff, stored(levels, kind), byteorder, **options))
        if data and not (predictor and compression not in ("lzw", "zlib", "zstd", "lzma")):
            yield f"{kind} {photometric} {compression} {predictor}", data, GREYS


def colours(byteorder: str) -> Iterator[tuple[str, bytes, Quarters]]:
    for kind, planes, compression, tile in itertools.product(
        TYPES, ("contig", "separate"), ("jpeg", *LOSSLESS[:4]), (None, (16, 16), (48, 64))
    ):
        array = stored(RGB, kind)
        array = np.moveaxis(array, -1, 0) if planes == "separate" else array
        options = {"photometric": "rgb", "planarconfig": planes, "compression": compression}
        data = made(functools.partial(tiff, array, byteorder, tile=tile, **options))
        if data:
            yield f"{kind} {planes} {compression} {tile}", data, COLOURS


def depths(byteorder: str) -> Iterator[tuple[str, bytes, Quarters]]:
    for bits, photometric, compression in itertools.product(
        range(2, 33), ("minisblack", "miniswhite"), (None, "lzw")
    ):
        white = 2**bits - 1
        kind = "u1" if bits <= 8 else "u2" if bits <= 16 else "u4"
        numbers = stored(GREY, kind, white)
        expected = tuple((float(n) * 255 / white,) * 3 for n in numbers[::24, ::32].ravel())
        numbers = numbers if photometric == "minisblack" else white - numbers
        options = {"photometric": photometric, "compression": compression, "bitspersample": bits}
        if data := made(functools.partial(tiff, numbers, byteorder, **options)):
            yield f"{bits} {photometric} {compression}", data, expected
        options["photometric"] = "rgb"
        data = made(functools.partial(tiff, stored(RGB, kind, white), byteorder, **options))
        if bits > 4 and photometric == "minisblack" and data:
            yield f"{bits} RGB {compression}", data, COLOURS


def channels(byteorder: str) -> Iterator[tuple[str, bytes, Quarters]]:
    """Alpha in which the upper left quarter is hidden, other extra channels, and inks."""
    alpha = plane((0, 1, 1, 1))[..., None]
    cmyk = np.concatenate([1 - RGB, 0 * OPAQUE], -1)
    for kind, planes, compression, extra in itertools.product(
        ("u1", "u2", "f4"),
        ("contig", "separate"),
        (None, "lzw"),
        ("unspecified", "assocalpha", "unassalpha"),
    ):
        for photometric, base, expected in (
            ("minisblack", GREY[..., None], GREYS),
            ("rgb", RGB, COLOURS),
            ("separated", cmyk, COLOURS),
        ):
            is_alpha = extra != "unspecified" and photometric != "separated"
            seen = base * alpha if extra == "assocalpha" and is_alpha else base
            array = stored(np.concatenate([seen, alpha if is_alpha else OPAQUE], -1), kind)
            array = np.moveaxis(array, -1, 0) if planes == "separate" else array
            options = {"photometric": photometric, "planarconfig": planes}
            options |= {"compression": compression, "extrasamples": [extra]}
            if data := made(functools.partial(tiff, array, byteorder, **options)):
                white = ((255, 255, 255), *expected[1:])
                yield f"{photometric} {extra} {kind}", data, white if is_alpha else expected
        array = stored(cmyk, kind)
        array = np.moveaxis(array, -1, 0) if planes == "separate" else array
        options = {"photometric": "separated", "planarconfig": planes, "compression": compression}
        yield f"CMYK {kind} {planes} {compression}", tiff(array, byteorder, **options), COLOURS


def packed(numbers: np.ndarray, bits: int) -> bytes:
    """Numbers of 2, 4 or 8 bits, the first in the upper bits of a byte."""
    ones = np.unpackbits(numbers.astype("u1")[..., None], axis=-1)[..., -bits:]
    return np.packbits(ones.reshape(HEIGHT, -1), axis=-1).tobytes()


def palettes(byteorder: str) -> Iterator[tuple[str, bytes, Quarters]]:
    pixels = plane((0, 1, 2, 3))
    for bits, scale, order in itertools.product((2, 4, 8), (257, 1), (1, 2)):
        entries = np.zeros((3, 2**bits), int)
        entries[:, :4] = np.array(COLOURS).T * scale
        tags = {258: (3, (bits,)), 262: (3, (3,)), 266: (3, (order,)), 277: (3, (1,))}
        tags |= {320: (3, tuple(entries.ravel().tolist()))}
        body = np.frombuffer(packed(pixels, bits), "u1")
        if order == 2:
            body = np.packbits(np.unpackbits(body[:, None], axis=1)[:, ::-1], axis=1)
        for compression, encode in ((1, bytes), (5, imagecodecs.lzw_encode)):
            data = own_tiff({**tags, 259: (3, (compression,))}, encode(body.tobytes()), byteorder)
            if not (compression == 5 and order == 2):
                name = f"{bits} bits, entries of {255 * scale}, order {order}, {compression}"
                yield name, data, COLOURS


GROUPS = {
    "greys": greys,
    "colours": colours,
    "depths": depths,
    "channels": channels,
    "palettes": palettes,
}
MENDED = {  # what Pillow by itself reads wrong, and what is easily lost with it
    "greys": {
        *("u1 minisblack None False", "u1 miniswhite None False", "u2 minisblack lzw True"),
        *("f4 minisblack None False", "f4 minisblack zlib True", "f4 miniswhite lzw False"),
    },
    "colours": {
        *("u1 contig jpeg (48, 64)", "u1 separate None None", "u2 contig lzw None"),
        *("u2 separate None None", "u2 separate None (48, 64)", "u2 separate lzw None"),
    },
    "depths": {"4 minisblack None", "8 minisblack lzw", "16 minisblack None", "16 RGB None"},
    "channels": {"rgb unassalpha u1", "rgb assocalpha u2", "CMYK u1 contig None"},
    "palettes": {
        *("8 bits, entries of 255, order 1, 1", "8 bits, entries of 65535, order 2, 1"),
        *("4 bits, entries of 255, order 1, 5", "2 bits, entries of 65535, order 1, 1"),
    },
}
LITTLE_ENDIAN_ONLY = {  # the other order Pillow does not open at all
    "greys": {"u2 miniswhite None False", "u2 miniswhite lzw True", "u4 minisblack None False"},
    "depths": {"12 minisblack None", "32 minisblack lzw"},
}


@pytest.mark.parametrize("byteorder", ["<", ">"], ids=["little-endian", "big-endian"])
@pytest.mark.parametrize("group", GROUPS)
def test_a_tiff_shows_its_true_colours_or_is_an_error(group, byteorder):
    others, right = wrong(GROUPS[group](byteorder))
    assert others == {}
    assert right >= MENDED[group]
    if byteorder == "<":
        assert right >= LITTLE_ENDIAN_ONLY.get(group, set())


def test_a_big_tiff_is_read_as_any_other():
    assert verdict(tiff(stored(GREY, "u2"), bigtiff=True, photometric="minisblack"), GREYS) == RIGHT
    assert verdict(tiff(stored(RGB, "u1"), bigtiff=True, photometric="rgb"), COLOURS) == RIGHT


@pytest.mark.parametrize("kind", ["i1", "i2", "i4", "f4"])
@pytest.mark.parametrize("white", [127, 255, 32767, 65535])
def test_numbers_of_which_nothing_says_what_white_is_are_an_error(kind, white):
    if np.dtype(kind).kind == "f" or white <= np.iinfo(kind).max:
        data = tiff(stored(GREY, kind, white), photometric="minisblack")
        with pytest.raises(UnreadableImage, match=r"TIFF \(.*nothing says which of them is white"):
            transform_image(data)


@pytest.mark.parametrize("width", [1, 63, 64])
def test_twelve_bits_are_read_whatever_the_width(width):
    array = np.full((3, width), 2048, "u2")
    data = tiff(array, photometric="minisblack", bitspersample=12)
    assert verdict(data, ((128,) * 3,) * 4) == RIGHT


def own_tiff(tags: dict[int, tuple[int, tuple]], pixels: bytes, order: str = "<") -> bytes:
    """A TIFF of one strip with these {tag: (type, values)}, whatever they say."""
    forms = {1: "B", 3: "H", 4: "I", 5: "II", 7: "B"}
    tags = {256: (3, (WIDTH,)), 257: (3, (HEIGHT,)), 278: (3, (HEIGHT,)), **tags}
    tags |= {273: (4, (8,)), 279: (4, (len(pixels),))}
    after = b""
    start = 8 + len(pixels)
    end = start + 2 + 12 * len(tags) + 4
    entries = []
    for tag, (kind, values) in sorted(tags.items()):
        form = order + forms[kind][0] * len(values)
        body = struct.pack(form, *values)
        field = (
            body.ljust(4, b"\0") if len(body) <= 4 else struct.pack(f"{order}I", end + len(after))
        )
        after += body if len(body) > 4 else b""
        count = len(values) // len(forms[kind])
        entries.append(struct.pack(f"{order}HHI", tag, kind, count) + field)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", start)
    return (
        head + pixels + struct.pack(f"{order}H", len(tags)) + b"".join(entries) + bytes(4) + after
    )


def test_bits_in_reverse_order_are_read():
    pixels = bytes(int(f"{value:08b}"[::-1], 2) for value in stored(GREY, "u1").tobytes())
    tags = {258: (3, (8,)), 262: (3, (1,)), 266: (3, (2,)), 277: (3, (1,))}
    assert verdict(own_tiff(tags, pixels), GREYS) == RIGHT


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        pytest.param({530: (3, (1, 1))}, "", id="as in a JPEG"),
        pytest.param({530: (3, (2, 2))}, "YCbCr", id="subsampled"),
        pytest.param({}, "YCbCr", id="subsampled by default"),
        pytest.param(
            {530: (3, (1, 1)), 532: (5, (15, 1, 235, 1, 128, 1, 240, 1, 128, 1, 240, 1))},
            "YCbCr",
            id="of video's range",
        ),
    ],
)
def test_uncompressed_ycbcr_is_read_only_where_it_is_as_in_a_jpeg(more, reason):
    pixels = quarters().convert("YCbCr").tobytes()
    tags = {258: (3, (8, 8, 8)), 262: (3, (6,)), 277: (3, (3,)), **more}
    found = verdict(own_tiff(tags, pixels), COLOURS)
    assert found == RIGHT if not reason else found.startswith(ERROR) and reason in found


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        pytest.param({262: (3, (8,))}, "CIELab", id="CIELab"),
        pytest.param({262: (3, (9,))}, "ICCLab", id="ICCLab"),
        pytest.param({262: (3, (10,))}, "ITULab", id="ITULab"),
        pytest.param({262: (3, (32845,))}, "LogLuv", id="LogLuv"),
        pytest.param({262: (3, (34892,))}, "camera raw", id="linear raw"),
        pytest.param({262: (3, (2,)), 339: (3, (2, 2, 2))}, "signed", id="signed RGB"),
    ],
)
def test_colours_that_cannot_be_read_right_are_an_error_that_names_them(tags, reason):
    tags = {258: (3, (8, 8, 8)), 277: (3, (3,)), **tags}
    found = verdict(own_tiff(tags, stored(RGB, "u1").tobytes()), COLOURS)
    assert found.startswith(ERROR)
    assert reason in found


def test_inks_other_than_cmyk_are_an_error():
    tags = {258: (3, (8,) * 4), 262: (3, (5,)), 277: (3, (4,)), 332: (3, (2,))}
    assert "inks other than CMYK" in verdict(own_tiff(tags, bytes(4 * WIDTH * HEIGHT)), COLOURS)


# --- camera raw, previews -------------------------------------------------------------------------

DNG = [(50706, 1, 4, (1, 4, 0, 0), True)]
PREVIEW = np.zeros((12, 16, 3), "u1")


def maker(name: str) -> list[tuple]:
    return [(271, 2, 0, name, True)]


def camera_file(
    tags: list[tuple],
    photometric: str | int = "cfa",
    subfiletype: int = 1,
    below: bool = True,
    **more,
) -> bytes:
    """A preview, and the picture itself in a directory below it, or behind it."""
    file = io.BytesIO()
    with tifffile.TiffWriter(file, **more) as writer:
        options = {"subifds": 1} if below else {}
        writer.write(
            PREVIEW,
            photometric="rgb",
            subfiletype=subfiletype,
            extratags=tags,
            metadata=None,
            **options,
        )
        writer.write(stored(GREY, "u2"), photometric=photometric, metadata=None)
    return file.getvalue()


@pytest.mark.parametrize("more", [{}, {"byteorder": ">"}, {"bigtiff": True}])
@pytest.mark.parametrize(
    ("tags", "name"),
    [
        pytest.param(DNG, r"camera raw file \(DNG\)", id="DNG"),
        pytest.param(maker("NIKON CORPORATION"), r"camera raw file \(NEF\)", id="NEF"),
        pytest.param(maker("SONY"), r"camera raw file \(ARW\)", id="ARW"),
        pytest.param(maker("Hasselblad"), r"camera raw file \(3FR\)", id="3FR"),
        pytest.param([], r"camera raw file \(TIFF-based\)", id="no maker"),
    ],
)
@pytest.mark.parametrize("below", [True, False], ids=["below", "behind"])
def test_the_preview_in_a_camera_raw_file_is_not_the_picture(tags, name, below, more):
    with pytest.raises(UnreadableImage, match=name):
        transform_image(camera_file(tags, below=below, **more))


def test_a_full_size_rgb_first_does_not_make_a_dng_a_picture():
    data = tiff(stored(RGB, "u1"), photometric="rgb", extratags=DNG)
    with pytest.raises(UnreadableImage, match=r"camera raw file \(DNG\)"):
        transform_image(data)


@pytest.mark.parametrize("below", [True, False], ids=["below", "behind"])
def test_a_preview_before_a_larger_picture_is_an_error(below):
    with pytest.raises(UnreadableImage, match="a preview of 16x12, and 64x48 are not read"):
        transform_image(camera_file([], photometric="minisblack", below=below))


@pytest.mark.parametrize("subfiletype", [0, 1, 2])
def test_a_single_picture_is_read_whatever_it_calls_itself(subfiletype):
    data = tiff(stored(RGB, "u1"), photometric="rgb", subfiletype=subfiletype)
    assert verdict(data, COLOURS) == RIGHT


def test_pages_of_different_size_and_smaller_copies_below_are_no_previews():
    pages = camera_file([], photometric="minisblack", subfiletype=0, below=False)
    assert verdict(pages, ((0, 0, 0),) * 4) == RIGHT
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(stored(RGB, "u1"), photometric="rgb", subifds=1, metadata=None)
        writer.write(PREVIEW, photometric="rgb", subfiletype=1, metadata=None)
    assert verdict(file.getvalue(), COLOURS) == RIGHT


def test_a_jpeg_with_a_thumbnail_is_a_picture():
    exif = Image.Exif()
    exif.get_ifd(1)[513] = 0  # the thumbnail's place
    exif[271] = "NIKON CORPORATION"
    assert verdict(encoded(quarters(), "JPEG", exif=exif), COLOURS) == RIGHT


# --- other formats --------------------------------------------------------------------------------


def jpeg_2000() -> Iterator[tuple[str, bytes, Quarters]]:
    for kind, bits, signed in itertools.product(
        ("j2k", "jp2"), (1, 2, 4, 6, 8, 9, 10, 12, 14, 16, 20), (False, True)
    ):
        white, size = 2**bits - 1, "1" if bits <= 8 else "2" if bits <= 16 else "4"
        for name, base in (
            ("grey", GREY),
            ("RGB", RGB),
            ("RGBA", np.concatenate([RGB, OPAQUE], -1)),
        ):
            array = np.round(base * white).astype(int) - (signed and 2 ** (bits - 1))
            array = array.astype(("i" if signed else "u") + size)
            data = imagecodecs.jpeg2k_encode(
                array, codecformat=kind, bitspersample=bits, level=0, reversible=True
            )
            assert np.array_equal(imagecodecs.jpeg2k_decode(data), array)
            levels = np.round(GREY[::24, ::32].ravel() * white) * 255 / white
            yield (
                f"{kind} {name} {bits}{' signed' if signed else ''}",
                data,
                tuple((level,) * 3 for level in levels) if name == "grey" else COLOURS,
            )


def avif() -> Iterator[tuple[str, bytes, Quarters]]:
    for bits, chroma in itertools.product((8, 10, 12), ("444", "422", "420")):
        options = {"bitspersample": bits, "level": 95}
        kind, white = "u1" if bits == 8 else "u2", 2**bits - 1
        rgba = stored(np.concatenate([RGB, OPAQUE], -1), kind, white)
        for name, array in (("RGB", rgba[..., :3]), ("RGBA", rgba)):
            data = imagecodecs.avif_encode(array, pixelformat=chroma, **options)
            yield f"{name} {bits} {chroma}", data, COLOURS
        yield f"grey {bits}", imagecodecs.avif_encode(stored(GREY, kind, white), **options), GREYS


def png_and_webp() -> Iterator[tuple[str, bytes, Quarters]]:
    for kind in ("u1", "u2"):
        for name, base, expected in (
            ("grey", GREY, GREYS),
            ("grey and alpha", np.stack([GREY, OPAQUE[..., 0]], -1), GREYS),
            ("RGB", RGB, COLOURS),
            ("RGBA", np.concatenate([RGB, OPAQUE], -1), COLOURS),
        ):
            yield f"PNG {name} {kind}", imagecodecs.png_encode(stored(base, kind)), expected
    for name, options in (("lossless", {"lossless": True}), ("lossy", {"level": 90})):
        yield f"WebP {name}", imagecodecs.webp_encode(stored(RGB, "u1"), **options), COLOURS


def pnm() -> Iterator[tuple[str, bytes, Quarters]]:
    for white in (7, 15, 63, 100, 200, 254, 255, 256, 1000, 1023, 4095, 65534, 65535):
        levels = np.round(GREY[::24, ::32].ravel() * white) * 255 / white
        greys_shown = tuple((level,) * 3 for level in levels)
        for letter, base, expected in (("25", GREY, greys_shown), ("36", RGB, COLOURS)):
            numbers = np.round(base * white).astype(">u2" if white > 255 else "u1")
            head = f"\n{WIDTH} {HEIGHT}\n{white}\n".encode()
            plain = " ".join(str(number) for number in numbers.ravel().tolist())
            yield (
                f"P{letter[0]} {white}",
                b"P" + letter[:1].encode() + head + plain.encode(),
                expected,
            )
            yield (
                f"P{letter[1]} {white}",
                b"P" + letter[1:].encode() + head + numbers.tobytes(),
                expected,
            )
    for scale, order in (("-1.0", "<f4"), ("1.0", ">f4")):
        for white in (1, 2, 255, 65535):
            head = f"Pf\n{WIDTH} {HEIGHT}\n{scale}\n".encode()
            yield f"Pf {scale} {white}", head + (GREY[::-1] * white).astype(order).tobytes(), GREYS


OTHERS = {
    "JPEG 2000": (jpeg_2000, {"j2k grey 8", "jp2 RGB 8", "j2k grey 12", "jp2 grey 16 signed"}),
    "AVIF": (avif, {"RGB 8 420", "RGB 10 444", "RGBA 12 444", "grey 8"}),
    "PNG and WebP": (png_and_webp, {"PNG RGB u1", "PNG grey u2", "PNG RGBA u2", "WebP lossy"}),
    "PNM": (pnm, {"P2 100", "P3 1023", "P5 4095", "P6 65534", "Pf -1.0 1", "Pf 1.0 1"}),
}


@pytest.mark.parametrize("group", OTHERS)
def test_a_picture_of_another_format_shows_its_true_colours_or_is_an_error(group):
    make, must = OTHERS[group]
    others, right = wrong(make())
    assert others == {}
    assert right >= must


def test_a_deep_colour_jpeg_2000_says_that_it_is_one():
    data = imagecodecs.jpeg2k_encode(stored(RGB, "u2"), codecformat="jp2", level=0, reversible=True)
    with pytest.raises(UnreadableImage, match="JPEG2000: 3 x 16 bits"):
        transform_image(data)


@pytest.mark.parametrize(("space", "is_read"), [(16, True), (14, False), (24, False)])
def test_a_jpeg_2000_in_a_colour_space_that_pillow_takes_for_rgb_is_an_error(space, is_read):
    data = encoded(quarters(), "JPEG2000")
    assert b"colr\1\0\0" + bytes([0, 0, 0, 16]) in data
    data = data.replace(b"colr\1\0\0\0\0\0\x10", b"colr\1\0\0\0\0\0" + bytes([space]))
    found = verdict(data, COLOURS)
    assert found == RIGHT if is_read else f"colour space {space}" in found


def test_ones_in_an_xbm_are_ink():
    bits = "".join("0xff, 0x00, " for _ in range(8)) + "".join("0x00, 0xff, " for _ in range(8))
    text = f"#define a_width 16\n#define a_height 16\nstatic char a_bits[] = {{\n{bits[:-2]}}};\n"
    black, white = (0,) * 3, (255,) * 3
    assert verdict(text.encode(), (black, white, white, black)) == RIGHT


# --- what Pillow takes for transparency, or for ink -----------------------------------------------

HIDDEN = plane((0, 1, 1, 1))  # the upper left quarter is transparent
SEEN_ON_WHITE = ((255, 255, 255), *COLOURS[1:])
HALVES = plane((0, 1, 1, 0)).astype("u1")
BLACK, WHITE = (0, 0, 0), (255, 255, 255)
ONES_ARE_INK = (WHITE, BLACK, BLACK, WHITE)
ONES_ARE_LIGHT = (BLACK, WHITE, WHITE, BLACK)


def png(depth: int, colour_type: int, pixels: bytes, hidden: tuple[int, ...]) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    step = len(pixels) // HEIGHT
    rows = b"".join(b"\0" + pixels[n : n + step] for n in range(0, len(pixels), step))
    head = struct.pack(">IIBBBBB", WIDTH, HEIGHT, depth, colour_type, 0, 0, 0)
    parts = (b"IHDR", head), (b"tRNS", struct.pack(f">{len(hidden)}H", *hidden))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(*part) for part in (*parts, (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    )


@pytest.mark.parametrize("depth", [2, 4])
@pytest.mark.parametrize("hidden", [0, 1, 2, 3])
def test_the_grey_that_a_png_of_few_bits_hides_is_the_one_it_declares(depth, hidden):
    numbers = plane((0, 1, 2, 3)) * ((2**depth - 1) // 3)
    data = png(depth, 0, packed(numbers, depth), (hidden * ((2**depth - 1) // 3),))
    expected = [(85 * level,) * 3 if level != hidden else WHITE for level in range(4)]
    assert verdict(data, expected) == RIGHT


@pytest.mark.parametrize("change", [0, 1, 256])
def test_the_colour_that_a_png_of_sixteen_bits_hides_is_told_by_both_of_its_bytes(change):
    numbers = np.where(RGB > 0, 0xFF00, 0x00FF).astype(">u2")
    hidden = (0xFF00 - change, 0x00FF, 0x00FF)
    expected = COLOURS if change else SEEN_ON_WHITE
    assert verdict(png(16, 2, numbers.tobytes(), hidden), expected) == RIGHT


def psd(mode: int, bits: int, planes: list[bytes], layers: int | None = None) -> bytes:
    """A Photoshop document of the merged picture alone, with that number of layers declared."""
    section = b"" if layers is None else struct.pack(">Ihh", 4, layers, 0)
    head = struct.pack(">4sH6xHIIHH", b"8BPS", 1, len(planes), HEIGHT, WIDTH, bits, mode)
    sections = struct.pack(">III", 0, 0, len(section)) + section
    return head + sections + bytes(2) + b"".join(planes)


@pytest.mark.parametrize(
    ("layers", "expected"), [(None, COLOURS), (1, COLOURS), (-1, SEEN_ON_WHITE)]
)
def test_a_saved_selection_in_a_photoshop_document_hides_nothing(layers, expected):
    planes = [*np.moveaxis(stored(RGB, "u1"), -1, 0), stored(HIDDEN, "u1")]
    assert verdict(psd(3, 8, [p.tobytes() for p in planes], layers), expected) == RIGHT


def test_ones_in_a_photoshop_bitmap_are_ink():
    assert verdict(psd(0, 1, [packed(HALVES, 1)]), ONES_ARE_INK) == RIGHT


def tga(depth: int, attributes: int, pixels: bytes) -> bytes:
    head = struct.pack("<BBB9xHHBB", 0, 0, 2, WIDTH, HEIGHT, depth, 0x20 | attributes)
    return head + pixels


@pytest.mark.parametrize(
    ("attributes", "alpha", "expected"),
    [
        pytest.param(0, 0 * HIDDEN, COLOURS, id="padding"),
        pytest.param(0, HIDDEN, SEEN_ON_WHITE, id="transparency, undeclared"),
        pytest.param(8, HIDDEN, SEEN_ON_WHITE, id="transparency"),
        pytest.param(8, 0 * HIDDEN, (WHITE,) * 4, id="all transparent"),
    ],
)
def test_the_fourth_byte_of_a_tga_may_be_padding(attributes, alpha, expected):
    pixels = np.concatenate([stored(RGB[..., ::-1], "u1"), stored(alpha, "u1")[..., None]], -1)
    assert verdict(tga(32, attributes, pixels.tobytes()), expected) == RIGHT


@pytest.mark.parametrize("top_bit", [0, 0x8000])
def test_a_bit_without_meaning_in_a_tga_of_sixteen_hides_nothing(top_bit):
    red, green, blue = np.moveaxis(stored(RGB, "u2", 31), -1, 0)
    pixels = (top_bit | red << 10 | green << 5 | blue).astype("<u2").tobytes()
    assert verdict(tga(16, 0, pixels), COLOURS) == RIGHT


@pytest.mark.parametrize(("kind", "order"), [(1, -1), (3, 1)])
def test_the_padding_of_a_sun_raster_comes_first(kind, order):
    pixels = np.concatenate([0 * OPAQUE, RGB[..., ::order]], -1)
    head = struct.pack(">8I", 0x59A66A95, WIDTH, HEIGHT, 32, 4 * WIDTH * HEIGHT, kind, 0, 0)
    assert verdict(head + stored(pixels, "u1").tobytes(), COLOURS) == RIGHT


@pytest.mark.parametrize(
    ("palette", "expected"),
    [
        pytest.param((BLACK, WHITE), ONES_ARE_LIGHT, id="black, white"),
        pytest.param((BLACK, BLACK), ONES_ARE_LIGHT, id="none"),
        pytest.param((WHITE, BLACK), ONES_ARE_INK, id="white, black"),
        pytest.param(COLOURS[:2], None, id="colours"),
    ],
)
def test_a_pcx_of_one_bit_is_in_the_colours_of_its_palette(palette, expected):
    head = struct.pack("<4B6H", 10, 5, 0, 1, 0, 0, WIDTH - 1, HEIGHT - 1, 72, 72)
    head += bytes(palette[0] + palette[1]).ljust(48, b"\0") + struct.pack("<xBHH", 1, WIDTH // 8, 1)
    row = b"".join(b"\xc1" + bytes([byte]) for byte in packed(HALVES, 1))
    pcx = head.ljust(128, b"\0") + row
    for data in (pcx, struct.pack("<3I", 0x3ADE68B1, 12, 0) + pcx):
        found = verdict(data, expected or COLOURS)
        assert found == RIGHT if expected else "colours of its own" in found


@pytest.mark.parametrize(
    ("channels", "order", "expected"),
    [
        pytest.param([(0, 0, 1), (1, 0, 2), (2, 0, 3)], "RGB", COLOURS, id="RGB"),
        pytest.param([(2, 0, 3), (1, 0, 2), (0, 0, 1)], "RGB", COLOURS, id="RGB, last first"),
        pytest.param([(0, 0, 3), (1, 0, 2), (2, 0, 1)], "BGR", None, id="BGR"),
        pytest.param(
            [(0, 0, 1), (1, 0, 2), (2, 0, 3), (3, 1, 0)], "RGBA", SEEN_ON_WHITE, id="RGBA"
        ),
        pytest.param(
            [(0, 0, 1), (1, 0, 2), (2, 0, 3), (3, 65535, 65535)], "RGBA", None, id="RGB and more"
        ),
        pytest.param([(0, 1, 0), (1, 0, 1), (2, 0, 2), (3, 0, 3)], "ARGB", None, id="ARGB"),
    ],
)
def test_the_channels_of_a_jpeg_2000_are_what_it_defines_or_an_error(channels, order, expected):
    planes = stored(np.concatenate([RGB, HIDDEN[..., None]], -1), "u1")
    array = np.ascontiguousarray(planes[..., ["RGBA".index(letter) for letter in order]])
    data = imagecodecs.jpeg2k_encode(array, codecformat="jp2", level=0, reversible=True)
    box = b"".join(struct.pack(">HHH", *channel) for channel in channels)
    box = struct.pack(">I4sH", 10 + len(box), b"cdef", len(channels)) + box
    head = data.index(b"jp2h") - 4
    (size,) = struct.unpack_from(">I", data, head)
    changed = struct.pack(">I", size + len(box)) + data[head + 4 : head + size] + box
    found = verdict(data[:head] + changed + data[head + size :], expected or COLOURS)
    assert found == RIGHT if expected else "of other meanings" in found


def fits(array: np.ndarray, bits: int, *cards: str) -> bytes:
    sides = [f"NAXIS{n + 1}  = {side:20d}" for n, side in enumerate(array.shape[::-1])]
    head = ["SIMPLE  =                    T", f"BITPIX  = {bits:20d}"]
    head += [f"NAXIS   = {array.ndim:20d}", *sides, *cards, "END"]
    text = "".join(card.ljust(80) for card in head).encode()
    body = array[..., ::-1, :].tobytes()
    return text.ljust(2880) + body.ljust(-(-len(body) // 2880) * 2880, b"\0")


@pytest.mark.parametrize(
    ("data", "is_read"),
    [
        pytest.param(fits(stored(GREY, "u1"), 8), True, id="8 bits"),
        pytest.param(fits(stored(GREY, "u1"), 8, "BSCALE  =  1.0 / as is"), True, id="as it is"),
        pytest.param(fits(stored(GREY, "u1"), 8, "BZERO   =  -10"), False, id="offset"),
        pytest.param(fits(np.moveaxis(stored(RGB, "u1"), -1, 0), 8), False, id="planes"),
        pytest.param(fits(stored(GREY, ">i2"), 16), False, id="16 bits"),
        pytest.param(fits(stored(GREY, ">i4"), 32), False, id="32 bits"),
    ],
)
def test_of_fits_only_plain_bytes_are_read(data, is_read):
    found = verdict(data, GREYS)
    assert found == RIGHT if is_read else "FITS" in found


# --- what a file is -------------------------------------------------------------------------------


def brand(name: bytes, *compatible: bytes) -> bytes:
    body = b"ftyp" + name + bytes(4) + b"".join(compatible)
    return struct.pack(">I", len(body) + 4) + body + bytes(100)


KINDS = {
    "HEIC": brand(b"heic", b"mif1", b"heic"),
    "HEIC by what it is compatible with": brand(b"mif1", b"mif1", b"heic"),
    "HEIF": brand(b"mif1", b"miaf"),
    "JPEG XL": imagecodecs.jpegxl_encode(stored(RGB, "u1")),
    "JPEG XL (container)": b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(100),
    "JPEG XR": imagecodecs.jpegxr_encode(stored(RGB, "u1")),
    "JPEG-LS": imagecodecs.jpegls_encode(stored(GREY, "u1")),
    "lossless JPEG": imagecodecs.ljpeg_encode(stored(GREY, "u2", 4095), bitspersample=12),
    "JPEG of 12 bits": imagecodecs.jpeg8_encode(stored(RGB, "u2", 4095), bitspersample=12),
    "SVG": b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- drawn -->\n<svg xmlns='...'/>",
    "SVG by what follows a long comment": b"<?xml version='1.0'?><!--" + 3000 * b"x" + b"--><svg/>",
    "HTML (a web page)": b"<html><body><svg/></body></html>",
    "HTML": b"  <!DOCTYPE html>\n<title>404</title>",
    "HTML in UTF-16": "\ufeff<html>".encode("utf-16-le"),
    "XML": b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
    "camera raw file (CR2)": b"II*\0\x10\0\0\0CR\2\0" + bytes(100),
    "camera raw file (CR3)": brand(b"crx ", b"isom"),
    "camera raw file (RAF)": b"FUJIFILMCCD-RAW 0201" + bytes(100),
    "camera raw file (RW2)": b"IIU\0\x18\0\0\0" + bytes(100),
    "camera raw file (ORF)": b"IIRO\x08\0\0\0" + bytes(100),
    "camera raw file (X3F)": b"FOVb" + bytes(100),
    "PDF": b"%PDF-1.7\n",
    "video (MP4)": brand(b"isom"),
    "video (MOV)": brand(b"qt  "),
    "video (WebM": b"\x1a\x45\xdf\xa3" + bytes(100),
    "video (AVI)": b"RIFF\0\0\0\0AVI LIST" + bytes(100),
    "ZIP archive": b"PK\3\4" + bytes(100),
    "gzip": b"\x1f\x8b\x08" + bytes(100),
    "Photoshop document (PSB)": b"8BPS\0\2" + bytes(100),
    "DICOM": bytes(128) + b"DICM" + bytes(100),
    "an empty file": b"",
    "text": b"Just a note.\n",
    "PNG": encoded(quarters())[:30],
    "TIFF (RGB, 3 x 64 bits, floating-point": tiff(stored(RGB, "f8"), photometric="rgb"),
    "unknown format that begins with 07 08 09 0a 0b 0c 0d 0e": bytes(range(7, 40)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_error_says_what_the_file_is(kind):
    with pytest.raises(UnreadableImage) as refusal:
        transform_image(KINDS[kind])
    name = kind.partition(" by ")[0].partition(" in ")[0].removesuffix(" (container)")
    assert name in str(refusal.value)


def test_a_picture_that_is_cut_off_is_an_error_with_its_format():
    for kind in ("JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP", "AVIF", "JPEG2000"):
        data = encoded(quarters(), kind)
        with pytest.raises(UnreadableImage, match=rf"(?i){kind[:4]}"):
            transform_image(data[: len(data) // 2])


def test_a_kind_is_found_in_no_time_whatever_the_directories_say():
    loop = own_tiff({330: (4, (8,) * 64)}, b"")
    assert kind_of(loop).startswith("TIFF")
    many = b"II*\0\x08\0\0\0" + 1000 * (struct.pack("<H", 65535) + 12 * 65535 * b"\xff")
    assert kind_of(many[:5_000_000]).startswith("TIFF")
    for end in range(0, len(loop), 7):
        kind_of(loop[:end])
