"""Pictures on their way to the input bucket: the uploads, the run's manifest, and what must hold
before the first of them."""

import mimetypes
import sys
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor, as_completed

from botocore.exceptions import ClientError

from lambda_function.cloud import Buckets
from lambda_function.metrics_log import (
    INPUT_PREFIX,
    RowId,
    is_missing,
    put_if,
    read_object,
    status_of,
)
from metrics.collect.cloud_rows import MANIFESTS_PREFIX, CloudRows
from metrics.common.cli import UserError, cloud_problem
from metrics.common.progress import tqdm
from onprem_images.dataset import Picture, manifest_bytes, order_of_pass

UPLOADS_AT_ONCE = 8


def object_key(picture: Picture) -> str:
    return INPUT_PREFIX + picture.image_key


def upload_images(
    s3,
    buckets: Buckets,
    pictures: list[Picture],
    run_id: str,
    round_number: int = 1,
    workers: int = UPLOADS_AT_ONCE,
    before: frozenset[str] = frozenset(),
) -> None:
    """Upload all that can be, but for those whose keys are in `before`: they were, before now.

    Raises UserError when some can not be uploaded, after naming each on stderr.
    """
    put_manifest(s3, buckets.output, run_id, round_number, pictures)
    pictures = [p for p in order_of_pass(pictures, round_number) if p.image_key not in before]
    failures = []
    with (
        progress_in_bytes(pictures) as bar,
        ThreadPoolExecutor(workers) as pool,
    ):
        lock = threading.Lock()

        def advance(sent: int) -> None:
            with lock:
                bar.update(sent)

        tasks = {}
        for picture in pictures:
            about = {
                "run-id": run_id,
                "round": str(round_number),
                "sha256": picture.sha256,  # so that the function sees when it gets other bytes
            }
            task = pool.submit(upload_image, s3, buckets.input, picture, about, advance)
            tasks[task] = picture
        try:
            for task in as_completed(tasks):
                if (error := task.exception()) is not None:
                    failures.append((tasks[task], reason_of(error)))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    for picture, reason in failures:
        print(f"error: {picture.image_key!r}: {reason}", file=sys.stderr)
    if failures:
        raise UserError(f"{len(failures)} of {len(pictures)} pictures were not uploaded; see above")


def uploaded_before(
    s3, buckets: Buckets, pictures: list[Picture], run_id: str, round_number: int
) -> frozenset[str]:
    """Keys of the pictures that need no upload any more: they have a row of this run and round, or
    the input bucket holds them for it, so that their event is on its way."""
    rows = CloudRows(s3, buckets.output, run_id)
    rows.look()

    def is_there(picture: Picture) -> bool:
        if RowId(run_id, round_number, picture.image_key) in rows.found:
            return True
        try:
            found = s3.head_object(Bucket=buckets.input, Key=object_key(picture))["Metadata"]
        except ClientError as error:
            if is_missing(error):
                return False
            raise
        same = (found.get("run-id"), found.get("round"), found.get("sha256"))
        return same == (run_id, str(round_number), picture.sha256)

    with ThreadPoolExecutor(UPLOADS_AT_ONCE) as pool:
        are_there = pool.map(is_there, pictures)
        return frozenset(p.image_key for p, is_up in zip(pictures, are_there, strict=True) if is_up)


def progress_in_bytes(pictures: list[Picture]) -> tqdm:
    total = sum(picture.size for picture in pictures)
    return tqdm(total=total, desc="upload", unit="B", unit_scale=True, disable=None)


def upload_image(s3, bucket: str, picture: Picture, about: dict[str, str], advance) -> None:
    """Stream one picture, in parts when it is large, with `about` as metadata. `advance` is told
    each count of bytes."""
    from boto3.s3.transfer import TransferConfig

    content_type, _ = mimetypes.guess_type(picture.path.name)
    s3.upload_file(
        str(picture.path),
        bucket,
        object_key(picture),
        ExtraArgs={
            "ContentType": content_type or "application/octet-stream",
            "Metadata": about,
        },
        Callback=advance,
        Config=TransferConfig(use_threads=False),  # the pictures are in parallel already
    )


def reason_of(error: BaseException) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, Exception) and (line := cloud_problem(error)):
        return line
    raise error


def check_run_is_new(s3, bucket: str, run_id: str) -> None:
    """Raise UserError when rows of an earlier run could be taken for this one's."""
    if read_object(s3, bucket, manifest_key(run_id)):
        raise UserError(f"run id {run_id!r} was used before in bucket {bucket!r}; choose another")


def manifest_key(run_id: str) -> str:
    return f"{MANIFESTS_PREFIX}{run_id}.json"


def put_manifest(s3, bucket: str, run_id: str, rounds: int, pictures: list[Picture]) -> None:
    """Record what the run uploads, in so many rounds by now: later runs clean by it alone."""
    s3.put_object(
        Bucket=bucket,
        Key=manifest_key(run_id),
        Body=manifest_bytes(run_id, rounds, pictures),
        ContentType="application/json",
    )


def check_conditional_writes(s3, bucket: str) -> None:
    """Raise UserError when this S3 ignores conditions on writes: rows could then be lost."""
    key = f"metrics/probe-{uuid.uuid4().hex}"
    where = {"Bucket": bucket, "Key": key}
    try:
        s3.put_object(**where, Body=b"1")
        ignored = [name for name, is_refused in CONDITIONS.items() if not is_refused(s3, where)]
    finally:
        s3.delete_object(**where)
    if ignored:
        raise UserError(
            f"the S3 server of bucket {bucket!r} ignores {ignored[0]}, so rows could be lost when "
            "two writers meet; use a server that honours it"
        )


def refuses_to_overwrite(s3, where: dict[str, str]) -> bool:
    return not put_if(s3, *where.values(), b"2", IfNoneMatch="*")


def refuses_to_complete(s3, where: dict[str, str]) -> bool:
    """Of a multipart upload, by which large CSVs are written."""
    upload = {**where, "UploadId": s3.create_multipart_upload(**where)["UploadId"]}
    etag = s3.upload_part(**upload, PartNumber=1, Body=b"2")["ETag"]
    parts = {"Parts": [{"PartNumber": 1, "ETag": etag}]}
    try:
        s3.complete_multipart_upload(**upload, MultipartUpload=parts, IfMatch='"0"')
    except ClientError as error:
        if status_of(error) not in (409, 412):
            raise
        s3.abort_multipart_upload(**upload)
        return True
    return False


CONDITIONS = {
    "If-None-Match on PUT": refuses_to_overwrite,
    "If-Match on CompleteMultipartUpload": refuses_to_complete,
}
