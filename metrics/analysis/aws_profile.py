"""The facts about AWS that a forecast rests on: reading, checking and writing a profile.

A profile is a TOML file like aws_profile.toml beside this module, which says what its fields mean.
Of one's own it comes from forecast_fit.py, or from an editor.
"""

import json
import math
import tomllib
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path

from metrics.common.cli import UserError
from metrics.common.paths import shown

PUBLISHED = Path(__file__).with_name("aws_profile.toml")
ARCHITECTURES = ("x86_64", "arm64")
STATES = ("published", "own run")
FORMAT = 1
MAX_LOG_SD = 5.0  # a factor of 150: what is beyond is a slip of the finger
MAX_VALUE = 1e9
UNITS = {
    "full_vcpu_mb": "MB",
    "kernel_ms_x86_64": "ms",
    "kernel_ms_arm64": "ms",
    "kernel_picture_factor": "ratio",
    "local_step_jpeg": "ratio",
    "local_step_other": "ratio",
    "memory_rule_x86_64": "ratio",
    "memory_rule_arm64": "ratio",
    "moment_x86_64": "ratio",
    "moment_arm64": "ratio",
    "small_task_cpu_ms": "ms",
    "small_task_waits_share": "share",
    "small_task_wait_low_ms": "ms",
    "small_task_wait_high_ms": "ms",
    "s3_by_author": "ratio",
    "s3_by_memory": "ratio",
    "fetch_net_ms": "ms",
    "fetch_cpu_ms": "ms",
    "fetch_ms_per_mb": "ms/MB",
    "store_net_ms": "ms",
    "store_cpu_ms": "ms",
    "store_ms_per_mb": "ms/MB",
    "event_ms": "ms",
    "event_burst_ms": "ms",
    "init_ms_x86_64": "ms",
    "init_ms_arm64": "ms",
    "init_warm_up_kernels": "kernels",
    "first_call_net_ms": "ms",
    "first_call_cpu_ms": "ms",
    "scaling_start": "environments",
    "scaling_per_s": "environments/s",
    "throttled_low": "ratio",
    "throttled_high": "ratio",
    "retry_wait_s": "s",
    "upload_request_ms": "ms",
    "uplink": "ratio",
}
OPTIONAL_UNITS = {"local_step_own": "ratio"}  # of the job that an own profile was made with


@dataclass(frozen=True)
class Fact:
    """One number, its spread and its source; see aws_profile.toml."""

    value: float
    unit: str
    log_sd: float
    n: int
    date: str
    region: str
    source: str
    note: str = ""
    degrees_of_freedom: float = math.inf
    each_log_sd: float = 0.0


@dataclass(frozen=True)
class About:
    """`memory_mb` and `picture_bytes`: the least and the most that was measured. `machine` and
    `transform`: of the run that an own profile was made from, "" for a published one."""

    format: int
    name: str
    state: str
    date: str
    region: str
    memory_mb: list[float]
    picture_bytes: list[float]
    machine: str = ""
    transform: str = ""


@dataclass(frozen=True)
class Profile:
    about: About
    facts: dict[str, Fact] = field(repr=False)

    @property
    def is_published(self) -> bool:
        return self.about.state == "published"

    def __getitem__(self, name: str) -> float:
        return self.facts[name].value

    def was_measured_with(self, memory_mb: float) -> bool:
        low, high = self.about.memory_mb
        return low <= memory_mb <= high

    def is_of(self, machine: str, transform: str) -> bool:
        """Whether it was made beside that machine, with that job."""
        own = self.about
        return not self.is_published and (own.machine, own.transform) == (machine, transform)


