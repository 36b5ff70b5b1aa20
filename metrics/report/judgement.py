"""From the run files of a run to everything that is printed and written about it."""

import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd

import metrics.report.matplotlib_settings  # noqa: F401 # before the charts import matplotlib itself
from metrics.analysis.break_even import break_even_of, sentence
from metrics.analysis.bundle import Choices, RunFiles, check_bundle, pack, unpack
from metrics.analysis.comparison import ARMS, ARMS_OF_SELF_CHECK, Comparison, compare, only_run
from metrics.analysis.cost import Bill, bill_lines, bill_of
from metrics.analysis.ledger import Manifest, contents_of, read_manifest
from metrics.analysis.output_equivalence import (
    PixelDifferences,
    measure_pixels,
    output_at_hand,
    pixels_from_csv,
    pixels_to_csv,
)
from metrics.analysis.rounds import split_passes
from metrics.analysis.rows import read_rows
from metrics.analysis.run_record import record_of
from metrics.analysis.steadiness import retries
from metrics.analysis.stopping import plan_lines
from metrics.analysis.sweep import MAIN, Setting, kept_settings
from metrics.analysis.sweep_results import Point, Sweep, sweeps_of
from metrics.collect.invocations import billed_by_round, invocations_from_csv, with_invocations
from metrics.common.cli import DONE, FAILED, UserError, cloud_problem
from metrics.common.findings import counted
from metrics.common.originals import check_apart, check_target
from metrics.common.paths import (
    CLOUD_CSV,
    INVOCATIONS_CSV,
    LOCAL_CSV,
    MANIFEST_JSON,
    MERGED_CSV,
    PIXELS_CSV,
    REPORT_HTML,
    RESULTS,
    RUN_JSON,
    SUMMARY_JSON,
    SWEEP,
    shown,
    whole_file,
    write_whole,
)
from metrics.report.charts import CHARTS, draw_charts
from metrics.report.page import ReportChart, render_report, slowest_pictures
from metrics.report.run_diff import describe_changes
from metrics.report.spreadsheet import escape_formulas
from metrics.report.summary_json import is_summary, summary_bytes
from metrics.report.sweep_charts import chart_of
from metrics.report.verdict import (
    equivalence_line,
    ledger_line,
    ratio_line,
    table,
    verdict_per_picture,
    verdict_whole_job,
)

SLOWEST_SHOWN = 5
CHARTS_FOLDER = "charts"

# Brings the cloud outputs of these image keys to this machine.
FetchOutputs = Callable[[list[str]], None]


def run_files_here(
    local_csv: Path, cloud_csv: Path, manifest: Path | None, choices: Choices
) -> RunFiles:
    """What lies in this checkout's folders."""
    pixels = pixels_from_csv(PIXELS_CSV.read_bytes()) if PIXELS_CSV.exists() else {}
    return RunFiles(
        local_csv=local_csv,
        cloud_csv=None if choices.self_check else cloud_csv,
        manifest=manifest,
        run_json=RUN_JSON.read_bytes() if RUN_JSON.exists() else None,
        invocations=INVOCATIONS_CSV.read_bytes() if INVOCATIONS_CSV.exists() else None,
        outputs=output_at_hand,
        pixels=pixels,
        choices=choices,
        sweep=SWEEP,
    )


