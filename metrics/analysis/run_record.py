"""run.json: what was run, on what, and when each step began and ended."""

import contextlib
import json
import os
import re
import shlex
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime

from lambda_function.metrics_log import utc_now
from metrics.common.cli import without_credentials
from metrics.common.machine import CpuCounters, describe
from metrics.common.paths import RUN_JSON, write_whole

MAX_NUMBER = 2**63  # a number of run.json
NO_STEP = dict.fromkeys(("step", "start", "end", "status"), "unknown")
# What is_record() asks of run.json: a type, or a dict or list of such.
_NUMBER = (int, float, type(None))
_TEXT = (str, type(None))
SHAPE = {
    "command_line": _TEXT,
    "cloud": _TEXT,
    "throttles": _NUMBER,
    "rounds_ended": _TEXT,
    "setting": {
        "kind": _TEXT,
        **dict.fromkeys(("pictures", "rounds", "workers", "concurrency", "memory_mb"), _NUMBER),
    },
    "resumed_at": [_TEXT],
    "data_set": {"pictures": _NUMBER, "bytes": _NUMBER, "fingerprint": _TEXT},
    "environment": {
        **dict.fromkeys(("python", "system", "cpu", "git_commit"), _TEXT),
        **dict.fromkeys(("cpus", "memory_mb"), _NUMBER),
        "packages": _TEXT,
    },
    "steps": [
        {
            **dict.fromkeys(("step", "start", "end", "status"), _TEXT),
            "round": _NUMBER,
            "machine": _NUMBER,
        }
    ],
}


def is_record(content: object, shape: object = SHAPE) -> bool:
    """Whether `content` is as RunRecord writes it, as far as anything is said of it. A dict may
    stand for any names where only a type is asked for."""
    if isinstance(shape, list):
        return isinstance(content, list) and all(is_record(part, shape[0]) for part in content)
    if isinstance(content, dict):
        named = isinstance(shape, dict)
        parts = [
            (part, shape.get(name, object) if named else shape) for name, part in content.items()
        ]
        return all(is_record(part, asked) for part, asked in parts)
    if isinstance(content, int) and abs(content) > MAX_NUMBER:
        return False
    return not isinstance(shape, dict) and isinstance(content, shape)


def record_of(run_json: bytes | None, run_id: str) -> dict:
    """run.json, if it is about the run that is judged and as RunRecord writes it; else nothing is
    known of the run."""
    try:
        record = json.loads(run_json or b"{}")
        if record["run_id"] != run_id or not is_record(record):
            return {}
        return record | {"steps": [NO_STEP | step for step in record.get("steps", [])]}
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}


def recorded_command(words: list[str]) -> str:
    """A command line as others may see it, in a bundle: the home folder is `~`, and URLs have no
    user name and password."""
    line = shlex.join(map(without_credentials, words))
    if (home := os.path.expanduser("~")) in ("~", "/"):
        return line
    return re.sub(rf"(?<![^\s'\"=]){re.escape(home)}(?=[/'\"\s]|$)", "~", line)


class RunRecord:
    """Kept up to date on disk after every step, so that a run that fails leaves its record."""

    def __init__(
        self,
        run_id: str,
        command_line: str,
        cloud: str,
        data_set: dict[str, object],
        earlier: dict | None = None,
    ):
        """With the `earlier` record of the run when it was interrupted and goes on."""
        self._content = {
            "run_id": run_id,
            # A file name may not be UTF-8; what is no text is kept as its escape.
            "command_line": command_line.encode(errors="backslashreplace").decode(),
            "cloud": cloud,
            "data_set": data_set,
            "environment": describe(),
            "steps": [],
            "resumed_at": [],
            "exit_code": None,
        }
        if earlier:
            self._content["steps"] = earlier.get("steps", [])
            self._content["resumed_at"] = [*earlier.get("resumed_at", []), utc_now()]
        self._write()  # at once, so that what was begun can be resumed

    @contextlib.contextmanager
    def step(self, name: str, number: int = 1, of: int = 1) -> Iterator[None]:
        """Record when the step begins and ends, whether it failed, and what slowed the machine.

        With `number` when it is one of several passes.
        """
        entry = {"step": name, "start": utc_now(), "end": None, "status": "failed"}
        if of > 1:
            entry["round"] = number
            name += f" ({number} of {of})"
        self._content["steps"].append(entry)
        start, counters = time.monotonic(), CpuCounters.now()
        try:
            yield
            entry["status"] = "done"
        except KeyboardInterrupt:
            entry["status"] = "interrupted"
            raise
        finally:
            entry["end"] = utc_now()
            entry["machine"] = CpuCounters.now().since(counters)
            self._write()
        print(f"{name}: {time.monotonic() - start:.1f} s", file=sys.stderr)

    @property
    def begun(self) -> datetime:
        """When the first step began; now, before it did."""
        steps = self._content["steps"]
        return datetime.fromisoformat(steps[0]["start"]) if steps else datetime.now(UTC)

    def note(self, **facts: object) -> None:
        """Record facts about the whole run."""
        self._content |= facts
        self._write()

    def conclude(self, exit_code: int) -> None:
        """Record the exit code: 0 when the arms could be compared."""
        self._content["exit_code"] = exit_code
        self._write()

    def _write(self) -> None:
        write_whole(RUN_JSON, json.dumps(self._content, indent=2).encode() + b"\n")
