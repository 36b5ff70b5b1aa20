"""The interval's promises in simulated experiments: a reduced form of the full benchmark."""

from dataclasses import replace

import numpy as np
import pytest

from tests.benchmarks import interval_coverage
from tests.benchmarks.interval_coverage import (
    TRUE_RATIO,
    Outcome,
    _log_slowness,
    estimates,
    failures,
    outcome,
)

EXPERIMENTS = 400


@pytest.mark.parametrize("rounds", [1, 3, 4])
@pytest.mark.parametrize("pictures", [20, 100])
def test_the_interval_covers_the_truth_and_power_is_as_claimed(pictures, rounds):
    result = outcome(1, EXPERIMENTS, pictures, rounds)
    assert failures(result, EXPERIMENTS, rounds) == []


def test_an_interval_over_pictures_alone_covers_far_less_than_promised():
    rng = np.random.default_rng(1)
    covered = [
        one.low <= TRUE_RATIO <= one.high
        for one in (
            replace(e, v_rounds=0.0) for e in estimates(rng, EXPERIMENTS, 100, 3, TRUE_RATIO)
        )
    ]
    broken = Outcome(np.mean(covered), 0.05, 0.8, 0.8)
    assert failures(broken, EXPERIMENTS, 3) == [f"coverage {np.mean(covered):.1%}"]
    assert np.mean(covered) < 0.7


def test_one_round_without_the_allowance_calls_equal_arms_different_again_and_again():
    rng = np.random.default_rng(1)
    alarms = np.mean(
        [
            not replace(e, drift_margin=1.0).includes_1
            for e in estimates(rng, EXPERIMENTS, 100, 1, 1.0)
        ]
    )
    assert failures(Outcome(0.95, alarms, 0.8, 0.8), EXPERIMENTS, 1) != []
    assert alarms > 0.3


def test_adjacent_passes_differ_as_much_as_was_measured_on_a_shared_machine():
    slowness = _log_slowness(np.random.default_rng(1), 4000, 2, 50).mean(axis=2)
    apart = np.abs(slowness[:, 1] - slowness[:, 0])
    assert np.mean(apart) == pytest.approx(0.025, abs=0.003)
    assert np.quantile(apart, 0.999) > 0.15


def test_the_command_prints_every_case_and_fails_on_a_broken_promise(monkeypatch, capsys):
    flags = ["--experiments", "50", "--pictures", "20", "--rounds", "1", "3"]
    assert interval_coverage.main(flags) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    monkeypatch.setattr(interval_coverage, "estimate_ratio", overconfident)
    assert interval_coverage.main(flags) == 1
    assert "outside of what is promised: 20 pictures x 3 rounds" in capsys.readouterr().out


def overconfident(logs: np.ndarray):
    return interval_coverage.RatioEstimate(*logs.shape, float(logs.mean()), 0.0, 1e-9, 1.0)
