"""A profile from a run of one's own: held against a simulated AWS whose truth is known."""

from dataclasses import replace

import numpy as np
import pytest
from secret_cloud import KERNEL_HERE_MS, SecretCloud

from metrics.analysis.aws_profile import load_profile, profile_to_toml
from metrics.analysis.calibration import Calibration
from metrics.analysis.forecast import forecast
from metrics.analysis.forecast_fit import fit_profile
from metrics.analysis.forecast_inputs import Pictures, Settings
from metrics.common.cli import UserError

PUBLISHED = load_profile()
HERE = Calibration(KERNEL_HERE_MS, 0.02, "a machine")
SEEDS = range(40)
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


def one_run(seed: int = 1, **fields):
    cloud = SecretCloud(seed)
    pictures = cloud.pictures(16)
    return cloud, pictures, cloud.run(pictures, **fields)


def test_a_fitted_profile_is_written_and_read_as_the_same(tmp_path):
    _, _, run = one_run()
    profile = fit_profile(PUBLISHED, HERE, *run)
    path = tmp_path / "own.toml"
    path.write_bytes(profile_to_toml(profile))
    assert load_profile(path) == profile


def test_a_fitted_profile_is_far_narrower_than_the_published_one():
    _, pictures, run = one_run()
    own = fit_profile(PUBLISHED, HERE, *run)
    wide, narrow = (
        forecast(profile, HERE, of(pictures), worlds=400).transform_ms
        for profile in (PUBLISHED, own)
    )
    assert wide.high / wide.low > 4
    assert narrow.high / narrow.low < 1.4


def test_what_the_run_tells_takes_the_published_place_and_names_the_run():
    cloud, _, run = one_run()
    profile = fit_profile(PUBLISHED, HERE, *run)
    facts = profile.facts
    ratio = facts["kernel_ms_x86_64"].value / (
        KERNEL_HERE_MS * facts["kernel_picture_factor"].value
    )
    assert ratio == pytest.approx(cloud.ratio, rel=0.1)
    assert facts["event_ms"].value == pytest.approx(cloud.event, rel=0.1)
    for name in ("kernel_ms_x86_64", "event_ms", "fetch_net_ms", "store_net_ms", "init_ms_x86_64"):
        assert "--fit-profile" in facts[name].source, name
        assert facts[name].date == "2026-11-25"
    for name in ("scaling_start", "memory_rule_x86_64", "kernel_ms_arm64"):
        assert facts[name] == PUBLISHED.facts[name]
    assert profile.about.state == "own run"
    assert profile.about.memory_mb == [1769.0, 1769.0]


def test_beside_another_machine_or_for_another_job_it_is_as_wide_as_published():
    _, pictures, run = one_run()
    own = fit_profile(PUBLISHED, HERE, *run)
    elsewhere = Calibration(KERNEL_HERE_MS, 0.02, "another machine")
    other_job = replace(of(pictures), transform="v9")
    for here, job in ((elsewhere, of(pictures)), (HERE, other_job)):
        found = forecast(own, here, job, worlds=400)
        assert found.transform_ms.high / found.transform_ms.low > 4
        assert any("another machine, or with another job" in note for note in found.notes)
    assert not any("another" in note for note in forecast(own, HERE, of(pictures)).notes)


def test_other_memory_sizes_than_the_run_s_are_said_to_be_extrapolated():
    _, pictures, run = one_run()
    own = fit_profile(PUBLISHED, HERE, *run)
    notes = forecast(own, HERE, of(pictures), settings=Settings(memory_mb=512), worlds=50).notes
    assert any("512 MB of memory is beyond" in note for note in notes)


def test_what_was_measured_too_seldom_stays_as_published():
    cloud = SecretCloud(2)
    on_prem, run = cloud.run(cloud.pictures(16), cold=2)
    few = replace(run, event_ms=run.event_ms[:3], upload_ms=np.array([]), invocations=None)
    facts = fit_profile(PUBLISHED, HERE, on_prem, few).facts
    for name in ("event_ms", "upload_request_ms", "init_ms_x86_64", "first_call_net_ms"):
        assert facts[name] == PUBLISHED.facts[name], name


def test_too_few_pictures_or_several_memory_sizes_are_one_line():
    cloud = SecretCloud(3)
    on_prem, run = cloud.run(cloud.pictures(5))
    with pytest.raises(UserError, match="5 pictures were done in both arms; it takes 8"):
        fit_profile(PUBLISHED, HERE, on_prem, run)
    on_prem, run = cloud.run(cloud.pictures(16))
    run.rows.loc[:9, "memory_mb"] = 512
    with pytest.raises(UserError, match="2 memory sizes"):
        fit_profile(PUBLISHED, HERE, on_prem, run)
