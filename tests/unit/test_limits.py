"""What one picture may take: pixels, bytes, memory and processor time, and never the worker."""

import contextlib
import math
import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from conftest import jpeg
from hostile_corpus import encoded, iptc, many_scans, png, png_chunk, quarters
from PIL import EpsImagePlugin, Image

from lambda_function import image_transform, limits
from lambda_function.image_transform import (
    MAX_BYTES,
    MAX_PIXELS,
    MAX_PIXELS_OF,
    UnreadableImage,
    measure_transform,
    transform_image,
)
from lambda_function.limits import TooSlow
from metrics.analysis.output_equivalence import PixelDifference, compare_pixels
from metrics.common.paths import PROJECT

pytestmark = pytest.mark.filterwarnings("ignore")  # of Pillow's, about large pictures
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="limits and /proc of Linux")
FUNCTION_MB = 1769  # the template's default memory
AT_REST_MB = 100  # of a Lambda environment before its first picture; here it has no boto3
PEAK = """
import pathlib, sys
from lambda_function.image_transform import measure_transform, warm_up
warm_up()
error = measure_transform(pathlib.Path(sys.argv[1]).read_bytes()).error
status = pathlib.Path("/proc/self/status").read_text()
print(int(status.partition("VmHWM:")[2].split()[0]) // 1024, error)
"""
# Lossless and transparent in 34 bytes: of 12,000 x 10,000 pixels (2,349 MB decoded), and 8,000².
WEBP_120 = bytes.fromhex("524946461a000000574542505650384c0d0000002fdfeec319071011118888fe0700")
WEBP_64 = bytes.fromhex("524946461a000000574542505650384c0d0000002f3fdfcf17071011118888fe0700")


def peak_mb(data: bytes, folder: Path) -> tuple[int, str]:
    """Largest memory of a fresh process that processes `data`, and the error."""
    (folder / "picture").write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(folder / "picture")],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    peak, _, error = done.stdout.strip().partition(" ")
    return int(peak), error


def colour_key_png(width: int, height: int) -> bytes:
    """Of all that Pillow holds uncompressed, what takes the most for each pixel."""
    key = png_chunk(b"tRNS", bytes(6))
    return png(width, height, 8, 2, bytes(height * (1 + 3 * width)), key)


# --- pixels and bytes -----------------------------------------------------------------------------


@linux_only
@pytest.mark.parametrize(
    "make",
    [lambda: colour_key_png(12_000, 10_000), lambda: WEBP_64],
    ids=["PNG", "WebP"],
)
def test_the_worst_picture_that_is_admitted_fits_the_functions_memory(make, tmp_path):
    peak, error = peak_mb(make(), tmp_path)
    assert error == ""
    assert 900 < peak + AT_REST_MB < FUNCTION_MB  # below 900: no bad case any more


@linux_only
@pytest.mark.parametrize(
    "make",
    [
        lambda: WEBP_120,
        lambda: png(1, 30_000_000, 1, 0, bytes(60_000_000)),
        lambda: png(60_000_000, 1, 1, 0, bytes(7_500_001)),
    ],
    ids=["WebP", "narrow", "wide"],
)
def test_what_is_refused_by_its_header_takes_no_memory(make, tmp_path):
    # Each takes 1,900 MB and more when the limit is lifted.
    peak, error = peak_mb(make(), tmp_path)
    assert error.endswith("pixels are too many to decode")
    assert peak < 300


@pytest.mark.parametrize("kind", MAX_PIXELS_OF)
def test_formats_whose_decoders_hold_copies_have_a_limit_of_their_own(kind, monkeypatch):
    assert MAX_PIXELS_OF[kind] < MAX_PIXELS
    data = encoded(quarters(), kind)
    transform_image(data)
    monkeypatch.setitem(image_transform.MAX_PIXELS_OF, kind, 64 * 48 - 1)
    with pytest.raises(UnreadableImage, match="64x48 pixels are too many"):
        transform_image(data)


def test_a_file_that_is_too_large_to_be_read_is_an_error_with_a_number():
    measured = measure_transform(None)
    assert measured.output is None
    assert f"{MAX_BYTES:,} bytes" in measured.error


# --- memory ---------------------------------------------------------------------------------------


