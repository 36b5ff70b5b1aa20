"""Faults for the embedded cloud, from one seed: a bad day of AWS's that can be had again.

What goes wrong depends on the seed, on what is asked for and on how often that was asked before, so
the same seed has the same faults, whatever the order in which concurrent functions come.
"""

import contextlib
import errno
import io
import json
import random
import re
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from lambda_function.emulator.invocation import FunctionConfig, Host
from lambda_function.emulator.lambda_service import LambdaService
from lambda_function.emulator.xml_error import refuse


@dataclass(frozen=True)
class Kind:
    """A kind of fault: how likely it is, for each event or each request to S3, and what it is."""

    rate: float
    meaning: str


class Mishap(NamedTuple):
    """What goes wrong with a batch of a queue's messages."""

    wait_s: float = 0.0  # until it is delivered
    is_shuffled: bool = False  # and some messages are left for later
    is_throttled: bool = False
    is_doubled: bool = False  # delivered to two environments at once
    is_kept: bool = False  # its deletion is lost


KINDS = {
    "duplicate": Kind(0.10, "an event, or a batch of rows, is delivered twice"),
    "delay": Kind(0.20, "an event, or a batch of rows, comes late, so that others overtake it"),
    "throttle": Kind(0.05, "Lambda turns an event or a batch away for a while"),
    "reorder": Kind(0.20, "a batch has its rows in another order, and some come later"),
    "undeleted": Kind(0.10, "a batch that was done is not deleted, and comes again"),
    "kill": Kind(0.02, "the environment dies, before its request is carried out or after it"),
    "timeout": Kind(0.01, "the function's time is up at such a moment"),
    "conflict": Kind(0.05, "a conditional PUT is answered 409 or 412, and not carried out"),
    "error": Kind(0.02, "S3 or SQS answers 500 and does nothing"),
    "slowdown": Kind(0.02, "S3 or SQS answers 503 SlowDown and does nothing"),
    "reset": Kind(0.02, "the connection breaks before the request is carried out"),
    "lost": Kind(0.03, "the request is carried out, and the connection breaks before the answer"),
}
CONNECTION = "embedded_cloud.socket"  # where the server puts it in the environment of a request
OF_FUNCTIONS = ("kill", "timeout")  # what happens to no other client
FAULTY = re.compile(r"/(s3|sqs)/aws4_request")  # the services, by whose name requests are signed
IMAGE_KEY = re.compile(rb'image_key\\?": ?\\?"(.*?)"')  # in a row that is sent
ABOUT_REQUEST = ("REQUEST_METHOD", "PATH_INFO", "HTTP_X_AMZ_TARGET")
MAX_DELAY_S = 1.5
THROTTLED_S = 1.0  # each time
ANSWERS = {
    "error": ("500 Internal Server Error", "InternalError"),
    "slowdown": ("503 Slow Down", "SlowDown"),
    "409": ("409 Conflict", "ConditionalRequestConflict"),
    "412": ("412 Precondition Failed", "PreconditionFailed"),
}


class Faults:
    """Draws faults of some kinds; `happened` counts them. Draws none before arm()."""

    def __init__(self, seed: int, kinds: Iterable[str] = KINDS):
        self.seed = seed
        self.happened: Counter[str] = Counter()
        self._kinds = [kind for kind in KINDS if kind in set(kinds)]
        self._asked: Counter[str] = Counter()
        self._armed = False
        self._lock = threading.Lock()

    def arm(self) -> None:
        self._armed = True

    def of_request(self, what: str, conditional: bool, by_function: bool) -> tuple[str, bool]:
        """The kind of fault that hits a request, empty for none; and whether it comes after
        the request was carried out, where it could come before or after."""
        draw = self._draw(f"request {what}")
        kinds = ["conflict"] * conditional + [*OF_FUNCTIONS] * by_function
        kinds += ["error", "slowdown", "reset", "lost"]
        return self._first_of(kinds, draw), draw.random() < 0.5

    def waits_of_event(self, what: str) -> list[float]:
        """Seconds until each delivery of an event."""
        draw = self._draw(f"event {what}")
        first = draw.uniform(0, MAX_DELAY_S) if self._first_of(["delay"], draw) else 0.0
        while self._first_of(["throttle"], draw):
            first += THROTTLED_S
        again = draw.uniform(0, MAX_DELAY_S)
        return [first, again] if self._first_of(["duplicate"], draw) else [first]

    def of_batch(self, queue: str) -> Mishap:
        """What goes wrong with a batch of messages."""
        draw = self._draw(f"batch of {queue}")
        is_delayed = self._first_of(["delay"], draw)
        return Mishap(
            wait_s=draw.uniform(0, MAX_DELAY_S) if is_delayed else 0.0,
            is_shuffled=bool(self._first_of(["reorder"], draw)),
            is_throttled=bool(self._first_of(["throttle"], draw)),
            is_doubled=bool(self._first_of(["duplicate"], draw)),
            is_kept=bool(self._first_of(["undeleted"], draw)),
        )

    def _draw(self, subject: str) -> random.Random:
        with self._lock:
            self._asked[subject] += 1
            source = f"{self.seed} {subject} {self._asked[subject]}"
            return random.Random(source)  # nosec B311 # faults are to repeat

    def _first_of(self, kinds: Iterable[str], draw: random.Random) -> str:
        for kind in kinds:
            if draw.random() < KINDS[kind].rate and kind in self._kinds and self._armed:
                with self._lock:
                    self.happened[kind] += 1
                return kind
        return ""

    def __str__(self) -> str:
        counts = [f"{self.happened[kind]} {kind}" for kind in self._kinds]
        return f"faults of seed {self.seed}: {', '.join(counts)}"


