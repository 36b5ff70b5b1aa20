"""Lambda on this machine: execution environments, the Runtime API, the asynchronous queue.

Each environment is a process that runs the function's unpacked zip under a Lambda runtime client
(AWS's own awslambdaric; on systems without it, runtime_client.py). The client asks the Runtime API
for the next event and posts the answer: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html

As on AWS: one event at a time per environment; a new environment (cold start) when none is idle,
up to the concurrency; a time-out kills the environment; a crashed one is replaced; an asynchronous
event that fails is retried, then goes to the failure destination; REPORT lines in the log; the
share of a processor that the function's memory gives (cpu_quota.py). Time-outs are of wall time.
Not as on AWS: the waits before the retries are 60 times shorter, memory itself is not limited, and
all environments share this machine's processors.
"""

import contextlib
import io
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
import zipfile
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Empty, SimpleQueue
from socketserver import TCPServer

from lambda_function.emulator.cpu_quota import WholeProcessor, share_of

RETRY_WAITS_S = (1, 2)  # AWS waits one and two minutes
INIT_LIMIT_S = 10  # AWS ends a longer init phase and starts it anew under the function's time-out
STOP_LIMIT_S = 5  # for the thread of an environment whose process is gone


@dataclass(frozen=True)
class FunctionConfig:
    """All that running a function needs to know; a change of it retires the environments."""

    name: str
    arn: str
    region: str
    handler: str
    runtime: str
    memory_mb: int
    timeout_s: float
    variables: tuple[tuple[str, str], ...]
    role_arn: str
    credentials: tuple[tuple[str, str], ...]
    log_group: str
    reserved_concurrency: int | None
    max_retries: int
    max_event_age_s: float
    failure_queue_arn: str
    code_sha256: str
    code: bytes = field(repr=False, compare=False)


@dataclass(frozen=True)
class Outcome:
    """How an invocation ended; `error` is empty or the AWS name of the kind of failure."""

    payload: bytes
    error: str = ""


@dataclass(eq=False)
class Invocation:
    """One event on its way through the function, retries included."""

    event: bytes
    on_end: Callable[["Invocation", Outcome], None]
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    attempts: int = 0
    created: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class Host:
    """What the embedded cloud lends to every function."""

    folder: Path  # private, for unpacked code and logs
    runtime_folder: Path  # the packages that the Lambda runtime provides: boto3, awslambdaric
    client_code: str  # what the process runs; see runtime_client_code()
    endpoint_url: str
    concurrency: int
    write_log: Callable[[FunctionConfig, str, list[str]], None]  # with stream and messages
    send_failure: Callable[[FunctionConfig, dict], None]  # with the record


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

        def on_end(_: Invocation, outcome: Outcome) -> None:
            outcomes.append(outcome)
            done.set()

        function = self._function(config)
        if function is None:
            return Outcome(b'{"errorMessage": "the embedded cloud is stopping"}', "Unhandled")
        function.submit(Invocation(event, on_end))
        done.wait()
        return outcomes[0]

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


