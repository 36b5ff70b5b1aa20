"""How long are rows on their way into the CSV, and what does that take, from 1,000 to 1,000,000?

The real metrics writer, two at once as on AWS, on an S3 and a queue in memory, by a virtual clock.
Rows arrive at a steady rate; batches are as Lambda makes them: a window of 1 s, 6 MB at most. What
passes on the clock: the processor time that the writer takes in this process, times --cpu-factor
(a Lambda vCPU against this machine; the default is meant to be too slow), and for each request to
S3 a latency and its bytes at --mb-s. S3's own copies count like uploads, one part after the other,
although they are made side by side. Assumed: the pollers hand rows on as fast as they arrive.

Prints for each number of rows how long after the last one all are in the CSV, requests, bytes and
USD; exits 1 when a row is lost, or beyond the goals of 100,000 and 1,000,000 rows.

    python tests/benchmarks/rows_through_writer.py
    python tests/benchmarks/rows_through_writer.py --rows 1000000 --mb-s 40
"""

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: the project and the tests are not on the path yet
    sys.path[:0] = [str(Path(__file__).resolve().parents[n]) for n in (2, 1)]

import argparse
import io
import itertools
import json
import random
import resource
import time
from collections import Counter
from functools import partial
from types import SimpleNamespace

from fault_model.campaign import Environment, OfEnvironment, OneAfterTheOther, replaced
from fault_model.schedule import Actor, Ended, Schedule
from fault_model.services import client_error
from rows import row

from lambda_function import metrics_writer
from lambda_function.handler import os as handler_os
from lambda_function.metrics_log import HEADER, row_to_message
from metrics.common.cli import (
    DONE,
    FAILED,
    positive_int,
    positive_seconds,
    run_script,
    script_parser,
)

GOALS = {100_000: 60.0, 1_000_000: 900.0}  # rows: seconds after the last one
MAX_GB = 1.5
WRITERS, TIMEOUT_S, VISIBILITY_S, WINDOW_S = 2, 60, 360, 1.0  # of the template
MEMORY_GB = 1769 / 1024
MAX_PAYLOAD = 6 * 2**20
LATENCY_S = {"get_object": 0.025, "put_object": 0.04, "complete_multipart_upload": 0.1}
OTHER_LATENCY_S = 0.04
REQUEST_CPU_S = 0.002  # of boto3, which is not in this process
COLD_START_S = 0.6
# us-east-1, 2026-11: S3 by request, Lambda by GB-second and request, SQS by request
USD_PUT, USD_GET, USD_GB_S, USD_INVOKE, USD_SQS = 5e-6, 4e-7, 1.66667e-5, 2e-7, 4e-7


def main(argv: list[str] | None = None) -> int:
    parser = script_parser(__doc__)
    default = [1000, 10_000, 100_000, 300_000, 1_000_000]
    parser.add_argument("--rows", type=positive_int, nargs="+", default=default)
    parser.add_argument("--rate", type=positive_int, default=4000, help="rows that come a second")
    parser.add_argument("--mb-s", type=positive_int, default=80, help="of one request to S3")
    parser.add_argument("--cpu-factor", type=positive_seconds, default=2.0)
    return run_script(run, parser.parse_args(argv))


def run(args: argparse.Namespace) -> int:
    code = DONE
    print(
        "     rows  behind s  batches  failed  S3 requests  MB sent  MB read  MB copied  GB-s"
        "    USD  USD of SQS  peak GB"
    )
    for count in sorted(args.rows):
        flow = Flow(count, args)
        flow.run()
        lost = count - flow.s3.count_rows()
        print(flow.line(), flush=True)
        if lost or flow.behind_s > GOALS.get(count, 1e9) or flow.peak_gb > MAX_GB:
            goal = f"{GOALS.get(count, 'any')} s, {MAX_GB} GB"
            print(f"{count:,} rows: {lost} lost or doubled; the goal is {goal}")
            code = FAILED
    return code


