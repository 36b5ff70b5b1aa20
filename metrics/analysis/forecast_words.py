"""A forecast in plain words, and for summary.json. The first sentence says what it is."""

import math

from metrics.analysis.forecast import (
    ALWAYS,
    FROM,
    NEVER,
    NUMBERS,
    Crossing,
    Forecast,
    Interval,
)
from metrics.analysis.forecast_job import FROM_HERE, IN_S3
from metrics.common.text import counted, rounded_count

ROUNDS_OF_A_RUN = 4  # the default of master_pipeline.py
RUN_ON_AWS = "master_pipeline.py --cloud aws --fit-profile FILE"
ARCHITECTURE_WORDS = {"x86_64": "x86", "arm64": "arm64"}


def forecast_sentence(found: Forecast | str) -> str:
    """What AWS would show, and what would narrow it; or why there is no forecast."""
    if isinstance(found, str):
        return found
    arch = ARCHITECTURE_WORDS[found.settings.architecture]
    here = f" against {seconds_text(found.on_prem_s.value)} here" if found.on_prem_s else ""
    first = (
        f"{origin(found)}: on AWS Lambda ({found.settings.memory_mb} MB, {arch}) a picture would "
        f"take about {_with_ends(found.transform_ms, ms_text)}, "
        f"{_these(found)} {_with_ends(found.job_s[IN_S3], seconds_text)}{here}"
    )
    crossings = [crossing_text(found.crossings[case], case) for case in found.crossings]
    return f"{'; '.join([first, *crossings])}. {next_step(found)}"


def origin(found: Forecast) -> str:
    if found.is_published:
        return "forecast from published facts, not measured"
    return f"forecast from your {found.profile_name} ({found.profile_region}), not measured"


def crossing_text(crossing: Crossing, case: str) -> str:
    """From how many pictures on AWS would be done first, and how sure that is."""
    where = {IN_S3: "if they are in S3 already", FROM_HERE: "with their upload from here"}[case]
    most = rounded_count(NUMBERS[-1])
    if crossing.kind == ALWAYS:
        return f"AWS would be done first with any number of pictures {where}"
    if crossing.kind == NEVER:
        return (
            f"this machine would be done first with any number of pictures, up to {most}, {where}"
        )
    if crossing.kind == FROM:
        low, value, high = (
            crossing.pictures.low,
            crossing.pictures.value,
            crossing.pictures.high,
        )
        if high == math.inf:
            return (
                f"AWS would be done first from {pictures_text(low)} pictures on at the earliest, "
                f"or never up to {most}, {where}"
            )
        return (
            f"from about {pictures_text(value)} pictures on ({pictures_text(low)} to "
            f"{pictures_text(high)}) AWS would be done first {where}"
        )
    return f"cannot tell from how many pictures on AWS would be done first {where}"


def next_step(found: Forecast) -> str:
    """What to measure next: the part with the largest share of what the whole job is unsure of."""
    part = largest_part(found.shares[IN_S3])
    picture = largest_part(found.shares["handler_ms"])
    unsure = f"what is least known is {picture} for a picture and {part} for the job"
    if part == picture:
        unsure = f"what is least known is {part}"
    if found.is_published:
        case = FROM_HERE if FROM_HERE in found.cost_usd else IN_S3
        usd = ROUNDS_OF_A_RUN * found.cost_usd[case].value
        return f"One run on AWS (about {usd_text(usd)}) would narrow this: {RUN_ON_AWS}; {unsure}."
    return f"{unsure[0].upper()}{unsure[1:]}."


def largest_part(shares: dict[str, float]) -> str:
    return max(shares, key=shares.get)


