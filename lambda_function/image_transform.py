"""THE transform, the same in both arms: picture bytes -> 800x600 RGB JPEG bytes.

It runs in the Lambda zip, so it needs Pillow and the standard library only.

Decisions that a result depends on:
- JPEGs at least twice the target in both directions are decoded at a reduced DCT scale, and then
  resized with Lanczos, or with Hamming's filter when they are still 1.5 times the target or more;
  everything else is resized with bicubic, Pillow's default.
- EXIF orientation is applied; transparency is flattened on white; the first frame counts.
- ICC profiles are neither applied nor kept; the numbers are taken for sRGB. The published reference
  run did so, and only so are its outputs' sizes repeated to the byte. What it costs: pictures in a
  wide gamut (Display P3, Adobe RGB) come out less saturated, alike in both arms. A broken or huge
  profile can do no harm, since none is read.
- Formats that need an external program or library (EPS, WMF, FPX, MIC), that Pillow can only
  identify (BUFR, GRIB, HDF5, MPEG), or that may hold any of those inside (IPTC) are refused, so
  that no arm can read what the other cannot, and no picture starts a program.
- What is too large is refused before it is decoded; what takes too much all the same: limits.py.
"""

import hashlib
import io
import re
import time
import warnings
from dataclasses import dataclass

import PIL
from PIL import AvifImagePlugin, Image, UnidentifiedImageError, features

from lambda_function.limits import MAX_MEMORY, TooSlow, limits

TARGET_SIZE = (800, 600)
JPEG_QUALITY = 80  # the reference run's setting; a change makes old results incomparable
TRANSFORM_VERSION = "2"  # raise it when the output bytes of any picture change

REFUSED_FORMATS = {"EPS", "WMF", "FPX", "MIC", "BUFR", "GRIB", "HDF5", "MPEG", "IPTC"}
# Decoded pixels. They take up to 12 bytes each, in formats whose decoders hold several copies 16 to
# 25 (measured, see tests/benchmarks/worst_pictures.py): so that what a header admits stays below
# MAX_MEMORY, and both arms refuse the same pictures.
MAX_PIXELS = 120_000_000
MAX_PIXELS_OF = {"AVIF": 64_000_000, "WEBP": 64_000_000, "JPEG2000": 50_000_000}
MAX_SIDE = 1_000_000  # pixels; each row and column takes memory of its own in resizing
MAX_BYTES = 400_000_000  # of a file: an uncompressed RGB picture of the most pixels
ORIENTATION_TAG = 0x0112
TRANSPOSE_OF_ORIENTATION = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIXTEEN_TO_EIGHT_BITS = [(value + 128) // 257 for value in range(65536)]
MAX_JPEG_COMMENT = 65533  # bytes; a marker's length field has 16 bits

Image.init()  # load every plugin now: an import inside the timed region would count as work
FORMATS = tuple(name for name in Image.ID if name not in REFUSED_FORMATS)
# glibc gives large buffers back to the system, to get them again page by page for the next picture,
# until one of nearly 32 MB was freed. This one is never touched, so it takes no memory. It saves up
# to 20%, by the picture's size; Pillow's cache of blocks in its place costs 1 to 5% (measured).
bytes(32 * 1024 * 1024 - 65536)
# One processor a picture, as for all other formats: the arms have one for each worker.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1
# Pillow's warnings are about pictures that it does read: large ones, odd metadata. What claims more
# than 179 megapixels, scaled or not, it refuses by itself before it decodes anything.
warnings.filterwarnings("ignore", module=r"PIL\.")


class UnreadableImage(ValueError):
    """The bytes are no picture that Pillow can decode, or one too large to decode safely."""


def transform_image(data: bytes) -> bytes:
    """JPEG bytes of `data` as an 800x600 RGB picture. Raises UnreadableImage."""
    output = io.BytesIO()
    try:
        _fit(io.BytesIO(data)).save(output, "JPEG", quality=JPEG_QUALITY, optimize=True)
    except Exception as error:  # hostile bytes make Pillow raise nearly anything
        raise UnreadableImage(_reason(error)) from error
    return output.getvalue()


def _fit(file: io.BytesIO) -> Image.Image:
    """The first frame of `file`, upright, RGB, TARGET_SIZE."""
    with Image.open(file, formats=FORMATS) as image:
        resample, box = Image.Resampling.BICUBIC, None
        if image.format in ("JPEG", "MPO"):
            # In one piece: libjpeg decodes more slowly near the end of each piece (1 to 2%).
            image.decodermaxblock = file.getbuffer().nbytes
            width, height = _stored_target(image)
            if image.width >= 2 * width and image.height >= 2 * height:
                # The scaled size is rounded up to whole pixels; the box says where the picture
                # really ends, without which odd sizes are warped.
                _, box = image.draft(None, (width, height))
                resample = _filter_after_draft(box[2] / width, box[3] / height)
        _check_size(image)
        image.load()
        target = _stored_target(image)
        small = _eight_bit(image).resize(target, resample, box=box)
        transpose = TRANSPOSE_OF_ORIENTATION.get(_orientation(image))
    if transpose is not None:
        small = small.transpose(transpose)
    return _flat_rgb(small)


def _filter_after_draft(shrink_x: float, shrink_y: float) -> Image.Resampling:
    """The fastest filter whose SSIM is within 0.005 of libvips's (tests/benchmarks/kernel.py).

    Near the target's size that is Lanczos: with bicubic a picture takes 7 to 12% less time, but
    photographs of 12 megapixels were 0.007 below. Further away it is Hamming's, in half the time.
    """
    near = min(shrink_x, shrink_y) < 1.5
    return Image.Resampling.LANCZOS if near else Image.Resampling.HAMMING


def _check_size(image: Image.Image) -> None:
    most = MAX_PIXELS_OF.get(image.format, MAX_PIXELS)
    if image.width * image.height > most or max(image.size) > MAX_SIDE:
        raise UnreadableImage(f"{image.width}x{image.height} pixels are too many to decode")


def _stored_target(image: Image.Image) -> tuple[int, int]:
    """TARGET_SIZE in the axes of the stored pixels: swapped where orientation turns them."""
    width, height = TARGET_SIZE
    return (height, width) if _orientation(image) in (5, 6, 7, 8) else (width, height)


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ORIENTATION_TAG, 1)
    except Exception:  # a broken EXIF block does not make the pixels unreadable
        return 1


