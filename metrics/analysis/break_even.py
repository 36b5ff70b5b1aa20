"""From how many pictures a month on a machine of one's own costs less than the cloud.

Vocabulary
    capacity    pictures that one machine does in the part of a month that it may be kept busy
    crossing    pictures a month from which on the one machine costs less than the cloud

A machine costs the same whatever it does; beyond its capacity a second one is needed, and so on.
The cloud costs the same for each picture. Rates and prices are geometric means over the rounds, and
their intervals are Student's t over the rounds.
"""

import math
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from metrics.analysis.assumptions import Assumptions
from metrics.analysis.comparison import Comparison, makespans_s
from metrics.analysis.cost import HOURS_A_MONTH, PRICES_OF, usd_by_round
from metrics.analysis.interval import ci_text, geometric_mean_ci
from metrics.analysis.stability import was_resumed
from metrics.analysis.stability_measures import Measure
from metrics.common.text import rounded_count

MONTH_S = HOURS_A_MONTH * 3600
NO_REPORT = "no break-even: no REPORT lines of Lambda tell what a picture costs"


@dataclass(frozen=True)
class BreakEven:
    """`usd_a_picture` is of the cloud, `throughput_per_s` of the machine."""

    assumptions: Assumptions
    usd_a_picture: Measure
    throughput_per_s: Measure
    on_aws: bool

    @property
    def capacity(self) -> Measure:
        """Pictures a month."""
        return _scaled(self.throughput_per_s, MONTH_S * self.assumptions.utilisation)

    @property
    def costs_meet(self) -> Measure:
        """Pictures that cost in the cloud what one machine costs: the crossing, if it can do so
        many."""
        usd, month = self.usd_a_picture, self.assumptions.month_usd
        return Measure(month / usd.value, month / usd.high, month / usd.low, usd.note)

    @property
    def crosses(self) -> bool:
        return self.costs_meet.value <= self.capacity.value

    @property
    def is_sure(self) -> bool:
        """Whether the intervals leave no doubt that there is a crossing, or none."""
        meet, capacity = self.costs_meet, self.capacity
        if self.crosses:
            return not meet.high > capacity.low
        return not meet.low <= capacity.high

    def cloud_usd(self, pictures: np.ndarray) -> np.ndarray:
        """Of so many pictures a month."""
        return pictures * self.usd_a_picture.value

    def on_prem_usd(self, pictures: np.ndarray, capacity: float | None = None) -> np.ndarray:
        """Of so many pictures a month, on as many machines as that takes, at least one."""
        machines = np.ceil(pictures / (capacity or self.capacity.value))
        return np.maximum(machines, 1) * self.assumptions.month_usd


def break_even_of(
    comparison: Comparison, invocations: pd.DataFrame | None, assumptions: Assumptions
) -> BreakEven | str:
    """From the rows, and what Lambda measured; or why there is no break-even."""
    if comparison.second.name != "cloud":
        return "no break-even: both arms are on-prem"
    if invocations is None:
        return NO_REPORT
    if comparison.problems:
        return "no break-even: the arms are not comparable"
    if was_resumed(comparison.record):
        return "no break-even: the run was resumed, and its makespans may hold the pause"
    on_prem, cloud = (comparison.rows[arm.name] for arm in comparison.arms)
    usd = measure_of_rounds(list(usd_by_round(cloud, invocations).values()), comparison.sequential)
    rate = measure_of_rounds(pictures_per_s_by_round(on_prem), comparison.sequential)
    if math.isnan(usd.value):
        return NO_REPORT
    if math.isnan(rate.value):
        return "no break-even: the machine's pictures per second are unknown"
    return BreakEven(assumptions, usd, rate, comparison.second.environment == "aws")


def pictures_per_s_by_round(rows: pd.DataFrame) -> list[float]:
    """Pictures done, by makespan."""
    done = rows["round"][rows["status"] == "ok"].value_counts()
    return list((done / makespans_s(rows)).dropna())


