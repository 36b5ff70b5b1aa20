"""The benchmark of the transform: it runs with nothing installed, and its measures are right."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from metrics.common.paths import PROJECT
from tests.benchmarks.kernel import kind, psnr, ssim

SHADES = np.random.default_rng(1).integers(0, 256, (60, 80, 3), np.uint8)


def grey(level: int) -> Image.Image:
    return Image.new("RGB", (80, 60), (level, level, level))


def jpeg(**options: object) -> Image.Image:
    output = io.BytesIO()
    Image.fromarray(SHADES).save(output, "JPEG", **options)
    return Image.open(output)


def test_it_compares_with_plain_pillow_and_names_absent_peers(tmp_path):
    chart = tmp_path / "chart.png"
    command = [sys.executable, "tests/benchmarks/kernel.py", "--quick", "--output", str(chart)]
    command += ["--peers", str(tmp_path), "--only", "this project", "pillow-simd", "ceiling"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "absent: pillow-simd: ImportError: Pillow" in done.stderr
    assert "absent: ceiling: ModuleNotFoundError" in done.stderr
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines()]
    speed, clock_speed, quality = (row[1:] for row in rows if row[0] == "this project")
    assert all(float(cell.split()[0]) > 0 for cell in (*speed, *clock_speed))
    plain = next(row[1:] for row in reversed(rows) if row[0] == "plain Pillow")
    assert quality[0] == plain[0]  # at 0.1 megapixel: the same bytes
    assert quality[1] != plain[1]
    assert Image.open(chart).width > 900


def test_ssim_is_one_for_the_same_picture_and_follows_its_formula_for_flat_ones():
    picture = Image.fromarray(SHADES)
    assert ssim(picture, picture) == pytest.approx(1)
    c1 = 6.5025
    luminance = (2 * 100 * 150 + c1) / (100**2 + 150**2 + c1)
    assert ssim(grey(100), grey(150)) == pytest.approx(luminance)


def test_psnr_follows_its_formula():
    assert psnr(grey(100), grey(110)) == pytest.approx(28.13, abs=0.01)  # 20 log10(255 / 10)


def test_jpegs_of_another_quality_or_subsampling_are_of_another_kind():
    same = kind(jpeg(quality=80))
    assert kind(jpeg(quality=80, optimize=True)) == same
    assert kind(jpeg(quality=81)) != same
    assert kind(jpeg(quality=80, subsampling="4:4:4")) != same
