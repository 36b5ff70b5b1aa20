"""Rows survive: as CSV, and when they are appended by many at once."""

import csv
import io
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st
from rows import row

from lambda_function import metrics_log
from lambda_function.cloud import find_buckets, make_client
from lambda_function.metrics_log import (
    COLUMNS,
    CSV_KEY,
    HEADER,
    LEASE_KEY,
    ROWS_PREFIX,
    MetricsLogError,
    append_leftovers,
    append_rows,
    pending_rows,
    put_if,
    put_row,
    read_object,
    row_key,
    rows_from_csv,
    rows_to_csv,
)

OUT = "output-bucket"
WRITERS = 16
REFERENCE_COLUMNS = ["timestamp", "image_key", "orig_size", "new_size", "proc_ms"]


def plenty() -> float:
    return 60.0


def appended(s3, bucket=OUT) -> list:
    stored = read_object(s3, bucket, CSV_KEY)
    return rows_from_csv(stored.data.decode().removeprefix(HEADER)) if stored else []


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


def test_row_objects_of_different_pictures_runs_and_rounds_have_different_keys():
    rows = [row(k, run_id=i, round=n) for k in ("a", "a ", "A") for i in ("r", "s") for n in (1, 2)]
    assert len({row_key(r.id) for r in rows}) == len(rows)


@given(texts)
def test_no_run_id_and_no_image_key_leaves_the_rows_prefix(text):
    key = row_key(row(text, run_id=text).id)
    assert key.startswith(ROWS_PREFIX)
    assert key.count("/") == 4


# --- appending, one at a time -------------------------------------------------------------------


def test_an_appended_row_is_in_the_csv_and_its_object_is_gone(s3):
    put_row(s3, OUT, row("a"))
    assert append_rows(s3, OUT, plenty) == 1
    assert appended(s3) == [row("a")]
    assert pending_rows(s3, OUT) == {}
    assert read_object(s3, OUT, LEASE_KEY) is None


def test_appending_keeps_the_rows_that_are_there(s3):
    for key in ("a", "b\nc", "d,e"):
        put_row(s3, OUT, row(key))
        append_rows(s3, OUT, plenty)
    assert [r.image_key for r in appended(s3)] == ["a", "b\nc", "d,e"]


def test_a_second_row_of_a_picture_changes_nothing(s3):
    put_row(s3, OUT, row("a", proc_ms=1.0))
    put_row(s3, OUT, row("a", proc_ms=2.0))  # while the first still waits
    append_rows(s3, OUT, plenty)
    put_row(s3, OUT, row("a", proc_ms=3.0))  # after the first was appended
    assert append_rows(s3, OUT, plenty) == 0
    assert appended(s3) == [row("a", proc_ms=1.0)]
    assert pending_rows(s3, OUT) == {}


def test_the_same_picture_in_another_round_or_run_is_another_row(s3):
    for fields in ({}, {"round": 2}, {"run_id": "other"}):
        put_row(s3, OUT, row("a", **fields))
    assert append_rows(s3, OUT, plenty) == 3


def test_more_rows_than_one_listing_holds_are_all_appended(s3, monkeypatch):
    monkeypatch.setattr(metrics_log, "BATCH_ROWS", 7)
    for number in range(20):
        put_row(s3, OUT, row(f"{number}"))
    assert append_rows(s3, OUT, plenty) == 20
    assert len(appended(s3)) == 20


def test_who_does_not_get_the_lease_leaves_the_rows_to_its_holder(s3):
    put_if(s3, OUT, LEASE_KEY, b"somebody", IfNoneMatch="*")
    put_row(s3, OUT, row("a"))
    assert append_rows(s3, OUT, plenty) == 0
    assert len(pending_rows(s3, OUT)) == 1


def test_the_lease_of_a_dead_holder_is_taken_over(s3, monkeypatch):
    put_if(s3, OUT, LEASE_KEY, b"somebody", IfNoneMatch="*")
    put_row(s3, OUT, row("a"))
    monkeypatch.setattr(metrics_log, "LEASE_S", 0)
    assert append_rows(s3, OUT, plenty) == 1
    assert read_object(s3, OUT, LEASE_KEY) is None


