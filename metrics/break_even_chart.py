"""The chart of break_even.py: what a month costs, by how many pictures it has."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from metrics.break_even import BreakEven, assumption_lines, count_text, sentence
from metrics.chart_style import Theme, add_legend, looks, plain, say, style
from metrics.summary import Comparison

POINTS = 2000
MACHINES_DRAWN = 4


def plot_break_even(figure: Figure, comparison: Comparison, theme: Theme) -> list[str]:
    """What does a month cost on machines like this one and in the cloud?"""
    axes = style(figure.add_subplot(), theme, grid="both")
    axes.set_xlabel("pictures a month (number)")
    axes.set_ylabel("cost a month (USD)")
    found = comparison.break_even
    if isinstance(found, str):
        say(axes, found, theme)
        return []
    own, cloud = looks(comparison)
    pictures = pictures_drawn(found)
    line = {"linewidth": 2, "zorder": 3}
    of_cloud = found.cloud_usd(pictures)
    steps = found.on_prem_usd(pictures)
    axes.plot(pictures, steps, color=own.colour, linestyle=own.line, label=own.label, **line)
    axes.plot(
        pictures, of_cloud, color=cloud.colour, linestyle=cloud.line, label=cloud.label, **line
    )
    usd, capacity = found.usd_a_picture, found.capacity
    band = {"alpha": 0.22, "linewidth": 0}
    if not usd.note:
        axes.fill_between(
            pictures, pictures * usd.low, pictures * usd.high, color=cloud.colour, **band
        )
    if not capacity.note:
        ends = (found.on_prem_usd(pictures, end) for end in (capacity.low, capacity.high))
        axes.fill_between(pictures, *ends, color=own.colour, **band)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(pictures[0], pictures[-1])
    axes.set_ylim(min(of_cloud[0], steps[0]) / 2, 2 * max(of_cloud[-1], steps[-1]))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(numticks=9))
        axis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda x, _: count_text(x))
    axes.yaxis.set_major_formatter(lambda y, _: f"{y:,.10f}".rstrip("0").rstrip("."))
    if found.crosses:
        meet = found.costs_meet.value
        axes.axvline(meet, color=theme.text, linewidth=1.2, linestyle=":", zorder=2)
        axes.plot([meet], [found.assumptions.month_usd], "o", color=theme.text, zorder=4)
    add_legend(axes, theme)
    return notes_of(found)


def pictures_drawn(found: BreakEven) -> np.ndarray:
    """From far below the first thing that happens to the last machine drawn."""
    capacity = found.capacity.value
    first = min(found.costs_meet.value, capacity) / 30
    return np.geomspace(first, MACHINES_DRAWN * capacity, POINTS)


def notes_of(found: BreakEven) -> list[str]:
    """The crossing, and all that it rests on."""
    assumed = (f"{name}: {value} ({source})" for name, value, source in assumption_lines(found))
    said = sentence(found)
    return [plain(f"{said[0].upper()}{said[1:]}."), plain("Assumed: " + "; ".join(assumed) + ".")]
