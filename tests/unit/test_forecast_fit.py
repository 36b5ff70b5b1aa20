"""A profile from a run of one's own: held against a simulated AWS whose truth is known."""

import numpy as np
import pytest
from secret_cloud import KERNEL_HERE_MS, SecretCloud

from metrics.analysis.aws_profile import load_profile
from metrics.analysis.calibration import Calibration
from metrics.analysis.forecast import forecast
from metrics.analysis.forecast_fit import fit_profile
from metrics.analysis.forecast_inputs import Pictures, Settings

PUBLISHED = load_profile()
HERE = Calibration(KERNEL_HERE_MS, 0.02, "a machine")
SEEDS = range(60)
SIZES = (512, 1024, 1769, 3008)


def of(pictures: dict) -> Pictures:
    is_jpeg = np.ones(len(pictures["cpu_ms"]), bool)
    return Pictures(*(pictures[k] for k in ("cpu_ms", "orig_size", "new_size")), is_jpeg, "v1")


def forecast_of_500(cloud: SecretCloud, profile, pictures: dict):
    return forecast(profile, HERE, of(pictures), settings=Settings(), worlds=300)


@pytest.fixture(scope="module")
def held_against_truth() -> dict[str, np.ndarray]:
    """Fitted from 16 pictures with 1,769 MB, and then for 500 others: forecast / truth, and whether
    the interval holds it. By quantity, of each seed."""
    found = {}
    for seed in SEEDS:
        cloud = SecretCloud(seed)
        profile = fit_profile(PUBLISHED, HERE, *cloud.run(cloud.pictures(16)))
        later = cloud.pictures(500)
        said = forecast_of_500(cloud, profile, later)
        by_size = {point.memory_mb: point for point in said.memory.points}
        for size in SIZES:
            handler_ms, job_s = cloud.later(later, size)
            one = by_size[size]
            for name, interval, truth in (
                (f"picture, {size} MB", one.handler_ms, handler_ms),
                (f"job, {size} MB", one.job_s, job_s),
            ):
                inside = interval.low <= truth <= interval.high
                found.setdefault(name, []).append((interval.value / truth, inside))
    return {name: np.array(values, float) for name, values in found.items()}


def test_from_16_pictures_500_others_and_other_memory_sizes_are_forecast_within_10_percent(
    held_against_truth,
):
    for name, values in held_against_truth.items():
        assert np.median(np.abs(values[:, 0] - 1)) < 0.10, name


def test_the_intervals_of_a_fitted_profile_hold_the_truth_in_90_to_99_percent(held_against_truth):
    inside = np.concatenate([values[:, 1] for values in held_against_truth.values()])
    assert 0.90 <= inside.mean() <= 0.99
    for kind in ("picture", "job"):
        own = [v[:, 1] for name, v in held_against_truth.items() if name.startswith(kind)]
        assert np.concatenate(own).mean() >= 0.90, kind


if __name__ == "__main__":
    for name, values in held_against_truth.__wrapped__().items():
        print(
            name, np.median(np.abs(values[:, 0] - 1)), np.median(values[:, 0]), values[:, 1].mean()
        )
