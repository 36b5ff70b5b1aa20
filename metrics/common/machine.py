"""The machine and the software that a run was made with."""

import os
import platform
import subprocess
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from metrics.common.paths import PROJECT

PACKAGES = (
    *("Pillow", "boto3", "pandas", "matplotlib", "numpy", "scipy", "Jinja2"),
    *("moto", "awslambdaric"),
)
CGROUPS = (  # where a container sees its own CPU quota: file, key and unit of cgroup v2 and v1
    ("/sys/fs/cgroup/cpu.stat", "throttled_usec", 1e3),
    ("/sys/fs/cgroup/cpu/cpu.stat", "throttled_time", 1e6),
)


def available_cpus() -> int:
    """Processors that this process may use: affinity counts, the machine's total does not."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def new_run_id() -> str:
    """Sortable by time, and different for two runs of one second."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:6]}"


def memory_mb() -> int:
    """Physical memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20


def describe() -> dict[str, object]:
    """What run.json says of the environment."""
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "system": platform.platform(),
        "cpu": cpu_model(),
        "cpus": available_cpus(),
        "memory_mb": memory_mb(),
        "git_commit": _git_commit(),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:  # not Linux
        pass
    return platform.processor() or platform.machine()


def _git_commit() -> str | None:
    """The commit of this checkout, with `-dirty` when files differ from it; None outside git."""
    # Tags are left out: one may move, and a commit may have none.
    options = ["--always", "--dirty", "--abbrev=40", "--exclude=*"]
    command = ["git", "-C", str(PROJECT), "describe", *options]
    try:
        done = subprocess.run(  # nosec B603 # git, no shell, and nothing of a user's in it
            command, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


@dataclass(frozen=True)
class CpuCounters:
    """What kept this machine's processors from working at full speed, counted since it started.

    0 where the system does not tell (it is no Linux, or has no such sensor).
    """

    total_ticks: int
    stolen_ticks: int
    quota_throttled_ms: float
    thermal_throttles: int

    @classmethod
    def now(cls) -> "CpuCounters":
        ticks = [int(text) for text in _read("/proc/stat").partition("\n")[0].split()[1:]]
        thermal = Path("/sys/devices/system/cpu").glob("cpu*/thermal_throttle/core_throttle_count")
        return cls(
            total_ticks=sum(ticks[:8]),  # the guests' time that follows is part of user and nice
            stolen_ticks=ticks[7] if len(ticks) > 7 else 0,
            quota_throttled_ms=_quota_throttled_ms(),
            thermal_throttles=sum(int(_read(path) or 0) for path in thermal),
        )

    def since(self, before: "CpuCounters") -> dict[str, float]:
        """What happened between two moments, for the run record."""
        total = self.total_ticks - before.total_ticks
        stolen = self.stolen_ticks - before.stolen_ticks
        throttled_ms = self.quota_throttled_ms - before.quota_throttled_ms
        return {
            "steal_share": round(stolen / total, 4) if total > 0 else 0.0,
            "quota_throttled_ms": round(throttled_ms, 1),
            "thermal_throttles": self.thermal_throttles - before.thermal_throttles,
        }


def _quota_throttled_ms() -> float:
    for path, key, per_ms in CGROUPS:
        for line in _read(path).splitlines():
            name, _, value = line.partition(" ")
            if name == key:
                return int(value) / per_ms
    return 0.0


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