def parse_faults(text: str) -> Faults:
    """Faults of `SEED` or `SEED:kind,kind`. Raises ValueError."""
    seed, _, kinds = text.partition(":")
    chosen = kinds.split(",") if kinds else list(KINDS)
    if not seed.isdecimal():
        raise ValueError(f"{seed!r} is no seed, which is a whole number")
    if unknown := [kind for kind in chosen if kind not in KINDS]:
        raise ValueError(f"{unknown[0]!r} is no kind of fault: {', '.join(KINDS)}")
    return Faults(int(seed), chosen)


class UnreliableLambda(LambdaService):
    """Delivers asynchronous events late, out of order and twice."""

    def __init__(self, host: Host, faults: Faults):
        super().__init__(host)
        self._faults = faults

    def invoke_async(self, config: FunctionConfig, event: bytes) -> None:
        for wait_s in self._faults.waits_of_event(_subject(event)):
            timer = threading.Timer(wait_s, super().invoke_async, [config, event])
            timer.daemon = True
            timer.start()


def _subject(event: bytes) -> str:
    """What an event is about; its time and its numbers differ from run to run."""
    try:
        return json.loads(event)["Records"][0]["s3"]["object"]["key"]
    except (ValueError, LookupError, TypeError):
        return ""


class UnreliableApi:
    """A WSGI application in front of moto's: fails requests to S3 and SQS, and ends who asks."""

    def __init__(self, app: Callable, faults: Faults, functions: LambdaService):
        self._app = app
        self._faults = faults
        self._functions = functions

    def __call__(self, environ: dict, start_response: Callable) -> Iterable[bytes]:
        if not FAULTY.search(environ.get("HTTP_AUTHORIZATION", "")):
            return self._app(environ, start_response)
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)  # read, lest it be taken for the next request
        environment = self._functions.environment(_application_id(environ))
        conditional = "HTTP_IF_MATCH" in environ or "HTTP_IF_NONE_MATCH" in environ
        what = " ".join(environ.get(name, "") for name in ABOUT_REQUEST)
        if row := IMAGE_KEY.search(body):
            what += row[1].decode(errors="replace")
        kind, late = self._faults.of_request(what, conditional, environment is not None)
        if not kind:
            return self._app(environ, start_response)
        if kind in ("conflict", "error", "slowdown"):
            answer = kind if kind != "conflict" else ("409", "412")[late]
            return refuse(environ, start_response, *ANSWERS[answer], "as --faults has it")
        if kind == "lost" or (kind in OF_FUNCTIONS and late):
            list(self._app(environ, lambda *_: None))
        if kind in OF_FUNCTIONS:
            environment.end_early(timed_out=kind == "timeout")
        with contextlib.suppress(OSError):  # it is closed already
            environ[CONNECTION].shutdown(socket.SHUT_RDWR)
        raise ConnectionResetError(errno.ECONNRESET, kind)  # as if the client were gone


def _application_id(environ: dict) -> str:
    """Of the environment that sends a request; see AWS_SDK_UA_APP_ID in environment.py."""
    found = re.search(r"\bapp/(\S+)", environ.get("HTTP_USER_AGENT", ""))
    return found[1] if found else ""
