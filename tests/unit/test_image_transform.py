"""The transform: pinned defaults, true colours, upright pictures, and one error for the rest."""

import functools
import hashlib
import io
import random
import re
import subprocess
import sys
from pathlib import PurePosixPath

import pytest
from conftest import jpeg
from hostile_corpus import COLOURS, NO_PICTURES, ORIENTATION, STORED, encoded, png, quarters
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageCms, ImageStat
from PIL.PngImagePlugin import PngInfo

from lambda_function.image_transform import (
    FORMATS,
    TARGET_SIZE,
    UnreadableImage,
    _reason,
    measure_transform,
    output_name,
    transform_image,
)
from metrics.common.paths import PROJECT

RGB = {"red": (255, 0, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}
pytestmark = pytest.mark.filterwarnings("ignore")  # of Pillow's, about odd and old formats

NEAR = 12  # grey levels: what JPEG and resizing may change in a flat area
# Every mode that Pillow can write, with the modes' deep and premultiplied variants.
MODES = [
    "1",
    "L",
    "LA",
    "P",
    "PA",
    "RGB",
    "RGBA",
    "RGBa",
    "RGBX",
    "CMYK",
    "YCbCr",
    "LAB",
    "HSV",
    "I",
    "F",
    "I;16",
    "I;16B",
    "I;16L",
    "I;16N",
]
REPEATABLE = settings(deadline=None, derandomize=True)  # the same examples in every run


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def transformed(data: bytes) -> Image.Image:
    """The output as a picture, of which every promise about its form has been checked."""
    image = opened(transform_image(data))
    assert (image.format, image.mode, image.size) == ("JPEG", "RGB", TARGET_SIZE)
    return image


def noise(width: int, height: int, mode: str = "L", cell: int = 24) -> Image.Image:
    """Repeatable random blotches of about `cell` pixels."""
    size = (max(width // cell, 1), max(height // cell, 1))
    grain = Image.frombytes("L", size, random.Random(1).randbytes(size[0] * size[1]))
    return grain.resize((width, height)).convert(mode)


def colour_at(image: Image.Image, x: float, y: float) -> tuple[float, ...]:
    """Mean colour around a place that is given as parts of the width and height."""
    left, top = int(x * image.width), int(y * image.height)
    return tuple(ImageStat.Stat(image.crop((left - 8, top - 8, left + 8, top + 8))).mean)


def is_near(colour: tuple[float, ...], expected: tuple[float, ...], near: int = NEAR) -> bool:
    return all(abs(a - b) <= near for a, b in zip(colour, expected, strict=True))


def is_upright(image: Image.Image, near: int = NEAR) -> bool:
    places = ((0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75))
    return all(
        is_near(colour_at(image, *place), colour, near)
        for place, colour in zip(places, COLOURS, strict=True)
    )


def halves(image: Image.Image) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return colour_at(image, 0.25, 0.5), colour_at(image, 0.75, 0.5)


def difference(one: Image.Image, other: Image.Image) -> float:
    return max(ImageStat.Stat(ImageChops.difference(one, other)).mean)


def plain_pillow(data: bytes) -> bytes:
    """What the published reference run did."""
    small = opened(data).convert("RGB").resize((800, 600))
    return encoded(small, "JPEG", quality=80, optimize=True)


# --- the settings that results depend on ----------------------------------------------------------


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_small_jpeg_gives_the_bytes_of_plain_pillow(mode):
    data = encoded(noise(1000, 700, mode), "JPEG", quality=90)
    assert transform_image(data) == plain_pillow(data)


def test_a_black_and_white_picture_gives_the_bytes_of_plain_pillow():
    data = encoded(noise(1000, 700, "1"))
    assert transform_image(data) == plain_pillow(data)


@pytest.mark.parametrize("size", [(1599, 1200), (1600, 1199)])
def test_a_jpeg_below_twice_the_target_in_one_direction_is_decoded_in_full(size):
    data = encoded(noise(*size, "RGB"), "JPEG")
    assert transform_image(data) == plain_pillow(data)


def test_a_large_picture_of_another_format_is_resized_like_a_small_one():
    data = encoded(noise(1600, 1200, "RGB"))
    assert transform_image(data) == plain_pillow(data)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize(
    ("size", "half", "resample"),
    [
        pytest.param((1800, 1400), (900, 700), Image.Resampling.LANCZOS, id="near the target"),
        pytest.param((2400, 1780), (1200, 890), Image.Resampling.LANCZOS, id="near in one way"),
        pytest.param((2400, 1800), (1200, 900), Image.Resampling.HAMMING, id="1.5 x the target"),
    ],
)
def test_a_jpeg_of_twice_the_target_is_decoded_at_half_scale_first(mode, size, half, resample):
    data = encoded(noise(*size, mode, cell=8), "JPEG")
    image = opened(data)
    image.draft(None, TARGET_SIZE)
    assert (image.mode, image.size) == (mode, half)
    small = image.convert("RGB").resize(TARGET_SIZE, resample)
    assert difference(transformed(data), opened(encoded(small, "JPEG", quality=80))) < 0.01


@pytest.mark.parametrize("size", [(1601, 1201), (1717, 1301), (3201, 2401)])
def test_odd_sizes_are_not_warped_by_decoding_at_a_reduced_scale(size):
    # Without the box the far corner is off by half a pixel or more: 4 to 12 levels here.
    data = encoded(noise(*size, "RGB"), "JPEG", quality=95)
    full = opened(data).resize(TARGET_SIZE, Image.Resampling.LANCZOS)
    far_corner = (600, 450, 800, 600)
    assert difference(transformed(data).crop(far_corner), full.crop(far_corner)) < 2


def test_the_same_bytes_give_the_same_bytes():
    data = jpeg(1700, 1300)
    assert transform_image(data) == transform_image(data)


@pytest.mark.skipif(sys.platform != "linux", reason="about glibc's malloc")
def test_a_picture_uses_the_memory_of_the_one_before():
    program = (
        "import io, resource\n"
        "from lambda_function.image_transform import Image, transform_image\n"
        "picture = io.BytesIO()\n"
        "Image.radial_gradient('L').resize((866, 578)).convert('RGB').save(picture, 'JPEG')\n"
        "for _ in range(5):\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    transform_image(picture.getvalue())\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 100  # page faults; 8 MB in fresh pages make 2,000


# --- orientation ----------------------------------------------------------------------------------


def stored(orientation: int, width: int, height: int) -> tuple[Image.Image, Image.Exif]:
    """The pixels of an upright picture of that size as a camera stores them, and their tag."""
    image = quarters(width, height)
    if STORED[orientation] is not None:
        image = image.transpose(STORED[orientation])
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return image, exif


@pytest.mark.parametrize("size", [(640, 400), (1700, 1300), (1300, 1700), (1201, 1601)])
@pytest.mark.parametrize("orientation", STORED)
def test_a_jpeg_is_shown_upright_whatever_its_orientation(orientation, size):
    image, exif = stored(orientation, *size)
    assert is_upright(transformed(encoded(image, "JPEG", exif=exif)))


def test_a_lying_jpeg_is_decoded_at_a_reduced_scale_when_its_own_axes_allow_it():
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    large = encoded(noise(1200, 1600, "RGB"), "JPEG", exif=exif)  # 2 x 600 by 2 x 800
    image = opened(large)
    image.draft(None, (600, 800))
    small = image.resize((600, 800), Image.Resampling.BICUBIC)
    turned = small.transpose(Image.Transpose.ROTATE_270)
    assert transform_image(large) == encoded(turned, "JPEG", quality=80, optimize=True)


def test_a_jpeg_that_is_large_enough_in_the_wrong_axes_only_is_decoded_in_full():
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    data = encoded(noise(1700, 1300, "RGB"), "JPEG", exif=exif)  # 1300 < 2 x 800
    turned = opened(data).resize((600, 800)).transpose(Image.Transpose.ROTATE_270)
    assert transform_image(data) == encoded(turned, "JPEG", quality=80, optimize=True)


# --- transparency: the left half is transparent over a colour that must not be seen ---------------


def left_hidden(mode: str, hidden: str, shown: str) -> Image.Image:
    """A picture in a mode with alpha, transparent in its left half."""
    image = Image.new(mode, (64, 32), shown)
    left = Image.new(mode, (32, 32), hidden)
    left.putalpha(0)
    image.paste(left, (0, 0))
    return image


def palette_picture() -> Image.Image:
    """A palette picture: entry 0, red, on the left; entry 1, blue, on the right."""
    image = Image.new("P", (64, 32), 1)
    image.paste(0, (0, 0, 32, 32))
    image.putpalette([255, 0, 0, 0, 0, 255])
    return image


def red_and_blue(mode: str = "RGB") -> Image.Image:
    return palette_picture().convert("RGB").convert(mode)


def palette_with_alpha() -> Image.Image:
    image = palette_picture().convert("PA")
    image.putalpha(left_hidden("RGBA", "red", "blue").getchannel("A"))
    return image


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(encoded(left_hidden("RGBA", "red", "blue")), id="RGBA"),
        pytest.param(encoded(left_hidden("RGBA", "red", "blue"), "WEBP", exact=True), id="WebP"),
        pytest.param(encoded(palette_picture(), transparency=0), id="palette entry"),
        pytest.param(encoded(palette_picture(), transparency=b"\0\xff"), id="palette alphas"),
        pytest.param(encoded(palette_picture(), "GIF", transparency=0), id="GIF"),
        pytest.param(encoded(palette_with_alpha(), "TIFF"), id="PA"),
        pytest.param(encoded(red_and_blue(), transparency=(255, 0, 0)), id="RGB colour key"),
    ],
)
def test_transparent_parts_are_white_and_their_hidden_colour_is_not_shown(data):
    image = transformed(data)
    left, right = halves(image)
    assert is_near(left, RGB["white"])
    assert is_near(right, RGB["blue"])
    red, _, blue = image.split()
    assert ImageChops.subtract(red, blue).getextrema()[1] < 40  # no red fringe at the edge


def test_a_transparent_colour_of_a_black_and_white_picture_is_white():
    image = Image.new("1", (64, 32))
    assert is_near(halves(transformed(encoded(image)))[0], (0, 0, 0))
    assert is_near(halves(transformed(encoded(image, transparency=0)))[0], RGB["white"])


def test_half_transparent_black_on_white_is_grey():
    data = encoded(Image.new("RGBA", (64, 32), (0, 0, 0, 128)))
    assert is_near(halves(transformed(data))[0], (127, 127, 127))


# --- colours --------------------------------------------------------------------------------------


def two_values(mode: str, left: float, right: float) -> Image.Image:
    image = Image.new("F" if mode == "F" else "I", (64, 32), left)
    image.paste(right, (32, 0, 64, 32))
    return image if image.mode == mode else image.convert(mode)


def test_a_transparent_value_of_16_bit_grey_becomes_white():
    halves = [30_000] * 800 + [20_000] * 800
    pixels = b"".join(value.to_bytes(2, "little") for value in halves)
    image = Image.frombytes("I;16", (40, 40), pixels)
    data = encoded(image, "PNG", transparency=20_000)
    assert opened(data).info["transparency"] == 20_000
    picture = transformed(data)
    assert picture.getpixel((400, 100)) == pytest.approx((117,) * 3, abs=3)
    assert picture.getpixel((400, 500)) == pytest.approx((255,) * 3, abs=3)


def test_fractions_are_parts_of_white():
    dark, light = halves(transformed(encoded(two_values("F", 0.25, 0.75), "TIFF")))
    assert is_near(dark, (64,) * 3)
    assert is_near(light, (191,) * 3)


@pytest.mark.parametrize(
    ("mode", "left", "right"),
    [
        pytest.param("F", 64.0, 192.0, id="8-bit floats"),
        pytest.param("F", -1000.0, 3000.0, id="any floats"),
        pytest.param("F", -5.0, -5.0, id="one negative number"),
        pytest.param("F", float("nan"), 1.0, id="not a number"),
        pytest.param("I", 64, 192, id="8-bit integers"),
        pytest.param("I", -100, 100, id="signed integers"),
        pytest.param("I", 0, 1 << 30, id="large integers"),
    ],
)
def test_numbers_without_a_white_point_are_an_error(mode, left, right):
    with pytest.raises(UnreadableImage, match="nothing says which of them is white"):
        transform_image(encoded(two_values(mode, left, right), "TIFF"))


def test_lab_is_an_error_since_decoders_make_different_colours_of_it():
    to_lab = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
    )
    lab = ImageCms.applyTransform(quarters(64, 32), to_lab)
    with pytest.raises(UnreadableImage, match="CIELab"):
        transform_image(encoded(lab, "TIFF"))


def test_ycbcr_keeps_its_colours():
    assert is_upright(transformed(encoded(quarters(64, 32).convert("YCbCr"), "TIFF")))


def test_a_palette_is_looked_up_before_resizing():
    left, right = halves(transformed(encoded(palette_picture(), "BMP")))
    assert is_near(left, RGB["red"])
    assert is_near(right, RGB["blue"])


def with_comment(text: str) -> bytes:
    info = PngInfo()
    info.add_itxt("comment", text)
    return encoded(quarters(64, 32), pnginfo=info)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(encoded(quarters(64, 32), "GIF", comment=b"x" * 70_000), id="GIF"),
        pytest.param(with_comment("x" * 70_000), id="PNG"),
        pytest.param(with_comment("é" * 40_000), id="PNG, longer in bytes than in letters"),
    ],
)
def test_a_comment_that_no_jpeg_can_hold_is_left_out(data):
    image = transformed(data)
    assert "comment" not in image.info
    assert is_upright(image)


