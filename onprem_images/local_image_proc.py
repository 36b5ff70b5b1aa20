"""The on-prem arm: every picture of images_to_upload/ through the transform on this machine.

Writes onprem_images/output_local/, onprem_images/metrics/local_metrics.csv and the run's manifest,
metrics/manifest.json. Each worker process is warmed up before the first timed picture.

    python onprem_images/local_image_proc.py
    python onprem_images/local_image_proc.py --images ~/photos --workers 4 --rounds 2
"""

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: the project is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import argparse
import multiprocessing
import time
from concurrent.futures.process import BrokenProcessPool

from lambda_function.image_transform import (
    MAX_BYTES,
    Measurement,
    measure_picture,
    output_name,
    warm_up,
)
from lambda_function.metrics_log import HEADER, MetricRow, rows_to_csv, timed, utc_now
from metrics.common.cli import DONE, PICTURES, UserError, run_script, script_parser
from metrics.common.flags import add_flag, add_flags
from metrics.common.machine import available_cpus, memory_mb, new_run_id, utc_at
from metrics.common.paths import LOCAL_CSV, OUTPUT_LOCAL, shown, write_whole
from metrics.common.progress import tqdm
from metrics.common.reasons import failure_findings, failures_by_reason
from metrics.common.run_lock import checkout_lock
from metrics.common.streams import start_script
from metrics.common.text import counted
from metrics.common.worker_pool import results, worker_pool
from onprem_images.dataset import (
    Picture,
    different_pictures,
    load_pictures,
    order_of_pass,
    write_manifest,
)
from onprem_images.outputs import (
    check_outputs,
    clear_outputs,
    record_output,
)


def main(argv: list[str] | None = None) -> int:
    parser = script_parser(__doc__, PICTURES)
    add_flags(parser, "--images", "--run-id", "--all-files")
    add_flag(
        parser,
        "--workers",
        default=available_cpus(),
        help="on-prem processes; more than CPUs slow each down",
    )
    add_flag(parser, "--rounds", default=1, help="passes over all pictures, one row for each")
    return run_script(run, parser.parse_args(argv))


def run(args: argparse.Namespace) -> int:
    run_id = args.run_id or new_run_id()
    with checkout_lock(run_id):
        return run_alone(args, run_id)


def run_alone(args: argparse.Namespace, run_id: str) -> int:
    pictures = load_pictures(args.images, args.all_files)
    check_outputs([output_name(picture.image_key) for picture in pictures])
    write_manifest(run_id, args.rounds, pictures)
    rows = []
    for number in range(1, args.rounds + 1):
        rows += process_on_prem(pictures, run_id, args.workers, number)
    failed = [row for row in rows if row.status == "error"]
    reasons = failures_by_reason((row.image_key, row.error) for row in failed)
    for finding in failure_findings("on-prem", reasons):
        print(finding, file=sys.stderr)
    if (different := different_pictures(pictures)) < len(pictures):
        text = f"only {counted(different, 'different picture')} among {len(pictures):,}"
        print(text, file=sys.stderr)
    passes = "" if args.rounds == 1 else f" x {args.rounds} rounds"
    print(f"on-prem: {len(pictures)} pictures{passes}, {len(failed)} failed, run {run_id}")
    print(shown(LOCAL_CSV))
    return DONE


def process_on_prem(
    pictures: list[Picture], run_id: str, workers: int, round_number: int = 1
) -> list[MetricRow]:
    """One pass: a row for each picture, in the order in which they were begun.

    The rows are also added to LOCAL_CSV. Round 1 replaces the outputs and the rows of the run
    before. Raises UserError when a worker dies.
    """
    if round_number == 1:
        clear_outputs()
        check_outputs([output_name(picture.image_key) for picture in pictures])
        LOCAL_CSV.unlink(missing_ok=True)
    order, rows = order_of_pass(pictures, round_number), []
    with (
        worker_pool(min(workers, len(pictures)), warm_up) as pool,
        tqdm(total=len(pictures), desc="on-prem", unit="picture", disable=None) as bar,
    ):
        epoch_s = time.time() - time.monotonic()
        tasks = ((picture, run_id, round_number, epoch_s) for picture in order)
        try:
            for row in results(pool, process_picture, tasks):
                rows.append(row)
                bar.update()
        except BrokenProcessPool:
            done = {row.image_key for row in rows}
            under_way = [p.image_key for p in order if p.image_key not in done][: 2 * workers]
            raise UserError(
                "an on-prem worker died (out of memory?); the picture is one of: "
                + ", ".join(map(repr, under_way))
            ) from None
    rows.sort(key=lambda row: (row.timestamp, row.image_key))
    earlier = LOCAL_CSV.read_bytes() if round_number > 1 else HEADER.encode()
    write_whole(LOCAL_CSV, earlier + rows_to_csv(rows).encode())
    return rows


def process_picture(
    picture: Picture, run_id: str, round_number: int, epoch_s: float | None = None
) -> MetricRow:
    """The row of one picture, whose output is written. Runs in a worker.

    `epoch_s` is when the monotonic clock, which all processes of a machine share, was 0: with it a
    wall clock that is set during a pass does not part the timestamps.
    """
    timestamp = utc_now() if epoch_s is None else utc_at(epoch_s + time.monotonic())
    store_ms = 0.0
    try:
        (data, size), fetch_ms = timed(read_picture, picture.path)
    except OSError as error:  # vanished or unreadable: a row that says so, like any bad picture
        size, fetch_ms = 0, 0.0
        measured = Measurement(None, "", f"{type(error).__name__}: {error.strerror}", 0.0, 0.0)
    else:
        measured = measure_picture(data, picture.sha256)
    if measured.output is not None:
        target = OUTPUT_LOCAL / output_name(picture.image_key)
        record_output(output_name(picture.image_key), measured.output_sha256)
        _, store_ms = timed(write_whole, target, measured.output)
    return MetricRow.of(
        measured,
        timestamp=timestamp,
        image_key=picture.image_key,
        orig_size=size,
        source="on_prem",
        run_id=run_id,
        round=round_number,
        fetch_ms=fetch_ms,
        store_ms=store_ms,
        cold_start=False,  # warmed up before the first picture
        worker=multiprocessing.current_process().name,
        memory_mb=memory_mb(),
        environment="local",
    )


def read_picture(path: Path) -> tuple[bytes | None, int]:
    """The file's bytes (None: too many to be read) and their number."""
    size = path.stat().st_size
    if size > MAX_BYTES:
        return None, size
    data = path.read_bytes()
    return data, len(data)


if __name__ == "__main__":
    sys.exit(start_script(main))
