"""S3 and SQS in memory: exact where the code under test relies on it, and no wider than it uses.

Conditional writes as AWS documents them:
https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
test_fault_model.py holds this S3 against moto's, operation by operation.
"""

import hashlib
import io
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from botocore.exceptions import ClientError

EPOCH = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)  # the server's clock when a campaign begins
STATUS = {
    "NoSuchKey": 404,
    "404": 404,
    "NoSuchBucket": 404,
    "ConditionalRequestConflict": 409,
    "PreconditionFailed": 412,
    "InvalidRange": 416,
    "NoSuchUpload": 404,
    "InvalidPart": 400,
    "InternalError": 500,
    "SlowDown": 503,
}


def client_error(code: str, operation: str) -> ClientError:
    answer = {
        "Error": {"Code": code, "Message": code},
        "ResponseMetadata": {"HTTPStatusCode": STATUS[code]},
    }
    return ClientError(answer, operation)


@dataclass(frozen=True)
class StoredObject:
    body: bytes
    modified: datetime
    metadata: dict[str, str]
    etag: str


@dataclass
class S3:
    """Buckets of objects. `on_change(bucket, key, old, new)` is called after every change."""

    now_s: Callable[[], float]
    on_change: Callable[[str, str, StoredObject | None, StoredObject | None], None]
    buckets: dict[str, dict[str, StoredObject]]
    changes: int = 0  # so far, of any object
    changed_at: dict[tuple[str, str], int] = field(default_factory=dict)  # `changes` by object
    _count: itertools.count = field(default_factory=itertools.count)
    # Metadata and parts of the multipart uploads that are open.
    uploads: dict[str, tuple[dict[str, str], dict[int, bytes]]] = field(default_factory=dict)

    def put_object(
        self,
        *,
        Bucket: str,
        Key: str,
        Body: bytes,
        ContentType: str = "",
        Metadata: dict[str, str] | None = None,
        IfMatch: str | None = None,
        IfNoneMatch: str | None = None,
    ) -> dict:
        there = self._bucket(Bucket, "PutObject").get(Key)
        if IfNoneMatch is not None and there:
            raise client_error("PreconditionFailed", "PutObject")
        if IfMatch is not None and not there:
            raise client_error("NoSuchKey", "PutObject")
        if IfMatch is not None and IfMatch != there.etag:
            raise client_error("PreconditionFailed", "PutObject")
        etag = _etag(Body)
        modified = self._time().replace(microsecond=0)
        self._change(Bucket, Key, StoredObject(bytes(Body), modified, dict(Metadata or {}), etag))
        return self._answer(200, ETag=etag)

    def get_object(self, *, Bucket: str, Key: str, Range: str | None = None) -> dict:
        there = self._there(Bucket, Key, "GetObject", "NoSuchKey")
        if Range is None:
            about = self._about(there, len(there.body))
            return self._answer(200, **about, Body=io.BytesIO(there.body))
        first, last = _bounds(there.body, Range)
        part, size = there.body[first : last + 1], len(there.body)
        about = self._about(there, len(part)) | {"ContentRange": f"bytes {first}-{last}/{size}"}
        return self._answer(206, **about, Body=io.BytesIO(part))

    def head_object(self, *, Bucket: str, Key: str) -> dict:
        there = self._there(Bucket, Key, "HeadObject", "404")
        return self._answer(200, **self._about(there, len(there.body)))

    def list_objects_v2(self, *, Bucket: str, Prefix: str) -> dict:
        """All on one page."""
        keys = sorted(
            key for key in self._bucket(Bucket, "ListObjectsV2") if key.startswith(Prefix)
        )
        return self._answer(200, Contents=[{"Key": key} for key in keys])

    def create_multipart_upload(
        self, *, Bucket: str, Key: str, ContentType: str = "", Metadata: dict[str, str]
    ) -> dict:
        self._bucket(Bucket, "CreateMultipartUpload")
        upload_id = f"upload-{next(self._count)}"
        self.uploads[upload_id] = (dict(Metadata), {})
        return self._answer(200, UploadId=upload_id)

    def upload_part(
        self, *, Bucket: str, Key: str, UploadId: str, PartNumber: int, Body: bytes
    ) -> dict:
        return self._answer(200, ETag=self._part(UploadId, PartNumber, Body, "UploadPart"))

    def upload_part_copy(
        self,
        *,
        Bucket: str,
        Key: str,
        UploadId: str,
        PartNumber: int,
        CopySource: dict[str, str],
        CopySourceRange: str,
    ) -> dict:
        source = self._there(CopySource["Bucket"], CopySource["Key"], "UploadPartCopy", "NoSuchKey")
        first, last = _bounds(source.body, CopySourceRange)
        etag = self._part(UploadId, PartNumber, source.body[first : last + 1], "UploadPartCopy")
        return self._answer(200, CopyPartResult={"ETag": etag})

    def _part(self, upload_id: str, number: int, body: bytes, operation: str) -> str:
        if upload_id not in self.uploads:
            raise client_error("NoSuchUpload", operation)
        self.uploads[upload_id][1][number] = bytes(body)
        return _etag(body)

    def complete_multipart_upload(
        self,
        *,
        Bucket: str,
        Key: str,
        UploadId: str,
        MultipartUpload: dict,
        IfMatch: str | None = None,
    ) -> dict:
        there = self._bucket(Bucket, "CompleteMultipartUpload").get(Key)
        if UploadId not in self.uploads:
            raise client_error("NoSuchUpload", "CompleteMultipartUpload")
        if IfMatch is not None and not there:
            raise client_error("NoSuchKey", "CompleteMultipartUpload")
        if IfMatch is not None and IfMatch != there.etag:
            raise client_error("PreconditionFailed", "CompleteMultipartUpload")
        metadata, parts = self.uploads[UploadId]
        bodies = [parts[part["PartNumber"]] for part in MultipartUpload["Parts"]]
        if [part["ETag"] for part in MultipartUpload["Parts"]] != [_etag(body) for body in bodies]:
            raise client_error("InvalidPart", "CompleteMultipartUpload")
        del self.uploads[UploadId]
        sums = b"".join(hashlib.md5(b, usedforsecurity=False).digest() for b in bodies)
        etag = f'"{hashlib.md5(sums, usedforsecurity=False).hexdigest()}-{len(bodies)}"'
        modified = self._time().replace(microsecond=0)
        self._change(Bucket, Key, StoredObject(b"".join(bodies), modified, metadata, etag))
        return self._answer(200, ETag=etag)

    def delete_object(self, *, Bucket: str, Key: str) -> dict:
        self._bucket(Bucket, "DeleteObject")
        self._change(Bucket, Key, None)
        return self._answer(204)

    def _bucket(self, name: str, operation: str) -> dict[str, StoredObject]:
        if name not in self.buckets:
            raise client_error("NoSuchBucket", operation)
        return self.buckets[name]

    def _there(self, bucket: str, key: str, operation: str, code: str) -> StoredObject:
        if (there := self._bucket(bucket, operation).get(key)) is None:
            raise client_error(code, operation)
        return there

    def _change(self, bucket: str, key: str, new: StoredObject | None) -> None:
        objects = self.buckets[bucket]
        old = objects.pop(key, None)
        if new is not None:
            objects[key] = new
        if old is not None or new is not None:
            self.changes += 1
            self.changed_at[bucket, key] = self.changes
            self.on_change(bucket, key, old, new)

    def _time(self) -> datetime:
        return EPOCH + timedelta(seconds=self.now_s())

    def _about(self, there: StoredObject, length: int) -> dict:
        return {
            "ContentLength": length,
            "ETag": there.etag,
            "LastModified": there.modified,
            "Metadata": dict(there.metadata),
        }

    def _answer(self, status: int, **fields: object) -> dict:
        return {"ResponseMetadata": {"HTTPStatusCode": status}, **fields}


