"""metrics/report.html: the whole judgement on one page that needs nothing else.

Numbers and sentences are the comparison's, the verdict's and the findings'; here they are only laid
out. Whatever comes from rows or from the run record is hostile: the template escapes it, and what
cannot be printed (control and direction characters) is written as its escape.
"""

import base64
import io
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import jinja2
import pandas as pd
from markupsafe import Markup
from PIL import Image

from metrics.analysis import interval, output_equivalence
from metrics.analysis.break_even import assumption_lines, sentence
from metrics.analysis.comparison import Comparison, makespans_s
from metrics.analysis.cost import PRICES_OF, cost_by_part
from metrics.analysis.interval import RatioEstimate
from metrics.analysis.judgement import Judgement
from metrics.analysis.stability_measures import KINDS, measure_text
from metrics.analysis.sweep import KINDS as SWEEPS
from metrics.common.findings import Finding, names_of
from metrics.common.text import (
    DASH,
    UNKNOWN,
    byte_size,
    counted,
    difference,
    digits,
    p_value,
    percent,
)
from metrics.report.verdict import (
    equivalence_line,
    ledger_line,
    verdict_per_picture,
    verdict_whole_job,
    where,
)
from onprem_images.dataset import in_words

TEMPLATE = "page.html.j2"
THUMBNAIL_PX = 240
MAX_THUMBNAIL_PIXELS = 20_000_000  # outputs have half a million; more is not worth decoding
MIN_SCALE = math.log(1.1)  # the drawn interval's axis reaches at least 10% to either side
MOODS = {"not comparable": "bad", "cannot tell": "open", "comparable": "good"}
TIMES = (
    ("mean", "mean_ms"),
    ("standard deviation", "sd_ms"),
    ("median", "median_ms"),
    ("90th percentile", "p90_ms"),
    ("95th percentile", "p95_ms"),
    ("99th percentile", "p99_ms"),
    ("fastest", "min_ms"),
    ("slowest", "max_ms"),
)


@dataclass(frozen=True)
class ReportChart:
    """One chart as two PNGs of the same size, for light and for dark pages."""

    name: str
    title: str
    how_to_read: str
    light_png: bytes
    dark_png: bytes


@dataclass(frozen=True)
class SlowRow:
    """What the row of one arm says of a slow picture."""

    proc_ms: float
    cpu_ms: float
    fetch_ms: float
    store_ms: float
    new_size: float
    cold_start: bool
    worker: str


@dataclass(frozen=True)
class SlowPicture:
    """A pair with its two rows, and thumbnails of its outputs where they are at hand.

    `on_prem_jpeg` belongs to the comparison's first arm, `cloud_jpeg` to its second.
    """

    image_key: str
    round: int
    orig_size: float
    same_work: str
    rows: tuple[SlowRow, SlowRow]
    on_prem_jpeg: bytes | None
    cloud_jpeg: bytes | None


def slowest_pictures(
    comparison: Comparison, outputs: output_equivalence.Outputs, count: int = 5
) -> list[SlowPicture]:
    """The pairs with the largest proc_ms of either arm, slowest first; each picture's slowest only.

    `outputs(arm_name, image_key, sha256)` is that output, or None where it is not at hand.
    """
    names = [arm.name for arm in comparison.arms]
    pairs = comparison.pairs
    slowest_ms = pairs[[f"proc_ms_{name}" for name in names]].max(axis=1)
    ranked = pairs.assign(slowest_ms=slowest_ms).sort_values(
        ["slowest_ms", "image_key", "round"], ascending=[False, True, True]
    )
    chosen = ranked.drop_duplicates("image_key").head(count)
    return [_slow_picture(pair, names, outputs) for pair in chosen.to_dict("records")]


def _slow_picture(pair: dict, names: list[str], outputs: output_equivalence.Outputs) -> SlowPicture:
    key = pair["image_key"]
    jpegs = [thumbnail(outputs(name, key, pair[f"output_sha256_{name}"])) for name in names]
    fields = SlowRow.__dataclass_fields__
    rows = [SlowRow(**{field: pair[f"{field}_{name}"] for field in fields}) for name in names]
    return SlowPicture(
        image_key=key,
        round=pair["round"],
        orig_size=pair[f"orig_size_{names[0]}"],
        same_work=pair["output_equivalence"],
        rows=(rows[0], rows[1]),
        on_prem_jpeg=jpegs[0],
        cloud_jpeg=jpegs[1],
    )


def thumbnail(data: bytes | None) -> bytes | None:
    """A small JPEG of a JPEG; None for what is missing, no JPEG, damaged or too large."""
    if data is None:
        return None
    small = io.BytesIO()
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as picture:
            if math.prod(picture.size) > MAX_THUMBNAIL_PIXELS:
                return None
            picture.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
            picture.convert("RGB").save(small, "JPEG", quality=75)
    except Exception:  # hostile bytes make Pillow raise nearly anything
        return None
    return small.getvalue()