def forecast_lines(found: Forecast | str) -> list[str]:
    """The block in a terminal: the sentence, then cost, memory and what else to know."""
    if isinstance(found, str):
        return [found]
    memory = found.memory
    lines = [forecast_sentence(found)]
    for case, usd in found.cost_usd.items():
        lines.append(
            f"forecast cost of the work, {case}: {_with_ends(usd, usd_text)} for {_these(found)}, "
            f"{_with_ends(found.million_usd[case], usd_text)} for a million like them"
        )
    lines.append(
        f"forecast of memory: fastest {memory.fastest} MB, cheapest {memory.cheapest} MB, balanced "
        f"{memory.balanced} MB"
    )
    return lines + [f"forecast: {note}" for note in found.notes]


def forecast_content(found: Forecast | str) -> dict[str, object]:
    """For summary.json: times in ms or s, cost in USD, intervals as value, low and high; null for
    a number of pictures that is beyond all that were forecast."""
    content: dict[str, object] = {"sentence": forecast_sentence(found)}
    if isinstance(found, str):
        return content
    return content | {
        "measured": False,
        "profile": {
            "name": found.profile_name,
            "date": found.profile_date,
            "region": found.profile_region,
            "is_published": found.is_published,
        },
        "memory_mb": found.settings.memory_mb,
        "architecture": found.settings.architecture,
        "uplink_mbit_s": found.settings.uplink_mbit_s,
        "account_limit": found.settings.account_limit,
        "pictures": found.pictures,
        "transform_ms": _plain(found.transform_ms),
        "handler_ms": _plain(found.handler_ms),
        "stages_ms": {name: _plain(one) for name, one in found.stages_ms.items()},
        "job_s": {case: _plain(one) for case, one in found.job_s.items()},
        "on_prem_s": _plain(found.on_prem_s) if found.on_prem_s else None,
        "cost_usd": {case: _plain(one) for case, one in found.cost_usd.items()},
        "cost_of_a_million_usd": {case: _plain(one) for case, one in found.million_usd.items()},
        "cost_parts_usd": {
            case: {name: _plain(one) for name, one in parts.items()}
            for case, parts in found.cost_parts_usd.items()
        },
        "done_first_from": {
            case: {"kind": one.kind} | _plain(one.pictures) for case, one in found.crossings.items()
        },
        "memory": {
            "fastest_mb": found.memory.fastest,
            "cheapest_mb": found.memory.cheapest,
            "balanced_mb": found.memory.balanced,
        },
        "shares_of_the_uncertainty": found.shares,
        "notes": list(found.notes),
    }


def _plain(interval: Interval) -> dict[str, float | None]:
    ends = {"value": interval.value, "low": interval.low, "high": interval.high}
    return {name: None if math.isinf(end) else float(end) for name, end in ends.items()}


def _these(found: Forecast) -> str:
    return "this picture" if found.pictures == 1 else f"these {counted(found.pictures, 'picture')}"


def _with_ends(interval: Interval, text) -> str:
    """`95 ms (45 to 200)`: the unit once where all three have the same."""
    value, low, high = (text(end) for end in (interval.value, interval.low, interval.high))
    unit = value.partition(" ")[2]
    if all(one.partition(" ")[2] == unit for one in (low, high)):
        low, high = low.partition(" ")[0], high.partition(" ")[0]
    return f"{value} ({low} to {high})"


def pictures_text(count: float) -> str:
    """A whole number of pictures, from which on: so the next one."""
    return two_digits(math.ceil(count - 1e-9))


def two_digits(value: float) -> str:
    """More are not known of a forecast."""
    return rounded_count(float(f"{value:.2g}"))


def ms_text(ms: float) -> str:
    return f"{two_digits(ms)} ms" if ms < 10_000 else seconds_text(ms / 1000)


def seconds_text(seconds: float) -> str:
    """`3.2 s`, `4.5 min`, `2.1 h`, `12 days`."""
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{two_digits(seconds / size)} {unit}"
    return f"{two_digits(seconds)} s"


def usd_text(usd: float) -> str:
    if usd < 0.01:
        return f"{float(f'{usd:.1g}'):.10f}".rstrip("0") + " USD"
    return f"{float(f'{usd:.2g}'):,.10g} USD"
