"""What a user assumes about owning a machine, beside what was measured: defaults and sources.

The defaults are a small server bought new; none of them fits everybody, so each is a flag.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field, fields

from metrics.analysis.cost import HOURS_A_MONTH
from metrics.common.cli import COST, ScriptParser
from metrics.common.text import plain

MAX_ASSUMED = 1e7  # of any of these: what is beyond is a slip of the finger
MIN_ASSUMED = 1e-6


def _assumed(default: float, unit: str, meaning: str, source: str) -> float:
    return field(default=default, metadata={"unit": unit, "meaning": meaning, "source": source})


@dataclass(frozen=True)
class Assumptions:
    machine_price: float = _assumed(
        1500.0,
        "USD",
        "price of a machine like this one",
        "a guess, November 2025: an entry-level tower server with 4 cores",
    )
    machine_years: float = _assumed(
        5.0,
        "YEARS",
        "how long it is used",
        "Amazon's own for part of its servers since January 2025 (form 10-K)",
    )
    power: float = _assumed(
        60.0,
        "WATTS",
        "its average power, day and night",
        "a guess, November 2025: such a server, mostly idle; use a meter",
    )
    kwh_price: float = _assumed(
        0.13,
        "USD",
        "price of a kWh",
        "US commercial average of 2024, EIA Electric Power Monthly, table 5.6",
    )
    utilisation: float = _assumed(
        0.5,
        "SHARE",
        "share of the month it may work on this",
        "servers seldom exceed it: Barroso and Hölzle, IEEE Computer, 12/2007",
    )

    @property
    def month_usd(self) -> float:
        """What one machine costs a month, whatever it does."""
        bought = self.machine_price / (12 * self.machine_years)
        return bought + self.power / 1000 * HOURS_A_MONTH * self.kwh_price

    def in_short(self) -> str:
        bought = f"{plain(self.machine_price)} USD over {self.machine_years:g} years"
        power = f"{plain(self.power)} watts at {self.kwh_price:g} USD a kWh"
        return f"{bought}, {power}, busy {100 * self.utilisation:g}% of the month at most"

    def lines(self) -> list[tuple[str, str, str]]:
        """Meaning, value and source of each."""
        return [
            (
                one.metadata["meaning"],
                value_text(getattr(self, one.name), one.metadata["unit"]),
                one.metadata["source"] if getattr(self, one.name) == one.default else "your choice",
            )
            for one in fields(self)
        ]


def value_text(value: float, unit: str) -> str:
    if unit == "SHARE":
        return f"{100 * value:g}%"
    return f"{plain(value)} {unit if unit == 'USD' else unit.lower()}"


def add_assumption_arguments(parser: ScriptParser) -> None:
    """A flag for each assumption; the default stays None, so that a choice can be told from it.
    Where each default is from, the report says."""
    group = parser.group(COST)
    for one in fields(Assumptions):
        unit = one.metadata["unit"]
        default = value_text(one.default, unit).partition(" ")[0]  # the unit stands before it
        text = f"{one.metadata['meaning']} (default: {default})"
        group.add_argument(
            f"--{one.name.replace('_', '-')}",
            type=_share if unit == "SHARE" else _number_of(unit),
            default=None,
            metavar=unit,
            help=text.replace("%", "%%"),
        )


def chosen_assumptions(args: argparse.Namespace) -> dict[str, float]:
    """Those that the command line names."""
    given = {one.name: getattr(args, one.name) for one in fields(Assumptions)}
    return {name: value for name, value in given.items() if value is not None}


def checked(content: object) -> Assumptions:
    """From a bundle; raises TypeError or ValueError for what no flag would have let through."""
    assumptions = Assumptions(**content)
    for one in fields(assumptions):
        value = getattr(assumptions, one.name)
        largest = 1 if one.metadata["unit"] == "SHARE" else MAX_ASSUMED
        if isinstance(value, bool) or not MIN_ASSUMED <= value <= largest:
            raise ValueError(f"odd assumption {one.name}: {value!r}")
    return assumptions


def _number_of(unit: str) -> Callable[[str], float]:
    def parse(text: str) -> float:
        if not MIN_ASSUMED <= (number := _float(text)) <= MAX_ASSUMED:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number of {unit} above 0")
        return number

    return parse


def _share(text: str) -> float:
    number = _float(text[:-1]) / 100 if text.endswith("%") else _float(text)
    if not MIN_ASSUMED <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share up to 100%, such as 50% or 0.5")
    return number


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return -1.0