# --- any picture ----------------------------------------------------------------------------------


@functools.cache
def written_kinds() -> list[tuple[str, str]]:
    """Modes and formats that Pillow here can write, and whose meaning is known on reading."""
    kinds = []
    for mode in MODES:
        for kind in sorted(set(Image.SAVE) & set(FORMATS)):
            try:
                encoded(Image.new(mode, (40, 30)), kind)
            except (OSError, ValueError, KeyError, SystemError):  # not in that format
                continue
            # SPIDER has floating-point numbers only, of which Pillow writes 0 to 255.
            if mode != "LAB" and kind != "SPIDER" and (mode != "I" or kind in ("PNG", "PPM")):
                kinds.append((mode, kind))
    return kinds


def test_every_mode_is_written_by_some_format():
    assert {mode for mode, _ in written_kinds()} == set(MODES) - {"LAB"}
    assert len({kind for _, kind in written_kinds()}) > 20


@settings(REPEATABLE, max_examples=60)
@given(
    st.sampled_from([mode for mode in MODES if mode != "LAB"]),
    st.data(),
    st.integers(1, 2000),
    st.integers(1, 2000),
)
def test_any_mode_and_any_size_gives_an_800x600_rgb_jpeg(mode, data, width, height):
    kind = data.draw(st.sampled_from([kind for m, kind in written_kinds() if m == mode]))
    picture = encoded(Image.new(mode, (width, height)), kind)
    assert transformed(picture).format == "JPEG"


