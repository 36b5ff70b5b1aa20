"""A smoke test: a picture through the real trigger shows that the bucket tells the function.

A new notification takes up to minutes to come into force on AWS, and S3 tells of nothing that was
put before. So the picture is put again and again until its output appears. Its run id says to the
handler that it gets no row; in the end its input and output are deleted.
"""

import io
import time
import uuid

from PIL import Image

from lambda_function.cloud import Buckets
from lambda_function.handler import INPUT_PREFIX, PROCESSED_PREFIX, SMOKE_TEST_RUN
from lambda_function.image_transform import output_name
from lambda_function.metrics_log import delete_objects, read_object
from metrics.common.cli import UserError

LIMIT_S = 300
PUT_AGAIN_S = 20
POLL_S = 0.5


def fire_canary(s3, buckets: Buckets) -> float:
    """Seconds from the first put to the output. Raises UserError when there is none in time."""
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
            if read_object(s3, buckets.output, output):
                return time.monotonic() - start
            time.sleep(POLL_S)
        raise UserError(
            f"no output of the smoke test s3://{buckets.input}/{key} after {LIMIT_S} s: the bucket "
            "did not tell the function, or the function failed; see its log group, then run the same "
            "command again"
        )
    finally:
        delete_objects(s3, buckets.input, [key])
        delete_objects(s3, buckets.output, [output])