class S3:
    """One object, as the pieces that were written: a copy costs no memory."""

    def __init__(self, pause, mb_s: float):
        self._pause, self._bytes_s = pause, mb_s * 1e6
        self._pieces: list[bytes] = []
        self._etag, self._metadata, self._numbers = "", {}, itertools.count()
        self._uploads: dict[str, tuple[dict, dict[int, list[bytes]]]] = {}
        self.requests: Counter[str] = Counter()
        self.moved: Counter[str] = Counter()  # bytes: sent, read, copied

    def _take(self, operation: str, kind: str = "", size: int = 0) -> None:
        self.requests[operation] += 1
        self.moved[kind] += size
        self._pause(LATENCY_S.get(operation, OTHER_LATENCY_S) + size / self._bytes_s)

    def _write(self, pieces: list[bytes], metadata: dict) -> dict:
        self._pieces, self._metadata = pieces, metadata
        self._etag = f'"{next(self._numbers)}"'
        return {"ETag": self._etag}

    def _check(self, etag: str, operation: str) -> None:
        if etag != self._etag:
            raise client_error("PreconditionFailed", operation)

    def get_object(self, *, Bucket: str, Key: str, Range: str) -> dict:
        if not self._etag:
            self._take("get_object")
            raise client_error("NoSuchKey", "GetObject")
        first = int(Range.removeprefix("bytes=").rstrip("-"))
        etag, metadata, whole = self._etag, self._metadata, b"".join(self._pieces)
        self._take("get_object", "read", len(whole) - first)
        about = {"ContentRange": f"bytes {first}-{len(whole) - 1}/{len(whole)}", "ETag": etag}
        return about | {"Metadata": metadata, "Body": io.BytesIO(whole[first:])}

    def put_object(
        self, *, Body: bytes, Metadata: dict, IfMatch: str = "", IfNoneMatch: str = "", **_: str
    ) -> dict:
        self._take("put_object", "sent", len(Body))
        self._check("" if IfNoneMatch else IfMatch, "PutObject")
        return self._write([bytes(Body)], Metadata)

    def create_multipart_upload(self, *, Metadata: dict, **_: str) -> dict:
        self._take("create_multipart_upload")
        upload_id = f"{next(self._numbers)}"
        self._uploads[upload_id] = (Metadata, {})
        return {"UploadId": upload_id}

    def upload_part(self, *, UploadId: str, PartNumber: int, Body: bytes, **_: str) -> dict:
        self._take("upload_part", "sent", len(Body))
        self._uploads[UploadId][1][PartNumber] = [bytes(Body)]
        return {"ETag": ""}

    def upload_part_copy(
        self, *, UploadId: str, PartNumber: int, CopySourceRange: str, **_: object
    ) -> dict:
        first, last = map(int, CopySourceRange.removeprefix("bytes=").split("-"))
        pieces = part_of(self._pieces, first, last + 1)
        self._take("upload_part_copy", "copied", last + 1 - first)
        self._uploads[UploadId][1][PartNumber] = pieces
        return {"CopyPartResult": {"ETag": ""}}

    def complete_multipart_upload(self, *, UploadId: str, IfMatch: str, **_: object) -> dict:
        self._take("complete_multipart_upload")
        self._check(IfMatch, "CompleteMultipartUpload")
        metadata, parts = self._uploads.pop(UploadId)
        return self._write([piece for n in sorted(parts) for piece in parts[n]], metadata)

    def count_rows(self) -> int:
        """Different rows; -1 when one is there twice, or the CSV is not whole."""
        text = b"".join(self._pieces).decode()
        keys = [line.split(",")[1] for line in text.removeprefix(HEADER).splitlines()]
        is_complete = text.startswith(HEADER) and text.endswith("\r\n")
        return len(keys) if is_complete and len(keys) == len(set(keys)) else -1


def part_of(pieces: list[bytes], first: int, end: int) -> list[bytes]:
    found, at = [], 0
    for piece in pieces:
        begin, stop = max(first - at, 0), min(end - at, len(piece))
        if begin < stop:
            found.append(piece if stop - begin == len(piece) else piece[begin:stop])
        at += len(piece)
    return found