MEMORY_PROGRAM = """
import resource, sys
from lambda_function import limits
from lambda_function.image_transform import measure_transform
data, before = sys.stdin.buffer.read(), resource.getrlimit(resource.RLIMIT_DATA)
real, limits.MAX_MEMORY = limits.MAX_MEMORY, 60 * 2**20
print(measure_transform(data).error)
limits.MAX_MEMORY = real
print(resource.getrlimit(resource.RLIMIT_DATA) == before, repr(measure_transform(data).error))
"""


@linux_only
def test_memory_beyond_the_limit_is_an_error_and_the_worker_lives_on():
    command = [sys.executable, "-c", MEMORY_PROGRAM]  # of its own: this one has memory to spare
    done = subprocess.run(
        command, cwd=PROJECT, input=colour_key_png(5000, 5000), capture_output=True, timeout=60
    )
    refused, after = done.stdout.decode().splitlines()
    assert refused.startswith("UnreadableImage: decoding it takes more than")
    assert after == "True ''"


@linux_only
def test_the_limit_is_on_what_is_added_and_counts_the_file(monkeypatch):
    # In amounts that are no rest of what earlier tests gave back.
    monkeypatch.setattr(limits, "MAX_MEMORY", 2**30)
    with limits.limits(0):
        assert bytearray(2**29)
    with limits.limits(2**30 - 2**20), pytest.raises(MemoryError):
        bytearray(2**29)


@linux_only
def test_a_lower_limit_of_the_users_stays(monkeypatch):
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    lower = limits._private_bytes() + 500 * 2**20
    resource.setrlimit(resource.RLIMIT_DATA, (lower, hard))
    try:
        with limits.limits(0):
            assert resource.getrlimit(resource.RLIMIT_DATA) == (lower, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


# --- processor time -------------------------------------------------------------------------------


def test_a_small_file_that_takes_for_ever_is_an_error_and_the_worker_lives_on(monkeypatch):
    before = signal.getsignal(signal.SIGALRM)
    with monkeypatch.context() as patch:
        patch.setattr(limits, "MAX_CPU_S", 0.1)
        patch.setattr(limits, "LOOK_AGAIN_S", 0.05)
        measured = measure_transform(many_scans(13_370, 13_370, 400))  # 6 s otherwise
    assert measured.error == "UnreadableImage: it takes more than 0.1 s of processor time, or 50 s"
    assert measured.output is None
    assert measured.cpu_ms >= 100
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    assert signal.getsignal(signal.SIGALRM) == before
    assert measure_transform(jpeg()).error == ""


def test_time_that_others_take_does_not_count():
    with limits.limits(0):
        signal.raise_signal(signal.SIGALRM)  # as after 40 s in which this process did nothing


def test_no_error_handler_on_the_way_swallows_the_alarm():
    assert not issubclass(TooSlow, Exception)


def test_a_picture_may_be_processed_in_another_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(measure_transform(jpeg())))
    thread.start()
    thread.join()
    assert found[0].error == ""


def test_one_picture_takes_one_processor():
    assert image_transform.AvifImagePlugin.DEFAULT_MAX_THREADS == 1


# --- programs -------------------------------------------------------------------------------------


@pytest.fixture
def ghostscript(tmp_path, monkeypatch) -> Path:
    """A `gs` on the path that leaves a mark when it is run to draw something; the mark."""
    mark = tmp_path / "mark"
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "gs"
    program.write_text(f'#!/bin/sh\n[ "$1" = --version ] || : > {mark}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    return mark


def eps_of_an_outputs_size() -> bytes:
    return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 800 600\n%%EndComments\nshowpage\n"


@pytest.mark.parametrize(
    "wrap", [bytes, iptc, lambda eps: iptc(iptc(eps))], ids=["EPS", "in IPTC", "twice"]
)
def test_no_picture_starts_a_program(ghostscript, tmp_path, wrap):
    eps = wrap(eps_of_an_outputs_size())
    with pytest.raises(UnreadableImage, match="not a picture"):
        transform_image(eps)
    assert compare_pixels(eps, eps) == PixelDifference(0.0, 255)
    assert not ghostscript.exists()
    (tmp_path / "picture").write_bytes(eps)
    with contextlib.suppress(OSError), Image.open(tmp_path / "picture") as image:
        image.load()
    assert ghostscript.exists()  # as Pillow by itself does


def test_an_output_that_is_larger_than_outputs_are_is_not_decoded():
    large = encoded(quarters(801, 600), "JPEG")
    assert compare_pixels(large, large) == PixelDifference(0.0, 255)
    right = encoded(quarters(800, 600), "JPEG")
    assert compare_pixels(right, right) == PixelDifference(math.inf, 0)
