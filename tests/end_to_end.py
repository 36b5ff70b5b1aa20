"""One run of the cloud arm on an embedded cloud in which things go wrong, and what must hold."""

import contextlib
import hashlib
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from conftest import jpeg
from processes import until

from lambda_function.cloud import Cloud, find_buckets, find_function, make_client
from lambda_function.embedded_cloud import embedded_cloud
from lambda_function.image_transform import measure_transform
from lambda_function.metrics_log import (
    CSV_KEY,
    HEADER,
    MetricRow,
    RowId,
    read_object,
    rows_from_csv,
)
from metrics.collect.cloud_rows import CloudRows, wait_for_rows
from metrics.collect.dead_letters import Queues, find_queues
from metrics.common.cli import UserError
from metrics.run.uploads import upload_images
from onprem_images.dataset import Picture, load_pictures

RUN = "campaign"
PICTURES = 24
WAIT_S = 120


def problems_of_campaign(seed: int) -> list[str]:
    """What did not hold with the faults of `seed`; empty when all did."""
    with tempfile.TemporaryDirectory() as folder, embedded_cloud(2, faults=str(seed)) as cloud:
        pictures = some_pictures(Path(folder))
        s3, bucket = make_client(cloud, "s3"), find_buckets(cloud).output
        queues = find_queues(cloud, find_function(cloud), s3, find_buckets(cloud))
        with watched_csv(s3, bucket) as problems:
            try:
                process(cloud, pictures, queues)
            except UserError as error:
                problems.append(str(error))
            until(partial(nothing_waits, queues))  # events that come twice may still come
        return problems + problems_of_rows(csv_rows(s3, bucket), pictures)


def nothing_waits(queues: Queues) -> bool:
    return queues.count(queues.rows_url) == (0, 0)


def some_pictures(folder: Path) -> list[Picture]:
    for number in range(PICTURES):
        (folder / f"{number} +%2B ü.jpg").write_bytes(jpeg(60 + number, 40))
    (folder / "no picture\r\n.jpg").write_bytes(b"no picture")
    return load_pictures(folder)


def process(cloud: Cloud, pictures: list[Picture], queues: Queues) -> None:
    """Upload and wait, as master_pipeline.py does it."""
    s3, buckets = make_client(cloud, "s3"), find_buckets(cloud)
    upload_images(s3, buckets, pictures, RUN)
    expected = {RowId(RUN, 1, picture.image_key) for picture in pictures}
    wait_for_rows(CloudRows(s3, buckets.output, RUN), expected, WAIT_S, queues=queues)


@contextlib.contextmanager
def watched_csv(s3, bucket: str) -> Iterator[list[str]]:
    """Problems of the CSV, which is read all the time: that it is torn, or that a row changed."""
    problems, before, done = [], [], threading.Event()

    def look() -> None:
        try:
            rows = csv_rows(s3, bucket)
            if rows[: len(before)] != before:
                problems.append(f"a row changed or went away among the first {len(before)}")
            before[:] = rows
        except ValueError as error:
            problems.append(f"the CSV is not whole: {error}")

    def watch() -> None:
        while not done.wait(0.02):
            look()

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield problems
    finally:
        done.set()
        watching.join()
        look()


def csv_rows(s3, bucket: str) -> list[MetricRow]:
    """Raises ValueError when the CSV is not whole."""
    stored = read_object(s3, bucket, CSV_KEY)
    if stored is None:
        return []
    text = stored.data.decode()
    if not text.startswith(HEADER) or not text.endswith("\r\n"):
        raise ValueError("no header, or no end")
    return rows_from_csv(text.removeprefix(HEADER))


def problems_of_rows(rows: list[MetricRow], pictures: list[Picture]) -> list[str]:
    """One row a picture, with the output that this machine makes of it; or why there is none."""
    problems = []
    counts = Counter(row.image_key for row in rows)
    for picture in pictures:
        if counts.pop(picture.image_key, 0) != 1:
            problems.append(f"not one row: {picture.image_key!r}")
    problems += [f"unexpected: {key!r}" for key in counts]
    contents = {picture.image_key: picture.path.read_bytes() for picture in pictures}
    for row in rows:
        data = contents.get(row.image_key, b"")
        here = measure_transform(data)
        gave_up = row.error.startswith("LambdaFailure: ") and row.orig_size == len(data)
        if not gave_up and (row.output_sha256, row.error) != (here.output_sha256, here.error):
            problems.append(f"other work: {row.image_key!r} {row.error}")
        if row.output_sha256 and row.output_sha256 == hashlib.sha256(b"").hexdigest():
            problems.append(f"empty output: {row.image_key!r}")
    return problems
