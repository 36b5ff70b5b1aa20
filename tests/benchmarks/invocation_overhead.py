"""What does an invocation in the embedded cloud take beside the transform?

Uploads small pictures to an embedded cloud of its own, waits for their rows, and prints the
processor time a picture of the server and of the environments, less the transform's own and less
what receiving the uploads takes; and the requests that the handler counted.

    python tests/benchmarks/invocation_overhead.py --pictures 500
"""

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: the project and the tests are not on the path yet
    sys.path[:0] = [str(Path(__file__).resolve().parents[n]) for n in (2, 1)]

import argparse
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator

from processes import children

from lambda_function.cloud import Buckets, Cloud, find_buckets, find_function, make_client
from lambda_function.embedded_cloud import embedded_cloud
from lambda_function.metrics_log import HEADER, RowId, rows_from_csv
from metrics.collect.cloud_rows import CloudRows, default_timeout_s, wait_for_rows
from metrics.common.cli import DONE, positive_int, run_script, script_parser
from metrics.common.machine import available_cpus
from metrics.common.streams import start_script
from metrics.run.uploads import upload_images
from onprem_images.dataset import Picture, load_pictures
from tests.benchmarks.many_pictures import generate

RUN, STARTING = "overhead", "starting"
STARTERS = 20  # pictures that all environments are busy with before the measured ones


def main(argv: list[str] | None = None) -> int:
    parser = script_parser(__doc__)
    parser.add_argument("--pictures", type=positive_int, default=500)
    parser.add_argument("--concurrency", type=positive_int, default=available_cpus())
    return run_script(run, parser.parse_args(argv))


def run(args: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder), args.pictures)
        pictures, others = load_pictures(Path(folder)), children(os.getpid())
        with embedded_cloud(args.concurrency) as cloud:
            (server,) = set(children(os.getpid())) - set(others)
            measure(cloud, pictures, server)
    return DONE


def measure(cloud: Cloud, pictures: list[Picture], server: int) -> None:
    s3, buckets = make_client(cloud, "s3"), find_buckets(cloud)
    receiving_s = receive_without_events(s3, buckets, pictures, server)
    start_environments(s3, buckets, pictures[:STARTERS])
    counted_before = requests_of_handler(make_client(cloud, "logs"), find_function(cloud))
    start, before = time.perf_counter(), cpu_seconds(server)
    upload_images(s3, buckets, pictures, RUN)
    expected = {RowId(RUN, 1, picture.image_key) for picture in pictures}
    found = CloudRows(s3, buckets.output, RUN)
    wait_for_rows(found, expected, default_timeout_s(len(pictures), False))
    rows = rows_from_csv(found.csv().removeprefix(HEADER))
    wall_s, after = time.perf_counter() - start, cpu_seconds(server)
    n, requests = len(rows), requests_of_handler(make_client(cloud, "logs"), find_function(cloud))
    requests.subtract(counted_before)
    server_ms = 1000 * (after[0] - before[0] - receiving_s) / n
    workers_ms = 1000 * (after[1] - before[1]) / n - sum(row.cpu_ms for row in rows) / n
    print(f"{n} pictures in {wall_s:.1f} s, {n / wall_s:.1f} a second")
    print(f"CPU a picture, less the transform: {server_ms + workers_ms:.1f} ms", end=" ")
    print(f"(server {server_ms:.1f}, environments {workers_ms:.1f})")
    each = ", ".join(f"{count / n:.2f} {name}" for name, count in requests.most_common())
    print(f"requests a picture: {requests.total() / n:.2f} ({each})")


def start_environments(s3, buckets: Buckets, pictures: list[Picture]) -> None:
    """So that no cold start is in what is measured."""
    upload_images(s3, buckets, pictures, STARTING)
    expected = {RowId(STARTING, 1, picture.image_key) for picture in pictures}
    found = CloudRows(s3, buckets.output, STARTING)
    wait_for_rows(found, expected, default_timeout_s(len(pictures), False))


def receive_without_events(s3, buckets: Buckets, pictures: list[Picture], server: int) -> float:
    """Processor seconds of the server for taking all pictures under keys that lead to no event."""
    before, _ = cpu_seconds(server)
    for picture in pictures:
        data = picture.path.read_bytes()
        s3.put_object(Bucket=buckets.input, Key=f"other/{picture.image_key}", Body=data)
    return cpu_seconds(server)[0] - before


def cpu_seconds(server: int) -> tuple[float, float]:
    """Of the server, and of the environments that it has started."""
    own, *of_workers = (ticks(pid) for pid in (server, *children(server)))
    return own / os.sysconf("SC_CLK_TCK"), sum(of_workers) / os.sysconf("SC_CLK_TCK")


def ticks(pid: int) -> int:
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return int(user) + int(system)


def requests_of_handler(logs, function: dict[str, str]) -> Counter[str]:
    """Requests to S3 and SQS by operation, which each invocation logs."""
    counts: Counter[str] = Counter()
    for message in messages(logs, function["LogGroupName"]):
        if '"s3_requests"' in message:
            line = json.loads(message)
            counts.update(line["s3_requests"])
            counts.update(line.get("sqs_requests", {}))
    return counts


def messages(logs, group: str) -> Iterator[str]:
    pages = logs.get_paginator("filter_log_events").paginate(logGroupName=group)
    return (event["message"] for page in pages for event in page["events"])


if __name__ == "__main__":
    sys.exit(start_script(main))