def measure_of_rounds(values: list[float], sequential: bool = False) -> Measure:
    """Of the rounds that tell."""
    known = [value for value in values if 0 < value < math.inf]
    if not known:
        return Measure(note="unknown")
    estimate = geometric_mean_ci(known, sequential)
    if len(known) == 1:
        note = "one round: no interval, 25% are allowed for drift"
        return Measure(estimate.ratio, estimate.low, estimate.high, note)
    return Measure(estimate.ratio, estimate.low, estimate.high)


def _scaled(measure: Measure, factor: float) -> Measure:
    return Measure(
        measure.value * factor, measure.low * factor, measure.high * factor, measure.note
    )


# --- in words -----------------------------------------------------------------------------------


def sentence(found: BreakEven | str) -> str:
    """The crossing, or why there is none."""
    if isinstance(found, str):
        return found
    whose = "" if found.on_aws else ", at AWS's prices with this machine's durations"
    if not found.crosses:
        return _no_crossing(found) + whose
    if not found.is_sure:
        return (
            "cannot tell whether this machine ever costs less than the cloud: the costs meet at "
            f"{_with_interval(found.costs_meet)} pictures a month, and it can do "
            f"{_with_interval(found.capacity)}{whose}"
        )
    return (
        f"from {rounded_count(found.costs_meet.value)} pictures a month on "
        f"({_interval(found.costs_meet)}) this machine costs less than the cloud{whose}"
        f"{_second_machine(found)}"
    )


def _no_crossing(found: BreakEven) -> str:
    full = 1e6 * found.assumptions.month_usd / found.capacity.value
    cloud = 1e6 * found.usd_a_picture.value
    sure = "" if found.is_sure else ", though within the intervals it might"
    return (
        f"at no number of pictures does this machine cost less than the cloud{sure}: kept busy it "
        f"costs {full:,.2f} USD for a million pictures, the cloud {cloud:,.2f}"
    )


def _second_machine(found: BreakEven) -> str:
    """What happens beyond the capacity: where two machines cost more than the cloud for what one
    just cannot do, the cloud is cheaper again for a while."""
    can_do, again = found.capacity.value, 2 * found.costs_meet.value
    if again <= can_do:
        return f"; it can do {rounded_count(can_do)}"
    second = f"a second one pays off from {rounded_count(again)} on"
    return f"; it can do {rounded_count(can_do)}, and {second}"


def _with_interval(measure: Measure) -> str:
    return f"{rounded_count(measure.value)} ({_interval(measure)})"


def _interval(measure: Measure) -> str:
    if measure.note:
        return measure.note
    low, high = rounded_count(measure.low), rounded_count(measure.high)
    unit = high.partition(" ")[2]  # once is enough
    low = low.removesuffix(f" {unit}") if unit else low
    return ci_text(low, high)


def assumption_lines(found: BreakEven | str) -> list[tuple[str, str, str]]:
    """Meaning, value and source of all that the break-even rests on."""
    if isinstance(found, str):
        return []
    durations = "billed in this run" if found.on_aws else "this machine's durations, not AWS's"
    rate = f"{rounded_count(found.throughput_per_s.value)} pictures/s"
    usd = f"{1e6 * found.usd_a_picture.value:,.2f} USD"
    return [
        *found.assumptions.lines(),
        ("speed of the machine", rate, "this run, on pictures like these"),
        (
            "a million pictures in the cloud",
            usd,
            f"{durations}; measuring it left out",
        ),
        ("AWS's prices", "as listed", f"{PRICES_OF}; no free tier"),
        ("staff, space, network, backup", "0 USD", "left out on both sides"),
    ]


def break_even_content(found: BreakEven | str) -> dict[str, object]:
    """For summary.json."""
    content: dict[str, object] = {"sentence": sentence(found)}
    if isinstance(found, str):
        return content
    return content | {
        "crosses": found.crosses,
        "is_sure": found.is_sure,
        "costs_meet_pictures_a_month": asdict(found.costs_meet),
        "capacity_pictures_a_month": asdict(found.capacity),
        "machine_usd_a_month": found.assumptions.month_usd,
        "cloud_usd_a_picture": asdict(found.usd_a_picture),
        "on_prem_pictures_per_s": asdict(found.throughput_per_s),
        "assumptions": asdict(found.assumptions),
    }
