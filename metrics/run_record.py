"""run.json: what was run, on what, and when each step began and ended."""

import contextlib
import json
import sys
import time
from collections.abc import Iterator

from lambda_function.cloud import Cloud
from lambda_function.metrics_log import utc_now
from metrics.files import RUN_JSON, write_whole
from metrics.machine import describe
from onprem_images.dataset import Picture, fingerprint


class RunRecord:
    """Kept up to date on disk after every step, so that a run that fails leaves its record."""

    def __init__(self, run_id: str, command_line: str, cloud: Cloud, pictures: list[Picture]):
        self._content = {
            "run_id": run_id,
            "command_line": command_line,
            "cloud": cloud.name,
            "data_set": {
                "pictures": len(pictures),
                "bytes": sum(picture.size for picture in pictures),
                "fingerprint": fingerprint(pictures),
            },
            "environment": describe(),
            "steps": [],
        }

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Record when the step begins and ends, and whether it failed."""
        entry = {"step": name, "start": utc_now(), "end": None, "status": "failed"}
        self._content["steps"].append(entry)
        start = time.monotonic()
        try:
            yield
            entry["status"] = "done"
        finally:
            entry["end"] = utc_now()
            write_whole(RUN_JSON, json.dumps(self._content, indent=2).encode() + b"\n")
        print(f"{name}: {time.monotonic() - start:.1f} s", file=sys.stderr)
