"""All that follows from the files of a run, in one piece: what is printed, written and drawn."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from metrics.analysis.assumptions import Assumptions
from metrics.analysis.break_even import BreakEven, break_even_of
from metrics.analysis.bundle import RunFiles, unpack
from metrics.analysis.comparison import ARMS, ARMS_OF_SELF_CHECK, Comparison, compare, only_run
from metrics.analysis.cost import Bill, bill_of
from metrics.analysis.ledger import Manifest, contents_of, read_manifest
from metrics.analysis.output_equivalence import PixelDifferences, measure_pixels
from metrics.analysis.rounds import split_passes
from metrics.analysis.rows import read_rows
from metrics.analysis.run_diff import describe_changes
from metrics.analysis.run_record import record_of
from metrics.analysis.stability_measures import Measure, measures_of
from metrics.analysis.sweep import MAIN, Setting, kept_settings
from metrics.analysis.sweep_results import Point, Sweep, point_of, sweeps_of
from metrics.collect.invocations import invocations_from_csv
from metrics.common.cli import UserError
from metrics.common.paths import (
    CLOUD_CSV,
    INVOCATIONS_CSV,
    LOCAL_CSV,
    MANIFEST_JSON,
    RUN_JSON,
)

# Brings the cloud outputs of these image keys to this machine.
FetchOutputs = Callable[[list[str]], None]


@dataclass(frozen=True)
class Judgement:
    """The comparison, and what else follows from the same files.

    `stability` has each arm's measures by name; `break_even` is why there is none, where its cost
    is not known; `invocations` and `bill` are None without REPORT lines. `changes` are lines on
    what is different from an earlier run. `pixels` is what is known of outputs that are not
    identical.
    """

    comparison: Comparison
    stability: dict[str, dict[str, Measure]]
    break_even: BreakEven | str
    invocations: pd.DataFrame | None = None
    bill: Bill | None = None
    sweeps: Sequence[Sweep] = ()
    changes: Sequence[str] = ()
    pixels: PixelDifferences = field(default_factory=dict)


def judgement_of(
    run_files: RunFiles, baseline: Path | None = None, fetch_outputs: FetchOutputs | None = None
) -> Judgement:
    """The judgement on a run, and what changed since the one in the bundle `baseline`. Outputs that
    differ and are not here are fetched, where there is a cloud to ask."""
    comparison, pixels = compare_run_files(run_files, fetch_outputs)
    judgement = judge_comparison(
        comparison,
        invocations_of(run_files),
        run_files.choices.assumptions,
        points_before(replace(run_files, pixels=pixels), comparison.ledger.run_id),
    )
    changes = changes_since(baseline, run_files) if baseline else []
    return replace(judgement, changes=changes, pixels=pixels)


def judge_comparison(
    comparison: Comparison,
    invocations: pd.DataFrame | None = None,
    assumptions: Assumptions | None = None,
    before: Sequence[Point] = (),
) -> Judgement:
    """What follows from a comparison, and from what Lambda measured. `before` are the points of a
    sweep, which the comparison itself ends."""
    bill = None
    if invocations is not None:
        bill = bill_of(comparison.rows[comparison.second.name], invocations)
    itself = point_of(setting_of(comparison), comparison, invocations)
    return Judgement(
        comparison=comparison,
        stability={
            arm.name: measures_of(comparison.rows[arm.name], arm.source, comparison.contents, bill)
            for arm in comparison.arms
        },
        break_even=break_even_of(comparison, invocations, assumptions or Assumptions()),
        invocations=invocations,
        bill=bill,
        sweeps=sweeps_of([*before, itself]) if before else [],
    )


# --- from files ---------------------------------------------------------------------------------


def compare_run_files(
    run_files: RunFiles, fetch_outputs: FetchOutputs | None = None
) -> tuple[Comparison, PixelDifferences]:
    """The comparison, and what is known of the pixels of outputs that are not identical."""
    manifest = read_manifest(run_files.manifest) if run_files.manifest else None
    first = read_rows(run_files.local_csv, "on_prem")
    if run_files.choices.self_check:
        first, second = split_passes(first)
        manifest = manifest and _in_rounds_of_two(manifest)
    else:
        second = read_rows(run_files.cloud_csv, "cloud")
    run_id = run_id_of(run_files, manifest, first)

    def compare_with(pixels: PixelDifferences) -> Comparison:
        return compare(
            first,
            second,
            arms=ARMS_OF_SELF_CHECK if run_files.choices.self_check else ARMS,
            run_id=run_id,
            manifest=manifest,
            pixels=pixels,
            allow_partial=run_files.choices.allow_partial,
            record=record_of(run_files.run_json, run_id),
        )

    comparison = compare_with(run_files.pixels)
    other = comparison.pairs[comparison.pairs["output_equivalence"] == "different"]
    if run_files.choices.self_check or other.empty:
        return comparison, run_files.pixels
    if fetch_outputs:
        fetch_outputs(list(other["image_key"].unique()))
    if not (measured := measure_pixels(other, run_files.outputs)):
        return comparison, run_files.pixels
    pixels = run_files.pixels | measured
    return compare_with(pixels), pixels


def run_id_of(run_files: RunFiles, manifest: Manifest | None, rows: pd.DataFrame) -> str:
    """The run that is judged: the chosen one, the manifest's, or the only one of the rows."""
    return run_files.choices.run_id or (manifest.run_id if manifest else only_run(rows))