# --- what is refused ------------------------------------------------------------------------------


def test_a_reason_is_one_line_without_addresses_whatever_pillow_says():
    error = OSError("no end\n\tof <_io.BytesIO object at 0x7FE5efc0>")
    assert _reason(error, "GIF") == "GIF: OSError: no end of <_io.BytesIO object at 0x>"
    assert len(_reason(OSError("x" * 1000), "GIF")) == 200


@pytest.mark.parametrize("kind", ["EPS", "WMF"])
def test_formats_that_need_other_programs_are_refused_though_pillow_knows_them(kind):
    data = NO_PICTURES[kind]
    assert opened(data).format == kind
    with pytest.raises(UnreadableImage, match="not a picture"):
        transform_image(data)


def test_a_large_picture_below_the_limit_is_no_bomb():
    assert transformed(png(10_000, 10_000, 1, 0, bytes(10_000 * 1251))).getpixel((400, 300)) == (
        0,
        0,
        0,
    )


def outcome(data: bytes) -> str:
    """The error of `data`, or "picture"; any exception but UnreadableImage is let through."""
    try:
        transformed(data)
    except UnreadableImage as error:
        return str(error)
    return "picture"


def line_without_address(text: str) -> bool:
    return text.isprintable() and not re.search(r"0x[0-9a-fA-F]{3,}", text)


