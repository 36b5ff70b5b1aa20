"""One campaign: uploads, the function's asynchronous delivery, the waits, and the end."""

import contextlib
import io
import json
import math
import random
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from types import ModuleType, SimpleNamespace
from urllib.parse import quote_plus

from botocore.exceptions import BotoCoreError, ClientError
from tqdm import tqdm

from fault_model.invariants import IN, OUT, Invariants
from fault_model.network import Network
from fault_model.plan import Plan, Run, plan_of
from fault_model.schedule import Actor, Ended, Schedule
from fault_model.services import EPOCH, S3, Queue, StoredObject
from lambda_function import handler, metrics_log
from lambda_function.cloud import Buckets
from lambda_function.image_transform import Measurement
from lambda_function.metrics_log import (
    CSV_KEY,
    INPUT_PREFIX,
    LEASE_KEY,
    LEASE_S,
    STOP_BEFORE_S,
    MetricsLogError,
    RowId,
)
from metrics.collect import cloud_rows, dead_letters
from metrics.collect.dead_letters import HIDDEN_S, rows_of_failures
from metrics.common.cli import UserError

MAX_COPIES = 8  # of one event
STEP_LIMIT = 10_000  # several times what any seed takes
POLL_S = 10  # of the wait; less only makes a campaign longer
FAULTS_OF_S3 = (ClientError, BotoCoreError, MetricsLogError)
RETRY_WAITS_S = (60, 120)
QUEUE_URL = "queue"


@dataclass(frozen=True)
class Result:
    """What became of a campaign; `failure` is empty when every invariant held."""

    seed: int
    failure: str
    steps: int
    invocations: int
    struck: Counter[str]  # faults, by kind
    rows: int


def run_campaign(seed: int, trace: list[str] | None = None) -> Result:
    """Replay a seed; its steps are added to `trace`, when there is one. What the code under test
    raises and should not is a failure of the seed, too."""
    try:
        return Campaign(plan_of(seed), trace).run()
    except Exception as error:
        return Result(seed, f"{type(error).__name__}: {error}", 0, 0, Counter(), 0)


class Event:
    """Records on their way through the function, retries included."""

    def __init__(self, name: str, records: list[dict]):
        self.name = name
        self.records = records
        self.attempts = 0


