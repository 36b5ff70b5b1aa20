"""The Runtime API: how the process of an environment gets events and answers them.

A Lambda runtime client (AWS's own awslambdaric; on systems without it, runtime_client.py) asks for
the next event and posts the answer: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import SimpleQueue
from socketserver import TCPServer

from lambda_function.emulator.invocation import FunctionConfig, Invocation


class RuntimeApi:
    """The Runtime API of one environment, on a port of its own as on AWS."""

    def __init__(self, messages: SimpleQueue):
        self._server = _Server(messages)
        threading.Thread(target=self._server.serve_forever, args=[0.2], daemon=True).start()
        self.address = f"127.0.0.1:{self._server.server_address[1]}"

    def give(self, invocation: Invocation, config: FunctionConfig) -> None:
        self._server.events.put((invocation, config))

    def close(self) -> None:
        self._server.events.put(None)
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps the connection
    wbufsize = -1  # one packet an answer, and no Nagle delay: 6 ms instead of 88
    disable_nagle_algorithm = True

    def do_GET(self) -> None:  # /2018-06-01/runtime/invocation/next
        self.server.is_ready()
        if (item := self.server.events.get()) is None:
            self.close_connection = True
            return
        invocation, config = item
        deadline_ms = int((time.time() + config.timeout_s) * 1000)
        headers = {
            "Lambda-Runtime-Aws-Request-Id": invocation.request_id,
            "Lambda-Runtime-Deadline-Ms": str(deadline_ms),
            "Lambda-Runtime-Invoked-Function-Arn": config.arn,
        }
        self._answer(200, invocation.event, headers)

    def do_POST(self) -> None:  # .../init/error, .../<id>/response, .../<id>/error
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        what = "init_error" if "/init/" in self.path else self.path.rpartition("/")[2]
        self._answer(202, b'{"status":"OK"}', {})
        self.server.messages.put((what, body))

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        about = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        for name, value in (headers | about).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, *_: object) -> None:
        """No access log."""


class _Server(ThreadingHTTPServer):
    """`messages` is told what the process does, `events` are what it gets; None: no more."""

    daemon_threads = True
    server_bind = TCPServer.server_bind  # HTTPServer's asks the resolver for a host name

    def __init__(self, messages: SimpleQueue):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.messages = messages
        self.events: SimpleQueue[tuple[Invocation, FunctionConfig] | None] = SimpleQueue()
        self._has_asked = False

    def is_ready(self) -> None:
        """The process asks for an event: the first time, that ends its init phase."""
        if not self._has_asked:
            self._has_asked = True
            self.messages.put(("ready", b""))


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