def test_a_lease_taken_by_a_put_whose_answer_was_lost_is_ones_own(s3, monkeypatch):
    put_row(s3, OUT, row("a"))
    real = metrics_log.put_if

    def carried_out_but_unanswered(client, bucket, key, body, *args, **options):
        real(client, bucket, key, body, *args, **options)
        return key != LEASE_KEY  # the client's own retry is answered 412

    monkeypatch.setattr(metrics_log, "put_if", carried_out_but_unanswered)
    assert append_rows(s3, OUT, plenty) == 1


def test_taking_over_a_lease_by_a_put_whose_answer_was_lost_succeeds(s3, monkeypatch):
    put_if(s3, OUT, LEASE_KEY, b"somebody", IfNoneMatch="*")
    put_row(s3, OUT, row("a"))
    monkeypatch.setattr(metrics_log, "LEASE_S", 0)
    real = metrics_log.put_if

    def carried_out_but_unanswered(client, bucket, key, body, *args, **options):
        return real(client, bucket, key, body, *args, **options) and key != LEASE_KEY

    monkeypatch.setattr(metrics_log, "put_if", carried_out_but_unanswered)
    assert append_rows(s3, OUT, plenty) == 1
    assert read_object(s3, OUT, LEASE_KEY) is None


def test_a_csv_put_whose_answer_was_lost_appends_once(s3, monkeypatch):
    put_row(s3, OUT, row("a"))
    real, answers = metrics_log.put_if, iter([False])

    def carried_out_but_unanswered(client, bucket, key, body, *args, **options):
        real(client, bucket, key, body, *args, **options)
        return next(answers, True) if key == CSV_KEY else True

    monkeypatch.setattr(metrics_log, "put_if", carried_out_but_unanswered)
    append_rows(s3, OUT, plenty)
    assert appended(s3) == [row("a")]
    assert pending_rows(s3, OUT) == {}


def test_nothing_is_begun_when_the_time_is_almost_up(s3):
    put_row(s3, OUT, row("a"))
    assert append_rows(s3, OUT, lambda: metrics_log.STOP_BEFORE_S - 1) == 0
    assert len(pending_rows(s3, OUT)) == 1
    assert read_object(s3, OUT, LEASE_KEY) is None


@pytest.mark.parametrize("content", ["other,columns\r\n1,2\r\n", HEADER + "torn", ""])
def test_a_csv_that_is_not_ours_is_left_alone_and_the_lease_given_back(s3, content):
    put_row(s3, OUT, row("a"))
    s3.put_object(Bucket=OUT, Key=CSV_KEY, Body=content.encode())
    with pytest.raises(MetricsLogError, match="move it away"):
        append_rows(s3, OUT, plenty)
    assert read_object(s3, OUT, LEASE_KEY) is None
    assert len(pending_rows(s3, OUT)) == 1


@pytest.mark.parametrize("junk", [b"", b"not a row", b"\xff\xfe", b'"unclosed'])
def test_an_object_that_is_no_row_stays_and_stops_nobody(s3, junk):
    s3.put_object(Bucket=OUT, Key=f"{ROWS_PREFIX}run/1/junk", Body=junk)
    put_row(s3, OUT, row("a"))
    assert append_rows(s3, OUT, plenty) == 1
    assert appended(s3) == [row("a")]
    assert list(pending_rows(s3, OUT)) == [f"{ROWS_PREFIX}run/1/junk"]


def test_rows_behind_whole_pages_of_what_is_no_row_are_appended(s3, monkeypatch):
    monkeypatch.setattr(metrics_log, "BATCH_ROWS", 2)
    for number in range(5):  # three pages, which sort before the row
        s3.put_object(Bucket=OUT, Key=f"{ROWS_PREFIX}another/1/junk{number}", Body=b"junk")
    put_row(s3, OUT, row("a"))
    assert append_rows(s3, OUT, plenty) == 1
    assert s3.list_objects_v2(Bucket=OUT, Prefix=ROWS_PREFIX)["KeyCount"] == 5


def test_a_row_that_comes_again_while_it_is_appended_leaves_no_object(s3, monkeypatch):
    put_row(s3, OUT, row("a"))
    real = metrics_log.delete_objects

    def and_the_event_comes_again(client, bucket, keys):
        real(client, bucket, keys)
        monkeypatch.setattr(metrics_log, "delete_objects", real)
        put_row(client, bucket, row("a"))  # its function finds the lease taken, and leaves

    monkeypatch.setattr(metrics_log, "delete_objects", and_the_event_comes_again)
    append_rows(s3, OUT, plenty)
    assert appended(s3) == [row("a")]
    assert pending_rows(s3, OUT) == {}


