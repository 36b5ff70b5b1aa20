"""One campaign: uploads, delivery of events, the queue and its writers, the waits, the end."""

import contextlib
import json
import random
import uuid
from collections import Counter
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from types import ModuleType, SimpleNamespace
from urllib.parse import quote_plus

from botocore.exceptions import BotoCoreError, ClientError
from tqdm import tqdm

from fault_model.invariants import FAILURES, IN, OUT, ROWS, Invariants
from fault_model.network import WRITER_ATTEMPTS, Network
from fault_model.plan import Plan, Run, plan_of
from fault_model.schedule import Actor, Ended, Schedule
from fault_model.services import EPOCH, S3, Message, Queue, Queues, StoredObject
from lambda_function import handler, metrics_log, metrics_writer
from lambda_function.cloud import Buckets
from lambda_function.image_transform import Measurement
from lambda_function.metrics_log import CSV_KEY, INPUT_PREFIX, MetricsLogError, RowId
from metrics.collect import cloud_rows, dead_letters
from metrics.collect.dead_letters import HIDDEN_S
from metrics.common.cli import UserError

MAX_COPIES = 8  # of one event
STEP_LIMIT = 10_000  # several times what any seed takes
POLL_S = 10  # of the wait; less only makes a campaign longer
FAULTS_OF_AWS = (ClientError, BotoCoreError, MetricsLogError)
RETRY_WAITS_S = (60, 120)
WINDOW_S = 1
VISIBILITY_S = 360
WRITER_TIMEOUT_S = 60


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


class Environment:
    """An execution environment of the writer, and what it remembers."""

    def __init__(self):
        self.csvs: dict[str, metrics_writer.MetricsCsv] = {}