def _eight_bit(image: Image.Image) -> Image.Image:
    """`image` in L, LA, RGB or RGBA: the modes whose resized pixels are the picture's colours.

    It stays what it is of these until it is small: a conversion, even of RGB to RGB, copies it.
    """
    if image.mode in ("LA", "RGBA"):
        return image
    if image.mode in ("L", "RGB") and not image.has_transparency_data:
        return image
    if image.mode == "1" and not image.has_transparency_data:
        return image.convert("L")
    if image.mode.startswith("I") or image.mode == "F":
        return _scaled_to_eight_bit(image)
    if image.mode == "La":  # premultiplied; Pillow converts it to LA only
        image = image.convert("LA")
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _scaled_to_eight_bit(image: Image.Image) -> Image.Image:
    """Deep greyscale as L or LA; a bare convert would clip all that is above 255 to white.

    16-bit modes are scaled from 0..65535. Modes I and F carry no white point: values within
    0..255 are taken as they are, I within 0..65535 as 16-bit, F within 0..1 as fractions, and
    anything else is stretched from its smallest value to its largest.
    """
    if image.mode.startswith("I;16"):
        deep = image.convert("I")
        grey = deep.point(SIXTEEN_TO_EIGHT_BITS, "L")
        if not isinstance(hidden := image.info.get("transparency"), int):
            return grey
        alpha = deep.point([0 if value == hidden else 255 for value in range(65536)], "L")
        return Image.merge("LA", (grey, alpha))
    low, high = image.getextrema()
    if image.mode == "I" and low >= 0 and 255 < high <= 65535:
        return image.point(SIXTEEN_TO_EIGHT_BITS, "L")
    if image.mode == "F" and low >= 0 and high <= 1:
        low, high = 0, 1
    elif low >= 0 and high <= 255:
        low, high = 0, 255
    scale = 255 / ((high - low) or 1)
    stretched = (image if image.mode == "F" else image.convert("F")).point(
        lambda value: value * scale - low * scale
    )
    return stretched.convert("L")