@settings(REPEATABLE, max_examples=150)
@given(st.binary(max_size=200))
def test_random_bytes_raise_nothing_but_unreadable_image(data):
    assert line_without_address(outcome(data))


@functools.cache
def valid_files() -> dict[str, bytes]:
    picture = noise(40, 30, "RGB", cell=2)
    kinds = [kind for mode, kind in written_kinds() if mode == "RGB"]
    return {kind: encoded(picture, kind) for kind in kinds} | {"GIF": encoded(picture, "GIF")}


@settings(REPEATABLE, max_examples=300)
@given(st.data())
def test_damaged_files_raise_nothing_but_unreadable_image(data):
    content = bytearray(valid_files()[data.draw(st.sampled_from(sorted(valid_files())))])
    for _ in range(data.draw(st.integers(0, 4))):
        # Headers are short and at the front; damage there does more.
        place = data.draw(st.integers(0, 120) | st.integers(0, len(content) - 1))
        content[min(place, len(content) - 1)] = data.draw(st.integers(0, 255))
    end = data.draw(st.just(len(content)) | st.integers(0, len(content)))
    assert line_without_address(outcome(bytes(content[:end])))


# --- measuring, names, imports --------------------------------------------------------------------


def test_a_measurement_holds_the_output_its_hash_and_the_times():
    data = jpeg(640, 480)
    measured = measure_transform(data)
    assert measured.output == transform_image(data)
    assert measured.output_sha256 == hashlib.sha256(measured.output).hexdigest()
    assert measured.error == ""
    assert measured.proc_ms > 0
    assert measured.cpu_ms > 0


