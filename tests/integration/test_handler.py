"""The cloud arm, called as Lambda calls it, on moto's S3."""

import hashlib
import io
import json
import os
import posixpath
from types import SimpleNamespace
from urllib.parse import quote_plus

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.response import StreamingBody
from conftest import jpeg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from lambda_function import handler
from lambda_function.image_transform import measure_transform, output_name, transform_image
from lambda_function.metrics_log import (
    read_object,
    row_from_message,
)

IN, OUT = "input-bucket", "output-bucket"
METADATA = {"run-id": "run-1", "round": "1"}


def record(key: str, bucket: str = IN, event: str = "ObjectCreated:Put") -> dict:
    """An S3 event record; S3 form-encodes the key."""
    return {
        "eventName": event,
        "s3": {"bucket": {"name": bucket}, "object": {"key": quote_plus(key, safe="/")}},
    }


def context(remaining_ms: int = 60_000) -> SimpleNamespace:
    return SimpleNamespace(
        aws_request_id="request-1", get_remaining_time_in_millis=lambda: remaining_ms
    )


@pytest.fixture
def invoke(s3, monkeypatch):
    """Put pictures, by key, and call the handler with one event that tells of them."""
    monkeypatch.setenv("OUTPUT_BUCKET", OUT)
    monkeypatch.setenv(
        "ROWS_QUEUE_URL", boto3.client("sqs").create_queue(QueueName="rows")["QueueUrl"]
    )
    monkeypatch.setattr(handler, "client", lambda service: s3 if service == "s3" else sqs())

    def call(pictures: dict[str, bytes], *, metadata=METADATA, lambda_context=None) -> dict:
        for key, data in pictures.items():
            s3.put_object(Bucket=IN, Key=key, Body=data, Metadata=metadata)
        event = {"Records": [record(key) for key in pictures]}
        return handler.lambda_handler(event, lambda_context or context())

    return call


def sqs():
    return boto3.client("sqs")


def sent_rows() -> list:
    """The rows that were sent to the queue since the last call."""
    found, url = [], sqs().get_queue_url(QueueName="rows")["QueueUrl"]
    while messages := sqs().receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
        for message in messages:
            found.append(row_from_message(message["Body"]))
            sqs().delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return found


KEYS = [
    "plain.jpg",
    "sub/folder/x.jpg",
    "a b+c.jpg",
    "100%.jpg",
    "%2B.jpg",
    "ünï/çødé 🦊.jpg",
    "x&y=z?#.jpg",
    "quote'\".jpg",
    "new\nline.jpg",
    "..jpg",
    "-rf.jpg",
]


@pytest.mark.parametrize("name", KEYS)
def test_a_picture_of_any_name_becomes_an_output_and_one_row(s3, invoke, name):
    picture = jpeg()
    assert invoke({f"input/{name}": picture})["ok"] == 1
    output = s3.get_object(Bucket=OUT, Key=f"processed/{name}")
    assert output["Body"].read() == transform_image(picture)
    assert output["ContentType"] == "image/jpeg"
    (row,) = sent_rows()
    assert (row.image_key, row.run_id, row.round, row.status) == (name, "run-1", 1, "ok")


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_keys_decode_to_what_was_uploaded(name):
    assert handler.object_key(record(f"input/{name}")) == f"input/{name}"


def test_the_row_says_what_was_done(s3, invoke, monkeypatch):
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "1769")
    picture = jpeg(900, 700)
    invoke({"input/a.jpg": picture})
    (row,) = sent_rows()
    output = transform_image(picture)
    assert (row.orig_size, row.new_size) == (len(picture), len(output))
    assert (row.source, row.environment, row.memory_mb) == ("cloud", "aws", 1769)
    assert min(row.proc_ms, row.cpu_ms, row.fetch_ms, row.store_ms) > 0
    assert Image.open(io.BytesIO(output)).size == (800, 600)


@pytest.mark.parametrize(
    ("endpoint", "environment"),
    [
        (None, "aws"),
        ("https://s3.cn-north-1.amazonaws.com.cn", "aws"),
        ("http://127.0.0.1:4566", "embedded"),
        ("http://localhost.localstack.cloud:4566", "embedded"),
    ],
)
def test_only_an_s3_of_awss_is_called_aws(endpoint, environment):
    assert handler.environment_of(boto3.client("s3", endpoint_url=endpoint)) == environment


@pytest.mark.parametrize(
    ("metadata", "number"), [({"round": "3"}, 3), ({}, 1), ({"round": "x"}, 1), ({"round": ""}, 1)]
)
def test_the_round_comes_from_the_upload_and_is_1_elsewhere(metadata, number):
    assert handler.number_in(metadata, "round", 1) == number


def test_a_picture_that_cannot_be_read_is_an_error_row_and_no_failure(s3, invoke):
    assert invoke({"input/bad.jpg": b"no picture"})["error"] == 1
    (row,) = sent_rows()
    assert (row.status, row.new_size, row.output_sha256) == ("error", 0, "")
    assert row.error.startswith("UnreadableImage: ")
    assert read_object(s3, OUT, "processed/bad.jpg") is None


def test_every_record_of_an_event_gets_a_row(s3, invoke):
    counts = invoke({"input/a.jpg": jpeg(), "input/b.jpg": b"bad", "input/c.jpg": jpeg(99, 9)})
    assert (counts["ok"], counts["error"]) == (2, 1)
    assert sorted(row.image_key for row in sent_rows()) == ["a.jpg", "b.jpg", "c.jpg"]


