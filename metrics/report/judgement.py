"""Printing and writing a judgement: terminal, report.html, summary.json, merged rows and charts."""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

import metrics.report.matplotlib_settings  # noqa: F401 # before the charts import matplotlib itself
from metrics.analysis.break_even import sentence
from metrics.analysis.bundle import Choices, RunFiles, check_bundle, pack, unpack
from metrics.analysis.cost import bill_lines
from metrics.analysis.judgement import FetchOutputs, Judgement, judgement_of
from metrics.analysis.output_equivalence import (
    Outputs,
    output_at_hand,
    pixels_from_csv,
    pixels_to_csv,
)
from metrics.analysis.stopping import plan_lines
from metrics.collect.invocations import with_invocations
from metrics.common.cli import DONE, FAILED, UserError, cloud_problem
from metrics.common.originals import check_apart, check_target
from metrics.common.paths import (
    CHARTS as CHARTS_FOLDER,
)
from metrics.common.paths import (
    INVOCATIONS_CSV,
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
from metrics.common.text import counted
from metrics.report.charts import CHARTS, draw_charts
from metrics.report.page import ReportChart, render_report, slowest_pictures
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


@dataclass(frozen=True)
class Extras:
    """What is asked for beside the answer: a bundle to write, one to say what changed since, and
    a difference that a next experiment should find."""

    bundle: Path | None = None
    baseline: Path | None = None
    plan: float | None = None


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
    extras: Extras,
    fetch_outputs: FetchOutputs | None = None,
    packed_summary: bytes | None = None,
) -> int:
    """Print all that follows from the run files, and write it to `folder`; the exit code.

    Outputs that are not here are fetched where there is a cloud to ask: of pictures whose outputs
    differ, and of the slowest, which the report shows. Raises UserError before anything is written
    when another summary follows than `packed_summary`.
    """
    judgement = judgement_of(run_files, extras.baseline, fetch_outputs)
    if packed_summary not in (None, summary_bytes(judgement)):
        raise UserError(
            "the statistics that follow from its rows are not those that were packed; was it "
            "changed, or made with another version of this program or its packages?"
        )
    if judgement.pixels is not run_files.pixels:
        write_whole(folder / PIXELS_CSV.name, pixels_to_csv(judgement.pixels))
    if fetch_outputs:
        fetch_for_show(fetch_outputs, judgement)
    used: dict[str, bytes] = {}

    def outputs(source: str, image_key: str, sha256: str) -> bytes | None:
        jpeg = run_files.outputs(source, image_key, sha256)
        if jpeg is not None:
            used[sha256] = jpeg
        return jpeg

    written = write_results(judgement, folder, outputs)
    print_judgement(judgement, extras.plan)
    if extras.bundle:
        results = [path for path in written if path.name in (SUMMARY_JSON.name, REPORT_HTML.name)]
        pack(extras.bundle, run_files, judgement.pixels, used, results)
        written.append(extras.bundle)
    charts = [path for path in written if path.parent.name == CHARTS_FOLDER.name]
    others = [shown(path) for path in written if path not in charts]
    print(*others, f"{shown(charts[0].parent)}/ ({counted(len(charts), 'chart')})", sep="\n")
    return FAILED if judgement.comparison.problems else DONE


def fetch_for_show(fetch_outputs: FetchOutputs, judgement: Judgement) -> None:
    """Without these the report lacks some pictures: no reason to lose the answer."""
    slowest = slowest_pictures(judgement.comparison, lambda *_: None, SLOWEST_SHOWN)
    try:
        fetch_outputs([picture.image_key for picture in slowest])
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
    for path in [*written, *sorted((folder / CHARTS_FOLDER.name).glob("*.png"))]:
        check_target(path, f"--output {shown(folder)}", lambda _: False)


def write_results(judgement: Judgement, folder: Path, outputs: Outputs) -> list[Path]:
    """The report, summary, merged rows and charts; returns the files."""
    charts = (*CHARTS, *map(chart_of, judgement.sweeps))
    drawn = draw_charts(judgement, charts)
    of_report = [
        ReportChart(
            chart.name,
            chart.title,
            chart.how_to_read,
            drawn[chart.name, "light"],
            drawn[chart.name, "dark"],
        )
        for chart in charts
        if chart.is_about(judgement)
    ]
    slowest = slowest_pictures(judgement.comparison, outputs, SLOWEST_SHOWN)
    # The summary first, see check_output.
    write_whole(folder / SUMMARY_JSON.name, summary_bytes(judgement))
    write_whole(folder / REPORT_HTML.name, render_report(judgement, of_report, slowest).encode())
    write_merged(judgement, folder / MERGED_CSV.name)
    pngs = []
    for chart in charts:
        pngs.append(folder / CHARTS_FOLDER.name / f"{chart.name}.png")
        write_whole(pngs[-1], drawn[chart.name, "alone"])
    return [*(folder / path.name for path in (REPORT_HTML, SUMMARY_JSON, MERGED_CSV)), *pngs]


def write_merged(judgement: Judgement, target: Path) -> None:
    """The rows of both arms, picture by picture, for people: programs read the arms' own files."""
    merged = with_invocations(judgement.comparison.merged, judgement.invocations)
    with whole_file(target) as file:
        # With a byte-order mark: without one, Excel takes UTF-8 for the system's own encoding.
        options = {"encoding": "utf-8-sig", "index": False, "lineterminator": "\r\n"}
        escape_formulas(merged).to_csv(file, mode="wb", **options)


def print_judgement(judgement: Judgement, plan: float | None = None) -> None:
    """The judgement in a terminal: the last sentences are the answer."""
    comparison = judgement.comparison
    print(table(comparison))
    print(f"\n{ledger_line(comparison)}\n{equivalence_line(comparison)}")
    if line := ratio_line(comparison):
        print(line)
    for kind, findings in (("problem", comparison.problems), ("warning", comparison.warnings)):
        for finding in findings:
            print(f"{kind}: {finding}")
    for change in judgement.changes:
        print(f"changed: {change}")
    if judgement.bill:
        print("", *bill_lines(judgement.bill), sep="\n")
    for sweep in judgement.sweeps:
        table_of_sweep = pd.DataFrame(sweep.lines, columns=sweep.columns).to_string(index=False)
        print("", sweep.question, table_of_sweep, sep="\n")
        for broken in sweep.broken:
            print(f"not whole, and left out: {broken}")
        print(sweep.answer)
    print(f"\n{sentence(judgement.break_even)}")
    if not isinstance(judgement.break_even, str):
        print(f"assumed of a machine like this: {judgement.break_even.assumptions.in_short()}")
    sentences = verdict_per_picture(comparison), verdict_whole_job(comparison)
    print("\n" + "\n".join(filter(None, sentences)) + "\n")
    if plan and comparison.per_picture:
        print(*plan_lines(comparison.per_picture, plan), "", sep="\n")
