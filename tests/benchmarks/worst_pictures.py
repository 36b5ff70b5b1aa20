"""How much memory and processor time the worst pictures take, each in a process of its own.

The pictures are as large as the limits of lambda_function/image_transform.py admit, or beyond; the
process has loaded what the Lambda function has. Prints a line for each, and exits 1 when one takes
more memory than the function has by default.

    python tests/benchmarks/worst_pictures.py
    python tests/benchmarks/worst_pictures.py --only "PNG, colour key" "many scans"
"""

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: the project is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import argparse
import functools
import io
import os
import random
import struct
import subprocess
import tempfile

import numpy as np
import tifffile
from hostile_corpus import SEED, encoded, icon, many_scans, png, png_chunk
from PIL import Image

from lambda_function.image_transform import (
    MAX_BYTES,
    MAX_COEFFICIENTS,
    MAX_PIXELS,
    MAX_PIXELS_OF,
    MAX_STORED_PIXELS,
)
from metrics.common.cli import DONE, FAILED, run_script, script_parser, some_path
from metrics.common.paths import PROJECT
from metrics.common.streams import start_script

FUNCTION_MB = 1769  # the template's default memory
MAX_PICTURE = (12_000, MAX_PIXELS // 12_000)
MAX_JPEG = (20_000, MAX_STORED_PIXELS // 20_000)  # to be decoded at a reduced scale
MAX_CMYK = (13_200, MAX_COEFFICIENTS // 4 // 13_200)  # progressive
MAX_INSIDE = (13_370, 13_370)  # a picture in an icon
WORKER = """
import pathlib, sys
from lambda_function import handler
handler.client("s3")
handler.warm_up()
measured = handler.measure_picture(pathlib.Path(sys.argv[1]).read_bytes(), "")
status = pathlib.Path("/proc/self/status").read_text()
peak_mb = int(status.partition("VmHWM:")[2].split()[0]) // 1024
print(peak_mb, measured.cpu_ms / 1000, measured.error or "a picture")
"""


def blotches(mode: str, size: tuple[int, int] = MAX_PICTURE) -> Image.Image:
    """Blocks of random colour: not flat, and quickly encoded."""
    side = 300
    data = random.Random(SEED).randbytes(side * side * len(Image.new(mode, (1, 1)).getbands()))
    return Image.frombytes(mode, (side, side), data).resize(size, Image.Resampling.NEAREST)


def of_format(kind: str) -> tuple[int, int]:
    return 8_000, MAX_PIXELS_OF[kind] // 8_000


def wide_png(bits: int, colour: int, samples: int, extra: bytes = b"") -> bytes:
    row = 1 + -(-MAX_PICTURE[0] * bits * samples // 8)
    return png(*MAX_PICTURE, bits, colour, bytes(row * MAX_PICTURE[1]), extra)


def animated(kind: str, size: tuple[int, int], **options: object) -> bytes:
    mode = "P" if kind == "GIF" else "RGBA"
    others = [Image.new(mode, size, 1)]
    return encoded(Image.new(mode, size), kind, save_all=True, append_images=others, **options)


def tiff(mode: str, size: tuple[int, int] = MAX_PICTURE, **options: object) -> bytes:
    return encoded(Image.new(mode, size), "TIFF", compression="tiff_adobe_deflate", **options)


def integers() -> bytes:
    """Unsigned, which Pillow cannot write."""
    file = io.BytesIO()
    tifffile.imwrite(
        file, np.full(MAX_PICTURE[::-1], 2**31, "u4"), compression="zlib", metadata=None
    )
    return file.getvalue()


PALETTE = png_chunk(b"PLTE", bytes(768)) + png_chunk(b"tRNS", b"\0")
ONE_STRIP = {"strip_size": 2**31 - 1}
LOSSLESS = {"lossless": True, "quality": 0, "method": 0}
TALL = (1599, 65_500)  # a JPEG that is not decoded at a reduced scale
PICTURES = {
    "PNG, RGBA": lambda: wide_png(8, 6, 4),
    "PNG, LA": lambda: wide_png(8, 4, 2),
    "PNG, 16-bit RGBA": lambda: wide_png(16, 6, 4),
    "PNG, 16-bit grey key": lambda: wide_png(16, 0, 1, png_chunk(b"tRNS", bytes(2))),
    "PNG, colour key": lambda: wide_png(8, 2, 3, png_chunk(b"tRNS", bytes(6))),
    "PNG, palette with alpha": lambda: wide_png(8, 3, 1, PALETTE),
    "PNG, 1,000,000 rows": lambda: png(120, 1_000_000, 8, 6, bytes(481 * 1_000_000)),
    "PNG, animated": functools.partial(animated, "PNG", MAX_PICTURE, compress_level=1),
    "TIFF, float": functools.partial(tiff, "F"),
    "TIFF, float, one strip": functools.partial(tiff, "F", **ONE_STRIP),
    "TIFF, integers": integers,
    "TIFF, CMYK, one strip": functools.partial(tiff, "CMYK", **ONE_STRIP),
    "TIFF, palette with alpha": functools.partial(tiff, "PA"),
    "TIFF, float, uncompressed": lambda: encoded(
        Image.new("F", (10_000, MAX_BYTES // 40_000 - 1)), "TIFF"
    ),
    "JPEG, CMYK": lambda: encoded(blotches("CMYK", TALL), "JPEG"),
    "JPEG, CMYK, progressive": lambda: encoded(blotches("CMYK", TALL), "JPEG", progressive=True),
    "JPEG, CMYK, progressive, reduced": lambda: encoded(
        blotches("CMYK", MAX_CMYK), "JPEG", progressive=True
    ),
    "GIF, animated, transparent": functools.partial(animated, "GIF", MAX_PICTURE, transparency=0),
    "WebP, lossless": lambda: encoded(blotches("RGBA", of_format("WEBP")), "WEBP", **LOSSLESS),
    "WebP, lossy, alpha": lambda: encoded(blotches("RGBA", of_format("WEBP")), "WEBP", method=0),
    "WebP, animated": lambda: animated("WEBP", of_format("WEBP"), method=0),
    "AVIF, alpha": lambda: encoded(blotches("RGBA", of_format("AVIF")), "AVIF", speed=10),
    "JPEG 2000": lambda: encoded(blotches("RGBA", of_format("JPEG2000")), "JPEG2000"),
    "JPEG 2000, one resolution": lambda: encoded(
        blotches("RGBA", of_format("JPEG2000")), "JPEG2000", num_resolutions=1
    ),
    "TGA": lambda: encoded(Image.new("RGBA", MAX_PICTURE), "TGA", compression="tga_rle"),
    "SGI": lambda: encoded(Image.new("RGBA", (10_000, MAX_BYTES // 40_000 - 1)), "SGI"),
    "JPEG, reduced": lambda: encoded(blotches("RGB", MAX_JPEG), "JPEG"),
    "JPEG, progressive, reduced": lambda: encoded(
        blotches("RGB", MAX_JPEG), "JPEG", progressive=True
    ),
    "icon with a large PNG": lambda: icon(
        png(*MAX_INSIDE, 8, 6, bytes(MAX_INSIDE[1] * (1 + 4 * MAX_INSIDE[0])))
    ),
    "QOI": lambda: b"qoif" + struct.pack(">IIBB", *MAX_PICTURE, 4, 0) + bytes(MAX_PIXELS),
    "DDS": lambda: encoded(Image.new("RGBA", (10_000, MAX_BYTES // 40_000 - 1)), "DDS"),
    "plain PPM": lambda: b"P3 10000 5000 255\n" + 150_000_000 * b"0 ",
    "many scans": lambda: many_scans(*MAX_JPEG, 600),
}


def main(argv: list[str] | None = None) -> int:
    parser = script_parser(__doc__)
    parser.add_argument("--only", nargs="+", choices=PICTURES, default=list(PICTURES))
    parser.add_argument("--make", type=some_path, help=argparse.SUPPRESS)
    return run_script(run, parser.parse_args(argv))


def run(args: argparse.Namespace) -> int:
    if args.make:
        Image.MAX_IMAGE_PIXELS = None
        with args.make.open("xb") as file:  # never over a file that is there
            file.write(PICTURES[args.only[0]]())
        return DONE
    code = DONE
    print(f"{'picture':34}{'file MB':>10}{'peak MB':>10}{'CPU s':>8}  outcome")
    for name in args.only:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "picture")
            make = [sys.executable, __file__, "--only", name, "--make", str(path)]
            subprocess.run(make, check=True)
            peak_mb, cpu_s, outcome = measure(path)
            code = code if peak_mb < FUNCTION_MB else FAILED
            size_mb = path.stat().st_size / 1e6
            print(f"{name:34}{size_mb:10.1f}{peak_mb:10}{cpu_s:8.1f}  {outcome}", flush=True)
    return code


def measure(path: Path) -> tuple[int, float, str]:
    done = subprocess.run(
        [sys.executable, "-c", WORKER, str(path)],
        cwd=PROJECT,
        env={**os.environ, "AWS_DEFAULT_REGION": "us-east-1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    peak_mb, cpu_s, outcome = done.stdout.strip().split(" ", 2)
    return int(peak_mb), float(cpu_s), outcome


if __name__ == "__main__":
    sys.exit(start_script(main))
