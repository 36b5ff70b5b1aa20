"""What a function is called with: S3's records, or something else, which is refused by its name.

Anybody with the permission may call a function, and a bucket's notification may be wired through
EventBridge, SQS or SNS, whose messages have another shape. None of these can ever work, so to try
again is useless; to pass over them silently would hide why no picture is processed.
"""

import re
from collections.abc import Iterable
from urllib.parse import unquote_plus

MAX_SHOWN = 60  # characters of what an event says of itself: it may be anybody's
NAMED_AT_MOST = 5
# Who sends a record, by what it says of its source. S3's own (and other stores') end in `:s3`.
SOURCES = {
    "aws:sqs": "an SQS message",
    "aws:sns": "an SNS message",
    "aws:dynamodb": "a DynamoDB record",
    "aws:kinesis": "a Kinesis record",
    "aws:kafka": "a Kafka event",
    "aws:ses": "an SES event",
}
# And by members that only its events have; the first that fits.
SENDERS = {
    ("requestPayload", "requestContext"): "a record of a Lambda destination",
    ("detail-type", "source"): "an EventBridge event",
    ("requestContext",): "an HTTP request (function URL, API Gateway or load balancer)",
    ("awslogs",): "a CloudWatch Logs event",
    ("deliveryStreamArn",): "a Firehose event",
    ("invocationSchemaVersion", "tasks"): "an S3 Batch Operations task",
    ("getObjectContext",): "an S3 Object Lambda request",
    ("ResponseURL", "RequestType"): "a CloudFormation custom resource request",
    ("triggerSource",): "a Cognito trigger",
    ("cf",): "a CloudFront request",
}
# What a record of S3 must say, and how.
ANY_TEXT = re.compile("[^\ud800-\udfff]+")  # a lone surrogate is no UTF-8
S3_MEMBERS = {
    ("eventName",): ANY_TEXT,
    ("s3", "bucket", "name"): re.compile(r"[A-Za-z0-9._-]{1,255}"),  # as boto3 takes it
    ("s3", "object", "key"): ANY_TEXT,
}
JSON_TYPES = {
    type(None): "null",
    bool: "a truth value",
    int: "a number",
    float: "a number",
    str: "a text",
    list: "a list",
}


def is_test_event(event: object) -> bool:
    """Whether this is what S3 sends once when a notification is set up."""
    return isinstance(event, dict) and event.get("Event") == "s3:TestEvent"


def records_of(event: object) -> list:
    """The records of an event; the event itself where it has none, to be named by not_of_s3."""
    records = event.get("Records") if isinstance(event, dict) else None
    return records if isinstance(records, list) and records else [event]


def not_of_s3(record: object) -> str:
    """What `record` is, when it is none of S3's; empty when it is one, and whole."""
    if not isinstance(record, dict):
        return f"{JSON_TYPES.get(type(record), 'something')} in place of an event"
    if not record or record == {"Records": []}:
        return "an empty event"
    source = record.get("eventSource") or record.get("EventSource")
    if isinstance(source, str) and not source.endswith(":s3"):
        return SOURCES.get(source) or f"an event of {_shown(source)}"
    for members, name in SENDERS.items():
        if record.keys() >= set(members):
            if "source" not in members:
                return name
            return f"{name}, {_shown(record['detail-type'])} of {_shown(record['source'])}"
    if not record.keys() & {"eventName", "s3"}:
        return f"an event of no known kind, with {_named(record)}"
    for members, wanted in S3_MEMBERS.items():
        value = _member(record, members)
        if not (isinstance(value, str) and wanted.fullmatch(value)):
            return f"an S3 record without a valid {'.'.join(members)}"
    return ""


def _member(record: object, members: Iterable[str]) -> object:
    for name in members:
        record = record.get(name) if isinstance(record, dict) else None
    return record


def _named(record: dict) -> str:
    names = [_shown(name) for name in sorted(map(str, record))]
    return ", ".join(names[:NAMED_AT_MOST] + ["..."] * (len(names) > NAMED_AT_MOST))


def _shown(value: object) -> str:
    return repr(str(value)[:MAX_SHOWN])


def object_key(record: dict) -> str:
    """The object's key; S3 form-encodes it in events (a space is `+`, `+` is `%2B`)."""
    return unquote_plus(record["s3"]["object"]["key"])
