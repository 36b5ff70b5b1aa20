"""What must hold after every change of an object, when all is quiet, and in the end."""

import ast
import csv
import io
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from fault_model.network import Network
from fault_model.plan import Plan
from fault_model.services import S3, StoredObject
from lambda_function.handler import INPUT_PREFIX, PROCESSED_PREFIX, number_in
from lambda_function.image_transform import output_name
from lambda_function.metrics_log import (
    COLUMNS,
    CSV_KEY,
    HEADER,
    LEASE_KEY,
    LEASE_S,
    ROWS_PREFIX,
    MetricRow,
    RowId,
    row_key,
    rows_from_csv,
)

IN, OUT = "input-bucket", "output-bucket"
ROUNDED_S = 2  # ages of leases are of whole seconds
# Of an undisturbed function. Each event: picture get, output put, row put, lease put, lease head,
# and at most one turn with the lease, for each row or for a late look: list, row get, csv get, csv
# put, rows delete, lease delete, list, lease put.
REQUESTS_PER_RECORD = 14


@dataclass
class Invariants:
    """Follows a campaign; `fail` is told of the first thing that must not be."""

    plan: Plan
    fail: Callable[[str], None]
    now_s: Callable[[], float]
    rows: dict[RowId, MetricRow] = field(default_factory=dict)  # of the CSV
    uploaded: set[RowId] = field(default_factory=set)
    replaced: set[RowId] = field(default_factory=set)  # uploads that the same key took away, undone
    row_objects: dict[str, float] = field(default_factory=dict)  # when they were put, by key
    lease_put_at: float = float("-inf")
    _latest: dict[str, RowId] = field(default_factory=dict)  # upload by input key

    # --- after every change ---------------------------------------------------------------------

    def on_change(
        self, bucket: str, key: str, old: StoredObject | None, new: StoredObject | None
    ) -> None:
        if bucket == IN and new:
            self._uploaded(key, new)
        elif key == CSV_KEY:
            self._csv_changed(old.body if old else b"", new)
        elif key.startswith(ROWS_PREFIX):
            self._row_object_changed(key, old, new)
        elif key == LEASE_KEY and new:
            self.lease_put_at = self.now_s()

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
            return self.fail("the CSV was deleted")
        before = old or HEADER.encode()
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

    def _row_object_changed(
        self, key: str, old: StoredObject | None, new: StoredObject | None
    ) -> None:
        if old and new:
            self.fail(f"the row object {key} was overwritten")
        elif new:
            self.row_objects[key] = self.now_s()
        else:
            del self.row_objects[key]
            if key in dict(self.plan.junk):
                self.fail(f"{key} is no row and was deleted")
            elif (lost := rows_from_csv(old.body.decode())[0].id) not in self.rows:
                self.fail(f"the row object of {lost} was deleted before the CSV had its row")

    # --- when something ends --------------------------------------------------------------------

    def missing(self) -> set[RowId]:
        return self.uploaded - self.rows.keys()

    def check_returned(self, rows: list[MetricRow], expected: set[RowId]) -> None:
        """The wait found all."""
        if sorted(row.id for row in rows) != sorted(expected):
            self.fail("the wait returned other rows than it was asked for")
        if any(self.rows.get(row.id) != row for row in rows):
            self.fail("the wait returned a row that is not in the CSV")

    def check_named(self, message: str, expected: set[RowId], seen: set[RowId]) -> None:
        """The wait named those that are missing. `seen` is what the CSV had when it was last read:
        a row that came since may be named or not."""
        names = re.search(r" s: (.*); see the function's log", message)[1]
        named = set(ast.literal_eval(f"[{names}]"))
        at_least = {row_id.image_key for row_id in expected - self.rows.keys()}
        at_most = {row_id.image_key for row_id in expected - seen}
        if not at_least <= named <= at_most:
            self.fail(f"missing are {at_least} to {at_most}, but the wait names {named}")

    def check_quiet(self, network: Network, store: S3) -> None:
        """Nothing is under way, and nobody comes to append what was left."""
        for key, put_at in self.row_objects.items():
            excused = put_at < network.disrupted_at + LEASE_S + ROUNDED_S
            if key not in dict(self.plan.junk) and not excused:
                self.fail(f"the row object {key} was left, with no disruption since")
        if LEASE_KEY in store.buckets[OUT] and self.lease_put_at > network.disrupted_at:
            self.fail("the lease was not given back, with no disruption since")

    def check_work(self, network: Network, records: int) -> None:
        """The lease saves work: an undisturbed function never appends twice at a time."""
        if any(run.waits for run in self.plan.runs):
            return  # a wait appends without the lease
        if network.refused["csv put"]:
            self.fail(f"{network.refused['csv put']} appends met another, in spite of the lease")
        about = ("input get", "output", "row", "rows", "csv get", "csv put", "lease")
        total = sum(n for place, n in network.requests.items() if place.startswith(about))
        if total > REQUESTS_PER_RECORD * records:
            self.fail(f"{total} requests for {records} records")

    def check_end(self, store: S3) -> None:
        """After the last append."""
        junk = dict(self.plan.junk)
        objects = store.buckets[OUT]
        if left := [key for key in self.row_objects if key not in junk]:
            self.fail(f"row objects are left after the last append: {left}")
        if LEASE_KEY in objects:
            self.fail("the lease is still held after the last append")
        blocked = {row_id for row_id in self.missing() if self._blocked(row_id)}
        if lost := self.missing() - self.replaced - blocked:
            self.fail(f"no row of {sorted(lost)}")
        for row in self.rows.values():
            output = PROCESSED_PREFIX + output_name(row.image_key)
            if row.status == "ok" and output not in objects:
                self.fail(f"{row.id} is ok and has no output")
            if row.status == "ok" and self.plan.pictures[row.image_key] != "good":
                self.fail(f"{row.id} is ok and cannot be")

    def _blocked(self, row_id: RowId) -> bool:
        """Whether an object that is no row lies in the place of this one's row object."""
        return row_key(row_id) in dict(self.plan.junk)