def _in_rounds_of_two(manifest: Manifest) -> Manifest:
    if manifest.rounds % 2:
        raise UserError(
            f"--self-check needs an even number of on-prem passes, the run has {manifest.rounds}; "
            "use master_pipeline.py --self-check, or local_image_proc.py --rounds 2"
        )
    return replace(manifest, rounds=manifest.rounds // 2)


def invocations_of(run_files: RunFiles) -> pd.DataFrame | None:
    """What Lambda measured of the cloud arm, where that is known."""
    if run_files.invocations is None or run_files.choices.self_check:
        return None
    try:
        return invocations_from_csv(run_files.invocations)
    except ValueError as error:
        raise UserError(f"{INVOCATIONS_CSV.name} is none that a run wrote ({error})") from None


def points_before(run_files: RunFiles, run_id: str) -> list[Point]:
    """The runs of its sweep that were done before this one, with other settings."""
    if not run_files.sweep:
        return []
    points = []
    for setting, folder in kept_settings(run_id, run_files.sweep):
        own = run_files_of_point(folder, run_files)
        comparison, _ = compare_run_files(own)
        points.append(point_of(setting, comparison, invocations_of(own)))
    return points


def run_files_of_point(folder: Path, run_files: RunFiles) -> RunFiles:
    """Of a run before the one of `run_files`, whose outputs and pixels count here, too."""

    def content(path: Path) -> bytes | None:
        own = folder / path.name
        return own.read_bytes() if own.exists() else None

    return RunFiles(
        local_csv=folder / LOCAL_CSV.name,
        cloud_csv=folder / CLOUD_CSV.name,
        manifest=folder / MANIFEST_JSON.name,
        run_json=content(RUN_JSON),
        invocations=content(INVOCATIONS_CSV),
        outputs=run_files.outputs,
        pixels=run_files.pixels,
        choices=replace(run_files.choices, run_id=None),
    )


def setting_of(comparison: Comparison) -> Setting:
    """What the comparison itself was done with, by its record; without one, by its rows."""
    rows = comparison.rows[comparison.second.name]
    from_rows = Setting(
        kind=MAIN,
        pictures=rows["image_key"].nunique(),
        rounds=rows["round"].nunique(),
        workers=comparison.first.workers,
        concurrency=comparison.second.workers,
    )
    try:
        return replace(from_rows, **{**comparison.record.get("setting", {}), "kind": MAIN})
    except TypeError:
        return from_rows


def changes_since(bundle: Path, run_files: RunFiles) -> list[str]:
    """What changed since the run in `bundle`."""
    with tempfile.TemporaryDirectory(prefix="bundle-") as folder:
        old, _ = unpack(bundle, Path(folder))
        (before, old_record, _), (after, record, contents) = map(_rows_and_record, (old, run_files))
        return describe_changes(before, after, (old_record, record), contents)


def _rows_and_record(run_files: RunFiles) -> tuple[dict[str, pd.DataFrame], dict, pd.Series]:
    """Rows of the run by source, what is recorded of it, and the contents of its pictures."""
    files = {"on_prem": run_files.local_csv, "cloud": run_files.cloud_csv}
    rows = {source: read_rows(path, source) for source, path in files.items() if path}
    manifest = read_manifest(run_files.manifest) if run_files.manifest else None
    run_id = run_id_of(run_files, manifest, rows["on_prem"])
    of_run = {source: part[part["run_id"] == run_id] for source, part in rows.items()}
    contents = contents_of(of_run, manifest)
    return of_run, record_of(run_files.run_json, run_id), contents