def test_rows_that_the_caller_wrote_are_not_read_again(s3, monkeypatch):
    own = dict([put_row(s3, OUT, row("a"))])
    put_row(s3, OUT, row("b"))
    read = []
    real = metrics_log.read_object
    monkeypatch.setattr(
        metrics_log, "read_object", lambda *args: (read.append(args[2]), real(*args))[1]
    )
    assert append_rows(s3, OUT, plenty, own) == 2
    assert [key for key in read if key.startswith(ROWS_PREFIX)] == [row_key(row("b").id)]
    assert sorted(row.image_key for row in appended(s3)) == ["a", "b"]


@pytest.mark.parametrize("etag", ["as it is", "of a kind of encryption", None])
def test_what_the_caller_wrote_counts_only_while_it_lies_there(s3, monkeypatch, etag):
    put_row(s3, OUT, row("a", proc_ms=1.0))
    own = {row_key(row("a").id): rows_to_csv([row("a", proc_ms=2.0)]).encode()}
    if etag != "as it is":
        real = s3.list_objects_v2

        def other_etags(**options: object) -> dict:
            page = real(**options)
            for entry in page.get("Contents", []):
                entry.pop("ETag")
                entry.update({"ETag": etag} if etag else {})
            return page

        monkeypatch.setattr(s3, "list_objects_v2", other_etags)
    assert append_rows(s3, OUT, plenty, own) == 1
    assert appended(s3) == [row("a", proc_ms=1.0)]


def test_who_need_not_look_again_leaves_what_came_meanwhile(s3, monkeypatch):
    put_row(s3, OUT, row("a"))
    real = metrics_log.delete_objects

    def and_another_comes(client, bucket, keys):
        real(client, bucket, keys)
        monkeypatch.setattr(metrics_log, "delete_objects", real)
        put_row(client, bucket, row("b"))

    monkeypatch.setattr(metrics_log, "delete_objects", and_another_comes)
    assert append_rows(s3, OUT, plenty, look_again=False) == 1
    assert list(pending_rows(s3, OUT)) == [row_key(row("b").id)]


def test_who_need_not_look_again_appends_more_rows_than_one_listing_holds(s3, monkeypatch):
    monkeypatch.setattr(metrics_log, "BATCH_ROWS", 7)
    for number in range(20):
        put_row(s3, OUT, row(f"{number}"))
    assert append_rows(s3, OUT, plenty, look_again=False) == 20


def test_a_key_that_s3_failed_to_delete_among_others_is_deleted_by_itself(s3, monkeypatch):
    for key in "ab":
        s3.put_object(Bucket=OUT, Key=key, Body=b"")

    def delete_but_b(**_: object) -> dict:
        s3.delete_object(Bucket=OUT, Key="a")
        return {"Errors": [{"Key": "b", "Code": "InternalError"}]}

    monkeypatch.setattr(s3, "delete_objects", delete_but_b)
    metrics_log.delete_objects(s3, OUT, ["a", "b"])
    assert s3.list_objects_v2(Bucket=OUT)["KeyCount"] == 0


def test_leftovers_behind_a_page_of_objects_that_are_no_rows_are_appended(s3, monkeypatch):
    monkeypatch.setattr(metrics_log, "BATCH_ROWS", 2)
    for number in range(5):
        s3.put_object(Bucket=OUT, Key=f"{ROWS_PREFIX}a/1/junk{number}", Body=b"")
    put_row(s3, OUT, row("a"))
    assert append_leftovers(s3, OUT, plenty) == 1
    assert appended(s3) == [row("a")]


def test_a_missing_bucket_is_an_error_and_not_a_lost_race(s3):
    with pytest.raises(ClientError, match="NoSuchBucket"):
        put_row(s3, "nowhere", row("a"))


# --- appending, many at once, on the embedded cloud's S3 ----------------------------------------


def all_at_once(work, count: int = WRITERS) -> list:
    """Results of `work(0..count-1)`, each in a thread of its own, begun together."""
    together = threading.Barrier(count)

    def begin(number: int):
        together.wait()
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(begin, range(count)))


@pytest.fixture
def own_bucket(embedded, request):
    """A client of the embedded S3 and an empty bucket of the test's own."""
    client = make_client(embedded, "s3")
    bucket = re.sub("[^a-z]+", "-", request.node.name.lower())[:60].strip("-")
    client.create_bucket(Bucket=bucket)
    return client, bucket


