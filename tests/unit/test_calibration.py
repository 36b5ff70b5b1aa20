"""The calibration: its kernel and picture, and what makes it doubtful."""

import io
import json
import math
from dataclasses import asdict, replace

import pytest
from PIL import Image

from metrics.analysis import calibration
from metrics.analysis.calibration import (
    PICTURE_SIZE,
    KernelSample,
    calibration_from,
    calibration_of,
    kernel_picture,
    run_kernel,
    sample_kernel,
)

GOOD = KernelSample(2, 30, 31.0, 31.0, 1.0, 0.0, 0.0)


def test_the_picture_has_sebs_s_size_and_about_its_bytes():
    data = kernel_picture()
    assert Image.open(io.BytesIO(data)).size == PICTURE_SIZE == (3648, 5472)
    assert len(data) == pytest.approx(2_191_330, rel=0.1)


def test_the_same_scene_is_the_same_bytes_again():
    assert kernel_picture.__wrapped__() == kernel_picture()


def test_the_kernel_makes_a_thumbnail_within_200x200():
    made = Image.open(io.BytesIO(run_kernel(kernel_picture())))
    assert made.format == "JPEG"
    assert made.size == (133, 200)


def test_a_sample_takes_the_least_of_several_and_tells_how_many(monkeypatch):
    clock = iter([0.0, 0.040, 1.0, 1.030, 2.0, 2.035])  # processor seconds
    monkeypatch.setattr(calibration.time, "thread_time", lambda: next(clock))
    found = sample_kernel(1, seconds=0)
    assert found.repeats == 3
    assert found.kernel_ms == pytest.approx(30)
    assert found.typical_ms == pytest.approx(35)


def test_a_sample_uses_no_more_threads_than_there_are_processors(monkeypatch):
    monkeypatch.setattr(calibration, "available_cpus", lambda: 2)
    assert sample_kernel(64, seconds=0).workers == 2


def test_the_least_of_begin_and_end_counts():
    found = calibration_of([GOOD, replace(GOOD, kernel_ms=30.5, typical_ms=30.5)], "a machine")
    assert found.kernel_ms == 30.5
    assert found.machine == "a machine"
    assert found.warnings == ()


@pytest.mark.parametrize(
    ("disturbed", "warning"),
    [
        ({"kernel_ms": 40.0, "typical_ms": 40.0}, "differ by 29% between begin and end"),
        ({"wall_by_cpu": 2.0}, "had the processor for 50% of its time only"),
        ({"throttled_ms": 120.0}, "a quota held the calibration's processors back (120 ms)"),
    ],
)
def test_what_disturbs_is_said_and_widens_the_interval(disturbed, warning):
    calm, found = calibration_of([GOOD]), calibration_of([GOOD, replace(GOOD, **disturbed)])
    assert len(found.warnings) == 1
    assert warning in found.warnings[0]
    assert found.log_sd > calm.log_sd + 0.02
    assert found.kernel_ms == calm.kernel_ms


def test_times_that_spread_within_a_sample_widen_the_interval():
    spread = replace(GOOD, typical_ms=34.1)
    assert calibration_of([spread]).log_sd > math.log(1.1) / 2 > calibration_of([GOOD]).log_sd


def test_a_calibration_is_read_back_from_json_as_it_was():
    found = calibration_of([GOOD, replace(GOOD, wall_by_cpu=2.0)], "a machine")
    assert calibration_from(json.loads(json.dumps(asdict(found)))) == found


@pytest.mark.parametrize(
    "wrong",
    [
        {"kernel_ms": 0},
        {"kernel_ms": "31"},
        {"kernel_ms": True},
        {"kernel_ms": math.nan},
        {"log_sd": 1e9},
        {"machine": 3},
        {"warnings": "text"},
        {"warnings": [3]},
        {"more": 1},
    ],
)
def test_what_no_calibration_gives_is_refused(wrong):
    content = asdict(calibration_of([GOOD], "a machine")) | wrong
    with pytest.raises(ValueError, match=r"calibration|warnings"):
        calibration_from(content)
    with pytest.raises(ValueError, match="no calibration"):
        calibration_from([content])
