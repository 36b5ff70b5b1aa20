"""What must hold after every change of an object, when all is quiet, and in the end."""

import ast
import csv
import io
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from fault_model.network import Network
from fault_model.plan import Plan
from fault_model.services import S3, Message, Queue, StoredObject
from lambda_function.handler import INPUT_PREFIX, PROCESSED_PREFIX, number_in
from lambda_function.image_transform import output_name
from lambda_function.metrics_log import (
    COLUMNS,
    CSV_KEY,
    HEADER,
    MetricRow,
    RowId,
    row_from_message,
    rows_from_csv,
)
from metrics.collect.cloud_rows import CloudRows

IN, OUT = "input-bucket", "output-bucket"
ROWS, FAILURES = "rows", "failures"  # the URLs of the queues


@dataclass
class Invariants:
    """Follows a campaign; `fail` is told of the first thing that must not be."""

    plan: Plan
    fail: Callable[[str], None]
    now_s: Callable[[], float]
    rows: dict[RowId, MetricRow] = field(default_factory=dict)  # of the CSV
    uploaded: set[RowId] = field(default_factory=set)
    replaced: set[RowId] = field(default_factory=set)  # uploads that the same key took away, undone
    cleaned: set[RowId] = field(default_factory=set)  # rows of a CSV that somebody deleted
    _latest: dict[str, RowId] = field(default_factory=dict)  # upload by input key

    # --- after every change ---------------------------------------------------------------------

    def on_change(
        self, bucket: str, key: str, old: StoredObject | None, new: StoredObject | None
    ) -> None:
        if bucket == IN and new:
            self._uploaded(key, new)
        elif key == CSV_KEY:
            self._csv_changed(old.body if old else b"", new)

    def _uploaded(self, key: str, new: StoredObject) -> None:
        image_key = key.removeprefix(INPUT_PREFIX)
        upload = RowId(new.metadata["run-id"], number_in(new.metadata, "round", 1), image_key)
        earlier = self._latest.get(key)
        if earlier and earlier != upload and earlier not in self.rows:
            self.replaced.add(earlier)
        self._latest[key] = upload
        self.uploaded.add(upload)

    def _csv_changed(self, old: bytes, new: StoredObject | None) -> None:
        if new is None:
            if not self.plan.cleaned_at:
                return self.fail("the CSV was deleted")
            self.cleaned |= self.rows.keys()
            self.rows.clear()
            return None
        before = old or HEADER.encode()
        if old and not new.metadata.get("generation"):
            return self.fail("the CSV lost the name of its generation")
        if not new.body.startswith(before):
            return self.fail("the CSV changed where it was written already")
        added = new.body.removeprefix(before).decode()
        if added and not added.endswith("\r\n"):
            return self.fail("the CSV ends within a record")
        records = list(csv.reader(io.StringIO(added, newline=""), strict=True))
        if any(len(record) != len(COLUMNS) for record in records):
            return self.fail("the CSV holds a record that is no row")
        for row in rows_from_csv(added):
            self._row_added(row)
        return None

    def _row_added(self, row: MetricRow) -> None:
        if row.id in self.rows:
            self.fail(f"a second row of {row.id}")
        if row.id not in self.uploaded:
            self.fail(f"a row of what nobody uploaded: {row.id}")
        self.rows[row.id] = row

    def on_delete(self, message: Message) -> None:
        """A message of the rows queue was deleted."""
        try:
            row_id = row_from_message(message.body).id
        except ValueError:
            return self.fail(f"the message {message.body!r} is no row and was deleted")
        if row_id not in self.rows and row_id not in self.cleaned:
            return self.fail(f"the message of {row_id} was deleted before the CSV had its row")
        return None

    # --- when something ends --------------------------------------------------------------------

    def missing(self) -> set[RowId]:
        return self.uploaded - self.rows.keys() - self.cleaned

    def check_returned(self, found: CloudRows, expected: set[RowId]) -> None:
        """The wait found all, and what it read is what the CSV holds."""
        if not expected <= found.found:
            self.fail("the wait ended without the rows that it was asked for")
        text = found.csv().removeprefix(HEADER)
        read = {row.id: row for row in rows_from_csv(text)}
        if read.keys() != found.found or any(self.rows.get(i) != row for i, row in read.items()):
            self.fail("the wait read a row that is not in the CSV")

    def check_named(self, message: str, expected: set[RowId], seen: set[RowId]) -> None:
        """The wait named those that are missing. `seen` is what the CSV had when it was last read:
        a row that came since may be named or not."""
        names = re.search(r" s: (.*?); (the rows queue|nothing)", message, re.DOTALL)[1]
        named = set(ast.literal_eval(f"[{names}]"))
        at_least = {row_id.image_key for row_id in expected - self.rows.keys()}
        at_most = {row_id.image_key for row_id in expected - seen}
        if not at_least <= named <= at_most:
            self.fail(f"missing are {at_least} to {at_most}, but the wait names {named}")

    def check_quiet(self, rows_queue: Queue) -> None:
        """Nothing is under way: each row is in the CSV, or was given up visibly."""
        if rows_queue.messages:
            self.fail(f"{len(rows_queue.messages)} messages are left in the rows queue")

    def check_work(self, network: Network, cold_starts: int, batches: int) -> None:
        """An undisturbed writer reads the CSV only when somebody else wrote it."""
        refused = sum(n for place, n in network.refused.items() if place.startswith("csv"))
        if any(run.waits for run in self.plan.runs):
            return  # a wait reads it, too
        reads, writes = network.requests["csv get"], network.requests["csv put"]
        writes += network.requests["csv complete"]
        if reads > 2 * cold_starts + refused:
            self.fail(f"{reads} reads, of {cold_starts} writers who were refused {refused} times")
        if writes > batches + cold_starts + refused:
            self.fail(f"{writes} writes for {batches} batches")

    def check_end(self, store: S3, failures: Queue) -> None:
        """After the last drain."""
        objects = store.buckets[OUT]
        if lost := self.missing() - self.replaced:
            self.fail(f"no row of {sorted(lost)}")
        left = Counter(message.body for message in failures.messages)
        if Counter(self.plan.junk) - left:
            self.fail("a message that is no row is not in the failure queue")
        for row in self.rows.values():
            output = PROCESSED_PREFIX + output_name(row.image_key)
            if row.status == "ok" and output not in objects:
                self.fail(f"{row.id} is ok and has no output")
            if row.status == "ok" and self.plan.pictures[row.image_key] != "good":
                self.fail(f"{row.id} is ok and cannot be")
