"""Join the rows of both arms picture by picture, say what follows, and draw it.

Downloads the cloud's rows to metrics/lambda_metrics.csv, holds them and the on-prem rows against
the run's manifest, prints a summary, and writes metrics/report.html, summary.json,
merged_metrics.csv and charts/. Exits 1 when the arms cannot be compared: rows are missing, or the
work was not the same. (The bucket's CSV holds every run since the last clean; rows of other runs
are counted and left out.)

    AWS_ENDPOINT_URL=http://127.0.0.1:... python compare_cloud_onprem_metrics.py --timeout 60
    python compare_cloud_onprem_metrics.py --no-download --bundle run.zip
    python compare_cloud_onprem_metrics.py --from-bundle run.zip --output elsewhere
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # the project may not be on the path: python -P, PYTHONSAFEPATH
    sys.path.insert(0, str(Path(__file__).resolve().parent))

import argparse
import tempfile
from functools import partial
from typing import TYPE_CHECKING

from lambda_function.cloud import (
    Buckets,
    Cloud,
    add_cloud_arguments,
    cloud_of,
    find_buckets,
    find_function,
    make_client,
)
from lambda_function.metrics_log import RowId
from metrics.analysis.assumptions import Assumptions, add_assumption_arguments, chosen_assumptions
from metrics.common.cli import (
    OUTPUT,
    PICTURES,
    RARE,
    ScriptParser,
    UserError,
    cloud_problem,
    run_script,
    script_parser,
    some_path,
)
from metrics.common.flags import add_flag, add_judgement_arguments
from metrics.common.originals import check_target
from metrics.common.paths import (
    CLOUD_CSV,
    LOCAL_CSV,
    MANIFEST_JSON,
    PROJECT,
    RESULTS,
    shown,
)
from metrics.common.run_lock import checkout_lock
from metrics.common.streams import start_script

if TYPE_CHECKING:
    from metrics.analysis.bundle import RunFiles
    from metrics.collect.dead_letters import Queues


def main(argv: list[str] | None = None) -> int:
    parser = script_parser(__doc__, PICTURES)
    add_rows_arguments(parser)
    add_judgement_arguments(parser)
    add_assumption_arguments(parser)
    add_cloud_arguments(parser)
    args = parser.parse_args(argv)
    chosen = (
        args.manifest,
        args.run_id,
        args.timeout,
        args.self_check or None,
        args.allow_partial or None,
    )
    is_chosen = any(choice is not None for choice in chosen) or chosen_assumptions(args)
    if args.from_bundle and is_chosen:
        parser.error(
            "--from-bundle judges as it was packed: without --self-check, --allow-partial, "
            "--manifest, --run-id, --timeout and assumptions of cost"
        )
    return run_script(run, args)


def add_rows_arguments(parser: ScriptParser) -> None:
    """Which rows are compared, and where the answer goes."""
    add_flag(parser, "--self-check")
    add_flag(parser, "--run-id", help="compare only this run; default: the only one")
    add_flag(parser, "--timeout", help="first wait so long for a row of every picture")
    parser.add_argument(
        "--no-download", action="store_true", help="use the files that are already here"
    )
    parser.add_argument(
        "--from-bundle",
        type=some_path,
        metavar="ZIP",
        help="judge what --bundle packed: the same must follow",
    )
    parser.group(OUTPUT).add_argument(
        "--output", type=some_path, default=RESULTS, metavar="FOLDER", help="for all results"
    )
    rare = parser.group(RARE)
    rare.add_argument(
        "--local-csv", type=some_path, default=LOCAL_CSV, metavar="CSV", help="the on-prem rows"
    )
    rare.add_argument(
        "--cloud-csv", type=some_path, default=CLOUD_CSV, metavar="CSV", help="the cloud rows"
    )
    rare.add_argument(
        "--manifest",
        type=some_path,
        metavar="JSON",
        help="what the run is about; default: metrics/manifest.json, but with --local-csv none: "
        "then every picture of either file is expected in both",
    )


def run(args: argparse.Namespace) -> int:
    from metrics.report.judgement import check_files, check_output

    check_output(args.output)
    check_files(args.bundle, args.baseline)
    writes_here = args.output.resolve().is_relative_to(PROJECT)
    if args.from_bundle and not writes_here:
        return judge_bundle(args)
    downloads = not (args.from_bundle or args.no_download or args.self_check)
    with checkout_lock(args.run_id, writes=writes_here or downloads):
        return judge_bundle(args) if args.from_bundle else judge_rows(args, downloads)


def judge_rows(args: argparse.Namespace, downloads: bool) -> int:
    from metrics.analysis.bundle import Choices
    from metrics.collect.cloud_rows import (
        CloudRows,
        download_outputs,
        settle_at_once,
        wait_for_rows,
    )
    from metrics.report.judgement import Extras, judge, run_files_here

    choices = Choices(
        args.run_id, args.self_check, args.allow_partial, Assumptions(**chosen_assumptions(args))
    )
    own_rows = args.local_csv == LOCAL_CSV
    manifest = args.manifest or (MANIFEST_JSON if own_rows and MANIFEST_JSON.exists() else None)
    run_files = run_files_here(args.local_csv, args.cloud_csv, manifest, choices)
    fetch_outputs = None
    if downloads:
        check_cloud_csv(args.cloud_csv)
        cloud = cloud_of(args)
        s3, buckets = make_client(cloud, "s3"), find_buckets(cloud)
        expected = expected_rows(run_files)
        rows = CloudRows(s3, buckets.output, next(iter(expected)).run_id)
        queues = queues_to_ask(cloud, s3, buckets)
        if args.timeout:
            wait_for_rows(rows, expected, args.timeout, args.allow_partial, queues)
        elif queues:
            settle_at_once(rows, expected, queues)
        rows.look()
        rows.save(args.cloud_csv)
        fetch_outputs = partial(download_outputs, s3, buckets.output)
    extras = Extras(args.bundle, args.baseline, args.plan)
    return judge(run_files, args.output, extras, fetch_outputs)


def queues_to_ask(cloud: Cloud, s3, buckets: Buckets) -> "Queues | None":
    """The stack's queues. A permission that is missing for this costs the reasons of what is
    missing, and no answer."""
    from metrics.collect.dead_letters import find_queues

    try:
        return find_queues(cloud, find_function(cloud), s3, buckets)
    except Exception as error:
        if (line := cloud_problem(error)) is None:
            raise
        print(f"going on without asking the failure queue: {line}", file=sys.stderr)
    return None


def expected_rows(run_files: "RunFiles") -> set[RowId]:
    """What the cloud arm should write: a row for each picture and round of the manifest, or where
    there is none, of the on-prem rows."""
    from metrics.analysis.comparison import only_run
    from metrics.analysis.ledger import read_manifest
    from metrics.analysis.rows import read_rows

    chosen = run_files.choices.run_id
    if run_files.manifest:
        manifest = read_manifest(run_files.manifest)
        rounds = range(1, manifest.rounds + 1)
        keys = manifest.pictures["image_key"]
        return {RowId(chosen or manifest.run_id, number, key) for number in rounds for key in keys}
    rows = read_rows(run_files.local_csv, "on_prem")
    rows = rows[rows["run_id"] == (chosen or only_run(rows))]
    return {RowId(*row) for row in rows[list(RowId._fields)].itertuples(index=False)}


def check_cloud_csv(target: Path) -> None:
    """Raise UserError when a download to a file that --cloud-csv names would replace anything but
    an earlier download: rows of the cloud arm, with their runs."""
    from metrics.analysis.rows import read_rows

    def is_download(path: Path) -> bool:
        try:
            rows = read_rows(path, "cloud")
        except UserError:
            return False
        return set(rows["source"]) == {"cloud"} and "" not in set(rows["run_id"])

    if target.resolve() != CLOUD_CSV.resolve():
        check_target(target, "--cloud-csv, without --no-download,", is_download)


def judge_bundle(args: argparse.Namespace) -> int:
    """The judgement once more from a bundle. Exits 1 when other statistics follow from it."""
    from metrics.analysis.bundle import unpack
    from metrics.report.judgement import Extras, judge

    with tempfile.TemporaryDirectory(prefix="bundle-") as folder:
        try:
            run_files, packed_summary = unpack(args.from_bundle, Path(folder))
            extras = Extras(args.bundle, args.baseline, args.plan)
            code = judge(run_files, args.output, extras, packed_summary=packed_summary)
        except UserError as error:
            message = str(error).replace(f"{folder}/", "")
            if shown(args.from_bundle) not in message:
                message = f"{shown(args.from_bundle)}: {message}"
            raise UserError(message) from None
    print(f"same statistics as packed in {shown(args.from_bundle)}, byte for byte")
    return code


if __name__ == "__main__":
    sys.exit(start_script(main))