class Campaign:
    def __init__(self, plan: Plan, trace: list[str] | None):
        self._plan = plan
        self._rng = random.Random(f"campaign {plan.seed}")
        self._schedule = Schedule(self._rng, STEP_LIMIT, trace)
        self._invariants = Invariants(plan, self._schedule.fail, lambda: self._schedule.now)
        self._s3 = S3(lambda: self._schedule.now, self._on_change, {IN: {}, OUT: {}})
        self._queue = Queue(lambda: self._schedule.now, self._rng)
        self._network = Network(plan, self._rng, self._schedule, self._s3, self._queue)
        self._unsent: list[dict] = []  # records of an event that is not full yet
        self._events = 0
        self._running = 0
        self._invocations = 0
        self._records = 0

    def run(self) -> Result:
        with replaced(self._replacements()):
            for key, body in self._plan.junk:
                self._s3.put_object(Bucket=OUT, Key=key, Body=body)
            if self._plan.dead_lease:
                dead = StoredObject(
                    b"dead", EPOCH - timedelta(hours=1), {"holder": "dead"}, '"dead"'
                )
                self._s3.buckets[OUT][LEASE_KEY] = dead
            for run in self._plan.runs:
                self._schedule.at(run.starts_at, Actor(run.run_id, partial(self._run, run)))
            self._schedule.run()
            if not self._schedule.failure:
                self._invariants.check_quiet(self._network, self._s3)
                if self._plan.undisturbed:
                    self._invariants.check_work(self._network, self._records)
            if not self._schedule.failure:
                later = self._schedule.now + max(LEASE_S, HIDDEN_S) + 2
                self._schedule.at(later, Actor("last append", self._append_last))
                self._schedule.run()
        return Result(
            self._plan.seed,
            self._schedule.failure,
            self._schedule.steps,
            self._invocations,
            self._network.struck,
            len(self._invariants.rows),
        )

    # --- the orchestrators ----------------------------------------------------------------------

    def _run(self, run: Run) -> None:
        """What master_pipeline.py does in the cloud, or upload_images_s3.py alone."""
        s3 = self._network.client("s3")
        for number in range(1, run.rounds + 1):
            try:
                for place, key in enumerate(run.keys, 1):
                    self._upload(s3, run.run_id, number, key, len(run.keys) - place)
            except FAULTS_OF_S3:
                return  # the pipeline ends here, naming the picture
            if run.waits and not self._wait(s3, run, number):
                return

    def _upload(self, s3, run_id: str, number: int, key: str, followers: int) -> None:
        body = f"{self._plan.pictures[key]} {key}".encode()
        metadata = {"run-id": run_id, "round": str(number)}
        if self._plan.is_busy:
            metadata["followers"] = str(followers)
        s3.put_object(Bucket=IN, Key=INPUT_PREFIX + key, Body=body, Metadata=metadata)

    def _wait(self, s3, run: Run, number: int) -> bool:
        """Whether the run goes on."""
        reader = _Reader(s3, self._invariants.rows)
        sqs = self._network.client("sqs")
        settle = partial(rows_of_failures, s3, sqs, QUEUE_URL, Buckets(IN, OUT))
        expected = {RowId(run.run_id, number, key) for key in run.keys}
        me = self._schedule.running
        me.said = ""
        try:
            rows = cloud_rows.wait_for_rows(
                reader, OUT, expected, run.timeout_s, run.allow_partial, settle
            )
        except UserError as error:
            self._schedule.note(f"exit 1: {error}")
            self._invariants.check_named(str(error), expected, reader.seen)
            return False
        except FAULTS_OF_S3 as error:
            self._schedule.fail(f"the wait ended without naming anybody: {error}")
            return False
        if me.said.startswith("going on: "):
            self._invariants.check_named(me.said, expected, reader.seen)
            expected = {row.id for row in rows}
        self._invariants.check_returned(rows, expected)
        return True

    def _append_in_the_wait(self, s3, bucket: str, time_left_s: Callable[[], float]) -> int:
        """append_leftovers, for the wait; rows may stay when it failed or its time ran out."""
        done = False
        try:
            appended = metrics_log.append_leftovers(s3, bucket, time_left_s)
            done = time_left_s() > STOP_BEFORE_S
        finally:
            if not done:
                self._network.disrupt()
        return appended

    def _append_last(self) -> None:
        """What the next wait does, on a network without faults."""
        self._network.reliable = True
        s3, sqs = self._network.client("s3"), self._network.client("sqs")
        missing = self._invariants.missing()
        rows_of_failures(s3, sqs, QUEUE_URL, Buckets(IN, OUT), missing)
        metrics_log.append_rows(s3, OUT, lambda: 600)
        self._invariants.check_end(self._s3)

    # --- the function ---------------------------------------------------------------------------

    def _on_change(
        self, bucket: str, key: str, old: StoredObject | None, new: StoredObject | None
    ) -> None:
        self._invariants.on_change(bucket, key, old, new)
        if bucket == IN and new:
            self._unsent.append(_record(key, new))
            if len(self._unsent) >= self._plan.records_per_event:
                self._send()
            else:
                self._schedule.at(self._schedule.now + 1, self._send)

    def _send(self) -> None:
        """Announce what was uploaded: at least once, in no order."""
        if not self._unsent:
            return
        records, self._unsent = self._unsent, []
        for _ in range(MAX_COPIES):
            self._events += 1
            event = Event(f"event-{self._events}", records)
            delay_s = self._rng.uniform(0, self._plan.delay_s)
            self._schedule.at(self._schedule.now + delay_s, partial(self._deliver, event))
            if self._rng.random() >= self._plan.duplicates:
                break

    def _deliver(self, event: Event) -> None:
        """Start an invocation; a throttled event comes back and has spent no attempt."""
        plan, now = self._plan, self._schedule.now
        if self._running >= plan.concurrency or self._rng.random() < plan.throttled:
            again = partial(self._deliver, event)
            self._schedule.at(now + self._rng.uniform(0.5, 20), again)
            return
        self._running += 1
        self._invocations += 1
        self._records += len(event.records)
        event.attempts += 1
        work = partial(self._invoke, event)
        name = f"{event.name}.{event.attempts}"
        self._schedule.at(now, Actor(name, work, mortal=True, ends_at=now + plan.timeout_s))

    def _invoke(self, event: Event) -> None:
        me = self._schedule.running

        def left_s() -> float:
            return me.ends_at - self._schedule.now

        context = SimpleNamespace(
            aws_request_id=event.name, get_remaining_time_in_millis=lambda: left_s() * 1000
        )
        problem = None
        try:
            handler.lambda_handler({"Records": event.records}, context)
        except FAULTS_OF_S3 as error:
            problem = {"errorType": type(error).__name__, "errorMessage": str(error)}
        except Ended:
            problem = {"errorType": "Runtime.ExitError", "errorMessage": me.ended}
        self._running -= 1
        if problem:
            self._schedule.note(f"failed: {problem}")
            self._retry_or_give_up(event, problem)
        if problem or left_s() <= STOP_BEFORE_S or self._plan.is_busy:
            self._network.disrupt()

    def _retry_or_give_up(self, event: Event, problem: dict[str, str]) -> None:
        if event.attempts <= len(RETRY_WAITS_S):
            wait_s = RETRY_WAITS_S[event.attempts - 1] * self._rng.uniform(0.9, 1.1)
            self._schedule.at(self._schedule.now + wait_s, partial(self._deliver, event))
            return
        record = {
            "timestamp": self._server_time().isoformat(timespec="milliseconds"),
            "requestContext": {
                "requestId": event.name,
                "condition": "RetriesExhausted",
                "approximateInvokeCount": event.attempts,
            },
            "requestPayload": {"Records": event.records},
            "responsePayload": problem,
        }
        self._queue.send(json.dumps(record))

    # --- what is not the modelled code's --------------------------------------------------------

    def _server_time(self) -> datetime:
        return EPOCH + timedelta(seconds=self._schedule.now)

    def _replacements(self) -> list[tuple[ModuleType, str, object]]:
        """The clock, chance, threads and output of the code under test; and the transform."""
        schedule, rng = self._schedule, self._rng
        clock = SimpleNamespace(
            monotonic=lambda: schedule.now, perf_counter=lambda: schedule.now, sleep=schedule.pause
        )
        skewed = SimpleNamespace(
            now=lambda _: self._server_time() + timedelta(seconds=self._plan.skew_s)
        )
        uuids = SimpleNamespace(uuid4=lambda: uuid.UUID(int=rng.getrandbits(128)))

        def say(text: str, *arguments: object, **_: object) -> None:
            schedule.running.said = text
            schedule.note(text % arguments if arguments else text)

        return [
            (metrics_log, "time", clock),
            (metrics_log, "datetime", skewed),
            (metrics_log, "random", rng),
            (metrics_log, "uuid", uuids),
            (metrics_log, "ThreadPoolExecutor", _OneAfterTheOther),
            (metrics_log, "log", SimpleNamespace(warning=say, error=say)),
            (metrics_log, "transform_id", lambda: "model"),
            (metrics_log, "BATCH_ROWS", self._plan.batch_rows),
            (handler, "time", clock),
            (handler, "s3_client", partial(self._network.client, "s3")),
            (handler, "measure_picture", self._measure),
            (handler, "print", say),
            (handler, "_is_cold", True),
            (handler, "_last_append", -math.inf),
            (handler, "_own_rows", {}),
            (handler, "LAST_OF_PASS", 2),  # of few pictures
            (handler, "NEAR_THE_END", 4),
            (handler.os.environ, "OUTPUT_BUCKET", OUT),
            (cloud_rows, "time", clock),
            (cloud_rows, "append_leftovers", self._append_in_the_wait),
            (cloud_rows, "POLL_S", POLL_S),
            (cloud_rows, "tqdm", partial(tqdm, disable=True)),
            (cloud_rows, "print", say),
            (dead_letters, "print", say),
        ]

    def _measure(self, data: bytes, _: str) -> Measurement:
        """What the transform gives, or does to the environment."""
        kind = data.partition(b" ")[0].decode()
        if kind == "poison":
            self._schedule.end_running("out of memory")
        if kind == "slow":
            self._schedule.pause(1000)
        if kind == "bad":
            return Measurement(None, "", "UnreadableImage: bad", 1.0, 1.0)
        return Measurement(b"jpeg of " + data, "ab" * 32, "", 1.0, 1.0)


