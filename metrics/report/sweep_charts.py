"""The charts of the sweeps, in the looks of the others.

A point that is not whole is drawn hollow, and the foot says so.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, NullFormatter, NullLocator

from metrics.analysis.interval import CONFIDENCE, RatioEstimate
from metrics.analysis.judgement import Judgement
from metrics.analysis.sweep import MEMORY, PARALLELISM, SCALE
from metrics.analysis.sweep_results import Point, Sweep, crossings, memory_mb, speed_ups
from metrics.report.chart_style import SMALL, Look, Theme, add_legend, add_title, looks, say, style
from metrics.report.charts import Chart

BAND = 0.15  # opacity of an interval's area
LABELLED = 6  # as many points have their numbers as ticks


def chart_of(sweep: Sweep) -> Chart:
    title, how_to_read, plot, height = LOOKS[sweep.kind]
    return Chart(sweep.kind, title, how_to_read, partial(plot, sweep), height)


def plot_scale(sweep: Sweep, figure: Figure, judgement: Judgement, theme: Theme) -> list[str]:
    """From how many pictures on is which arm done first?"""
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    points = list(sweep.points)
    numbers = [point.setting.pictures for point in points]
    for look in looks(judgement.comparison):
        spans = [point.makespan(look.name) for point in points]
        draw_line(upper, numbers, spans, points, look)
    style(upper, theme).set(xscale="log", yscale="log", ylabel="makespan (s, log scale)")
    add_legend(upper, theme)
    ratios = [point.ratio for point in points]
    style(lower, theme).set(xscale="log", yscale="log", xlabel="pictures (log scale)")
    lower.set_ylabel("cloud / on-prem")
    lower.axhline(1, color=theme.muted, linewidth=1)
    draw_line(lower, numbers, ratios, points, Look("", "", theme.text, "s", "-"))
    for crossing in crossings(points):
        lower.axvline(crossing.pictures, color=theme.muted, linestyle=":")
        lower.axvspan(crossing.low, crossing.high, color=theme.muted, alpha=BAND, linewidth=0)
    ticks_at(lower, numbers)
    for axes in (upper, lower):
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        plain_numbers(axes.yaxis)
    add_title(lower, "ratio of the makespans: above 1 on-prem is done first", theme)
    return notes(sweep)


def plot_parallelism(sweep: Sweep, figure: Figure, judgement: Judgement, theme: Theme) -> list[str]:
    """What do more at once bring?"""
    left, right = figure.subplots(1, 2)
    numbers: set[int] = {1}
    for look in looks(judgement.comparison):
        gains = speed_ups(list(sweep.points), look.name)
        at = [number for number, *_ in gains]
        numbers.update(at)
        draw_line(left, at, [gain for _, gain, _ in gains], None, look)
        right.plot(
            at,
            [100 * efficiency.ratio for *_, efficiency in gains],
            color=look.colour,
            marker=look.marker,
            linestyle=look.line,
        )
    most = max(numbers)
    left.plot([1, most], [1, most], color=theme.muted, linewidth=1, linestyle=":")
    style(left, theme).set(xlabel="at once", ylabel="speed-up", ylim=(0, None))
    style(right, theme).set(xlabel="at once", ylabel="efficiency (%)", ylim=(0, 115))
    right.axhline(100, color=theme.muted, linewidth=1, linestyle=":")
    for axes in (left, right):
        axes.xaxis.set_major_locator(FixedLocator(sorted(numbers)))
    add_legend(left, theme)
    return notes(sweep)


def plot_memory(sweep: Sweep, figure: Figure, judgement: Judgement, theme: Theme) -> list[str]:
    """Which memory is fastest, cheapest, balanced?"""
    points = list(sweep.points)
    sizes = [memory_mb(point) for point in points]
    _, cloud = looks(judgement.comparison)
    measures: tuple[tuple[str, Callable[[Point], RatioEstimate | None]], ...] = (
        ("ms a picture", lambda point: point.time_ms),
        ("USD per 1,000 pictures", lambda point: point.cost_usd),
    )
    for axes, (label, measure) in zip(figure.subplots(1, 2), measures, strict=True):
        estimates = [measure(point) for point in points]
        draw_line(axes, sizes, estimates, points, cloud)
        if not any(estimates):
            say(axes, "Lambda reported nothing", theme)
        style(axes, theme).set(xscale="log", xlabel="memory of the function (MB)", ylabel=label)
        axes.set_ylim(bottom=0)
        ticks_at(axes, sizes)
    return notes(sweep)


LOOKS = {
    SCALE: (
        "The whole job against the number of pictures",
        "Lines: geometric mean over the rounds; areas: 95% intervals. Dotted: where the arms "
        "change places, and where that may be.",
        plot_scale,
        6.5,
    ),
    PARALLELISM: (
        "Speed-up and efficiency against how many work at once",
        "Against the least parallelism of each arm. Dotted: as fast as the number says. A line "
        "that falls off shares something: processors, disk, or the network.",
        plot_parallelism,
        5,
    ),
    MEMORY: (
        "Time and cost of a picture against the function's memory",
        "Memory decides the share of a processor, and the price of a second. Cost includes S3 "
        "requests, storage and logs. Areas: 95% intervals over the rounds.",
        plot_memory,
        5,
    ),
}


def draw_line(
    axes: Axes,
    at: list[float],
    estimates: list[RatioEstimate | None],
    points: list[Point] | None,
    look: Look,
) -> None:
    """Estimates with their intervals as an area and bars; hollow where a point is not whole."""
    known = [i for i, estimate in enumerate(estimates) if estimate is not None]
    x = [at[i] for i in known]
    middle, low, high = (
        [getattr(estimates[i], name) for i in known] for name in ("ratio", "low", "high")
    )
    axes.plot(x, middle, color=look.colour, linestyle=look.line, label=look.label or None)
    axes.fill_between(x, low, high, color=look.colour, alpha=BAND, linewidth=0)
    errors = np.array([np.subtract(middle, low), np.subtract(high, middle)])
    axes.errorbar(x, middle, errors, fmt="none", ecolor=look.colour, capsize=3, linewidth=1)
    for i, place, value in zip(known, x, middle, strict=True):
        whole = points is None or points[i].is_complete
        face = look.colour if whole else axes.get_facecolor()
        axes.plot(place, value, look.marker, color=look.colour, markerfacecolor=face)


def ticks_at(axes: Axes, values: list[float]) -> None:
    """A tick at each point on the horizontal axis, where there are few."""
    if len(values) <= LABELLED:
        axes.xaxis.set_major_locator(FixedLocator(values))
        axes.xaxis.set_minor_locator(NullLocator())
    plain_numbers(axes.xaxis)
    axes.tick_params(axis="x", labelsize=SMALL)


def plain_numbers(axis: Axis) -> None:
    """Of a logarithmic axis, which would have powers of ten."""
    axis.set_major_formatter("{x:,.10g}")
    axis.set_minor_formatter(NullFormatter())


def notes(sweep: Sweep) -> list[str]:
    how = "Left out" if sweep.kind == PARALLELISM else "Hollow"
    hollow = [f"{how}: not whole ({'; '.join(sweep.broken)})."] if sweep.broken else []
    rounds = sorted({point.comparison.pairs["round"].nunique() for point in sweep.points})
    each = " to ".join(map(str, rounds if len(rounds) == 1 else (rounds[0], rounds[-1])))
    return [f"{each} rounds a point, intervals of {CONFIDENCE:.0%}.", *hollow]
