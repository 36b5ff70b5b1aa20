"""Errors put into the code, which the model must find.

Each replaces a function, a method or a client's call by one with an error in it: so they survive
when the code inside is written anew. What is named here is what the modules say to each other.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace

from botocore.exceptions import BotoCoreError, ClientError

from fault_model.network import Client
from lambda_function import handler, metrics_writer
from lambda_function.metrics_log import (
    CSV_KEY,
    HEADER,
    MetricsLogError,
    read_object,
    row_from_message,
    rows_to_csv,
)
from lambda_function.metrics_writer import MetricsCsv
from metrics.collect import cloud_rows, dead_letters

FAULTS = (ClientError, BotoCoreError, MetricsLogError)
# What is replaced: an owner, a name, and what makes the error of the original.
Edit = tuple[object, str, Callable[[Callable], Callable]]


def without(condition: str) -> Edit:
    """S3 is not told of a condition on a write of the CSV."""

    def wrap(original: Callable) -> Callable:
        def get(client: Client, operation: str) -> Callable:
            def call(**params: object) -> dict:
                if params.get("Key") == CSV_KEY:
                    params.pop(condition, None)
                return original(client, operation)(**params)

            return call

        return get

    return (Client, "__getattr__", wrap)


def read_modify_write(_: Callable) -> Callable:
    def send(sqs, queue_url: str, row) -> None:
        s3, bucket = handler.client("s3"), handler.os.environ["OUTPUT_BUCKET"]
        there = read_object(s3, bucket, CSV_KEY)
        text = there.data.decode() if there else HEADER
        text += rows_to_csv([row])
        about = {"Metadata": {"generation": "1"}}
        s3.put_object(Bucket=bucket, Key=CSV_KEY, Body=text.encode(), **about)

    return send


def suppressed(answer: object = None) -> Callable[[Callable], Callable]:
    """A fault counts for success."""

    def wrap(original: Callable) -> Callable:
        def call(*args: object, **params: object) -> object:
            with contextlib.suppress(*FAULTS):
                return original(*args, **params)
            return answer

        return call

    return wrap


def changed(change: Callable[[object], object]) -> Callable[[Callable], Callable]:
    """Of what a function is called with first, something else is taken."""
    return lambda original: lambda first, *args, **params: original(change(first), *args, **params)


def forgotten_on_success(original: Callable) -> Callable:
    def append(self: MetricsCsv, *args: object) -> int:
        appended = original(self, *args)
        self._etag = ""
        return appended

    return append


def without_what_others_added(original: Callable) -> Callable:
    def copy(self: MetricsCsv, upload: object) -> object:
        made = original(self, upload)
        self._text = b""
        return made

    return copy


def all_are_rows(original: Callable) -> Callable:
    return lambda event, context: original(event, context) and {"batchItemFailures": []}


def deleted_first(original: Callable) -> Callable:
    def drain(queues: dead_letters.Queues, missing: set) -> set:
        class Eager:
            def __getattr__(self, name: str) -> Callable:
                return getattr(queues.sqs, name)

            def receive_message(self, **params: object) -> dict:
                answer = queues.sqs.receive_message(**params)
                for message in answer.get("Messages", []):
                    where = {"QueueUrl": params["QueueUrl"]}
                    queues.sqs.delete_message(**where, ReceiptHandle=message["ReceiptHandle"])
                return answer

        return original(replace(queues, sqs=Eager()), missing)

    return drain


def no_row(text: str) -> None:
    raise ValueError(f"{row_from_message(text)} is not looked at")


def of_success(original: Callable) -> Callable:
    def send(sqs, queue_url: str, row) -> None:
        if row.status == "ok":
            original(sqs, queue_url, row)

    return send


def of_another_csv(original: Callable) -> Callable:
    """The generation is not looked at: what is as large is taken for the same."""

    def open_csv(s3, bucket: str, key: str, size: int = 0, generation: str = "") -> object:
        part = original(s3, bucket, key)
        if part is None or not size or part.size < size:
            return part
        return original(s3, bucket, key, size, part.generation)

    return open_csv


NO_IF_MATCH = without("IfMatch")
MUTATIONS: dict[str, list[Edit]] = {
    "read, modify and write, as the reference run did": [
        (handler, "send_row", read_modify_write),
    ],
    "writes of the CSV have no condition": [NO_IF_MATCH],
    "a new CSV is written whether there is one or not": [without("IfNoneMatch")],
    "a refused write is taken for one that was done": [
        (MetricsCsv, "_put", suppressed()),
    ],
    "a refused end of an upload is taken for one that was done": [
        (MetricsCsv, "_complete", suppressed()),
    ],
    "what others added during a copy is left out": [
        (MetricsCsv, "_copy", without_what_others_added),
    ],
    "the CSV is not searched for rows that are in it": [
        (metrics_writer, "hash_of", lambda _: lambda _: handler.uuid.uuid4().bytes),
    ],
    "rounds are not told apart": [
        (metrics_writer, "hash_of", changed(lambda row_id: row_id._replace(round=1))),
    ],
    "runs are not told apart": [
        (metrics_writer, "hash_of", changed(lambda row_id: row_id._replace(run_id=""))),
    ],
    "another CSV is taken for the one that is known": [
        (metrics_writer, "open_csv", of_another_csv),
    ],
    "the CSV is read for each batch": [(MetricsCsv, "append", forgotten_on_success)],
    "a batch that was not written is deleted": [
        (metrics_writer, "lambda_handler", suppressed({"batchItemFailures": []})),
    ],
    "rows for which there was no time are deleted": [
        (MetricsCsv, "append", suppressed(0)),
    ],
    "messages that are no rows are deleted": [
        (metrics_writer, "lambda_handler", all_are_rows),
    ],
    "a row that could not be sent is forgotten": [(handler, "send_row", suppressed())],
    "rows of pictures that failed are not sent": [(handler, "send_row", of_success)],
    "the wait ends with the first row": [
        (
            cloud_rows,
            "wait_for_rows",
            lambda original: (
                lambda rows, expected, *rest: original(rows, set(sorted(expected)[:1]), *rest)
            ),
        ),
    ],
    "rows of other rounds count": [
        (
            cloud_rows,
            "id_of",
            lambda original: lambda record: original(record)._replace(round=1),
        ),
    ],
    "a fault of the cloud ends the wait": [
        (cloud_rows, "_faults_waited_out", lambda _: contextlib.nullcontext),
    ],
    "the wait names one of the missing": [
        (cloud_rows, "missing_message", changed(lambda missing: {min(missing)})),
    ],
    "a failure's message is deleted before its row is sent": [
        (dead_letters, "drain_failure_queue", deleted_first),
    ],
    "rows in the failure queue are left there": [
        (dead_letters, "row_from_message", lambda _: no_row),
    ],
}


@contextlib.contextmanager
def mutated(edits: list[Edit]) -> Iterator[None]:
    """The project's code with errors in it."""
    originals = [(owner, name, getattr(owner, name)) for owner, name, _ in edits]
    try:
        for owner, name, make in edits:
            setattr(owner, name, make(getattr(owner, name)))
        yield
    finally:
        for owner, name, original in originals:
            setattr(owner, name, original)
