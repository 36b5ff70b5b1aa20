"""What a picture's numbers mean, where Pillow's mode does not tell, or tells it wrong.

The rule: the true colours, or an error that says what the file is; never other pixels. Checked
against tifffile with imagecodecs, and ImageMagick, in tests/unit/test_true_colours.py. Where Pillow
decodes a kind of picture wrong, it is mended before decoding if that is simple and exact, and
refused if not. Needs Pillow and the standard library only: it runs in the zip.
"""

import io
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, ImageChops, ImagePalette

from lambda_function.file_kinds import camera_raw, larger_picture

PHOTOMETRIC, COMPRESSION, SAMPLE_FORMAT, PLANAR = 262, 259, 339, 284
BITS, COLOUR_MAP, INK_SET, COEFFICIENTS, SUBSAMPLING, BLACK_WHITE = 258, 320, 332, 529, 530, 532
WHITE_IS_ZERO, YCBCR, SIGNED, SEPARATE, JPEG = 0, 6, 2, 2, 7
OF_JPEG = {  # what the colours of a JPEG mean, which Pillow takes for granted
    COEFFICIENTS: (0.299, 0.587, 0.114),
    SUBSAMPLING: (1, 1),
    BLACK_WHITE: (0, 255, 128, 255, 128, 255),
}
NATIVE_ORDER = {"F;32BF": "F;32NF", "I;32BS": "I;32NS"}  # as libtiff gives the numbers to Pillow
TWELVE_BITS, SIXTEEN_BITS, THIRTY_TWO_BITS = 2**12 - 1, 2**16 - 1, 2**32 - 1
FRACTION = 1.0
JPEG_2000_COLOURS = {0, 12, 15, 16, 17, 18}  # bilevel, CMYK, bilevel, sRGB, grey, sYCC
COLOUR_CHANNEL, OPACITY, WHOLE_PICTURE = 0, 1, 0  # in a JPEG 2000's channel definition
MULTICHANNEL = 7  # a Photoshop document of spot colours
GREY_PNG, RGB_PNG = 0, 2  # colour types
PADDED_FIRST = {"RGBX": "XRGB", "BGRX": "XBGR"}  # what Pillow takes a Sun raster for, and is not
BLACK_AND_WHITE = bytes((0, 0, 0, 255, 255, 255))
FITS_HEADER_BYTES = 10 * 2880
UNKNOWN_WHITE = "{}, and nothing says which of them is white"


class UnreadableImage(ValueError):
    """The bytes are no picture that Pillow can decode, or one too large to decode safely."""


@dataclass(frozen=True)
class Meaning:
    """The number that stands for white in deep greyscale (None: in Pillow's modes of 8 bits), and
    whether all is stored as its negative."""

    white: float | None = None
    inverted: bool = False


def pixel_meaning(image: Image.Image, data: bytes) -> Meaning:
    """What the numbers of `image` mean, which was opened from `data` and is not decoded yet.

    Sets it up to be decoded so. Raises UnreadableImage, with the reason, where other colours than
    its own would come of it.
    """
    if image.format in ("JPEG", "MPO"):
        return Meaning()
    if image.mode == "LAB":
        raise UnreadableImage("CIELab colours, of which decoders make different ones")
    # Where ones are ink, and Pillow has them for light.
    inverted = image.format == "XBM" or (image.format == "PSD" and image.mode == "1")
    rawmode = ""
    if image.format == "TIFF":
        rawmode = _check_tiff(image, data)
        inverted = image.mode[0] in "IF" and image.tag_v2.get(PHOTOMETRIC) == WHITE_IS_ZERO
    elif image.format == "JPEG2000":
        _check_jpeg_2000(image, data)
    elif image.format == "PNG":
        _hide_colour(image, data)
    elif image.format == "PSD":
        _check_psd(image, data)
    elif image.format == "TGA":
        _check_tga(image, data)
    elif image.format == "SUN":
        _set_rawmode(image, lambda stored: PADDED_FIRST.get(stored, stored))
    elif image.format in ("PCX", "DCX"):
        inverted = _white_comes_first(image, data)
    elif image.format == "FITS":
        _check_fits(image, data)
    if image.mode == "F":
        return Meaning(FRACTION, inverted)
    if image.mode.startswith("I;16"):
        return Meaning(TWELVE_BITS if rawmode == "I;12" else SIXTEEN_BITS, inverted)
    if image.mode == "I":
        return Meaning(_white_of_integers(image, rawmode), inverted)
    return Meaning(None, inverted)


