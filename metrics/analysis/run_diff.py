"""What changed between two runs: each arm against itself, data set, outputs and machine."""

import numpy as np
import pandas as pd

from metrics.analysis.comparison import ARMS, Arm
from metrics.analysis.interval import (
    DRIFT_MARGIN,
    MIN_PICTURES,
    RatioEstimate,
    drift_margin_text,
    estimate_ratio,
    ratio_text,
    times_text,
)
from metrics.analysis.stability import MIN_CPU_UTILISATION, cpu_utilisation
from metrics.common.findings import Finding
from metrics.common.text import counted, counted_pictures


def describe_changes(
    before: dict[str, pd.DataFrame],
    after: dict[str, pd.DataFrame],
    records: tuple[dict, dict],
    contents: pd.Series,
) -> list[str]:
    """One line for each change. Rows are by source, of one run each; `records` are the run.json
    of the run before and of this one, empty where there is none. `contents` of this run's pictures
    by image key: copies of one are one sample."""
    lines = []
    for arm in ARMS:
        if arm.name in before and arm.name in after:
            lines += _of_arm(arm, before[arm.name], after[arm.name], contents)
    return lines + _of_record(*records)


def _of_arm(arm: Arm, before: pd.DataFrame, after: pd.DataFrame, contents: pd.Series) -> list[str]:
    old, new = (_by_picture(rows) for rows in (before, after))
    both = old.index.intersection(new.index)
    lines = []
    if len(both):
        contents_of_both = contents.reindex(both).fillna(pd.Series(both, index=both))
        speed = _speed(old.loc[both], new.loc[both], (before, after), contents_of_both)
        lines.append(f"{arm.label}: {speed}")
        same = old.loc[both, "output_sha256"] == new.loc[both, "output_sha256"]
        if not same.all():
            keys = list(same.index[~same])
            lines.append(str(Finding(f"{arm.label}: other outputs than before", keys)))
    for rows, others, when in (
        (new, old, "in this run only"),
        (old, new, "in the run before only"),
    ):
        if keys := list(rows.index.difference(others.index)):
            text = f"{arm.label}: {counted(len(keys), 'picture')} {when}"
            lines.append(str(Finding(text, keys)))
    return lines


def _speed(old: pd.DataFrame, new: pd.DataFrame, rows: tuple, contents: pd.Series) -> str:
    """Whether the arm became faster or slower, as far as anybody can tell."""
    if contents.nunique() < MIN_PICTURES:
        pictures = "different pictures" if contents.nunique() < len(old) else "pictures"
        return f"fewer than {MIN_PICTURES} {pictures} in both runs tell nothing of its speed"
    # Rounds do not help here: all of one run lie before all of the other.
    estimate, of_cpu = (
        estimate_ratio(
            (new[column] - old[column]).to_numpy()[:, None], DRIFT_MARGIN, contents=contents
        )
        for column in ("log_ms", "log_cpu_ms")
    )
    crowded = (
        min(cpu_utilisation(part[part["status"] == "ok"]) for part in rows) < MIN_CPU_UTILISATION
    )
    if crowded and not estimate.includes_1 and of_cpu.includes_1:
        return "cannot tell whether its speed changed: the processor was shared"
    return speed_text(estimate)


def speed_text(estimate: RatioEstimate) -> str:
    """`1.83x slower than before (95% CI ...)`, or that nobody can tell."""
    basis = f", {counted_pictures(estimate.pictures, estimate.copies)}{drift_margin_text(estimate)}"
    if estimate.includes_1:
        ratio = f"(ratio {ratio_text(estimate)}{basis})"
        return f"cannot tell whether it is faster or slower than before {ratio}"
    side = "slower" if estimate.ratio > 1 else "faster"
    return times_text(estimate, f"{side} than before", basis)


def _by_picture(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean log times over the rounds, and the output of the first, of pictures that were done."""
    done = rows[rows["status"] == "ok"]
    logs = {"log_ms": np.log(done["proc_ms"]), "log_cpu_ms": np.log(done["cpu_ms"].clip(1e-6))}
    return (
        done.assign(**logs)
        .groupby("image_key", sort=False)
        .agg(
            log_ms=("log_ms", "mean"),
            log_cpu_ms=("log_cpu_ms", "mean"),
            output_sha256=("output_sha256", "first"),
        )
    )


def _of_record(before: dict, after: dict) -> list[str]:
    old, new = (
        _flat({key: record.get(key) for key in ("environment", "data_set", "cloud")})
        for record in (before, after)
    )
    if not before or not after:
        return []
    return [
        f"{name}: {old.get(name)} -> {new.get(name)}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def _flat(content: object, name: str = "") -> dict[str, object]:
    """Nested dicts as one, with dotted names."""
    if not isinstance(content, dict):
        return {name: content}
    parts = {}
    for key, value in content.items():
        parts |= _flat(value, f"{name}.{key}" if name else str(key))
    return parts
