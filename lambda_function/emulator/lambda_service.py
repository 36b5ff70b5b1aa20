"""Lambda on this machine: functions by name, their queues of events, retries and failures.

As on AWS: a new environment (cold start) when none is idle, up to the concurrency; an asynchronous
event that fails is retried, then goes to the failure destination; what an environment does with an
event is in environment.py. Not as on AWS: the waits before the retries are 60 times shorter, memory
itself is not limited, and all environments share this machine's processors.
"""

import io
import json
import threading
import time
import uuid
import zipfile
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime

from lambda_function.emulator.environment import Environment
from lambda_function.emulator.invocation import FunctionConfig, Host, Invocation, Outcome

RETRY_WAITS_S = (1, 2)  # AWS waits one and two minutes
STOP_LIMIT_S = 5  # for the thread of an environment whose process is gone
STOPPING = Outcome(b'{"errorMessage": "the embedded cloud is stopping"}', "Unhandled")


class LambdaService:
    """Runs functions by name, each with the configuration of its latest invocation."""

    def __init__(self, host: Host):
        self._host = host
        self._current: dict[str, Function] = {}
        self._all: list[Function] = []  # retired ones, too, whose last events may be under way
        self._stopped = False
        self._lock = threading.Lock()

    def invoke(self, config: FunctionConfig, event: bytes) -> Outcome:
        """Synchronous: waits for the end, no retries."""
        done, outcomes = threading.Event(), []

        def on_end(_: Invocation | None, outcome: Outcome) -> None:
            outcomes.append(outcome)
            done.set()

        self.submit(config, event, on_end)
        done.wait()
        return outcomes[0]

    def submit(
        self,
        config: FunctionConfig,
        event: bytes,
        on_end: Callable[[Invocation | None, Outcome], None],
    ) -> None:
        """One try; `on_end` is called with what came of it."""
        if (function := self._function(config)) is None:
            on_end(None, STOPPING)
        else:
            function.submit(Invocation(event, on_end))

    def invoke_async(self, config: FunctionConfig, event: bytes) -> None:
        """Asynchronous: returns at once; failures are retried as the configuration says."""
        if (function := self._function(config)) is not None:
            function.submit(Invocation(event, function.retry_or_give_up))

    def _function(self, config: FunctionConfig) -> "Function | None":
        """The function in this configuration; None once the service has stopped."""
        with self._lock:
            current = self._current.get(config.name)
            if self._stopped or (current is not None and current.config == config):
                return None if self._stopped else current
            replacement = Function(config, self._host)
            self._all.append(replacement)
            self._current[config.name] = replacement
            if current is not None:
                current.retire(replacement)
            return replacement

    def environment(self, id: str) -> "Environment | None":
        """The living environment of that id; see AWS_SDK_UA_APP_ID."""
        with self._lock:
            functions = list(self._all)
        return next((e for f in functions for e in f.environments() if e.id == id), None)

    def stop(self) -> None:
        """End all functions at once, and start none any more."""
        with self._lock:
            self._stopped = True
            functions = list(self._all)
        for function in functions:
            function.stop()


class Function:
    """The queue of one function and the environments that empty it."""

    def __init__(self, config: FunctionConfig, host: Host):
        self.config = config
        self.host = host
        self.folder = host.folder / f"{config.name}-{uuid.uuid4().hex[:8]}"
        zipfile.ZipFile(io.BytesIO(config.code)).extractall(self.folder / "task")
        limits = [host.concurrency, config.reserved_concurrency]
        self._limit = min(limit for limit in limits if limit is not None)
        self._queue: deque[Invocation] = deque()
        self._environments: set[Environment] = set()
        self._unoccupied = 0  # environments that are starting or wait for an event
        self._timers: set[threading.Timer] = set()
        self._stopping = False
        self._replacement: Function | None = None  # set when this one has retired
        self._changed = threading.Condition()

    def submit(self, invocation: Invocation) -> None:
        with self._changed:
            if self._replacement is None:
                self._queue.append(invocation)
                self._scale()
                return
        self._replacement.submit(invocation)

    def _scale(self) -> None:
        """Wake an environment for each waiting event, or start one. Called with the lock held."""
        self._changed.notify_all()
        while (
            not self._stopping
            and len(self._queue) > self._unoccupied
            and len(self._environments) < self._limit
        ):
            environment = Environment(self)
            self._environments.add(environment)
            self._unoccupied += 1
            environment.start()

    def take(self) -> Invocation | None:
        """The next event, which makes the calling environment occupied; None: end."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._stopping or self._replacement)
            if self._stopping or self._replacement:
                return None
            self._unoccupied -= 1
            return self._queue.popleft()

    def give_back(self, invocation: Invocation) -> None:
        """Undo take(): the environment died while it was idle, so the event was not tried."""
        with self._changed:
            self._unoccupied += 1
            if self._replacement is None:
                self._queue.appendleft(invocation)
                return
        self._replacement.submit(invocation)

    def unoccupied_again(self) -> None:
        with self._changed:
            self._unoccupied += 1

    def environments(self) -> list["Environment"]:
        with self._changed:
            return list(self._environments)

    def ended(self, environment: "Environment", occupied: bool) -> None:
        with self._changed:
            self._environments.discard(environment)
            self._unoccupied -= not occupied
            self._scale()

    def retry_or_give_up(self, invocation: Invocation, outcome: Outcome) -> None:
        """What Lambda does with an asynchronous event that was tried."""
        if not outcome.error:
            return
        wait_s = RETRY_WAITS_S[min(invocation.attempts, len(RETRY_WAITS_S)) - 1]
        age_s = time.monotonic() - invocation.created
        if invocation.attempts > self.config.max_retries:
            self._give_up(invocation, outcome, "RetriesExhausted")
        elif age_s + wait_s > self.config.max_event_age_s:
            self._give_up(invocation, outcome, "EventAgeExceeded")
        else:
            timer = threading.Timer(wait_s, self.submit, [invocation])
            timer.daemon = True
            with self._changed:
                if not self._stopping:
                    self._timers = {t for t in self._timers if t.is_alive()} | {timer}
                    timer.start()

    def _give_up(self, invocation: Invocation, outcome: Outcome, condition: str) -> None:
        """https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html"""
        if not self.config.failure_queue_arn:
            return
        record = {
            "version": "1.0",
            "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "requestContext": {
                "requestId": invocation.request_id,
                "functionArn": f"{self.config.arn}:$LATEST",
                "condition": condition,
                "approximateInvokeCount": invocation.attempts,
            },
            "requestPayload": json.loads(invocation.event),
            "responseContext": {
                "statusCode": 200,
                "executedVersion": "$LATEST",
                "functionError": "Unhandled",
            },
            "responsePayload": json.loads(outcome.payload or b"null"),
        }
        self.host.send_failure(self.config, record)

    def retire(self, replacement: "Function") -> None:
        """End after the events under way; those that wait go to `replacement`."""
        with self._changed:
            self._replacement = replacement
            waiting = list(self._queue)
            self._queue.clear()
            self._changed.notify_all()
        for invocation in waiting:
            replacement.submit(invocation)

    def stop(self) -> None:
        """End at once, events under way included; returns when every process is gone."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
            environments = list(self._environments)
            for timer in self._timers:
                timer.cancel()
        for environment in environments:
            environment.kill()
        for environment in environments:
            environment.join(STOP_LIMIT_S)