def render_report(
    judgement: Judgement, charts: list[ReportChart], slowest: list[SlowPicture]
) -> str:
    """The page. The same input gives the same text: its only times are the run's own."""
    template = _environment().get_template(TEMPLATE)
    verdict = verdict_per_picture(judgement.comparison)
    word = next((word for word in MOODS if verdict.startswith(word)), "comparable")
    bill, sweeps = judgement.bill, judgement.sweeps
    return template.render(
        facts_of(judgement.comparison),
        verdict=verdict,
        word=word,
        mood=MOODS[word],
        whole_job=verdict_whole_job(judgement.comparison),
        stability=stability_lines(judgement),
        break_even=sentence(judgement.break_even),
        assumed=assumption_lines(judgement.break_even),
        charts=[chart for chart in charts if chart.name not in SWEEPS],
        sweeps=[(sweep, [c for c in charts if c.name == sweep.kind]) for sweep in sweeps],
        answers=answers_of(judgement),
        slowest=slowest,
        changes=judgement.changes,
        bill=bill,
        costs=cost_by_part(bill.usage) if bill else {},
        prices_of=PRICES_OF,
    )


def answers_of(judgement: Judgement) -> list[tuple[str, str, str]]:
    """Section, name and answer of the questions beside the verdict that the run can answer."""
    found = [(sweep.kind, sweep.kind, sweep.answer) for sweep in judgement.sweeps]
    if not isinstance(judgement.break_even, str):
        assumed = judgement.break_even.assumptions.in_short()
        cost = f"{sentence(judgement.break_even)}; assumed, and not in the interval: {assumed}"
        found.append(("break-even", "cost", cost))
    return found


# --- what the page shows of a comparison ----------------------------------------------------------


def facts_of(comparison: Comparison) -> dict[str, object]:
    """The template's variables that follow from the comparison alone."""
    estimate = comparison.per_picture
    return {
        "comparison": comparison,
        "arms": (comparison.first, comparison.second),
        "n": estimate.pictures if estimate else 0,
        "copies": estimate.copies if estimate else 0,
        "rounds": makespans(comparison),
        "is_aa": comparison.arms[0].source == comparison.arms[1].source,
        "begun": begin_of_run(comparison),
        "where": where(comparison),
        "drawn": drawn_interval(estimate) if is_answer(comparison) else None,
        "ledger_line": ledger_line(comparison),
        "ledger_columns": ("expected", "done", "failed", "missing", "duplicate"),
        "equivalence_line": equivalence_line(comparison),
        "equivalence_counts": comparison.equivalence_counts,
        "output_equivalence": output_equivalence,
        "transforms": transform_versions(comparison),
        "times": TIMES,
        "estimates": estimates(comparison),
        "interval": interval,
        "order": order_of_arms(comparison),
        "environment": environment_facts(comparison.record),
        "steps": steps(comparison.record),
    }


def is_answer(comparison: Comparison) -> bool:
    """Whether the ratio of wall times says what the verdict says: not where the processor was
    shared, and nothing else made them differ."""
    estimate = comparison.per_picture
    if comparison.problems or estimate is None:
        return False
    open_question = verdict_per_picture(comparison).startswith("cannot tell")
    return estimate.includes_1 or not open_question


def makespans(comparison: Comparison) -> list[tuple[int, float, float]]:
    """Each round with the first and the second arm's makespan in seconds; NaN where unknown."""
    first, second = (makespans_s(comparison.rows[arm.name]) for arm in comparison.arms)
    rounds = sorted(comparison.ledger.counts["round"].unique())
    return [
        (number, first.get(number, math.nan), second.get(number, math.nan)) for number in rounds
    ]


def estimates(comparison: Comparison) -> list[tuple[str, RatioEstimate]]:
    named = (
        ("time per picture", comparison.per_picture),
        ("CPU time per picture", comparison.per_picture_cpu),
        ("makespan of the whole job", comparison.whole_job),
    )
    return [(name, estimate) for name, estimate in named if estimate is not None]


def stability_lines(judgement: Judgement) -> list[tuple[str, str, str]]:
    """Each measure of how steady the arms were: its name, and its texts by arm."""
    of_first, of_second = judgement.stability.values()
    return [
        (kind.label, measure_text(of_first[name], kind), measure_text(of_second[name], kind))
        for name, kind in KINDS.items()
    ]


def drawn_interval(estimate: RatioEstimate | None) -> dict[str, float] | None:
    """Where low, ratio and high lie on a logarithmic axis, in percent; 1 is in the middle, `ends`
    and its inverse are at the ends."""
    if estimate is None or not math.isfinite(estimate.log_half_width):
        return None
    middle, half = estimate.log_ratio, estimate.log_half_width
    reach = 1.15 * max(abs(middle) + half, MIN_SCALE)
    places = {"low": middle - half, "ratio": middle, "high": middle + half}
    drawn = {name: round(50 + 50 * place / reach, 2) for name, place in places.items()}
    return drawn | {"ends": math.exp(reach)}