def test_a_failed_measurement_says_why_and_what_the_attempt_took():
    measured = measure_transform(b"not a picture")
    assert measured.error == "UnreadableImage: not a picture that can be read here: text"
    assert (measured.output, measured.output_sha256) == (None, "")
    assert measured.proc_ms > 0
    assert measured.cpu_ms > 0


NAMES = st.text(st.characters(codec="utf-8"), min_size=1)


@REPEATABLE
@given(NAMES)
def test_an_output_is_named_after_its_input_and_is_a_jpeg_by_name(key):
    name = output_name(key)
    assert name in (key, f"{key}.jpg")
    assert name.lower().endswith((".jpg", ".jpeg"))
    assert output_name(name) == name


@REPEATABLE
@given(NAMES, st.sampled_from([".jpg", ".JPG", ".jpeg", ".Jpeg"]))
def test_a_jpeg_keeps_its_name(stem, suffix):
    assert output_name(stem + suffix) == stem + suffix


@REPEATABLE
@given(st.lists(NAMES.map(lambda name: f"{name}.png"), unique=True))
def test_other_types_never_share_an_output(keys):
    assert len({output_name(key) for key in keys}) == len(keys)


def test_an_output_stays_in_the_folder_of_its_input():
    assert PurePosixPath(output_name("a b/c.d/e.png")).parent == PurePosixPath("a b/c.d")


def test_importing_the_module_needs_only_pillow_and_the_standard_library():
    program = (
        "import sys; before = set(sys.modules);"
        "import lambda_function.image_transform;"
        "names = {name.partition('.')[0] for name in set(sys.modules) - before};"
        "print(*sorted(names - set(sys.stdlib_module_names)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["PIL", "lambda_function"]