class Flow:
    """`count` rows on their way."""

    def __init__(self, count: int, args: argparse.Namespace):
        self._count, self._rate, self._factor = count, args.rate, args.cpu_factor
        self._schedule = Schedule(random.Random(count), 10**9, None)
        self.s3 = S3(self._pause, args.mb_s)
        self._message_bytes = len(json.dumps(message(0)))
        self._taken = 0  # rows, in the order in which they arrive
        self._again: list[range] = []  # rows of writers that failed
        self._running, self._idle = 0, []
        self._batches, self._failed, self._sqs_requests, self._busy_s = 0, 0, count, 0.0
        self._polls_at = 0.0
        self.behind_s, self.peak_gb = 0.0, 0.0

    def run(self) -> None:
        schedule = self._schedule
        clock = SimpleNamespace(
            monotonic=lambda: schedule.now, perf_counter=lambda: schedule.now, sleep=schedule.pause
        )
        environment = {"OUTPUT_BUCKET": "bucket"}
        with replaced(
            [
                (metrics_writer, "time", clock),
                (metrics_writer, "ThreadPoolExecutor", OneAfterTheOther),
                (metrics_writer, "s3_client", lambda: self.s3),
                (metrics_writer, "_csvs", OfEnvironment(self._schedule)),
                (metrics_writer, "print", lambda _: None),
                *((handler_os.environ, *item) for item in environment.items()),
            ]
        ):
            self._schedule.at(WINDOW_S, self._poll)
            self._schedule.run()
        self.behind_s = self._schedule.now - self._count / self._rate
        self.peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

    def _pause(self, seconds: float) -> None:
        """A request: what the writer computed before it takes its time, too."""
        self._schedule.pause(self._computed_s() + REQUEST_CPU_S * self._factor + seconds)
        self._schedule.running.cpu_s = time.thread_time()

    def _computed_s(self) -> float:
        return (time.thread_time() - self._schedule.running.cpu_s) * self._factor

    def _poll(self) -> None:
        """Start writers; and look again when a window is over."""
        most = MAX_PAYLOAD // self._message_bytes
        while self._running < WRITERS:
            if self._again:
                self._start(self._again.pop())
                continue
            arrived = min(self._count, int(self._schedule.now * self._rate))
            size = min(most, 10_000, arrived - self._taken)
            if size < most and arrived < self._count and self._schedule.now < self._polls_at:
                return  # within a window, at whose end it is called again
            if size:
                self._start(range(self._taken, self._taken + size))
                self._taken += size
            if arrived == self._count:
                return
            self._polls_at = self._schedule.now + WINDOW_S
            self._schedule.at(self._polls_at, self._poll)
            if not size:
                return

    def _start(self, numbers: range) -> None:
        self._running += 1
        self._batches += 1
        self._sqs_requests += 2 * -(-len(numbers) // 10)  # receiving and deleting
        is_cold = not self._idle
        environment = Environment() if is_cold else self._idle.pop()
        begin_s = self._schedule.now + (COLD_START_S if is_cold else 0)
        event = json.dumps({"Records": [message(number) for number in numbers]}).encode()
        work = partial(self._work, environment, event, numbers)
        writer = Actor(f"writer-{self._batches}", work, ends_at=begin_s + TIMEOUT_S)
        writer.environment = environment
        self._schedule.at(begin_s, writer)

    def _work(self, environment: Environment, event: bytes, numbers: range) -> None:
        me, begin_s = self._schedule.running, self._schedule.now
        me.cpu_s = time.thread_time()
        left_ms = lambda: (me.ends_at - self._schedule.now) * 1000  # noqa: E731
        context = SimpleNamespace(aws_request_id="", get_remaining_time_in_millis=left_ms)
        try:
            answer = metrics_writer.lambda_handler(json.loads(event), context)
            assert not answer["batchItemFailures"]
            self._schedule.pause(self._computed_s())
            self._idle.append(environment)
        except (Ended, metrics_writer.MetricsLogError):
            self._failed += 1
            later = self._schedule.now + VISIBILITY_S
            self._schedule.at(later, partial(self._come_again, numbers))
        self._busy_s += self._schedule.now - begin_s
        self._running -= 1
        self._schedule.at(self._schedule.now, self._poll)

    def _come_again(self, numbers: range) -> None:
        self._again.append(numbers)
        self._poll()

    def line(self) -> str:
        gets, moved = self.s3.requests["get_object"], self.s3.moved
        puts = self.s3.requests.total() - gets
        gb_s = self._busy_s * MEMORY_GB
        usd = puts * USD_PUT + gets * USD_GET + gb_s * USD_GB_S + self._batches * USD_INVOKE
        megabytes = "".join(f"{moved[kind] / 1e6:9,.0f}" for kind in ("sent", "read"))
        return (
            f"{self._count:9,}{self.behind_s:10.1f}{self._batches:9}{self._failed:8}"
            f"{puts + gets:13}{megabytes}{moved['copied'] / 1e6:11,.0f}{gb_s:6,.0f}"
            f"{usd:7.4f}{self._sqs_requests * USD_SQS:12.4f}{self.peak_gb:9.2f}"
        )


def message(number: int) -> dict:
    """As SQS hands it out, of the size that a row has in a run."""
    one = row(
        f"holiday/{number // 1000:04}/picture {number:07}.jpg",
        orig_size=1_234_567,
        new_size=98_765,
        proc_ms=123.456,
        cpu_ms=121.987,
        fetch_ms=34.567,
        store_ms=45.678,
        run_id="20261125T083000-1a2b3c",
        worker="1a2b3c4d5e6f",
        environment="aws",
        transform="v1 pillow-13.0.0 libjpeg-3.1.2",
        request_id="01234567-89ab-cdef-0123-456789abcdef",
    )
    return {
        "messageId": f"01234567-89ab-cdef-0123-{number:012}",
        "receiptHandle": "A" * 340,
        "body": row_to_message(one),
        "attributes": {
            "ApproximateReceiveCount": "1",
            "AWSTraceHeader": "Root=1-67000000-0123456789abcdef01234567;Parent=0123456789abcdef",
            "SentTimestamp": "1764058000000",
            "SenderId": "AROAEXAMPLEEXAMPLE:image-pipeline-Function-0123456789AB",
            "ApproximateFirstReceiveTimestamp": "1764058000000",
        },
        "messageAttributes": {},
        "md5OfBody": "0" * 32,
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:us-east-1:123456789012:image-pipeline-RowsQueue-0123456789",
        "awsRegion": "us-east-1",
    }


if __name__ == "__main__":
    sys.exit(main())