def begin_of_run(comparison: Comparison) -> str | None:
    """When the first step began, or without a record the first picture; None where unknown."""
    if steps := comparison.record.get("steps"):
        return moment(steps[0].get("start"))
    begin_s = min((rows["begin_s"].min() for rows in comparison.rows.values()), default=math.nan)
    return None if math.isnan(begin_s) else f"{datetime.fromtimestamp(begin_s, UTC):%F %T} UTC"


def order_of_arms(comparison: Comparison) -> list[tuple[str, str]]:
    """Arms that began rounds, and which rounds, by the rows' own clock."""
    begins = pd.DataFrame(
        {
            arm.label: comparison.rows[arm.name].groupby("round")["begin_s"].min()
            for arm in comparison.arms
        }
    ).dropna()
    if begins.empty:
        return []
    first = begins.idxmin(axis=1)
    rounds = {label: first.index[first == label] for label in begins}
    return [
        (label, f"round{'s' * (len(own) > 1)} {', '.join(map(str, own))}")
        for label, own in rounds.items()
        if len(own)
    ]


def transform_versions(comparison: Comparison) -> list[tuple[str, str]]:
    """Each arm's label and the versions of the transform in its rows."""
    return [
        (arm.label, _some(set(comparison.rows[arm.name]["transform"].unique()) - {""}))
        for arm in comparison.arms
    ]


def _some(texts: set[str]) -> str:
    return Finding("", sorted(texts)).named() if texts else UNKNOWN


def environment_facts(record: dict) -> list[tuple[str, object]]:
    """What the run record says, as far as it does."""
    environment, data_set = record.get("environment") or {}, record.get("data_set") or {}
    packages = (environment.get("packages") or {}).items()
    memory_mb = environment.get("memory_mb")
    facts = [
        ("command", record.get("command_line")),
        ("cloud", record.get("cloud")),
        ("pictures", data_set.get("pictures")),
        ("size of the pictures", byte_size(data_set.get("bytes"))),
        ("fingerprint of the pictures", data_set.get("fingerprint")),
        ("left out of the folder", _left_out(data_set.get("left_out"))),
        ("processor", environment.get("cpu")),
        ("processors available", environment.get("cpus")),
        ("processor quota", environment.get("cpu_quota")),
        ("memory", byte_size(memory_mb * 2**20 if memory_mb else None)),
        ("system", environment.get("system")),
        ("git commit", environment.get("git_commit")),
        ("Python", environment.get("python")),
        ("packages", ", ".join(f"{name} {version}" for name, version in packages if version)),
        ("exit code", record.get("exit_code")),
    ]
    return [(name, value) for name, value in facts if value not in (None, "", DASH)]


def _left_out(counts: object) -> str:
    return in_words({k: n for k, n in counts.items() if n}) if isinstance(counts, dict) else ""


def steps(record: dict) -> list[dict[str, object]]:
    """The steps of a run record, as far as they got."""
    return [
        {
            "name": step["step"] + (f", round {step['round']}" if step.get("round") else ""),
            "start": moment(step.get("start")),
            "seconds": seconds_of(step),
            "status": step.get("status") if step.get("end") else "under way",
            "steal_share": math.nan,
            "quota_throttled_ms": math.nan,
            "thermal_throttles": math.nan,
        }
        | (step.get("machine") or {})
        for step in record.get("steps") or []
    ]


# --- how values are written -----------------------------------------------------------------------


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=on_page,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "counted": counted,
        "difference": difference,
        "digits": digits,
        "jpeg": lambda data: data_uri("image/jpeg", data),
        "named": lambda rows: Finding("", names_of(rows)).named(),
        "named_keys": lambda keys: Finding("", keys).named(),
        "percent": percent,
        "png": lambda data: data_uri("image/png", data),
        "p_value": p_value,
        "ratio": lambda value: digits(value, 4),
        "size": byte_size,
        "usd": "{:.6f}".format,
        "whole": "{:,}".format,
    }
    return environment


def on_page(value: object) -> object:
    """What stands on the page for the value of any expression in the template."""
    if value is None or value == "":
        return UNKNOWN
    if isinstance(value, float) and not math.isfinite(value):
        return DASH
    if isinstance(value, Markup) or str(value).isprintable():
        return value
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(value)
    )


def moment(text: object) -> str:
    """An ISO 8601 time as `2026-01-02 03:04:05 UTC`; what is none stays as it is."""
    try:
        return f"{datetime.fromisoformat(text).astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (TypeError, ValueError, OverflowError):
        return text or UNKNOWN


def seconds_of(step: dict) -> str:
    """How long a step took, whatever happened to the wall clock; of a record of an earlier version
    by that."""
    if step.get("duration_s") is not None:
        return f"{step['duration_s']:,.2f}"
    return seconds_between(step.get("start"), step.get("end"))


def seconds_between(start: object, end: object) -> str:
    try:
        passed = datetime.fromisoformat(end) - datetime.fromisoformat(start)
        return f"{passed.total_seconds():,.2f}"
    except (TypeError, ValueError, OverflowError):
        return DASH


def data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
