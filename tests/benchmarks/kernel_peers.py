"""One competitor of kernel.py in a process of its own: transforms what it is told to.

    python tests/benchmarks/kernel_peers.py NAME

Each makes an 800x600 JPEG of quality 80, 4:2:0, with optimised Huffman tables, in one thread, and
is set up as its manual recommends for speed. First it prints its version; then, for each line of
JSON on stdin, `{"pictures": [path, ...], "repeat": n, "folder": path or null}`, when it is done,
the seconds of processor time that all its threads took.
"""

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: the project is not on the path yet
    sys.path.append(str(Path(__file__).resolve().parents[2]))  # a Pillow in PYTHONPATH goes first

import io
import json
import time
from collections.abc import Callable

WIDTH, HEIGHT, QUALITY = 800, 600, 80
Transform = Callable[[bytes], bytes]


def plain_pillow() -> tuple[Transform, str]:
    import PIL
    from PIL import Image

    def transform(data: bytes) -> bytes:
        small = Image.open(io.BytesIO(data)).convert("RGB").resize((WIDTH, HEIGHT))
        return saved(small)

    return transform, f"Pillow {PIL.__version__}"


def saved(image) -> bytes:
    output = io.BytesIO()
    image.save(output, "JPEG", quality=QUALITY, optimize=True)
    return output.getvalue()


def this_project() -> tuple[Transform, str]:
    from lambda_function.image_transform import transform_id, transform_image

    return transform_image, transform_id()


def pillow_simd() -> tuple[Transform, str]:
    """This project's transform on a Pillow whose resizing uses SIMD instructions."""
    import PIL

    if "post" not in PIL.__version__:  # pillow-simd's versions are Pillow's, with .post0
        raise ImportError(f"Pillow {PIL.__version__} is not pillow-simd")
    return this_project()


def pyvips_thumbnail() -> tuple[Transform, str]:
    import pyvips

    pyvips.cache_set_max(0)  # the same picture comes again and again

    def transform(data: bytes) -> bytes:
        small = pyvips.Image.thumbnail_buffer(data, WIDTH, height=HEIGHT, size="force")
        return saved_by_vips(small)

    return transform, vips_version()


def pyvips_full_shrink() -> tuple[Transform, str]:
    """thumbnail() leaves a factor of 2 between decoding and its target; this does not."""
    import pyvips

    pyvips.cache_set_max(0)

    def transform(data: bytes) -> bytes:
        whole = pyvips.Image.jpegload_buffer(data, access="sequential")
        most = min(whole.width // WIDTH, whole.height // HEIGHT)
        shrink = next((n for n in (8, 4, 2) if n <= most), 1)
        image = pyvips.Image.jpegload_buffer(data, access="sequential", shrink=shrink)
        return saved_by_vips(image.thumbnail_image(WIDTH, height=HEIGHT, size="force"))

    return transform, vips_version()


def saved_by_vips(image) -> bytes:
    return image.jpegsave_buffer(Q=QUALITY, optimize_coding=True, subsample_mode="on", keep="none")


def vips_version() -> str:
    import pyvips

    return "libvips " + ".".join(str(pyvips.version(part)) for part in range(3))


def imagemagick() -> tuple[Transform, str]:
    from wand.image import Image
    from wand.version import MAGICK_VERSION_INFO

    def transform(data: bytes) -> bytes:
        with Image() as image:
            image.options["jpeg:size"] = f"{WIDTH}x{HEIGHT}"  # decode at a reduced scale
            image.read(blob=data)
            image.resize(WIDTH, HEIGHT)
            image.strip()
            image.compression_quality = QUALITY
            image.options["jpeg:sampling-factor"] = "4:2:0"
            image.options["jpeg:optimize-coding"] = "true"
            return image.make_blob("jpeg")

    return transform, "ImageMagick " + ".".join(str(part) for part in MAGICK_VERSION_INFO[:3])


def opencv() -> tuple[Transform, str]:
    """With simplejpeg's decoder: its scales lie closer than those of IMREAD_REDUCED_COLOR.

    Area interpolation, as the manual advises for shrinking: cubic does not average, and is faster
    and better near the target's size but worse than any here further from it.
    """
    import cv2
    import simplejpeg

    cv2.setNumThreads(1)
    options = [cv2.IMWRITE_JPEG_QUALITY, QUALITY, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
    options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420]

    def transform(data: bytes) -> bytes:
        pixels = simplejpeg.decode_jpeg(data, "BGR", min_width=WIDTH, min_height=HEIGHT)
        shrinks = pixels.shape[0] > HEIGHT or pixels.shape[1] > WIDTH
        how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
        small = cv2.resize(pixels, (WIDTH, HEIGHT), interpolation=how)
        return cv2.imencode(".jpg", small, options)[1].tobytes()

    return transform, f"OpenCV {cv2.__version__}, simplejpeg {simplejpeg.__version__}"


def ceiling() -> tuple[Transform, str]:
    """libjpeg-turbo decodes at a reduced scale and encodes a picture that was ready."""
    import simplejpeg
    from PIL import Image

    ready = {}

    def transform(data: bytes) -> bytes:
        simplejpeg.decode_jpeg(data, min_width=WIDTH, min_height=HEIGHT)
        if data not in ready:
            with Image.open(io.BytesIO(data)) as image:
                ready[data] = image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
        return saved(ready[data])

    return transform, f"simplejpeg {simplejpeg.__version__}"


COMPETITORS = {
    "plain Pillow": plain_pillow,
    "this project": this_project,
    "pillow-simd": pillow_simd,
    "pyvips thumbnail": pyvips_thumbnail,
    "pyvips full shrink": pyvips_full_shrink,
    "ImageMagick": imagemagick,
    "OpenCV": opencv,
    "ceiling": ceiling,
}


def main(name: str) -> None:
    transform, version = COMPETITORS[name]()
    print(version, flush=True)
    pictures = {}
    for line in sys.stdin:
        task = json.loads(line)
        for path in task["pictures"]:
            if path not in pictures:
                pictures[path] = Path(path).read_bytes()
        begin = time.process_time()
        for _ in range(task["repeat"]):
            for path in task["pictures"]:
                output = transform(pictures[path])
                if task["folder"]:
                    Path(task["folder"], Path(path).name).write_bytes(output)
        print(time.process_time() - begin, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