class Campaign:
    def __init__(self, plan: Plan, trace: list[str] | None):
        self._plan = plan
        self._rng = random.Random(f"campaign {plan.seed}")
        self._schedule = Schedule(self._rng, STEP_LIMIT, trace)
        self._invariants = Invariants(plan, self._schedule.fail, lambda: self._schedule.now)
        self._s3 = S3(lambda: self._schedule.now, self._on_change, {IN: {}, OUT: {}})
        self._failures = Queue(lambda: self._schedule.now, self._rng)
        self._rows = Queue(
            lambda: self._schedule.now,
            self._rng,
            self._on_send,
            self._invariants.on_delete,
            self._failures,
            plan.max_receives,
        )
        self._queues = Queues({ROWS: self._rows, FAILURES: self._failures})
        self._network = Network(plan, self._rng, self._schedule, self._s3, self._queues)
        self._unsent: list[dict] = []  # records of an event that is not full yet
        self._events = 0
        self._running = 0
        self._invocations = 0
        self._environments: list[Environment] = []  # of the writer, that are idle
        self._writers = 0  # at work
        self._cold_starts = 0  # of the writer
        self._batches = 0

    def run(self) -> Result:
        with replaced(self._replacements()):
            for body in self._plan.junk:
                self._rows.send(body)
            for run in self._plan.runs:
                self._schedule.at(run.starts_at, Actor(run.run_id, partial(self._run, run)))
            if self._plan.cleaned_at:
                self._schedule.at(self._plan.cleaned_at, Actor("cleaner", self._clean))
            self._schedule.run()
            if not self._schedule.failure:
                self._invariants.check_quiet(self._rows)
                if self._plan.undisturbed:
                    self._invariants.check_work(self._network, self._cold_starts, self._batches)
            if not self._schedule.failure:
                later = self._schedule.now + HIDDEN_S + 2
                self._schedule.at(later, Actor("last drain", self._drain_last))
                self._schedule.run()
            if not self._schedule.failure:
                self._invariants.check_end(self._s3, self._failures)
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
        rows = _Reader(s3, run.run_id, self._invariants.rows)
        for number in range(1, run.rounds + 1):
            try:
                for key in run.keys:
                    self._upload(s3, run.run_id, number, key)
            except FAULTS_OF_AWS:
                return  # the pipeline ends here, naming the picture
            if run.waits and not self._wait(s3, rows, run, number):
                return

    def _upload(self, s3, run_id: str, number: int, key: str) -> None:
        body = f"{self._plan.pictures[key]} {key}".encode()
        metadata = {"run-id": run_id, "round": str(number)}
        s3.put_object(Bucket=IN, Key=INPUT_PREFIX + key, Body=body, Metadata=metadata)

    def _wait(self, s3, rows: "_Reader", run: Run, number: int) -> bool:
        """Whether the run goes on."""
        queues = self._queues_of(s3)
        expected = {RowId(run.run_id, number, key) for key in run.keys}
        me = self._schedule.running
        me.said = ""
        try:
            cloud_rows.wait_for_rows(rows, expected, run.timeout_s, run.allow_partial, queues)
        except UserError as error:
            self._schedule.note(f"exit 1: {error}")
            self._invariants.check_named(str(error), expected, rows.seen)
            return False
        except FAULTS_OF_AWS as error:
            self._schedule.fail(f"the wait ended without naming anybody: {error}")
            return False
        if me.said.startswith("going on: "):
            self._invariants.check_named(me.said, expected, rows.seen)
            expected &= rows.found
        self._invariants.check_returned(rows, expected)
        return True

    def _queues_of(self, s3) -> dead_letters.Queues:
        sqs = self._network.client("sqs")
        return dead_letters.Queues(s3, sqs, ROWS, FAILURES, Buckets(IN, OUT))

    def _drain_last(self) -> None:
        """What the next wait does, on a network without faults."""
        self._network.reliable = True
        missing = self._invariants.missing()
        dead_letters.drain_failure_queue(self._queues_of(self._network.client("s3")), missing)

    def _clean(self) -> None:
        self._s3.delete_object(Bucket=OUT, Key=CSV_KEY)

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
        except FAULTS_OF_AWS as error:
            problem = {"errorType": type(error).__name__, "errorMessage": str(error)}
        except Ended:
            problem = {"errorType": "Runtime.ExitError", "errorMessage": me.ended}
        self._running -= 1
        if problem:
            self._schedule.note(f"failed: {problem}")
            self._retry_or_give_up(event, problem)

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
        self._failures.send(json.dumps(record))

    # --- the queue and its writers --------------------------------------------------------------

    def _on_send(self, _: Message) -> None:
        self._poll_at(max(self._schedule.now + WINDOW_S, self._plan.behind_s))

    def _poll_at(self, when: float) -> None:
        self._schedule.at(when, self._poll)

    def _poll(self) -> None:
        """Start writers for the messages that wait."""
        plan, now, rng = self._plan, self._schedule.now, self._rng
        while self._writers < plan.writers and now >= plan.behind_s:
            if not any(message.hidden_until <= now for message in self._rows.messages):
                return
            if messages := self._rows.take(plan.batch_size, VISIBILITY_S):
                self._poll_at(now + VISIBILITY_S)  # what is not deleted by then comes again
                self._start_writer(messages)
                if rng.random() < plan.doubled and not self._network.reliable:
                    self._start_writer(messages)

    def _start_writer(self, messages: list[Message]) -> None:
        environment = None
        if self._environments and self._rng.random() < 0.9:
            at = self._rng.randrange(len(self._environments))
            environment = self._environments.pop(at)
        if environment is None:
            environment = Environment()
            self._cold_starts += 1
        self._writers += 1
        self._batches += 1
        work = partial(self._write, environment, messages)
        ends_at = self._schedule.now + WRITER_TIMEOUT_S
        writer = Actor(f"writer-{self._batches}", work, mortal=True, ends_at=ends_at)
        writer.environment = environment
        self._schedule.at(self._schedule.now, writer)

    def _write(self, environment: Environment, messages: list[Message]) -> None:
        me = self._schedule.running
        context = SimpleNamespace(
            aws_request_id=me.name,
            get_remaining_time_in_millis=lambda: (me.ends_at - self._schedule.now) * 1000,
        )
        event = {"Records": [{"messageId": m.id, "body": m.body} for m in messages]}
        failed = {message.id for message in messages}
        try:
            answer = metrics_writer.lambda_handler(event, context)
            failed = {item["itemIdentifier"] for item in answer["batchItemFailures"]}
            self._environments.append(environment)
        except FAULTS_OF_AWS as error:
            self._schedule.note(f"failed: {error}")
            self._environments.append(environment)
        except Ended:
            pass  # and what it remembered is gone
        self._writers -= 1
        is_lost = self._rng.random() < self._plan.undeleted and not self._network.reliable
        for message in messages:
            if message.id not in failed and not is_lost:
                self._rows.delete(message.id)
        self._poll_at(self._schedule.now)

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
            (metrics_log, "transform_id", lambda: "model"),
            (metrics_writer, "time", clock),
            (metrics_writer, "random", rng),
            (metrics_writer, "uuid", uuids),
            (metrics_writer, "ThreadPoolExecutor", OneAfterTheOther),
            (metrics_writer, "s3_client", partial(self._network.client, "s3", WRITER_ATTEMPTS)),
            (metrics_writer, "_csvs", OfEnvironment(schedule)),
            (metrics_writer, "COPY_FROM_BYTES", self._plan.copy_from),
            (metrics_writer, "PART_BYTES", self._plan.part_bytes),
            (metrics_writer, "print", say),
            (handler, "time", clock),
            (handler, "client", self._network.client),
            (handler, "measure_picture", self._measure),
            (handler, "print", say),
            (handler, "_is_cold", True),
            (handler.os.environ, "OUTPUT_BUCKET", OUT),
            (handler.os.environ, "ROWS_QUEUE_URL", ROWS),
            (cloud_rows, "time", clock),
            (cloud_rows, "POLL_S", POLL_S),
            (cloud_rows, "tqdm", partial(tqdm, disable=True)),
            (cloud_rows, "print", say),
            (dead_letters, "ThreadPoolExecutor", OneAfterTheOther),
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


class OneAfterTheOther:
    """A ThreadPoolExecutor that starts no threads."""

    def __init__(self, _: int):
        pass

    def __enter__(self) -> "OneAfterTheOther":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    map = staticmethod(map)


class OfEnvironment(MutableMapping):
    """What the environment remembers that runs just now."""

    def __init__(self, schedule: Schedule):
        self._schedule = schedule

    def _csvs(self) -> dict[str, object]:
        return self._schedule.running.environment.csvs

    def __getitem__(self, key: str) -> object:
        return self._csvs()[key]

    def __setitem__(self, key: str, value: object) -> None:
        self._csvs()[key] = value

    def __delitem__(self, key: str) -> None:
        del self._csvs()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._csvs())

    def __len__(self) -> int:
        return len(self._csvs())


class _Reader(cloud_rows.CloudRows):
    """Notes which rows the CSV had when it was last read; none when that failed."""

    def __init__(self, s3, run_id: str, rows: dict[RowId, object]):
        self._rows, self.seen = rows, set()
        self._client = s3
        super().__init__(SimpleNamespace(get_object=self._get_object), OUT, run_id)

    def look(self) -> int:
        self.seen = set()
        count = super().look()
        self.seen = self._there
        return count

    def _get_object(self, **params: str) -> dict:
        self._there = set()
        try:
            return self._client.get_object(**params)
        finally:
            self._there = set(self._rows)


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
