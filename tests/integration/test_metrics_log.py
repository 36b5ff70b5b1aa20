"""Rows survive: as CSV, as messages, and as what is read of the CSV while it grows."""

import json

import boto3
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows import append_rows, row

from lambda_function.metrics_log import (
    COLUMNS,
    CSV_KEY,
    HEADER,
    MetricsLogError,
    id_of,
    open_csv,
    row_from_message,
    row_to_message,
    rows_from_csv,
    rows_to_csv,
    send_row,
)

OUT = "output-bucket"
REFERENCE_COLUMNS = ["timestamp", "image_key", "orig_size", "new_size", "proc_ms"]


# --- the row ------------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"]))
numbers = st.floats(min_value=0, allow_nan=False, allow_infinity=False)


@given(
    st.lists(
        st.builds(
            row,
            image_key=texts,
            error=texts,
            run_id=texts,
            proc_ms=numbers,
            orig_size=st.integers(min_value=0),
            cold_start=st.booleans(),
        )
    )
)
def test_rows_read_back_as_they_were_written(rows):
    assert rows_from_csv(rows_to_csv(rows)) == rows


def test_the_first_five_columns_are_those_of_the_reference_run():
    assert list(COLUMNS[:5]) == REFERENCE_COLUMNS


def test_a_record_with_another_number_of_columns_is_no_row():
    with pytest.raises(ValueError, match="columns"):
        rows_from_csv("a,b,c\r\n")


# --- as messages ----------------------------------------------------------------------------------


@given(
    st.builds(row, image_key=texts, error=texts, proc_ms=numbers, round=st.integers(min_value=1))
)
def test_a_row_reads_back_from_its_message(one):
    message = row_to_message(one)
    assert row_from_message(message) == one
    assert message.isascii()  # SQS refuses some characters that a key may have
    assert message.isprintable()


NO_ROWS = {
    "no JSON": "{",
    "nested too deeply": "[" * 100_000,
    "a list": "[1]",
    "a record of a failed event": '{"requestPayload": {"Records": []}}',
    "without a field": {"run_id": None},
    "with another field": {"colour": "red"},
    "with a text for a number": {"orig_size": "1"},
    "with a number for a text": {"image_key": 1},
    "with a truth for a number": {"orig_size": True},
    "with a fraction for a whole number": {"round": 1.5},
    "with a negative number": {"proc_ms": -1.0},
    "with no number": {"proc_ms": float("nan")},
    "with an endless number": {"proc_ms": float("inf")},
    "of another status": {"status": "perhaps"},
    "of no round": {"round": 0},
}


@pytest.mark.parametrize("content", NO_ROWS.values(), ids=NO_ROWS)
def test_a_message_that_would_make_the_csv_unreadable_is_no_row(content):
    if isinstance(content, dict):
        content = json.dumps(json.loads(row_to_message(row())) | content)
    with pytest.raises(ValueError, match=r".+"):
        row_from_message(content)


def test_a_row_of_before_a_column_was_added_is_one():
    fields = json.loads(row_to_message(row()))
    del fields["request_id"]
    assert row_from_message(json.dumps(fields)) == row()


def test_sending_a_row_is_one_request(s3):
    sqs, requests = boto3.client("sqs"), []
    url = sqs.create_queue(QueueName="rows")["QueueUrl"]
    sqs.meta.events.register("before-send.sqs", lambda event_name, **_: requests.append(event_name))
    send_row(sqs, url, row("a"))
    assert requests == ["before-send.sqs.SendMessage"]
    (message,) = sqs.receive_message(QueueUrl=url)["Messages"]
    assert row_from_message(message["Body"]) == row("a")


# --- reading the CSV ------------------------------------------------------------------------------


def keys_of(part) -> list[str]:
    return [id_of(record).image_key for record in part.records()]


def test_only_what_was_added_is_read(s3):
    append_rows(s3, OUT, row("a"), row("ü\r\n\u2028b"))
    first = open_csv(s3, OUT, CSV_KEY)
    assert keys_of(first) == ["a", "ü\r\n\u2028b"]
    append_rows(s3, OUT, row("c"))
    second = open_csv(s3, OUT, CSV_KEY, first.size, first.generation)
    assert second.start > 0
    assert keys_of(second) == ["c"]
    third = open_csv(s3, OUT, CSV_KEY, second.size, second.generation)
    assert keys_of(third) == []


@pytest.mark.parametrize("others", [1, 2, 9])
def test_another_csv_is_read_from_its_beginning_whatever_its_size(s3, others):
    append_rows(s3, OUT, row("a"), row("b"))
    first = open_csv(s3, OUT, CSV_KEY)
    s3.delete_object(Bucket=OUT, Key=CSV_KEY)
    append_rows(s3, OUT, *(row(f"{n}") for n in range(others)))
    second = open_csv(s3, OUT, CSV_KEY, first.size, first.generation)
    assert second.start == 0
    assert keys_of(second) == [f"{n}" for n in range(others)]


def test_without_a_csv_there_is_nothing_to_read(s3):
    assert open_csv(s3, OUT, CSV_KEY) is None
    assert open_csv(s3, OUT, CSV_KEY, 100, "a generation") is None


@pytest.mark.parametrize(
    "content",
    [
        *("", "x", "other,columns\r\n", HEADER + "1,2\r\n", HEADER + '"unclosed', "\xff"),
        HEADER + rows_to_csv([row()]).rstrip(),
        HEADER + rows_to_csv([row()]).replace(",1,", ",x,"),
    ],
)
def test_a_csv_that_is_not_ours_is_named_with_what_to_do(s3, content):
    s3.put_object(Bucket=OUT, Key=CSV_KEY, Body=content.encode("latin-1"))
    with pytest.raises(MetricsLogError, match=f"s3://{OUT}/{CSV_KEY} .*move it away"):
        list(open_csv(s3, OUT, CSV_KEY).records())
