"""Queues that run functions: what Lambda's pollers do for event source mappings of SQS.

As on AWS: batches by size, window and 6 MB; no more at once than the mapping's concurrency; with
the permissions of the function's role. What succeeded is deleted. What failed, all or the items
that the function names, comes again when its visibility time-out is over, until the redrive policy
of the queue takes it away. Not as on AWS: of that time-out, a failed message waits a 60th only.
https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html
"""

import hashlib
import json
import random
import threading
import time
from collections.abc import Callable

from moto.awslambda.exceptions import InvalidParameterValueException, UnknownFunctionException
from moto.awslambda.models import EventSourceMapping, LambdaFunction, lambda_backends
from moto.sqs.models import Message, Queue, sqs_backends

from lambda_function.emulator.faults import Mishap
from lambda_function.emulator.invocation import Invocation, Outcome
from lambda_function.emulator.moto_roles import role_allows
from lambda_function.emulator.moto_stacks import ACCOUNT_ID

ACTIONS = ("ReceiveMessage", "DeleteMessage", "GetQueueAttributes")
MAX_PAYLOAD_BYTES = 6 * 2**20  # of a synchronous invocation
ENVELOPE_BYTES = 700  # of a message beside its body
SOONER = 60  # than on AWS, a failed message comes again
DENIED_WAIT_S = 1  # until it is seen whether the role may now
PARTIAL = "ReportBatchItemFailures"
THROTTLED = Outcome(b"", "Throttled")

Run = Callable[[LambdaFunction, bytes, Callable[[Invocation | None, Outcome], None]], None]


class EventSources:
    """The mappings that there are. `run` invokes a function and calls back with the outcome; `lock`
    is held by whoever uses moto."""

    def __init__(
        self, lock: threading.RLock, run: Run, mishap_of: Callable[[str], Mishap] | None = None
    ):
        self._lock, self._run = lock, run
        self._mishap_of = mishap_of or (lambda _: Mishap())
        self._sources: dict[str, EventSource] = {}

    def start(self, mapping: EventSourceMapping) -> None:
        queue = _queue_of(mapping)
        check(mapping, queue)
        self._sources[mapping.uuid] = EventSource(
            mapping, queue, self._lock, self._run, self._mishap_of
        )

    def end(self, uuid: str) -> None:
        if source := self._sources.pop(uuid, None):
            source.stop()

    def added_to(self, queue: Queue) -> None:
        for source in list(self._sources.values()):
            if source.queue is queue:
                source.arrived()

    def stop(self) -> None:
        for uuid in list(self._sources):
            self.end(uuid)