def _white_of_integers(image: Image.Image, rawmode: str) -> int:
    """Of mode I, in which Pillow keeps three different things."""
    if rawmode == "I;32N":  # unsigned
        return THIRTY_TWO_BITS
    if image.format in ("PPM", "PNG"):  # scaled to 16 bits by Pillow
        return SIXTEEN_BITS
    raise UnreadableImage(UNKNOWN_WHITE.format("signed numbers"))


def _check_tiff(image: Image.Image, data: bytes) -> str:
    """Pillow's name for how the numbers are stored, after what it has wrong is set right."""
    preview = f"a preview of {image.width}x{image.height}"
    if camera_raw(data):
        raise UnreadableImage(f"all that can be read of it is {preview}")
    if larger := larger_picture(data):
        width, height = larger
        raise UnreadableImage(f"it begins with {preview}, and {width}x{height} are not read")
    tags, codec, rawmode = image.tag_v2, image.tile[0].codec_name, image.tile[0].args[0]
    deepest = max(tags.get(BITS, (1,)))
    if SIGNED in tags.get(SAMPLE_FORMAT, ()):
        raise UnreadableImage(UNKNOWN_WHITE.format("signed numbers"))
    if tags.get(COMPRESSION) == JPEG and deepest > 8:
        raise UnreadableImage("a JPEG of more than 8 bits in it")
    if image.mode == "CMYK" and tags.get(INK_SET, 1) != 1:
        raise UnreadableImage("inks other than CMYK")
    if codec != "libtiff" and tags.get(PHOTOMETRIC) == YCBCR and not _is_like_jpeg(tags):
        raise UnreadableImage("uncompressed YCbCr that is subsampled, or not as in a JPEG")
    if tags.get(PLANAR) == SEPARATE:
        _check_planes(image, codec, deepest)
    elif codec == "libtiff" and rawmode in NATIVE_ORDER:
        _set_rawmode(image, lambda stored: NATIVE_ORDER[stored])
    if image.mode in ("P", "PA") and max(tags[COLOUR_MAP]) < 256:  # 8 bits, as libtiff takes it
        image.palette = ImagePalette.raw("RGB;L", bytes(tags[COLOUR_MAP]))
    return rawmode


def _is_like_jpeg(tags: dict) -> bool:
    found = {tag: tags.get(tag, default) for tag, default in OF_JPEG.items()}
    found[SUBSAMPLING] = tags.get(SUBSAMPLING, (2, 2))  # when the tag is missing
    return all(
        abs(a - b) < 0.01
        for tag, default in OF_JPEG.items()
        for a, b in zip(found[tag], default, strict=True)
    )


def _check_planes(image: Image.Image, codec: str, deepest: int) -> None:
    """Channels that are stored one after another."""
    channels = len(image.getbands())
    is_raw = codec != "libtiff"
    if (not is_raw and channels == 2) or (is_raw and deepest > 8 and image.mode == "CMYK"):
        raise UnreadableImage(f"planes of {image.mode} with {deepest} bits")
    if is_raw and deepest == 16 and channels > 2:  # Pillow takes each for 8 bits
        order = "L" if image.tag_v2.prefix == b"II" else "B"
        _set_rawmode(image, lambda channel: f"{channel};16{order}")


def _set_rawmode(image: Image.Image, change: Callable[[str], str]) -> None:
    image.tile = [
        tile._replace(
            args=change(tile.args)
            if isinstance(tile.args, str)
            else (change(tile.args[0]), *tile.args[1:])
        )
        for tile in image.tile
    ]


