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
from email.utils import format_datetime

from botocore.exceptions import ClientError

EPOCH = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)  # the server's clock when a campaign begins
STATUS = {
    "NoSuchKey": 404,
    "404": 404,
    "NoSuchBucket": 404,
    "ConditionalRequestConflict": 409,
    "PreconditionFailed": 412,
    "InvalidRange": 416,
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
        etag = f'"{hashlib.md5(Body, usedforsecurity=False).hexdigest()}"'
        modified = self._time().replace(microsecond=0)
        self._change(Bucket, Key, StoredObject(bytes(Body), modified, dict(Metadata or {}), etag))
        return self._answer(200, ETag=etag)

    def get_object(self, *, Bucket: str, Key: str, Range: str | None = None) -> dict:
        there = self._there(Bucket, Key, "GetObject", "NoSuchKey")
        body = there.body if Range is None else _part(there.body, Range)
        status = 200 if Range is None else 206
        return self._answer(status, **self._about(there, len(body)), Body=io.BytesIO(body))

    def head_object(self, *, Bucket: str, Key: str) -> dict:
        there = self._there(Bucket, Key, "HeadObject", "404")
        answer = self._answer(200, **self._about(there, len(there.body)))
        date = format_datetime(self._time(), usegmt=True)
        answer["ResponseMetadata"]["HTTPHeaders"] = {"date": date}
        return answer

    def list_objects_v2(
        self, *, Bucket: str, Prefix: str = "", MaxKeys: int = 1000, StartAfter: str = ""
    ) -> dict:
        objects = self._bucket(Bucket, "ListObjectsV2")
        keys = sorted(key for key in objects if key.startswith(Prefix) and key > StartAfter)
        contents = [
            {"Key": k, "Size": len(objects[k].body), "ETag": objects[k].etag}
            for k in keys[:MaxKeys]
        ]
        found = {"Contents": contents} if contents else {}
        truncated = len(keys) > MaxKeys
        return self._answer(200, KeyCount=len(contents), IsTruncated=truncated, **found)

    def delete_object(self, *, Bucket: str, Key: str) -> dict:
        self._bucket(Bucket, "DeleteObject")
        self._change(Bucket, Key, None)
        return self._answer(204)

    def delete_objects(self, *, Bucket: str, Delete: dict) -> dict:
        self._bucket(Bucket, "DeleteObjects")
        assert Delete["Quiet"]
        for entry in Delete["Objects"]:
            self._change(Bucket, entry["Key"], None)
        return self._answer(200)

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


def _part(body: bytes, wanted: str) -> bytes:
    """Of `bytes=<first>-<last>`."""
    first, last = map(int, wanted.removeprefix("bytes=").split("-"))
    if first >= len(body):
        raise client_error("InvalidRange", "GetObject")
    return body[first : last + 1]


@dataclass
class Queue:
    """SQS, of one queue: a message that was received and not deleted comes again."""

    now_s: Callable[[], float]
    rng: random.Random
    messages: list["Message"] = field(default_factory=list)
    _count: itertools.count = field(default_factory=itertools.count)

    def send(self, body: str) -> None:
        self.messages.append(Message(f"m{next(self._count)}", body))

    def receive_message(
        self,
        *,
        QueueUrl: str,
        MaxNumberOfMessages: int,
        WaitTimeSeconds: int,
        VisibilityTimeout: int,
    ) -> dict:
        """Some of the messages that are not hidden, in no order, as SQS promises no more."""
        visible = [message for message in self.messages if message.hidden_until <= self.now_s()]
        self.rng.shuffle(visible)
        handed_out = visible[: self.rng.randint(1, MaxNumberOfMessages)]
        for message in handed_out:
            message.hidden_until = self.now_s() + VisibilityTimeout
        entries = [{"MessageId": m.id, "ReceiptHandle": m.id, "Body": m.body} for m in handed_out]
        return {"Messages": entries} if entries else {}

    def delete_message(self, *, QueueUrl: str, ReceiptHandle: str) -> dict:
        self.messages = [message for message in self.messages if message.id != ReceiptHandle]
        return {}


@dataclass
class Message:
    id: str
    body: str
    hidden_until: float = 0.0