class EventSource:
    """The poller of one mapping."""

    def __init__(
        self,
        mapping: EventSourceMapping,
        queue: Queue,
        lock: threading.RLock,
        run: Run,
        mishap_of: Callable[[str], Mishap],
    ):
        self.queue = queue
        self._mapping, self._lock, self._run = mapping, lock, run
        self._mishap_of = mishap_of
        self._woken, self._stopped = threading.Event(), False
        self._window_end_s: float | None = None  # by time.monotonic(); None: no message waits
        self._arrived = 0  # messages since the last look
        self._under_way = 0  # batches
        threading.Thread(target=self._loop, name=f"poller of {queue.name}", daemon=True).start()

    def arrived(self) -> None:
        """A message was added. One that would not fill a batch wakes nobody within the window."""
        self._arrived += 1
        if self._window_end_s is None or self._arrived >= self._mapping.batch_size:
            self._woken.set()

    def stop(self) -> None:
        self._stopped = True
        self._woken.set()

    def _loop(self) -> None:
        wait_s = None
        while not self._stopped:
            self._woken.wait(wait_s)
            self._woken.clear()
            if not self._stopped:
                with self._lock:
                    wait_s = self._poll()

    def _poll(self) -> float | None:
        """Begin the batches that are due; how long to wait for the next, None: until woken."""
        self._arrived = 0
        scaling = self._mapping.scaling_config or {}
        while self._under_way < int(scaling.get("MaximumConcurrency", 1000)):
            waiting = self.queue.messages
            if not waiting:
                self._window_end_s = None
                return self._next_visible_s()
            now_s = time.monotonic()
            window_s = float(self._mapping.max_batch_window or 0)
            self._window_end_s = self._window_end_s or now_s + window_s
            size, is_full = self._size_of_batch(waiting)
            if not is_full and now_s < self._window_end_s:
                return self._window_end_s - now_s
            self._window_end_s = None
            function = self._function()
            is_on = self._mapping.enabled and function is not None
            if not is_on or not _may_poll(function, self.queue):
                return DENIED_WAIT_S
            self._begin(function, size)
        return None  # the end of a batch wakes it

    def _next_visible_s(self) -> float | None:
        times = [max(m.visible_at, m.delayed_until) for m in self.queue._messages]
        return max(0.001, min(times) / 1000 - time.time() + 0.001) if times else None

    def _size_of_batch(self, waiting: list[Message]) -> tuple[int, bool]:
        """How many of the messages fit, and whether no other would."""
        payload = 0
        for number, message in enumerate(waiting):
            payload += ENVELOPE_BYTES + len(message.body)
            if payload > MAX_PAYLOAD_BYTES and number:
                return number, True
            if number + 1 == self._mapping.batch_size:
                return number + 1, True
        return len(waiting), False

    def _function(self) -> LambdaFunction | None:
        try:
            backend = lambda_backends[ACCOUNT_ID][self._mapping.region]
            return backend.get_function(self._mapping.function_arn)
        except UnknownFunctionException:
            return None

    def _begin(self, function: LambdaFunction, size: int) -> None:
        """Take a batch out of sight, and have the function run."""
        backend = sqs_backends[ACCOUNT_ID][self.queue.region]
        visibility_s = int(self.queue.visibility_timeout)
        messages = backend.receive_message(self.queue.name, size, 0, visibility_s)
        if not messages:  # all went to the failure queue
            return
        mishap = self._mishap_of(self.queue.name)
        if mishap.is_shuffled:
            random.shuffle(messages)  # nosec B311 # no secret
            kept = messages[: len(messages) // 2 + 1]
            self._show_again(messages[len(kept) :], 0)
            messages = kept
        self._under_way += 1
        if mishap.is_throttled:
            self._settle(messages, False, THROTTLED)
        elif mishap.wait_s:
            delayed = [function, messages, mishap.is_kept]
            timer = threading.Timer(mishap.wait_s, self._deliver, delayed)
            timer.daemon = True
            timer.start()
        else:
            self._deliver(function, messages, mishap.is_kept)
        if mishap.is_doubled:
            self._under_way += 1
            self._deliver(function, messages, True)

    def _deliver(self, function: LambdaFunction, messages: list[Message], is_kept: bool) -> None:
        records = [_record(message, self.queue) for message in messages]

        def on_end(_: Invocation | None, outcome: Outcome) -> None:
            self._settle(messages, is_kept, outcome)

        self._run(function, json.dumps({"Records": records}).encode(), on_end)

    def _settle(self, messages: list[Message], is_kept: bool, outcome: Outcome) -> None:
        """Delete what succeeded, and let the rest come again."""
        failed = failed_ids(outcome, [m.id for m in messages], self._is_partial())
        with self._lock:
            if not is_kept:
                self._delete({message.id for message in messages} - failed)
            wait_s = 0 if outcome is THROTTLED else int(self.queue.visibility_timeout) / SOONER
            left = messages if is_kept else [m for m in messages if m.id in failed]
            self._show_again(left, wait_s)
            self._under_way -= 1
        self._woken.set()

    def _is_partial(self) -> bool:
        return PARTIAL in (self._mapping.function_response_types or [])

    def _delete(self, ids: set[str]) -> None:
        gone = [message for message in self.queue._messages if message.id in ids]
        self.queue._messages = [m for m in self.queue._messages if m.id not in ids]
        for message in gone:
            self.queue.pending_messages.discard(message)
            self.queue.deleted_messages.update(message.all_receipt_handles)

    def _show_again(self, messages: list[Message], wait_s: float) -> None:
        ids = {message.id for message in messages}
        for message in self.queue._messages:
            if message.id in ids:
                message.visible_at = (time.time() + wait_s) * 1000


def failed_ids(outcome: Outcome, ids: list[str], is_partial: bool) -> set[str]:
    """Which messages of a batch failed: all when the function did, or answers what makes no sense.
    https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html"""
    if outcome.error:
        return set(ids)
    if not is_partial:
        return set()
    try:
        answer = json.loads(outcome.payload or b"null") or {}
        named = [item["itemIdentifier"] for item in answer.get("batchItemFailures") or []]
    except (ValueError, KeyError, TypeError, AttributeError):
        return set(ids)
    return set(named) if set(named) <= set(ids) else set(ids)


def check(mapping: EventSourceMapping, queue: Queue) -> None:
    """Raise what AWS answers to a mapping that cannot work."""
    function = lambda_backends[ACCOUNT_ID][mapping.region].get_function(mapping.function_arn)
    problem = ""
    if not _may_poll(function, queue):
        problem = (
            "The provided execution role does not have permissions to call ReceiveMessage on SQS"
        )
    elif int(queue.visibility_timeout) < int(function.timeout):
        problem = (
            f"Queue visibility timeout: {queue.visibility_timeout} seconds is less than Function "
            f"timeout: {function.timeout} seconds"
        )
    elif mapping.batch_size > 10 and not int(mapping.max_batch_window or 0):
        problem = "Maximum batch window in seconds must be greater than 0 if maximum batch size"
        problem += " is greater than 10"
    if problem:
        raise InvalidParameterValueException(problem)


def _may_poll(function: LambdaFunction, queue: Queue) -> bool:
    return all(role_allows(function.role, f"sqs:{name}", queue.queue_arn) for name in ACTIONS)


def _queue_of(mapping: EventSourceMapping) -> Queue:
    *_, region, _, name = mapping.event_source_arn.split(":")
    return sqs_backends[ACCOUNT_ID][region].get_queue(name)


def _record(message: Message, queue: Queue) -> dict:
    body = message.body.encode()
    return {
        "messageId": message.id,
        "receiptHandle": message.receipt_handle,
        "body": message.body,
        "attributes": {
            "ApproximateReceiveCount": str(message.approximate_receive_count),
            "SentTimestamp": str(message.sent_timestamp),
            "SenderId": message.sender_id,
            "ApproximateFirstReceiveTimestamp": str(message.approximate_first_receive_timestamp),
        },
        "messageAttributes": {},
        "md5OfBody": hashlib.md5(body, usedforsecurity=False).hexdigest(),
        "eventSource": "aws:sqs",
        "eventSourceARN": queue.queue_arn,
        "awsRegion": queue.region,
    }
