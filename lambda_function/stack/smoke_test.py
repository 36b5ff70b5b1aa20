"""A picture through the whole stack: trigger, function, queue, metrics writer, CSV.

A new notification takes up to minutes to come into force on AWS, and S3 tells of nothing that was
put before. So the picture is put again and again until its row is in the CSV of smoke tests, which
is written as any other: a permission that is missing shows here, and not after the first run. In
the end the picture, its output and that CSV are deleted.
"""

import io
import time
import uuid

from PIL import Image

from lambda_function.cloud import Buckets
from lambda_function.handler import INPUT_PREFIX, PROCESSED_PREFIX
from lambda_function.image_transform import output_name
from lambda_function.metrics_log import (
    SMOKE_TEST_KEY,
    SMOKE_TEST_RUN,
    delete_objects,
    id_of,
    open_csv,
    read_object,
)
from metrics.common.cli import UserError

LIMIT_S = 300
PUT_AGAIN_S = 20
POLL_S = 0.5


def run_smoke_test(s3, buckets: Buckets) -> float:
    """Seconds from the first put to the row. Raises UserError when there is none in time."""
    name = f"smoke-test-{uuid.uuid4().hex}.png"
    key, output = INPUT_PREFIX + name, PROCESSED_PREFIX + output_name(name)
    picture = io.BytesIO()
    Image.new("RGB", (8, 6), "yellow").save(picture, "PNG")
    start, next_put = time.monotonic(), 0.0
    try:
        while (waited_s := time.monotonic() - start) < LIMIT_S:
            if waited_s >= next_put:
                s3.put_object(
                    Bucket=buckets.input,
                    Key=key,
                    Body=picture.getvalue(),
                    Metadata={"run-id": SMOKE_TEST_RUN},
                    ContentType="image/png",
                )
                next_put = waited_s + PUT_AGAIN_S
            if has_row(s3, buckets.output, name):
                return time.monotonic() - start
            time.sleep(POLL_S)
        where = f"s3://{buckets.input}/{key}"
        if read_object(s3, buckets.output, output):
            problem = f"no row of the smoke test's {where}, which has its output"
            cause = "the row did not reach the metrics writer, or that failed"
        else:
            problem = f"no output of the smoke test's {where}"
            cause = "the bucket did not tell the function, or the function failed"
        raise UserError(
            f"{problem}, after {LIMIT_S} s: {cause}; see its log group, then run the same command "
            "again"
        )
    finally:
        delete_objects(s3, buckets.input, [key])
        delete_objects(s3, buckets.output, [output, SMOKE_TEST_KEY])


def has_row(s3, bucket: str, image_key: str) -> bool:
    part = open_csv(s3, bucket, SMOKE_TEST_KEY)
    return part is not None and image_key in [id_of(r).image_key for r in part.records()]