def _flat_rgb(image: Image.Image) -> Image.Image:
    """RGB on white. A bare convert would show the colour that is hidden under the alpha."""
    if image.mode in ("LA", "RGBA"):
        white = Image.new("RGBA", image.size, "white")
        white.info = image.info
        image = Image.alpha_composite(white, image.convert("RGBA"))
    comment = image.info.get("comment") or b""  # text in a PNG, which JPEG stores as UTF-8
    if len(comment.encode() if isinstance(comment, str) else comment) > MAX_JPEG_COMMENT:
        del image.info["comment"]  # legal in a GIF or PNG, impossible in a JPEG
    return image if image.mode == "RGB" else image.convert("RGB")


def _reason(error: Exception) -> str:
    """One line that is the same wherever the same bytes are refused."""
    if isinstance(error, UnreadableImage):
        return str(error)
    if isinstance(error, UnidentifiedImageError):
        return "not a picture that can be read here"
    if isinstance(error, MemoryError):
        return f"decoding it takes more than {MAX_MEMORY // 2**20} MB of memory"
    text = re.sub(r"\s+", " ", re.sub(r"0x[0-9a-fA-F]+", "0x", str(error))).strip()
    return f"{type(error).__name__}: {text}"[:200]


@dataclass(frozen=True)
class Measurement:
    """What transforming one picture gave and took; `output` is None when `error` says why."""

    output: bytes | None
    output_sha256: str
    error: str
    proc_ms: float
    cpu_ms: float


def measure_transform(data: bytes | None) -> Measurement:
    """Times `transform_image(data)` and nothing else: both arms take their proc_ms from here.

    `proc_ms` is wall time; `cpu_ms` is the process's CPU time over the same interval. `data` is
    None for a file of more than MAX_BYTES, which is not read.
    """
    if data is None:
        error = f"UnreadableImage: a file of more than {MAX_BYTES:,} bytes is too large to decode"
        return Measurement(None, "", error, 0.0, 0.0)
    output, error = None, ""
    start = end = _clocks()
    try:
        with limits(len(data)):
            start = _clocks()
            try:
                output = transform_image(data)
            finally:
                end = _clocks()
    except (UnreadableImage, TooSlow) as problem:
        output, error = None, f"UnreadableImage: {problem}"
    proc_ms, cpu_ms = (round((b - a) * 1000, 3) for a, b in zip(start, end, strict=True))
    digest = hashlib.sha256(output).hexdigest() if output is not None else ""
    return Measurement(output, digest, error, proc_ms, cpu_ms)


def _clocks() -> tuple[float, float]:
    """Wall and CPU time in seconds."""
    return time.perf_counter(), time.process_time()


def measure_picture(data: bytes | None, sha256: str) -> Measurement:
    """As measure_transform(); but an error when `data` has another hash than was listed before the
    run: then the arms could be given different pictures. An empty `sha256` is not known."""
    if sha256 and data is not None and hashlib.sha256(data).hexdigest() != sha256:
        return Measurement(None, "", "ChangedPicture: not the bytes that were listed", 0.0, 0.0)
    return measure_transform(data)


def warm_up() -> None:
    """Run both code paths once, so that no measured picture pays for first use."""
    for size in ((1700, 1300), (900, 700)):
        picture = io.BytesIO()
        Image.radial_gradient("L").resize(size).convert("RGB").save(picture, "JPEG")
        transform_image(picture.getvalue())


def transform_id() -> str:
    """Names what decides the output bytes: two rows with equal ids were made alike."""
    libjpeg = features.version("libjpeg_turbo") or features.version("jpg")
    return f"v{TRANSFORM_VERSION} pillow-{PIL.__version__} libjpeg-{libjpeg}"


def output_name(image_key: str) -> str:
    """Name of the JPEG made from `image_key`: the key itself, with `.jpg` added to other types."""
    is_jpeg = image_key.lower().endswith((".jpg", ".jpeg"))
    return image_key if is_jpeg else f"{image_key}.jpg"


def stays_inside(image_key: str) -> bool:
    """Whether the key is a plain path below a folder: no part of it is empty, `.` or `..`.

    Keys of files always are. An object that somebody else put into the bucket may have any, and
    where a client, or a copy to disk, takes it for a path, its output would lie elsewhere.
    """
    return all(part not in ("", ".", "..") for part in image_key.split("/"))
