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
from lambda_function.metrics_log import read_object, row_from_message

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
        record("input/a.jpg", event="ObjectRestore:Completed"),
        record("input/a.jpg", event="ObjectTagging:Put"),
        record("input/" + "x" * 1100),
    ],
)
def test_events_that_could_recurse_or_are_no_picture_are_refused(s3, invoke, refused, capsys):
    s3.put_object(Bucket=OUT, Key="input/a.jpg", Body=jpeg())
    before = s3.list_objects_v2(Bucket=OUT)["KeyCount"]
    counts = handler.lambda_handler({"Records": [refused]}, context())
    assert {name: n for name, n in counts.items() if n and name != "reasons"} == {"refused": 1}
    assert s3.list_objects_v2(Bucket=OUT)["KeyCount"] == before
    assert "refused" in json.loads(capsys.readouterr().out.splitlines()[0])


def test_the_test_event_that_s3_sends_first_is_harmless_and_said_to_be_one(s3, invoke, capsys):
    event = {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": IN}
    counts = handler.lambda_handler(event, context())
    assert (counts["ok"], counts["refused"], counts["test"], counts["reasons"]) == (0, 0, 1, {})
    first, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["test"] == "S3's, sent when the notification was set up"
    assert (first["level"], last["test"]) == ("INFO", 1)


S3_EVENT = json.dumps({"Records": [record("input/a.jpg")]})
FOREIGN = {
    "null in place of an event": None,
    "a list in place of an event": [],
    "a text in place of an event": S3_EVENT,
    "a number in place of an event": 7,
    "a truth value in place of an event": True,
    "an empty event": {},
    "an empty event ": {"Records": []},
    "an event of no known kind, with 'Records'": {"Records": {"s3": {}}},
    "an event of no known kind, with 'key1', 'key2', 'key3'": {"key1": 1, "key2": 2, "key3": 3},
    "an event of no known kind, with 'a', 'b', 'c', 'd', 'e', ...": dict.fromkeys("abcdefg"),
    "an EventBridge event, 'Object Created' of 'aws.s3'": {
        "version": "0",
        "source": "aws.s3",
        "detail-type": "Object Created",
        "detail": {"bucket": {"name": IN}, "object": {"key": "input/a.jpg"}},
    },
    "an EventBridge event, 'Scheduled Event' of 'aws.events'": {
        "source": "aws.events",
        "detail-type": "Scheduled Event",
        "detail": {},
    },
    "an HTTP request (function URL, API Gateway or load balancer)": {
        "version": "2.0",
        "rawPath": "/",
        "requestContext": {"http": {"method": "GET"}},
    },
    "a record of a Lambda destination": {
        "requestContext": {},
        "requestPayload": json.loads(S3_EVENT),
    },
    "a CloudWatch Logs event": {"awslogs": {"data": "H4s"}},
    "an SQS message": {"Records": [{"eventSource": "aws:sqs", "body": S3_EVENT}]},
    "an SNS message": {"Records": [{"EventSource": "aws:sns", "Sns": {"Message": S3_EVENT}}]},
    "a DynamoDB record": {
        "Records": [{"eventSource": "aws:dynamodb", "eventName": "INSERT", "dynamodb": {}}]
    },
    "a Kinesis record": {"Records": [{"eventSource": "aws:kinesis", "kinesis": {"data": "e30="}}]},
    "an event of 'aws:codecommit'": {"Records": [{"eventSource": "aws:codecommit"}]},
    "a CloudFront request": {"Records": [{"cf": {"request": {}}}]},
    "a list in place of an event ": {"Records": [[]]},
    "null in place of an event ": {"Records": [None]},
    "an empty event  ": {"Records": [{}]},
}


@pytest.mark.parametrize(("name", "event"), FOREIGN.items(), ids=map(str.strip, FOREIGN))
def test_an_event_that_is_not_s3s_is_refused_by_name_and_counted(s3, invoke, capsys, name, event):
    counts = handler.lambda_handler(event, context())
    reason = f"{name.strip()}, and no S3 event of a picture"
    assert {name: n for name, n in counts.items() if n} == {"refused": 1, "reasons": {reason: 1}}
    line, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert line == {"request_id": "request-1", "level": "ERROR", "refused": reason, "count": 1}
    assert (last["refused"], last["ok"]) == (1, 0)
    assert s3.list_objects_v2(Bucket=OUT)["KeyCount"] == 0
    json.dumps(counts)


WRONG = [None, 7, True, [], {}, "", ["x"], {"x": 1}, "\ud800"]
MEMBERS = [("s3",), ("s3", "bucket"), ("s3", "bucket", "name"), ("s3", "object")]
MEMBERS += [("s3", "object", "key"), ("eventName",)]


@pytest.mark.parametrize("value", WRONG, ids=repr)
@pytest.mark.parametrize("members", MEMBERS, ids=".".join)
def test_a_record_that_is_not_whole_is_refused_and_says_what_it_lacks(s3, invoke, members, value):
    for left_out in (False, True):
        odd = record("input/a.jpg")
        part = odd
        for member in members[:-1]:
            part = part[member]
        part[members[-1]] = value
        if left_out:
            del part[members[-1]]
        (reason,) = handler.lambda_handler({"Records": [odd]}, context())["reasons"]
        assert reason.startswith("an S3 record without a valid ")
        assert ".".join(members) in reason


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["Records", "s3", "bucket", "object", "name", "key", "eventName"])
            | st.sampled_from(["eventSource", "detail-type", "source", "requestContext", "Event"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(JSON)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_the_event_something_is_counted_and_nothing_raised(s3, invoke, event):
    counts = handler.lambda_handler(event, context())
    counted = sum(n for name, n in counts.items() if name != "reasons")
    assert counted == sum(counts["reasons"].values()) + counts["test"] + counts["gone"] > 0


def test_in_a_mixed_event_the_good_are_done_and_the_others_refused_by_name(s3, invoke, capsys):
    for name in ("a", "b"):
        s3.put_object(Bucket=IN, Key=f"input/{name}.jpg", Body=jpeg(), Metadata=METADATA)
    queued = {"eventSource": "aws:sqs", "body": "x"}
    records = [queued, record("input/a.jpg"), None, record("input/gone.jpg"), queued]
    counts = handler.lambda_handler({"Records": [*records, record("input/b.jpg")]}, context())
    assert (counts["ok"], counts["refused"], counts["gone"]) == (2, 3, 1)
    assert list(counts["reasons"].values()) == [2, 1]
    assert sorted(row.image_key for row in sent_rows()) == ["a.jpg", "b.jpg"]


def test_an_object_that_is_gone_is_said_to_be_and_not_tried_again(s3, invoke, capsys):
    counts = handler.lambda_handler({"Records": [record("input/gone.jpg")]}, context())
    assert (counts["gone"], counts["ok"], counts["error"]) == (1, 0, 0)
    line = json.loads(capsys.readouterr().out.splitlines()[0])
    assert (line["level"], line["gone"]) == ("WARNING", f"s3://{IN}/input/gone.jpg")
    assert s3.list_objects_v2(Bucket=OUT)["KeyCount"] == 0


def test_a_fault_of_s3_fails_the_invocation_so_that_it_is_retried_once_the_others_are_done(
    s3, invoke, capsys
):
    s3.put_object(Bucket=IN, Key="input/a.jpg", Body=jpeg(), Metadata=METADATA)
    other = record("input/a.jpg", bucket="no-such-bucket")
    with pytest.raises(ClientError, match="NoSuchBucket"):
        handler.lambda_handler({"Records": [other, record("input/a.jpg")]}, context())
    assert [row.image_key for row in sent_rows()] == ["a.jpg"]
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["ok"] == 1


def test_a_fault_of_sqs_fails_the_invocation_once_the_others_are_done(s3, invoke, monkeypatch):
    real, left = handler.send_row, [False, True]

    def fail_once(*args: object) -> None:
        real(args[0], args[1] if left.pop() is False else "no queue", args[2])

    monkeypatch.setattr(handler, "send_row", fail_once)
    with pytest.raises(ClientError, match="SendMessage"):
        invoke({"input/a.jpg": jpeg(), "input/b.jpg": jpeg()})
    assert [row.image_key for row in sent_rows()] == ["b.jpg"]


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
