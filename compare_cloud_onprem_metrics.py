"""Join the rows of both arms picture by picture, say what follows, and draw it.

Downloads the cloud's rows to metrics/lambda_metrics.csv, prints a summary, writes
metrics/merged_metrics.csv and metrics/charts/. Exits 1 when the arms cannot be compared: missing
rows, different outputs, or files that mix runs. (The bucket's CSV holds every run since the last
clean; rows of other runs there are left out and counted.)

    AWS_ENDPOINT_URL=http://127.0.0.1:... python compare_cloud_onprem_metrics.py --timeout 60
    python compare_cloud_onprem_metrics.py --no-download
"""

import argparse
import sys
from pathlib import Path

from lambda_function.cloud import add_cloud_arguments, cloud_of, find_buckets, make_client
from lambda_function.metrics_log import HEADER, RowId, rows_to_csv
from metrics.files import CHARTS, CLOUD_CSV, LOCAL_CSV, MERGED_CSV, shown, write_whole
from metrics.script import (
    DONE,
    FAILED,
    UserError,
    positive_seconds,
    run_id,
    run_script,
    script_parser,
)


def main(argv: list[str] | None = None) -> int:
    parser = script_parser(__doc__)
    parser.add_argument(
        "--no-download", action="store_true", help="use the files that are already here"
    )
    parser.add_argument("--local-csv", type=Path, default=LOCAL_CSV, help="the on-prem rows")
    parser.add_argument("--cloud-csv", type=Path, default=CLOUD_CSV, help="the cloud rows")
    parser.add_argument(
        "--run-id", type=run_id, default=None, help="compare only this run; default: the only one"
    )
    parser.add_argument(
        "--timeout",
        type=positive_seconds,
        default=None,
        help="before the download, wait this many seconds for a row of every on-prem picture",
    )
    add_cloud_arguments(parser)
    return run_script(run, parser.parse_args(argv))


def run(args: argparse.Namespace) -> int:
    from metrics.summary import read_rows

    on_prem = select_run(read_rows(args.local_csv, "on_prem"), args.run_id)
    if not args.no_download:
        cloud = cloud_of(args)
        s3, bucket = make_client(cloud, "s3"), find_buckets(cloud).output
        if args.timeout:
            from metrics.cloud_rows import wait_for_rows

            wait_for_rows(s3, bucket, expected_rows(on_prem), args.timeout)
        fetch_cloud_rows(s3, bucket, only_run(on_prem), args.cloud_csv)
    cloud_rows = select_run(read_rows(args.cloud_csv, "cloud"), args.run_id)
    return report(on_prem, cloud_rows)


def select_run(rows, run_id: str | None):
    """The rows of `run_id`, or all. Raises UserError when there is none."""
    if run_id is None:
        return rows
    chosen = rows[rows["run_id"] == run_id]
    if chosen.empty:
        raise UserError(f"no row of run {run_id!r}; there are {sorted(set(rows['run_id']))}")
    return chosen


def only_run(rows) -> str:
    runs = sorted(set(rows["run_id"]))
    if len(runs) != 1:
        raise UserError(f"the on-prem rows are of {len(runs)} runs {runs}; choose with --run-id")
    return runs[0]


def expected_rows(on_prem) -> set[RowId]:
    return {RowId(*row) for row in on_prem[list(RowId._fields)].itertuples(index=False)}


def fetch_cloud_rows(s3, bucket: str, run_id: str, target: Path) -> None:
    """Write the run's rows in the bucket to `target`."""
    from metrics.cloud_rows import download_rows

    rows = download_rows(s3, bucket, run_id)
    write_whole(target, (HEADER + rows_to_csv(rows)).encode())


def report(on_prem, cloud) -> int:
    """Write and print all that follows from the rows of both arms."""
    from metrics.charts import save_charts
    from metrics.summary import compare, geometric_mean, table, verdict

    comparison = compare(on_prem, cloud)
    write_whole(MERGED_CSV, comparison.merged.to_csv(index=False).encode())
    charts = save_charts(comparison, CHARTS)
    print(table(comparison))
    if len(ratios := comparison.ratios):
        print(
            f"\ncloud/on-prem time per picture: geometric mean {geometric_mean(ratios):.3f}, "
            f"median {ratios.median():.3f}, from {ratios.min():.3f} to {ratios.max():.3f}, "
            f"n = {len(ratios)}"
        )
    for problem in comparison.problems:
        print(f"problem: {problem}")
    print(f"\n{verdict(comparison)}\n")
    for path in (MERGED_CSV, *charts):
        print(shown(path))
    return FAILED if comparison.problems else DONE


if __name__ == "__main__":
    sys.exit(main())
