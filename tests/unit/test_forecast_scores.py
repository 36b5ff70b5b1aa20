"""The scores' command: on small files made here, whose truth is known."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from metrics.analysis import forecast_scores
from metrics.analysis.calibration import kernel_picture
from metrics.analysis.forecast_local_step import OPERATIONS
from metrics.analysis.forecast_score import table
from metrics.analysis.forecast_scores import (
    FILES,
    fit_by_memory,
    memory_rule_on_sebs,
    requests_by_memory,
    scores,
)
from metrics.common.paths import PROJECT

SCRIPT = "metrics/analysis/forecast_scores.py"
SIZES = (128, 256, 512, 1024, 2048, 3008)


def rule(memory: float) -> float:
    return max(1.0, 1769 / memory)


def sebs_rows() -> pd.DataFrame:
    """46 ms of work that follow the rule to 1%; GET of 30 + 15 ms, PUT of 33 + 6, which do, too."""
    rng = np.random.default_rng(1)
    rows = []
    for memory in SIZES:
        for kind, first_ms in (("warm", 0.0), ("cold", 30 + 25 * rule(memory))):
            noise = np.exp(rng.normal(0, 0.01, (40, 3)))
            times = np.array([30 + 15 * rule(memory) + first_ms, 46 * rule(memory), 0.0])
            times[2] = 33 + 6 * rule(memory)
            for download, compute, upload in 1000 * times * noise:
                rows.append(("210_python", kind, memory, download, compute, upload))
    names = ("benchmark", "kind", "memory_mb", "download_us", "compute_us", "upload_us")
    return pd.DataFrame(rows, columns=names)


def cebert_rows() -> pd.DataFrame:
    rows = []
    for month in ("november-2025", "december-2025"):
        for workload, full in (("cpu-intensive", 380), ("memory-intensive", 9000), ("light", 12)):
            for memory in SIZES[:5]:
                factor = rule(memory) if workload != "light" else 1.2
                times = (full * factor, 0.9 * full * factor)
                rows.append((month, workload, "warm", "python3.12", memory, *times))
    names = ("month", "workload", "kind", "runtime", "memory_mb", "x86_ms", "arm64_ms")
    return pd.DataFrame(rows, columns=names)


def init_rows() -> tuple[pd.DataFrame, pd.DataFrame]:
    cebert = [
        (month, workload, "python3.12", memory, ms * 0.8, ms, ms * 0.96, ms * 1.2)
        for month in ("november-2025", "december-2025")
        for workload, ms in (("cpu-intensive", 107.0), ("light", 473.0))
        for memory in SIZES[:5]
    ]
    names = ["month", "workload", "runtime", "memory_mb", "arm64_init_ms", "x86_init_ms"]
    names += ["arm64_init_p99", "x86_init_p99"]
    other = [("python3.12", arch, 128, ms) for arch, ms in (("x86_64", 89.0), ("arm64", 79.0))]
    return (
        pd.DataFrame(cebert, columns=names),
        pd.DataFrame(other, columns=["runtime", "arch", "memory_mb", "p50"]),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """All files that the command reads, small."""
    made = tmp_path_factory.mktemp("published")
    (made / "pictures").mkdir()
    (made / forecast_scores.PICTURE).write_bytes(kernel_picture())
    for name, side in (("small", 200), ("medium", 900)):
        picture = Image.effect_noise((side, side), 60).convert("RGB")
        picture.save(made / "pictures" / f"aarontburn_{name}.jpg", quality=85)
    sebs_rows().to_csv(made / forecast_scores.SEBS, index=False)
    cebert_rows().to_csv(made / forecast_scores.CEBERT, index=False)
    for name, rows in zip(
        (forecast_scores.CEBERT_INIT, forecast_scores.LAMBDA_PERF), init_rows(), strict=True
    ):
        rows.to_csv(made / name, index=False)
    operations = [*OPERATIONS, "details", "transform"]
    pd.DataFrame(
        [
            (operation, picture, ms, cold)
            for operation in operations
            for picture, ms in (("small", 220), ("medium", 380), ("large", 1500))
            for cold in (0, 0, 1)
        ],
        columns=["operation", "picture", "runtime_ms", "cold"],
    ).to_csv(made / forecast_scores.AARONTBURN, index=False)
    facts = {
        "ratio_lambda_x86_vs_EPYC_Genoa_a": 1.6,
        "ratio_lambda_x86_vs_EPYC_Genoa_b": 1.8,
        "ratio_lambda_x86_vs_EPYC_Genoa_c": 2.2,
        "s3_put_3.5kB_2048MB": 39,
        "s3_put_7.03MB_2048MB": 228,
        "s3_put_9.32MB_2048MB": 422,
        "s3_event_delay": 1345,
        "s3_event_delay_busy_stream": 750,
    }
    numbers = pd.Series(facts, name="value").rename_axis("fact")
    numbers.to_frame().assign(high=2216).to_csv(made / forecast_scores.FACTS)
    return made


def test_the_command_prints_a_table_of_all_parts(folder):
    done = subprocess.run(
        [sys.executable, SCRIPT, str(folder)], cwd=PROJECT, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert all(line.startswith("warning: the kernel") for line in done.stderr.splitlines())
    lines = done.stdout.splitlines()
    assert lines[0].startswith("| Part | Fitted on | Scored on | Date | n |")
    assert len({line.count("|") for line in lines}) == 1
    for part in ("memory rule, x86", "arm64", "local step", "S3 by memory", "event", "INIT"):
        assert part in done.stdout, part


@pytest.mark.parametrize("name", FILES)
def test_an_absent_file_is_named_in_one_line_with_its_source(folder, name, capsys):
    hidden = folder / f"{name}.hidden"
    (folder / name).rename(hidden)
    try:
        assert forecast_scores.main([str(folder)]) == 1
    finally:
        hidden.rename(folder / name)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert name in said.err
    assert FILES[name] in said.err


def test_no_folder_is_wrong_usage():
    with pytest.raises(SystemExit) as error:
        forecast_scores.main([])
    assert error.value.code == 2


def test_a_rule_that_holds_scores_a_small_error_and_full_coverage():
    found = memory_rule_on_sebs(sebs_rows())
    assert len(found.measured) == 5
    assert found.error < 0.01
    assert found.inside == 1


def test_a_rule_that_does_not_hold_shows():
    rows = sebs_rows()
    rows.loc[rows["memory_mb"] == 128, "compute_us"] *= 2
    found = memory_rule_on_sebs(rows)
    assert found.error > 0.09
    assert found.inside == pytest.approx(0.8)


def test_requests_are_fitted_at_three_sizes_and_scored_at_the_other_three():
    found = requests_by_memory(sebs_rows())
    assert len(found.measured) == 9
    assert found.error < 0.03


def test_a_fit_finds_the_parts_that_rows_were_made_of():
    memory = np.array([128.0, 512.0, 2048.0])
    net, cpu = fit_by_memory(memory, 30 + 15 * np.maximum(1, 1769 / memory))
    assert (net, cpu) == (pytest.approx(30), pytest.approx(15))


def test_nothing_is_scored_on_what_it_was_fitted_on(folder):
    for score in scores(folder):
        assert score.fitted_on != score.scored_on
    sebs = sebs_rows()
    before = memory_rule_on_sebs(sebs).forecast
    sebs.loc[sebs["memory_mb"] != 2048, "compute_us"] *= 7  # what is scored
    assert (memory_rule_on_sebs(sebs).forecast == before).all()


def test_the_table_says_the_share_inside_and_the_error(folder):
    lines = table(scores(folder))
    assert lines[-1].startswith("| all |")
    assert all(line.count("%") >= 1 for line in lines[2:])
