"""The chart of break_even.py: what a month costs, by how many pictures it has."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from matplotlib.transforms import blended_transform_factory

from metrics.analysis.break_even import BreakEven, assumption_lines, sentence
from metrics.analysis.comparison import Comparison
from metrics.analysis.judgement import Judgement
from metrics.common.text import rounded_count
from metrics.report.chart_style import MARGIN, Theme, add_legend, looks, say, style

POINTS = 2000
MACHINES_DRAWN = 4


def plot_break_even(figure: Figure, judgement: Judgement, theme: Theme) -> list[str]:
    """What does a month cost on machines like this one and in the cloud?"""
    found = judgement.break_even
    if isinstance(found, str):
        axes, below = figure.add_subplot(), None
    else:
        axes, below = figure.subplots(2, 1, height_ratios=(3, 1))
    style(axes, theme, grid="both")
    axes.set_xlabel("pictures a month (number)")
    axes.set_ylabel("cost a month (USD)")
    if isinstance(found, str):
        say(axes, found, theme)
        return []
    draw_costs(axes, found, judgement.comparison, theme)
    list_assumptions(below, found, theme)
    said = sentence(found)
    return [f"{said[0].upper()}{said[1:]}."]


def draw_costs(axes: Axes, found: BreakEven, comparison: Comparison, theme: Theme) -> None:
    """Both lines with their bands, and where they meet."""
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
    axes.xaxis.set_major_formatter(lambda x, _: rounded_count(x))
    axes.yaxis.set_major_formatter(lambda y, _: f"{y:,.10f}".rstrip("0").rstrip("."))
    if found.crosses:
        meet = found.costs_meet
        axes.axvline(meet.value, color=theme.text, linewidth=1.2, linestyle=":", zorder=2)
        axes.axvspan(
            *np.nan_to_num([meet.low, meet.high], nan=meet.value), color=theme.muted, **band
        )
        axes.plot([meet.value], [found.assumptions.month_usd], "o", color=theme.text, zorder=4)
    add_legend(axes, theme)


def list_assumptions(axes: Axes, found: BreakEven, theme: Theme) -> None:
    """A line for each, with its source."""
    axes.axis("off")
    where = blended_transform_factory(axes.figure.transFigure, axes.transAxes)
    words = {"fontsize": 8, "va": "center", "transform": where, "in_layout": False}
    lines = assumption_lines(found)
    for place, (name, value, source) in enumerate(lines):
        height = 1 - (place + 0.5) / len(lines)
        axes.text(MARGIN, height, f"{name}: {value}", color=theme.text, **words)
        axes.text(0.44, height, source, color=theme.muted, **words)


def pictures_drawn(found: BreakEven) -> np.ndarray:
    """From far below the first thing that happens to the last machine drawn."""
    capacity = found.capacity.value
    first = min(found.costs_meet.value, capacity) / 30
    return np.geomspace(first, MACHINES_DRAWN * capacity, POINTS)
