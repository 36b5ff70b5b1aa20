"""What lies between an actor and a service: latency, faults, and the client's own retries."""

import contextlib
import io
import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    ReadTimeoutError,
    ResponseStreamingError,
)

from fault_model.plan import Plan
from fault_model.schedule import Actor, Ended, Schedule
from fault_model.services import S3, Queues, client_error
from lambda_function.metrics_log import CSV_KEY, INPUT_PREFIX

ATTEMPTS = 5  # max_attempts of the project's clients
WRITER_ATTEMPTS = 2  # and of the writer's
MAX_BACKOFF_S = 20  # of botocore's standard mode
READ_TIMEOUT_S = 20  # read_timeout of the handler's client
LATEST_S = 60  # until a request that was given up arrives
ENDPOINT = "http://127.0.0.1:9"


class Retried(Exception):
    """What the client tries again after; `error` is what it raises when that was the last try."""

    def __init__(self, error: Exception):
        self.error = error


class Network:
    def __init__(self, plan: Plan, rng: random.Random, schedule: Schedule, s3: S3, queues: Queues):
        self._plan = plan
        self._rng = rng
        self._schedule = schedule
        self._s3 = s3
        self._services = {"s3": s3, "sqs": queues}
        self.reliable = False  # no faults any more
        self.requests: Counter[str] = Counter()  # by place
        self.refused: Counter[str] = Counter()  # conditional PUTs, by place
        self.struck: Counter[str] = Counter()  # faults, by kind

    def client(self, service: str, attempts: int = ATTEMPTS) -> "Client":
        return Client(partial(self._request, service, attempts))

    def _request(self, service: str, attempts: int, operation: str, **params: object) -> dict:
        for attempt in range(1, attempts + 1):
            try:
                return self._attempt(service, operation, params)
            except Retried as problem:
                error = problem.error
            if attempt < attempts:
                backoff_s = min(self._rng.random() * 2**attempt, MAX_BACKOFF_S)
                self._schedule.pause(backoff_s)
        raise error

    def _attempt(self, service: str, operation: str, params: dict) -> dict:
        schedule, place = self._schedule, place_of(operation, params)
        self.requests[place] += 1
        fault = self._fault(place, operation)
        if fault == "killed before":
            schedule.end_running(f"killed before {place}")
        carry_out = partial(self._carry_out, service, operation, params, place, self._s3.changes)
        try:
            schedule.pause(self._latency_s(place))
        except Ended:
            self._may_still_arrive(operation, carry_out)
            raise
        self._fail_before(fault, operation, carry_out)
        try:
            answer, error = carry_out(schedule.running), None
        except ClientError as refusal:
            answer, error = None, refusal
        schedule.check()  # the invariants, after the change
        if fault in ("lost", "lost 500"):
            schedule.note(f"  the answer is lost ({fault})")
            raise Retried(self._error("500" if fault == "lost 500" else "reset", operation))
        if fault == "killed after":
            schedule.end_running(f"killed after {place}")
        if error:
            raise error
        if fault == "torn" and "Body" in answer:
            answer["Body"] = TornBody(answer["Body"].read(), self._schedule.note)
        return answer

    def _fail_before(self, fault: str, operation: str, carry_out: partial) -> None:
        """Raise what comes of a fault that leaves the request undone, or undone for now."""
        if fault in ("500", "503", "reset"):
            self._schedule.note(f"{operation} -> {fault}")
            raise Retried(self._error(fault, operation))
        if fault == "late":
            self._arrive_late(carry_out, self._rng.uniform(0, LATEST_S))
            self._schedule.pause(READ_TIMEOUT_S)
            self._schedule.note(f"{operation} -> no answer")
            raise Retried(ReadTimeoutError(endpoint_url=ENDPOINT))

    def _fault(self, place: str, operation: str) -> str:
        """The kind of fault that strikes this request; empty for none."""
        plan, draw = self._plan, self._rng.random()
        if self.reliable:
            return ""
        now = self._schedule.now
        if any(start <= now < end for start, end in plan.outages) and draw < 0.9:
            return "503"
        if plan.place in ("", place):
            for kind, probability in plan.faults.items():
                draw -= probability
                if draw < 0:
                    if not _can_strike(kind, operation, self._schedule.running):
                        return ""
                    self.struck[kind] += 1
                    return kind
        return ""

    def _carry_out(
        self,
        service: str,
        operation: str,
        params: dict,
        place: str,
        changes_before: int,
        sender: Actor,
    ) -> dict:
        """What the service does with the request, when it arrives."""
        who, what = sender.name, f"{operation} {params.get('Key') or params.get('QueueUrl')!r}"
        conditional = "IfMatch" in params or "IfNoneMatch" in params
        try:
            if conditional and self._conflicts(params, changes_before):
                self._s3.uploads.pop(params.get("UploadId"), None)  # it has to be begun anew
                raise client_error("ConditionalRequestConflict", "PutObject")
            answer = getattr(self._services[service], operation)(**params)
        except ClientError as error:
            self.refused[place] += conditional
            self._schedule.note(f"{what} -> {error.response['Error']['Code']}", who)
            raise
        self._schedule.note(what, who)
        return answer

    def _conflicts(self, params: dict, changes_before: int) -> bool:
        """Whether a conditional write met another change of the object and is answered 409."""
        changed = self._s3.changed_at.get((params["Bucket"], params["Key"]), 0)
        return changed > changes_before and self._rng.random() < self._plan.conflicts

    def _may_still_arrive(self, operation: str, carry_out: partial) -> None:
        """The sender died while its request was under way."""
        if is_write(operation) and not self._schedule.failure and self._rng.random() < 0.5:
            self._arrive_late(carry_out, self._rng.uniform(0, 1))

    def _arrive_late(self, carry_out: partial, seconds: float) -> None:
        sender = self._schedule.running

        def arrive() -> None:
            self._schedule.note("a request that its sender gave up arrives:", sender.name)
            with contextlib.suppress(ClientError):  # nobody hears the answer
                carry_out(sender)

        self._schedule.at(self._schedule.now + seconds, arrive)

    def _latency_s(self, place: str) -> float:
        rng, latency = self._rng, self._plan.latency
        if latency == "wild":
            return 10 ** rng.uniform(-3, 0.7)
        if latency == "slow" and rng.random() < 0.15:
            return rng.uniform(2, READ_TIMEOUT_S)
        stalls = {"": 0.1, place: 0.5}.get(self._plan.place, 0)
        if latency == "stalling" and rng.random() < stalls:
            return rng.uniform(20, 45)  # as of many tries, or of a process that was frozen
        return rng.uniform(0.005, 0.05) if rng.random() < 0.8 else rng.uniform(0.05, 0.5)

    def _error(self, fault: str, operation: str) -> Exception:
        if fault == "reset":
            return ConnectionClosedError(endpoint_url=ENDPOINT)
        return client_error("SlowDown" if fault == "503" else "InternalError", operation)


