"""Errors put into the shipped code, a few lines each, which the model must find.

Not among them, since it changes nothing: put_row that takes any refusal for "there is a row
already". S3 refuses only what met a row object, or the deletion of one whose row is in the CSV.
"""

import contextlib
import inspect
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lambda_function import handler, metrics_log
from metrics.collect import cloud_rows, dead_letters


@dataclass(frozen=True)
class Edit:
    """Text of a function's source, and what stands there instead."""

    function: Callable
    old: str
    new: str


NO_LEASE = Edit(metrics_log._take_lease, "me = uuid.uuid4().hex", "return True")
NO_CONDITION = Edit(metrics_log._append, '"text/csv", **condition', '"text/csv"')
MUTATIONS = {
    "read, modify and write, as the reference run did": [
        Edit(
            metrics_log.put_row,
            "key, body = row_key(row.id), rows_to_csv([row]).encode()",
            """
    there = read_object(s3, bucket, CSV_KEY)
    text = there.data.decode() if there else HEADER
    s3.put_object(Bucket=bucket, Key=CSV_KEY, Body=(text + rows_to_csv([row])).encode())
    return "", b""
            """,
        )
    ],
    "neither lease nor compare-and-swap": [NO_LEASE, NO_CONDITION],
    "the lease alone, without compare-and-swap": [NO_CONDITION],
    "a refused write is taken for one that was done": [
        Edit(metrics_log.put_if, "return False", "return True")
    ],
    "row objects are deleted before the CSV is written": [
        Edit(
            metrics_log._append,
            "        if not new",
            "        delete_objects(s3, bucket, list(found))\n        if not new",
        )
    ],
    "the CSV is not searched for rows that are in it": [
        Edit(metrics_log._append, "_ids_of_csv(text, bucket)", "set()")
    ],
    "the CSV is not searched again after a lost compare-and-swap": [
        Edit(metrics_log._append, "known =", 'known = known if "known" in locals() else')
    ],
    "a row object is written over": [Edit(metrics_log.put_row, ', IfNoneMatch="*"', "")],
    "rounds share row objects": [Edit(metrics_log.row_key, "{row_id.round}", "1")],
    "no look after the lease was given back": [
        Edit(metrics_log.append_rows, "if not pending_rows(s3, bucket, no_rows):", "if True:")
    ],
    "the look comes before the lease is given back": [
        Edit(
            metrics_log.append_rows,
            "time_left_s)\n",
            "time_left_s)\n            left = pending_rows(s3, bucket, no_rows)\n",
        ),
        Edit(metrics_log.append_rows, "pending_rows(s3, bucket, no_rows):", "left:"),
    ],
    "row objects that come again are taken for those just appended": [
        Edit(
            metrics_log.append_rows,
            "if not pending_rows(s3, bucket, no_rows):",
            "if set(pending_rows(s3, bucket, no_rows)) <= found.keys():",
        )
    ],
    "a page of objects that are no rows ends the look": [
        Edit(metrics_log.pending_rows, "after = max(etags)", "return {}")
    ],
    "the lease is not given back": [
        Edit(metrics_log.append_rows, "s3.delete_object(Bucket=bucket, Key=LEASE_KEY)", "pass")
    ],
    "a dead holder keeps the lease": [Edit(metrics_log._take_lease, "< LEASE_S", "< 1e9")],
    "the age of a lease is by the caller's clock": [
        Edit(metrics_log._take_lease, 'if "date" in headers', "if False")
    ],
    "whose lease it is is not read back after a refusal": [
        Edit(metrics_log._take_lease, "== me", '== ""')
    ],
    "rows of pictures that failed are not appended": [
        Edit(handler.lambda_handler, '(counts["ok"] or counts["error"])', 'counts["ok"]')
    ],
    "the wait ends with the first row": [
        Edit(cloud_rows.wait_for_rows, "if len(found) == len(expected)", "if found")
    ],
    "rows of other runs and rounds count": [
        Edit(cloud_rows.wait_for_rows, "r.id in expected and ", "")
    ],
    "a fault of the cloud ends the wait": [
        Edit(cloud_rows._faults_waited_out, "if isinstance(error", "if True or isinstance(error")
    ],
    "the wait names one of the missing": [
        Edit(cloud_rows.missing_message, "for row_id in missing)", "for row_id in missing)[:1]")
    ],
    "a failure's message is deleted before its row is written": [
        Edit(
            dead_letters.rows_of_failures,
            "        for row in found:\n",
            """
        sqs.delete_message(QueueUrl=queue_url, ReceiptHandle=message["ReceiptHandle"])
        for row in found:
""",
        )
    ],
}


@contextlib.contextmanager
def mutated(edits: list[Edit]) -> Iterator[None]:
    """The project's code with errors in it, in place, whoever imported it."""
    functions = {edit.function: inspect.unwrap(edit.function) for edit in edits}
    originals = {function: function.__code__ for function in functions.values()}
    try:
        for named, function in functions.items():
            function.__code__ = _edited(function, [e for e in edits if e.function is named])
        yield
    finally:
        for function, code in originals.items():
            function.__code__ = code


def _edited(function: Callable, edits: list[Edit]):
    source = textwrap.dedent(inspect.getsource(function))
    for edit in edits:
        assert source.count(edit.old) == 1, f"{edit.old!r} is not once in {function.__name__}"
        source = source.replace(edit.old, edit.new)
    names = {**function.__globals__}
    code = compile(source, function.__code__.co_filename, "exec")
    exec(code, names)  # nosec B102 # the project's own code, with an error that stands above
    return inspect.unwrap(names[function.__name__]).__code__