class Environment(threading.Thread):
    """One execution environment: the thread that drives it, its process and its Runtime API.

    All that happens to the process arrives in one queue, as pairs (what, content):
    ready (it asked for its first event), response, error, init_error, exit.
    """

    def __init__(self, function: Function):
        super().__init__(name=f"environment of {function.config.name}", daemon=True)
        self.id = uuid.uuid4().hex
        self._function = function
        self._config = function.config
        self._messages: SimpleQueue[tuple[str, bytes]] = SimpleQueue()
        self._api = RuntimeApi(self._messages)
        day = datetime.now(UTC).strftime("%Y/%m/%d")
        self._stream = f"{day}/[$LATEST]{self.id}"
        self._log_path = function.folder / f"{self.id}.log"
        self._log_offset = 0
        self._process: subprocess.Popen | None = None
        self._share = WholeProcessor()
        self._killed = threading.Event()

    def run(self) -> None:
        occupied = False
        try:
            start = time.perf_counter()
            try:
                self._start_process()
                what, content = self._next_message(INIT_LIMIT_S + self._config.timeout_s)
            except OSError as error:  # no process to be had: the waiting event fails by it
                what, content = "exit", str(error).encode()
            init_ms = (time.perf_counter() - start) * 1000
            while invocation := self._function.take():
                if what == "ready" and self._process.poll() is not None:  # died while idle
                    self._function.give_back(invocation)
                    break
                occupied = True
                if not self._do(invocation, init_ms, None if what == "ready" else (what, content)):
                    break
                init_ms = None
                occupied = False
                self._function.unoccupied_again()
        finally:
            self.kill()
            self._share.close()
            self._api.close()
            self._function.ended(self, occupied)

    def _start_process(self) -> None:
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(  # nosec B603 # this interpreter, no shell
                [sys.executable, "-I", "-S", "-B", "-c", self._function.host.client_code],
                cwd=self._function.folder / "task",
                env=self._variables(),
                stdin=subprocess.DEVNULL,
                stdout=log,  # a file, so that all output is there when the response arrives
                stderr=log,
                start_new_session=True,  # Ctrl-C in the terminal is for the orchestrator
            )
        if self._killed.is_set():
            self.kill()
        threading.Thread(target=self._report_exit, daemon=True).start()
        self._share = share_of(self._process, self._config.memory_mb)

    def _report_exit(self) -> None:
        status = self._process.wait()
        how = f"signal: {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        self._messages.put(("exit", how.encode()))

    def _variables(self) -> dict[str, str]:
        """https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html"""
        config, host = self._config, self._function.host
        return {
            **dict(config.variables),
            **dict(config.credentials),
            "_HANDLER": config.handler,
            "AWS_DEFAULT_REGION": config.region,
            "AWS_EXECUTION_ENV": f"AWS_Lambda_{config.runtime}",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(config.memory_mb),
            "AWS_LAMBDA_FUNCTION_NAME": config.name,
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "AWS_LAMBDA_LOG_GROUP_NAME": config.log_group,
            "AWS_LAMBDA_LOG_STREAM_NAME": self._stream,
            "AWS_LAMBDA_RUNTIME_API": self._api.address,
            "AWS_REGION": config.region,
            "LAMBDA_RUNTIME_DIR": str(host.runtime_folder),
            "LAMBDA_TASK_ROOT": str(self._function.folder / "task"),
            "LANG": "C.UTF-8",
            "PATH": os.defpath,
            "TZ": ":UTC",
            # Beyond AWS: S3 is here, and nothing of this machine's configuration leads elsewhere.
            "AWS_ENDPOINT_URL": host.endpoint_url,
            "AWS_SDK_UA_APP_ID": self.id,  # so that a request tells whose it is
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": "*",
        }

    def _next_message(self, timeout_s: float) -> tuple[str, bytes]:
        try:
            return self._messages.get(timeout=timeout_s)
        except Empty:
            return "timeout", b""

    def _do(self, invocation: Invocation, init_ms: float | None, failed_init) -> bool:
        """Run one event to its end; whether the environment can take another."""
        invocation.attempts += 1
        start = time.perf_counter()
        if failed_init is None:
            with self._share.enforced():  # not in the init phase
                self._api.give(invocation, self._config)
                what, content = self._next_message(self._config.timeout_s)
        else:
            what, content = failed_init
        duration_ms = (time.perf_counter() - start) * 1000
        outcome, note = self._outcome(invocation, what, content)
        memory_mb = peak_memory_mb(self._process.pid) if self._process else 0
        alive = what in ("response", "error")
        if not alive:
            self.kill()
        try:
            self._log(invocation, duration_ms, init_ms, memory_mb, note, what)
        finally:  # whatever becomes of the log, somebody waits for the outcome
            invocation.on_end(invocation, outcome)
        return alive

    def _outcome(self, invocation: Invocation, what: str, content: bytes) -> tuple[Outcome, str]:
        """The outcome and, where the platform ended the invocation, the platform's log line."""
        if what == "response":
            return Outcome(content), ""
        if what in ("error", "init_error"):
            return Outcome(content, "Unhandled"), ""
        if what == "timeout":
            problem = f"Task timed out after {self._config.timeout_s:.2f} seconds"
            kind = "Sandbox.Timedout"
        else:
            problem = f"Error: Runtime exited with error: {content.decode()}"
            kind = "Runtime.ExitError"
        message = f"RequestId: {invocation.request_id} {problem}"
        payload = json.dumps({"errorType": kind, "errorMessage": message}).encode()
        return Outcome(payload, "Unhandled"), message

    def _log(
        self,
        invocation: Invocation,
        duration_ms: float,
        init_ms: float | None,
        memory_mb: int,
        note: str,
        what: str,
    ) -> None:
        """Write the invocation's log lines, START to REPORT."""
        with self._log_path.open("rb") as log:
            log.seek(self._log_offset)
            output = log.read()
        self._log_offset += len(output)
        billed_ms = math.ceil(duration_ms + (init_ms or 0))
        report = [
            f"REPORT RequestId: {invocation.request_id}",
            f"Duration: {duration_ms:.2f} ms",
            f"Billed Duration: {billed_ms} ms",
            f"Memory Size: {self._config.memory_mb} MB",
            f"Max Memory Used: {memory_mb} MB",
        ]
        if init_ms is not None:
            report.append(f"Init Duration: {init_ms:.2f} ms")
        if what == "timeout":
            report.append("Status: timeout")
        elif note:
            report.append("Status: error\tError Type: Runtime.ExitError")
        lines = [
            f"START RequestId: {invocation.request_id} Version: $LATEST",
            *output.decode(errors="replace").splitlines(),
            *([note] if note else []),
            f"END RequestId: {invocation.request_id}",
            "\t".join(report),
        ]
        self._function.host.write_log(self._config, self._stream, lines)

    def end_early(self, timed_out: bool) -> None:
        """Let the invocation under way fail, as by a crash or as by its time-out; returns when the
        process is gone."""
        if timed_out:
            self._messages.put(("timeout", b""))
            self._process.wait()
        else:
            self.kill()

    def kill(self) -> None:
        """End the process and what it may have started; returns when it is gone."""
        self._killed.set()
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)  # it leads a session of its own
            self._process.wait()