def test_only_the_first_picture_of_an_environment_is_a_cold_start(s3, invoke, monkeypatch):
    monkeypatch.setattr(handler, "_is_cold", True)
    invoke({"input/a.jpg": jpeg(), "input/b.jpg": jpeg()})
    invoke({"input/c.jpg": jpeg()})
    cold = {row.image_key: row.cold_start for row in sent_rows()}
    assert cold == {"a.jpg": True, "b.jpg": False, "c.jpg": False}


def test_a_row_that_cannot_be_sent_fails_the_invocation_so_that_it_is_retried(
    s3, invoke, monkeypatch
):
    monkeypatch.setenv("ROWS_QUEUE_URL", os.environ["ROWS_QUEUE_URL"] + "-gone")
    with pytest.raises(ClientError, match="NonExistentQueue"):
        invoke({"input/a.jpg": jpeg()})


def test_an_object_that_no_run_uploaded_belongs_to_no_run(s3, invoke):
    invoke({"input/a.jpg": jpeg()}, metadata={})
    assert sent_rows()[0].run_id == handler.NO_RUN


class AnyKey:
    """An S3 in which every key holds a picture; it takes note of what is written."""

    def __init__(self):
        self.meta = SimpleNamespace(endpoint_url="http://127.0.0.1:1")
        self.written: list[str] = []

    def get_object(self, **_: object) -> dict:
        body = StreamingBody(io.BytesIO(PICTURE), len(PICTURE))
        return {"Body": body, "ContentLength": len(PICTURE), "Metadata": {}}

    def put_object(self, **request: object) -> None:
        self.written.append(request["Key"])


PICTURE = jpeg()
PARTS = st.sampled_from(
    ["", ".", "..", "...", "..a", "a..", "a", "processed", "metrics", "\\..", "%2e"]
)
FOREIGN_KEYS = st.lists(PARTS | st.text(st.characters(codec="utf-8"), max_size=5), min_size=1)


@given(FOREIGN_KEYS.map("/".join), st.sampled_from(["input/", "", "/", "input//", "input/../"]))
def test_no_output_leaves_its_prefix_whatever_the_key(image_key, prefix):
    s3 = AnyKey()
    event = record(prefix + image_key)
    if not handler.refusal(event, OUT):
        row = handler.process_record(s3, event, OUT, False, "request")
        assert row.status == "ok"
        assert s3.written == [f"processed/{output_name(row.image_key)}"]
    for key in s3.written:
        assert posixpath.normpath(key) == key
        assert key.startswith("processed/")


@pytest.mark.parametrize(
    "key", ["input/../../x", "input//x", "input/./x", "input/a/../x", "input/.."]
)
def test_a_foreign_object_whose_key_is_no_plain_path_gets_no_output_and_no_row(s3, invoke, key):
    assert invoke({key: jpeg()})["refused"] == 1
    assert s3.list_objects_v2(Bucket=OUT)["KeyCount"] == 0


def test_a_file_that_is_too_large_is_not_read_and_keeps_its_size(s3, invoke, monkeypatch):
    picture = jpeg()
    monkeypatch.setattr(handler, "MAX_BYTES", len(picture) - 1)
    assert invoke({"input/a.jpg": picture})["error"] == 1
    (row,) = sent_rows()
    assert (row.orig_size, row.error) == (len(picture), measure_transform(None).error)


@pytest.mark.parametrize(
    "refused",
    [
        record("input/a.jpg", bucket=OUT),
        record("processed/a.jpg"),
        record("input/folder/"),
        record("input/a.jpg", event="ObjectRemoved:Delete"),
    ],
)
def test_events_that_could_recurse_or_are_no_picture_are_refused(s3, invoke, refused, capsys):
    s3.put_object(Bucket=OUT, Key="input/a.jpg", Body=jpeg())
    before = s3.list_objects_v2(Bucket=OUT)["KeyCount"]
    counts = handler.lambda_handler({"Records": [refused]}, context())
    assert counts == {"ok": 0, "error": 0, "refused": 1}
    assert s3.list_objects_v2(Bucket=OUT)["KeyCount"] == before
    assert "refused" in json.loads(capsys.readouterr().out.splitlines()[0])


def test_the_test_event_that_s3_sends_first_is_harmless(s3, invoke):
    event = {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": IN}
    assert handler.lambda_handler(event, context())["ok"] == 0


def test_a_fault_of_s3_fails_the_invocation_so_that_it_is_retried(s3, invoke):
    with pytest.raises(ClientError, match="NoSuchKey"):
        handler.lambda_handler({"Records": [record("input/gone.jpg")]}, context())


def test_one_json_line_is_logged_and_never_the_event(s3, invoke, capsys):
    invoke({"input/secret-name.jpg": jpeg()})
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["request_id"] == "request-1"
    assert "secret-name" not in line


def test_other_bytes_than_were_listed_are_an_error_row(s3, invoke):
    listed = METADATA | {"sha256": hashlib.sha256(jpeg(colour="red")).hexdigest()}
    invoke({"input/a.jpg": jpeg()}, metadata=listed)
    (row,) = sent_rows()
    assert (row.status, row.error) == ("error", "ChangedPicture: not the bytes that were listed")
    assert s3.list_objects_v2(Bucket=OUT, Prefix="processed/")["KeyCount"] == 0