class _OneAfterTheOther:
    """A ThreadPoolExecutor that starts no threads."""

    def __init__(self, _: int):
        pass

    def __enter__(self) -> "_OneAfterTheOther":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    map = staticmethod(map)


class _Reader:
    """A client that notes which rows the CSV had when it was last read; none when that failed."""

    def __init__(self, client, rows: dict[RowId, object]):
        self._client = client
        self._rows = rows
        self.seen: set[RowId] = set()

    def __getattr__(self, name: str) -> object:
        return getattr(self._client, name)

    def head_object(self, **params: str) -> dict:
        self.seen = set()
        answer = self._client.head_object(**params)
        if params["Key"] == CSV_KEY:
            self.seen = set(self._rows)
        return answer

    def get_object(self, **params: str) -> dict:
        seen, self.seen = self.seen, set()
        answer = self._client.get_object(**params)
        body = answer["Body"].read()
        self.seen = seen
        return {**answer, "Body": io.BytesIO(body)}


def _record(key: str, put: StoredObject) -> dict:
    """As S3 sends it; it form-encodes the key."""
    about = {"key": quote_plus(key, safe="/"), "eTag": put.etag.strip('"')}
    return {
        "eventName": "ObjectCreated:Put",
        "eventTime": put.modified.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "s3": {"bucket": {"name": IN}, "object": about},
    }


@contextlib.contextmanager
def replaced(replacements: list[tuple[object, str, object]]) -> Iterator[None]:
    """Values of modules and mappings for a while."""
    absent = object()
    before = []
    try:
        for owner, name, value in replacements:
            values = owner if owner is handler.os.environ else vars(owner)
            before.append((values, name, values.get(name, absent)))
            values[name] = value
        yield
    finally:
        for values, name, value in reversed(before):
            if value is absent:
                del values[name]
            else:
                values[name] = value