def judge(
    run_files: RunFiles,
    folder: Path,
    bundle: Path | None = None,
    baseline: Path | None = None,
    fetch_outputs: FetchOutputs | None = None,
    packed_summary: bytes | None = None,
    plan: float | None = None,
) -> int:
    """Print all that follows from the run files, and write it to `folder`; the exit code.

    Outputs that are not here are fetched where there is a cloud to ask: of pictures whose outputs
    differ, and of the slowest, which the report shows. Raises UserError before anything is written
    when another summary follows than `packed_summary`. `plan` is a difference that a next
    experiment should find.
    """
    comparison, pixels = compare_run_files(run_files, fetch_outputs)
    invocations = invocations_of(run_files)
    bill = bill_in(invocations, comparison)
    if bill:
        comparison = with_retries(comparison, bill)
    break_even = break_even_of(comparison, invocations, run_files.choices.assumptions)
    comparison = replace(comparison, break_even=break_even)
    with_pixels = replace(run_files, pixels=pixels)
    sweeps = sweeps_in(with_pixels, comparison, bill, invocations)
    if packed_summary not in (None, summary_bytes(comparison, bill, sweeps)):
        raise UserError(
            "the statistics that follow from its rows are not those that were packed; was it "
            "changed, or made with another version of this program or its packages?"
        )
    if pixels is not run_files.pixels:
        write_whole(folder / PIXELS_CSV.name, pixels_to_csv(pixels))
    changes = changes_since(baseline, run_files) if baseline else []
    used: dict[str, bytes] = {}

    def outputs(source: str, image_key: str, sha256: str) -> bytes | None:
        jpeg = run_files.outputs(source, image_key, sha256)
        if jpeg is not None:
            used[sha256] = jpeg
        return jpeg

    if fetch_outputs:
        slowest = slowest_pictures(comparison, lambda *_: None, SLOWEST_SHOWN)
        fetch_for_show(fetch_outputs, [picture.image_key for picture in slowest])
    written = write_results(comparison, folder, outputs, changes, bill, invocations, sweeps)
    print_summary(comparison, changes, bill, sweeps)
    if plan and comparison.per_picture:
        print(*plan_lines(comparison.per_picture, plan), "", sep="\n")
    if bundle:
        results = [path for path in written if path.name in (SUMMARY_JSON.name, REPORT_HTML.name)]
        pack(bundle, run_files, pixels, used, results)
        written.append(bundle)
    charts = [path for path in written if path.parent.name == CHARTS_FOLDER]
    others = [shown(path) for path in written if path not in charts]
    print(*others, f"{shown(charts[0].parent)}/ ({counted(len(charts), 'chart')})", sep="\n")
    return FAILED if comparison.problems else DONE


def fetch_for_show(fetch_outputs: FetchOutputs, image_keys: list[str]) -> None:
    """Without these the report lacks some pictures: no reason to lose the answer."""
    try:
        fetch_outputs(image_keys)
    except Exception as error:
        if (line := cloud_problem(error)) is None:
            raise
        print(f"the report goes without pictures of the cloud's outputs: {line}", file=sys.stderr)


def check_files(bundle: Path | None, baseline: Path | None) -> None:
    """Raise, before a long run rather than after it, for files that it could not read or write."""
    if baseline:
        with tempfile.TemporaryDirectory(prefix="bundle-") as folder:
            unpack(baseline, Path(folder))
    if bundle:
        check_bundle(bundle)
        bundle.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=bundle.parent):
            pass


def check_output(folder: Path) -> None:
    """Raise UserError when results in `folder` would be among pictures, or replace files that are
    no results: a folder with results has their summary."""
    check_apart(folder, folder, "--output")
    if folder.resolve() == RESULTS or is_summary(folder / SUMMARY_JSON.name):
        return
    written = [folder / path.name for path in (SUMMARY_JSON, REPORT_HTML, MERGED_CSV)]
    for path in [*written, *sorted((folder / CHARTS_FOLDER).glob("*.png"))]:
        check_target(path, f"--output {shown(folder)}", lambda _: False)


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


def bill_in(invocations: pd.DataFrame | None, comparison: Comparison) -> Bill | None:
    if invocations is None:
        return None
    return bill_of(comparison.rows[comparison.second.name], invocations)


def sweeps_in(
    run_files: RunFiles, comparison: Comparison, bill: Bill | None, invocations: pd.DataFrame | None
) -> list[Sweep]:
    """What follows from the runs that were done before this one with other settings."""
    run_id = comparison.ledger.run_id
    points = []
    for setting, folder in kept_settings(run_id, run_files.sweep) if run_files.sweep else []:
        own = run_files_of_point(folder, run_files)
        of_point, _ = compare_run_files(own)
        reported = invocations_of(own)
        bill_of_point = bill_in(reported, of_point)
        points.append(Point(setting, of_point, bill_of_point, billed_in(of_point, reported)))
    if not points:
        return []
    itself = setting_of(comparison)
    billed = billed_in(comparison, invocations)
    return sweeps_of([*points, Point(itself, comparison, bill, billed)])


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


