"""The machine and the software that a run was made with."""

import math
import os
import platform
import subprocess
import time
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
CGROUPS = Path("/sys/fs/cgroup")


def available_cpus() -> int:
    """Processors that this process may use, 1 at least: affinity and quota count, the machine's
    total does not. A part of a processor does not count either: one process more than the quota
    has room for would let the system stop all of them again and again, while they are timed."""
    has_affinity = hasattr(os, "sched_getaffinity")  # not on macOS
    cpus = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    return max(1, math.floor(min(cpus, cpu_quota() or cpus)))


def cpu_quota() -> float | None:
    """How many processors' time a container or a service may use, such as 0.5: the least that its
    cgroup or one above it allows. None without a limit."""
    quotas = [_quota_of(folder) for folder in (*own_cgroups(""), *own_cgroups("cpu"))]
    return min((quota for quota in quotas if quota), default=None)


def _quota_of(folder: Path) -> float | None:
    v1 = (_read(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    quota, _, period = (_read(folder / "cpu.max") or " ".join(v1)).partition(" ")
    try:
        return int(quota) / int(period) if int(quota) > 0 else None
    except ValueError:  # "max", or no such file
        return None


def own_cgroups(controller: str) -> list[Path]:
    """The folders of this process's cgroup and of all above it: with "" those of cgroup v2, else of
    a controller of v1. Not all need be there: a container may be told its path on the host, and
    see its own cgroup as the last of them, the mount."""
    lines = [line.split(":", 2) for line in _read("/proc/self/cgroup").splitlines()]
    found = [(names, path) for _, names, path in lines if controller in names.split(",")]
    names, path = found[0] if found else (controller, "")
    mounts = (CGROUPS / (names or "unified"), CGROUPS / controller)
    mount = next((mount for mount in mounts if mount.is_dir()), CGROUPS)
    own = mount / path.lstrip("/")
    return [folder for folder in (own, *own.parents) if folder.is_relative_to(mount)]


def new_run_id() -> str:
    """Sortable by time, and different for two runs of one second."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:6]}"


def utc_at(seconds: float) -> str:
    """A time since 1970 as in the rows."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


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
        "cpu_quota": cpu_quota(),
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
    """The commit of this checkout, with `-dirty` when files differ from it; None where it is none
    of its own: a copy may lie inside a repository of something else."""
    # Tags are left out: one may move, and a commit may have none.
    options = ["--always", "--dirty", "--abbrev=40", "--exclude=*"]
    command = ["git", "-C", str(PROJECT), "describe", *options]
    # A hook of git's runs with variables that name its own repository and index.
    variables = {name: it for name, it in os.environ.items() if not name.startswith("GIT_")}
    variables["GIT_CEILING_DIRECTORIES"] = str(PROJECT.parent)  # not to look above this folder
    try:
        done = subprocess.run(  # nosec B603 # git, no shell, and nothing of a user's in it
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # in the user's language, and about any path
            timeout=10,
            env=variables,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode().strip() or None


@dataclass(frozen=True)
class Clocks:
    """A moment by this machine's clocks, in seconds: the wall clock, which may be set; the
    monotonic one, which stands still while the machine sleeps; and one that does not (Linux)."""

    wall_s: float
    monotonic_s: float
    boot_s: float

    @classmethod
    def now(cls) -> "Clocks":
        """Read within a millisecond, or as fast as a busy machine lets one in several tries."""
        looks = []
        while len(looks) < 10 and (not looks or min(looks)[0] > 0.001):
            before = time.monotonic()
            wall_s, boot_s = time.time(), _boot_s()
            after = time.monotonic()
            looks.append((after - before, cls(wall_s, before, boot_s or before)))
        return min(looks, key=lambda look: look[0])[1]

    def since(self, before: "Clocks") -> dict[str, float]:
        """What passed between two moments, for the run record: see clock_jumps.py."""
        duration_s = self.monotonic_s - before.monotonic_s
        slept_s = self.boot_s - before.boot_s - duration_s
        return {
            "duration_s": round(duration_s, 3),
            "suspended_s": max(0.0, round(slept_s, 3)),
        }

    @property
    def timestamp(self) -> str:
        return utc_at(self.wall_s)


def _boot_s() -> float | None:
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return None if clock is None else time.clock_gettime(clock)


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
    """What a quota of this process's cgroup, or of one above it, has taken from it and others."""
    total_ms = 0.0
    for controller, key, per_ms in (("", "throttled_usec", 1e3), ("cpu", "throttled_time", 1e6)):
        for folder in own_cgroups(controller):
            counts = dict(line.split() for line in _read(folder / "cpu.stat").splitlines())
            total_ms += int(counts.get(key, 0)) / per_ms
    return total_ms


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
