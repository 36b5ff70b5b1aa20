"""One execution environment of a function: a process that takes one event at a time.

It runs the function's unpacked zip under a Lambda runtime client (runtime_api.py). As on AWS: a
time-out, of wall time, kills the environment; a crashed one is replaced; REPORT lines in the log;
the share of a processor that the function's memory gives (cpu_quota.py).
"""

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from lambda_function.emulator.cpu_quota import WholeProcessor, share_of
from lambda_function.emulator.invocation import Invocation, Outcome
from lambda_function.emulator.runtime_api import RuntimeApi

if TYPE_CHECKING:
    from lambda_function.emulator.lambda_service import Function

INIT_LIMIT_S = 10  # AWS ends a longer init phase and starts it anew under the function's time-out


class Environment(threading.Thread):
    """One execution environment: the thread that drives it, its process and its Runtime API.

    All that happens to the process arrives in one queue, as pairs (what, content):
    ready (it asked for its first event), response, error, init_error, exit.
    """

    def __init__(self, function: "Function"):
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


def peak_memory_mb(pid: int) -> int:
    """Largest resident memory of a process so far, rounded up; 0 where it cannot be read."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        return -(-int(status.partition("VmHWM:")[2].split()[0]) // 1024)
    except (OSError, IndexError):  # ended, or a system without /proc
        return 0