def billed_in(comparison: Comparison, invocations: pd.DataFrame | None) -> pd.DataFrame | None:
    return billed_by_round(comparison.rows[comparison.second.name], invocations)


def run_files_of_point(folder: Path, run_files: RunFiles) -> RunFiles:
    """Of a run before the one that `evidence` is about, whose outputs and pixels count here too."""

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


def with_retries(comparison: Comparison, bill: Bill) -> Comparison:
    """With what the bill alone tells of how steady the cloud was."""
    cloud = comparison.second.name
    measures = comparison.steadiness[cloud] | {"retries_per_1000": retries(bill)}
    return replace(comparison, steadiness=comparison.steadiness | {cloud: measures})


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


def write_results(
    comparison: Comparison,
    folder: Path,
    outputs: Callable,
    changes: list[str],
    bill: Bill | None,
    invocations: pd.DataFrame | None,
    sweeps: list[Sweep],
) -> list[Path]:
    """The report, summary, merged rows and charts; returns the files."""
    all_charts = (*CHARTS, *map(chart_of, sweeps))
    drawn = draw_charts(comparison, all_charts)
    charts = [
        ReportChart(
            chart.name,
            chart.title,
            chart.how_to_read,
            drawn[chart.name, "light"],
            drawn[chart.name, "dark"],
        )
        for chart in all_charts
        if chart.is_about(comparison)
    ]
    slowest = slowest_pictures(comparison, outputs, SLOWEST_SHOWN)
    files = {
        REPORT_HTML.name: render_report(
            comparison, charts, slowest, changes, bill, sweeps
        ).encode(),
        SUMMARY_JSON.name: summary_bytes(comparison, bill, sweeps),
    }
    for name, data in sorted(files.items(), reverse=True):  # the summary first, see check_output
        write_whole(folder / name, data)
    with whole_file(folder / MERGED_CSV.name) as file:
        merged = escape_formulas(with_invocations(comparison.merged, invocations))
        # With a byte-order mark: without one, Excel takes UTF-8 for the system's own encoding.
        merged.to_csv(file, mode="wb", encoding="utf-8-sig", index=False, lineterminator="\r\n")
    pngs = {f"{CHARTS_FOLDER}/{chart.name}.png": drawn[chart.name, "alone"] for chart in all_charts}
    for name, png in pngs.items():
        write_whole(folder / name, png)
    names = [*files, MERGED_CSV.name, *pngs]
    return [folder / name for name in names]


def print_summary(
    comparison: Comparison, changes: list[str], bill: Bill | None, sweeps: list[Sweep]
) -> None:
    """The judgement in a terminal: the last sentences are the answer."""
    print(table(comparison))
    print(f"\n{ledger_line(comparison)}\n{equivalence_line(comparison)}")
    if line := ratio_line(comparison):
        print(line)
    for kind, findings in (("problem", comparison.problems), ("warning", comparison.warnings)):
        for finding in findings:
            print(f"{kind}: {finding}")
    for change in changes:
        print(f"changed: {change}")
    if bill:
        print("", *bill_lines(bill), sep="\n")
    for sweep in sweeps:
        table_of_sweep = pd.DataFrame(sweep.lines, columns=sweep.columns).to_string(index=False)
        print("", sweep.question, table_of_sweep, sep="\n")
        for broken in sweep.broken:
            print(f"not whole, and left out: {broken}")
        print(sweep.answer)
    print(f"\n{sentence(comparison.break_even)}")
    if not isinstance(comparison.break_even, str):
        print(f"assumed of a machine like this: {comparison.break_even.assumptions.in_short()}")
    sentences = verdict_per_picture(comparison), verdict_whole_job(comparison)
    print("\n" + "\n".join(filter(None, sentences)) + "\n")