def _etag(body: bytes) -> str:
    return f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'


def _bounds(body: bytes, wanted: str) -> tuple[int, int]:
    """The first and the last byte of `bytes=<first>-<last>`; without a last one, to the end."""
    first, _, last = wanted.removeprefix("bytes=").partition("-")
    if int(first) >= len(body):
        raise client_error("InvalidRange", "GetObject")
    return int(first), min(int(last or len(body)), len(body) - 1)


@dataclass
class Queue:
    """One queue of SQS: a message that was received and not deleted comes again, and when that was
    too often, it goes to the failure queue. `on_delete` is called with what is deleted."""

    now_s: Callable[[], float]
    rng: random.Random
    on_send: Callable[["Message"], None] = lambda _: None
    on_delete: Callable[["Message"], None] = lambda _: None
    failures: "Queue | None" = None
    max_receives: int = 0
    messages: list["Message"] = field(default_factory=list)
    _count: itertools.count = field(default_factory=itertools.count)

    def send(self, body: str) -> None:
        message = Message(f"m{next(self._count)}", body)
        self.messages.append(message)
        self.on_send(message)

    def take(self, most: int, visibility_s: float) -> list["Message"]:
        """Some of the messages that are not hidden, in no order, as SQS promises no more."""
        visible = [message for message in self.messages if message.hidden_until <= self.now_s()]
        self.rng.shuffle(visible)
        taken = []
        for message in visible[: self.rng.randint(1, most)]:
            if self.failures and message.received >= self.max_receives:
                self.messages.remove(message)
                self.failures.send(message.body)
                continue
            message.received += 1
            message.hidden_until = self.now_s() + visibility_s
            taken.append(message)
        return taken

    def delete(self, message_id: str) -> None:
        for message in self.messages:
            if message.id == message_id:
                self.messages.remove(message)
                self.on_delete(message)
                return

    def send_message(self, *, MessageBody: str) -> dict:
        self.send(MessageBody)
        return {}

    def receive_message(
        self, *, MaxNumberOfMessages: int, WaitTimeSeconds: int, VisibilityTimeout: int
    ) -> dict:
        taken = self.take(MaxNumberOfMessages, VisibilityTimeout)
        entries = [{"MessageId": m.id, "ReceiptHandle": m.id, "Body": m.body} for m in taken]
        return {"Messages": entries} if entries else {}

    def delete_message(self, *, ReceiptHandle: str) -> dict:
        self.delete(ReceiptHandle)
        return {}

    def get_queue_attributes(self, *, AttributeNames: list[str]) -> dict:
        visible = sum(message.hidden_until <= self.now_s() for message in self.messages)
        counts = (visible, len(self.messages) - visible)
        return {"Attributes": dict(zip(AttributeNames, map(str, counts), strict=True))}


@dataclass
class Queues:
    """SQS: queues by URL."""

    by_url: dict[str, Queue]

    def __getattr__(self, operation: str) -> Callable[..., dict]:
        def call(*, QueueUrl: str, **params: object) -> dict:
            return getattr(self.by_url[QueueUrl], operation)(**params)

        return call


@dataclass
class Message:
    id: str
    body: str
    received: int = 0
    hidden_until: float = 0.0
