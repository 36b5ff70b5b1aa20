"""What the parts of Lambda on this machine tell each other: a function, an event, its outcome."""

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


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