def load_profile(path: Path = PUBLISHED) -> Profile:
    """Raises UserError that names file and key of what is wrong."""
    name = shown(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{name}: {error.strerror or error}; give --aws-profile-file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{name} is no TOML: {error}") from None
    _check_keys(content, {"about", "facts"}, set(), name, "")
    about = _filled(About, content["about"], name, "about")
    _check_about(about, name)
    _check_keys(content["facts"], set(UNITS), set(OPTIONAL_UNITS), name, "facts")
    facts = {key: _filled(Fact, one, name, f"facts.{key}") for key, one in content["facts"].items()}
    for key, fact in facts.items():
        _check_fact(fact, (UNITS | OPTIONAL_UNITS)[key], name, f"facts.{key}")
    return Profile(about, facts)


def _check_keys(table: object, needed: set, optional: set, name: str, where: str) -> None:
    prefix = f"{where}." if where else ""
    if not isinstance(table, dict):
        raise UserError(f"{name}, key {where}: {table!r} is no table")
    if missing := sorted(needed - table.keys()):
        raise UserError(f"{name}, key {prefix}{missing[0]}: missing")
    if unknown := sorted(table.keys() - needed - optional):
        raise UserError(f"{name}, key {prefix}{unknown[0]}: no key of a profile")


def _filled(kind: type, table: object, name: str, where: str) -> "About | Fact":
    """A `kind` of the table's values, each of its field's type."""
    optional = {one.name for one in fields(kind) if one.default is not MISSING}
    _check_keys(table, {one.name for one in fields(kind)} - optional, optional, name, where)
    for one in fields(kind):
        if one.name in table and not _fits(value := table[one.name], one.type):
            raise UserError(f"{name}, key {where}.{one.name}: {value!r} is no {KINDS[one.type]}")
    return kind(**table)


KINDS = {int: "whole number", float: "number", str: "text", list[float]: "list of numbers"}


def _fits(value: object, kind: type) -> bool:
    if kind == list[float]:
        return isinstance(value, list) and all(_fits(one, float) for one in value)
    if kind is float:
        return _fits(value, int) or (isinstance(value, float) and math.isfinite(value))
    return isinstance(value, kind) and not isinstance(value, bool)


def _check_about(about: About, name: str) -> None:
    def refuse(key: str, why: str) -> None:
        raise UserError(f"{name}, key about.{key}: {getattr(about, key)!r} {why}")

    if about.format != FORMAT:
        refuse("format", f"is not {FORMAT}, the one that is read here")
    if about.state not in STATES:
        refuse("state", f"is not one of {', '.join(STATES)}")
    for key in ("memory_mb", "picture_bytes"):
        ends = getattr(about, key)
        if len(ends) != 2 or not 0 < ends[0] <= ends[1]:
            refuse(key, "is not the least and the most, both above 0")


def _check_fact(fact: Fact, unit: str, name: str, where: str) -> None:
    def refuse(key: str, why: str) -> None:
        raise UserError(f"{name}, key {where}.{key}: {getattr(fact, key)!r} {why}")

    if not 0 < fact.value <= MAX_VALUE:
        refuse("value", f"is not above 0 and at most {MAX_VALUE:,.0f}")
    if fact.unit != unit:
        refuse("unit", f"is not {unit!r}")
    for key in ("log_sd", "each_log_sd"):
        if not 0 <= getattr(fact, key) <= MAX_LOG_SD:
            refuse(key, f"is not within 0 and {MAX_LOG_SD:g}")
    if not fact.degrees_of_freedom >= 1:
        refuse("degrees_of_freedom", "is less than 1")
    if not fact.source.strip():
        refuse("source", "is empty: where does the number come from?")


def profile_to_toml(profile: Profile) -> bytes:
    """A file that load_profile() reads as the same profile."""
    lines = ["[about]", *_lines_of(profile.about)]
    for key, fact in profile.facts.items():
        lines += ["", f"[facts.{key}]", *_lines_of(fact)]
    return ("\n".join(lines) + "\n").encode()


def _lines_of(record: "About | Fact") -> list[str]:
    """TOML's texts, numbers and lists of numbers are JSON's, but for U+007F."""
    values = {one.name: (getattr(record, one.name), one.default) for one in fields(record)}
    return [
        f"{name} = {json.dumps(value, ensure_ascii=False)}".replace("\x7f", "\\u007f")
        for name, (value, default) in values.items()
        if value != default
    ]