class TornBody(io.RawIOBase):
    """A body that breaks off in the middle."""

    def __init__(self, whole: bytes, note: Callable[[str], None]):
        super().__init__()
        self._there, self._note = io.BytesIO(whole[: len(whole) // 2]), note

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:
        if count := self._there.readinto(buffer):
            return count
        self._note("  the body breaks off")
        raise ResponseStreamingError(error="the body broke off")


class Client:
    """What boto3's clients offer to the code under test."""

    exceptions = SimpleNamespace(ClientError=ClientError)
    meta = SimpleNamespace(endpoint_url=ENDPOINT)

    def __init__(self, request: partial):
        self._request = request

    def __getattr__(self, operation: str) -> partial:
        return partial(self._request, operation)

    def get_paginator(self, operation: str) -> SimpleNamespace:
        return SimpleNamespace(paginate=lambda **params: [self._request(operation, **params)])


def _can_strike(kind: str, operation: str, actor: Actor) -> bool:
    if kind.startswith("killed"):
        return actor.mortal
    only = {"late": is_write(operation), "torn": operation == "get_object"}
    return only.get(kind, True)


def is_write(operation: str) -> bool:
    return operation.startswith(("put", "delete", "send", "create", "upload", "complete"))


def place_of(operation: str, params: dict) -> str:
    """What a request is about and what it does, as in plan.PLACES."""
    verb = operation.partition("_")[0]
    if "QueueUrl" in params:
        return f"{params['QueueUrl']} {verb}"
    if "Prefix" in params:
        return "input list"
    if params["Key"] == CSV_KEY:
        verb = {"upload_part": "part", "upload_part_copy": "copy"}.get(operation, verb)
        return f"csv {verb}"
    return f"input {verb}" if params["Key"].startswith(INPUT_PREFIX) else f"output {verb}"