def _hide_colour(image: Image.Image, data: bytes) -> None:
    """The one colour that a PNG declares transparent, in its own depth. Pillow compares it with
    greys that it has scaled to 8 bits, and of 16 bits with the upper bytes only."""
    depth, colour_type = data[24], data[25]
    hidden = image.info.get("transparency")
    if colour_type == GREY_PNG and depth in (2, 4) and hidden is not None:
        image.info["transparency"] = hidden * (255 // (2**depth - 1))
    if colour_type != RGB_PNG or depth != 16 or hidden is None:
        return
    with Image.open(io.BytesIO(data), formats=["PNG"]) as lower_bytes:
        _set_rawmode(lower_bytes, lambda _: "RGB;16L")
        lower_bytes.load()
    image.load()
    seen = Image.new("L", image.size)
    for upper, lower, number in zip(image.split(), lower_bytes.split(), hidden, strict=True):
        for band, value in ((upper, number >> 8), (lower, number & 255)):
            seen = ImageChops.lighter(seen, band.point([255 * (x != value) for x in range(256)]))
    del image.info["transparency"]
    image.putalpha(seen)


def _check_psd(image: Image.Image, data: bytes) -> None:
    """Pillow takes any fourth channel for transparency. It is one if the number of layers is
    negative, and a saved selection if not."""
    if data[25] == MULTICHANNEL:
        raise UnreadableImage("spot colours")
    place = 26
    for _ in range(2):  # the palette, and resources
        place += 4 + int.from_bytes(data[place : place + 4])
    has_layers = int.from_bytes(data[place : place + 4]) > 0
    layers = int.from_bytes(data[place + 8 : place + 10], signed=True) if has_layers else 0
    if image.mode == "RGBA" and layers >= 0:
        image._mode, image.tile = "RGB", image.tile[:3]


def _check_tga(image: Image.Image, data: bytes) -> None:
    """Without attribute bits there is no transparency; but many programs leave them out, so that
    only what would hide all of the picture is none."""
    depth, attributes = data[16], data[17] & 15
    if image.mode != "RGBA" or attributes:
        return
    if depth == 16:
        image._mode = "RGB"
        _set_rawmode(image, lambda _: "BGR;15")
        return
    image.load()
    if image.mode == "RGBA" and image.getextrema()[3] == (0, 0):
        image.putalpha(255)


def _white_comes_first(image: Image.Image, data: bytes) -> bool:
    """Whether zeros are white in a PCX of 1 bit; Pillow does not look at its palette. A DCX begins
    with where its first one is."""
    start = int.from_bytes(data[4:8], "little") if image.format == "DCX" else 0
    palette = data[start + 16 : start + 22]
    if image.mode != "1" or palette in (BLACK_AND_WHITE, 2 * palette[:3]):
        return False
    if palette != BLACK_AND_WHITE[::-1]:
        raise UnreadableImage("1 bit with colours of its own")
    return True


def _check_jpeg_2000(image: Image.Image, data: bytes) -> None:
    """Pillow gives deep colours modulo 256, shifts few bits without filling them up, and takes
    every colour space that it does not know for RGB."""
    start = data.find(b"\xff\x4f\xff\x51")  # the size segment of the picture itself
    (count,) = struct.unpack_from(">H", data, start + 40)
    channels = list(struct.iter_unpack(">BBB", data[start + 42 : start + 42 + 3 * count]))
    depths = [1 + (depth & 127) for depth, _, _ in channels]
    deep_grey = image.mode == "I;16" and max(depths) <= 16
    if image.mode in ("P", "PA"):
        wrong = any(depth != 8 for depth in depths)
    else:
        wrong = min(depths) < 5 or (max(depths) > 8 and not deep_grey)
    if wrong or channels[0][1:] != (1, 1):
        subsampled = "" if channels[0][1:] == (1, 1) else ", subsampled"
        raise UnreadableImage(f"{count} x {max(depths)} bits{subsampled}, which are decoded wrong")
    space = re.search(b"colr\\x01..(.{4})", data[:start], re.DOTALL)
    if space and (number := int.from_bytes(space[1])) not in JPEG_2000_COLOURS:
        raise UnreadableImage(f"colour space {number}")
    if found := re.search(b"cdef(..)", data[:start], re.DOTALL):
        end = found.end() + 6 * int.from_bytes(found[1])
        defined = sorted(struct.iter_unpack(">HHH", data[found.end() : end]))
        plain = [(n, COLOUR_CHANNEL, n + 1) for n in range(len(defined))]
        with_alpha = [*plain[:-1], (len(plain) - 1, OPACITY, WHOLE_PICTURE)]
        if defined not in (plain, with_alpha):
            raise UnreadableImage("channels in another order, or of other meanings")


def _check_fits(image: Image.Image, data: bytes) -> None:
    """Pillow drops planes but the first, and the numbers' offset and scale."""
    cards = [data[place : place + 80] for place in range(0, FITS_HEADER_BYTES, 80)]
    values = {card[:8].strip(): card[9:].partition(b"/")[0].strip() for card in cards}
    planes = b"NAXIS3" in values or b"ZNAXIS3" in values
    scale, offset = float(values.get(b"BSCALE", 1)), float(values.get(b"BZERO", 0))
    if image.mode != "L" or planes or (scale, offset) != (1, 0):
        raise UnreadableImage(UNKNOWN_WHITE.format("scaled numbers, or several planes"))