class RuntimeApi:
    """The Runtime API of one environment, on a port of its own as on AWS."""

    def __init__(self, messages: SimpleQueue):
        self._events: SimpleQueue[tuple[Invocation, FunctionConfig] | None] = SimpleQueue()
        api_events, asked_before = self._events, []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"  # keeps the connection
            wbufsize = -1  # one packet an answer, and no Nagle delay: 6 ms instead of 88
            disable_nagle_algorithm = True

            def do_GET(self) -> None:  # /2018-06-01/runtime/invocation/next
                if not asked_before:
                    asked_before.append(True)
                    messages.put(("ready", b""))
                if (item := api_events.get()) is None:
                    self.close_connection = True
                    return
                invocation, config = item
                deadline_ms = int((time.time() + config.timeout_s) * 1000)
                self._answer(
                    200,
                    invocation.event,
                    {
                        "Lambda-Runtime-Aws-Request-Id": invocation.request_id,
                        "Lambda-Runtime-Deadline-Ms": str(deadline_ms),
                        "Lambda-Runtime-Invoked-Function-Arn": config.arn,
                    },
                )

            def do_POST(self) -> None:  # .../init/error, .../<id>/response, .../<id>/error
                length = int(self.headers.get("Content-Length", 0))
                body = self.rfile.read(length)
                what = "init_error" if "/init/" in self.path else self.path.rpartition("/")[2]
                self._answer(202, b'{"status":"OK"}', {})
                messages.put((what, body))

            def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
                self.send_response(status)
                headers = headers | {
                    "Content-Type": "application/json",
                    "Content-Length": str(len(body)),
                }
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)
                self.wfile.flush()

            def log_message(self, *_: object) -> None:
                """No access log."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            server_bind = TCPServer.server_bind  # HTTPServer's asks the resolver for a host name

        self._server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=[0.2], daemon=True).start()
        self.address = f"127.0.0.1:{self._server.server_address[1]}"

    def give(self, invocation: Invocation, config: FunctionConfig) -> None:
        self._events.put((invocation, config))

    def close(self) -> None:
        self._events.put(None)
        self._server.shutdown()
        self._server.server_close()


def runtime_client_code(runtime_folder: Path, client: str) -> str:
    """Python code that runs a function as Lambda does: the task first on the path, then the
    runtime's own packages, and nothing else but the standard library."""
    own = Path(__file__).with_name("runtime_client.py")
    start = {
        "awslambdaric": "runpy.run_module('awslambdaric', run_name='__main__')",
        "standard_library": f"runpy.run_path({str(own)!r}, run_name='__main__')",
    }[client]
    return (
        "import os, runpy, sys\n"
        "sys.path.insert(0, os.environ['LAMBDA_TASK_ROOT'])\n"
        f"sys.path.append({str(runtime_folder)!r})\n"
        "sys.argv = ['bootstrap', os.environ['_HANDLER']]\n"
        f"{start}\n"
    )


def peak_memory_mb(pid: int) -> int:
    """Largest resident memory of a process so far, rounded up; 0 where it cannot be read."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        return -(-int(status.partition("VmHWM:")[2].split()[0]) // 1024)
    except (OSError, IndexError):  # ended, or a system without /proc
        return 0