def read_modify_write(client, bucket, new) -> None:
    """What the published reference run did."""
    current = read_object(client, bucket, CSV_KEY)
    text = current.data.decode() if current else HEADER
    client.put_object(Bucket=bucket, Key=CSV_KEY, Body=(text + rows_to_csv([new])).encode())


def test_plain_read_modify_write_loses_rows(own_bucket):
    client, bucket = own_bucket
    all_at_once(lambda n: read_modify_write(client, bucket, row(f"{n}")))
    assert len(appended(client, bucket)) < WRITERS


def test_group_commit_loses_none(own_bucket):
    client, bucket = own_bucket
    per_writer = 4

    def write(number: int) -> None:
        for picture in range(per_writer):
            put_row(client, bucket, row(f"{number}-{picture}"))
            append_rows(client, bucket, plenty)

    all_at_once(write)
    rows = appended(client, bucket)
    assert {r.image_key for r in rows} == {
        f"{n}-{p}" for n in range(WRITERS) for p in range(per_writer)
    }
    assert len(rows) == WRITERS * per_writer
    assert pending_rows(client, bucket) == {}


def test_no_row_is_lost_when_every_writer_appends_without_a_lease(own_bucket, monkeypatch):
    """The lease saves work; safety must not rest on it."""
    client, bucket = own_bucket
    monkeypatch.setattr(metrics_log, "_take_lease", lambda *_: True)

    def write(number: int) -> None:
        put_row(client, bucket, row(f"{number}"))
        append_rows(client, bucket, plenty)

    all_at_once(write)
    append_rows(client, bucket, plenty)
    assert sorted(r.image_key for r in appended(client, bucket)) == sorted(
        f"{n}" for n in range(WRITERS)
    )


def test_the_age_of_a_lease_is_by_the_servers_clock(own_bucket, monkeypatch):
    client, bucket = own_bucket
    put_if(client, bucket, LEASE_KEY, b"somebody", IfNoneMatch="*")
    put_row(client, bucket, row("a"))
    assert append_rows(client, bucket, plenty) == 0
    later = datetime.now(UTC) + timedelta(seconds=metrics_log.LEASE_S + 5)
    monkeypatch.setattr(metrics_log, "parsedate_to_datetime", lambda _: later)
    assert append_rows(client, bucket, plenty) == 1


def test_a_lease_of_before_the_servers_clock_was_set_back_is_no_holders(own_bucket, monkeypatch):
    client, bucket = own_bucket
    put_if(client, bucket, LEASE_KEY, b"somebody", IfNoneMatch="*")
    put_row(client, bucket, row("a"))
    earlier = datetime.now(UTC) - timedelta(hours=1)
    monkeypatch.setattr(metrics_log, "parsedate_to_datetime", lambda _: earlier)
    assert append_rows(client, bucket, plenty) == 1


def test_the_csv_is_whole_at_every_moment(own_bucket):
    client, bucket = own_bucket
    done = threading.Event()

    def watch() -> int:
        seen = 0
        while not done.is_set():
            if stored := read_object(client, bucket, CSV_KEY):
                records = list(csv.reader(io.StringIO(stored.data.decode(), newline="")))
                assert all(len(record) == len(COLUMNS) for record in records)
                assert len(records) - 1 >= seen  # rows never go away
                seen = len(records) - 1
        return seen

    def write(number: int) -> None:
        put_row(client, bucket, row(f"{number}\r\n,"))
        append_rows(client, bucket, plenty)

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch)
        try:
            all_at_once(write)
        finally:
            done.set()
        assert watching.result() > 0


@pytest.mark.parametrize("condition", ["IfNoneMatch", "IfMatch"])
def test_of_concurrent_conditional_puts_exactly_one_wins(own_bucket, condition):
    client, bucket = own_bucket
    for attempt in range(20):
        key = f"object-{attempt}"
        if condition == "IfMatch":
            client.put_object(Bucket=bucket, Key=key, Body=b"first")
            held = {"IfMatch": read_object(client, bucket, key).etag}
        else:
            held = {"IfNoneMatch": "*"}
        won = all_at_once(lambda n, k=key, h=held: put_if(client, bucket, k, b"%d" % n, **h), 8)
        assert sum(won) == 1
        assert read_object(client, bucket, key).data == b"%d" % won.index(True)


def test_the_stack_of_the_embedded_cloud_is_found(embedded):
    assert find_buckets(embedded).input != find_buckets(embedded).output
