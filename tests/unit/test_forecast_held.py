"""A forecast held against a measured run."""

import numpy as np
import pytest
from secret_cloud import KERNEL_HERE_MS, SecretCloud
from test_forecast_fit import PUBLISHED, of

from metrics.analysis.calibration import Calibration
from metrics.analysis.forecast import forecast
from metrics.analysis.forecast_fit import fit_profile
from metrics.analysis.forecast_held import HeldPart, held_against, held_lines
from metrics.analysis.forecast_inputs import Settings

HERE = Calibration(KERNEL_HERE_MS, 0.02, "a machine")


def held(seed: int, profile=None) -> tuple[list[HeldPart], SecretCloud]:
    cloud = SecretCloud(seed)
    pictures = cloud.pictures(16)
    on_prem, run = cloud.run(pictures)
    profile = profile or fit_profile(PUBLISHED, HERE, on_prem, run)
    found = forecast(profile, HERE, of(pictures), settings=Settings(uplink_mbit_s=100), worlds=300)
    init_ms = run.invocations["init_ms"].to_numpy()
    return held_against(
        found, run.rows, [found.job_s["from here"].value], run.event_ms, init_ms[init_ms > 0]
    ), cloud


def test_a_profile_of_the_same_run_agrees_with_it_in_every_part():
    for part in held(1)[0]:
        assert abs(part.error) < 0.12, part.name
        assert part.is_inside, part.name


def test_each_part_has_its_own_error():
    parts, cloud = held(1, PUBLISHED)
    errors = {part.name: part.error for part in parts}
    expected = PUBLISHED["event_ms"] / cloud.event - 1
    assert errors["event, ms"] == pytest.approx(expected, abs=0.15)
    assert set(errors) >= {"transform, ms", "fetch, ms", "store, ms", "cold start, ms"}
    lines = held_lines(parts)
    assert len(lines) == 1 + len(parts)
    assert all(len(line) <= 80 for line in lines)


def test_what_the_run_does_not_tell_is_left_out():
    cloud = SecretCloud(2)
    pictures = cloud.pictures(16)
    _, run = cloud.run(pictures, cold=0)
    found = forecast(PUBLISHED, HERE, of(pictures), worlds=50)
    parts = held_against(found, run.rows, [], np.array([]), np.array([]))
    assert [part.name for part in parts] == ["fetch, ms", "store, ms", "transform, ms"]
    assert held_lines([]) == [
        "the forecast cannot be held against this run: it has no times of AWS"
    ]
