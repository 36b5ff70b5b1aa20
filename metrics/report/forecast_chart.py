"""The chart of forecast.py: whole-job time against the number of pictures."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from metrics.analysis.forecast import Forecast, Interval
from metrics.analysis.forecast_job import FROM_HERE, IN_S3
from metrics.analysis.forecast_words import crossing_text, origin
from metrics.common.text import rounded_count
from metrics.report.chart_style import (
    COLOURS,
    DPI,
    LIGHT,
    MARGIN,
    SMALL,
    WIDTH_INCHES,
    Theme,
    add_foot,
    add_legend,
    say,
    shortened,
    style,
)

HEIGHT_INCHES = 4.9
ON_PREM, CLOUD = COLOURS
LINES = {IN_S3: "--", FROM_HERE: ":"}
LABELS = {IN_S3: "AWS, in S3 already (forecast)", FROM_HERE: "AWS, from here (forecast)"}
HEIGHTS = {IN_S3: 0.08, FROM_HERE: 0.03}  # of the crossings, in heights of the axes
BANDS = {IN_S3: 0.26, FROM_HERE: 0.13, None: 0.26}  # how dark
HOW_TO_READ = (
    "Lower is faster; both axes are logarithmic. A line is a forecast's middle, its band holds 95% "
    "of what could be. Dots above the axis: from where on AWS would be done first; the line "
    "through a dot: how sure that is."
)


def draw_forecast(found: Forecast | str, theme: Theme = LIGHT) -> Figure:
    """How long would the whole job take here and on AWS, by how many pictures it has?"""
    figure = Figure((WIDTH_INCHES, HEIGHT_INCHES), dpi=DPI, facecolor=theme.background)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    style(axes, theme, grid="both")
    axes.set_xlabel("pictures (number)")
    axes.set_ylabel("whole job (s)")
    title = "Whole job: here, and what AWS would show"
    if isinstance(found, str):
        say(axes, found, theme)
        axes.set_xticks([])
        axes.set_yticks([])
        _frame(figure, title, "no forecast", "", theme)
        return figure
    draw_curves(axes, found, theme)
    arch, memory = found.settings.architecture, found.settings.memory_mb
    said = origin(found)
    subtitle = f"{said[0].upper()}{said[1:]} · {found.profile_name}, {found.profile_date}"
    words = [crossing_text(one, case) for case, one in found.crossings.items()]
    foot = " ".join(f"Forecast: {text}." for text in words)
    uplink = found.settings.uplink_mbit_s
    line = f" · uplink {uplink:g} Mbit/s" if uplink else ""
    _frame(figure, title, f"{subtitle} · {memory} MB, {arch}{line}", f"{HOW_TO_READ} {foot}", theme)
    return figure


def draw_curves(axes: Axes, found: Forecast, theme: Theme) -> None:
    """A line with a band for each way to do the job, and the crossings."""
    curve = found.curve
    if curve.on_prem:
        _draw(axes, curve.pictures, curve.on_prem, None)
    for case, seconds in curve.aws.items():
        _draw(axes, curve.pictures, seconds, case)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(curve.pictures[0], curve.pictures[-1])
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(numticks=9))
        axis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda x, _: rounded_count(x))
    axes.yaxis.set_major_formatter(lambda y, _: f"{y:,.10g}")
    for case, crossing in found.crossings.items():
        _mark(axes, crossing.pictures, curve.pictures[-1], case, theme)
    axes.axvline(found.pictures, color=theme.muted, linewidth=1, zorder=1)
    axes.annotate(
        "this set",
        (found.pictures, 0.985),
        xycoords=("data", "axes fraction"),
        xytext=(4, 0),
        textcoords="offset points",
        va="top",
        fontsize=SMALL,
        color=theme.muted,
    )
    add_legend(axes, theme, columns=3)


def _draw(axes: Axes, pictures: np.ndarray, seconds: Interval, case: str | None) -> None:
    """AWS's case, or this machine's without one."""
    colour = CLOUD if case else ON_PREM
    look = {"color": colour, "linestyle": LINES.get(case, "-"), "linewidth": 2}
    axes.plot(pictures, seconds.value, label=LABELS.get(case, "this machine"), **look)
    shade = {"color": colour, "alpha": BANDS[case], "linewidth": 0}
    axes.fill_between(pictures, seconds.low, seconds.high, **shade)


def _mark(axes: Axes, found: Interval, most: float, case: str, theme: Theme) -> None:
    """From which number on, above the axis: a dot and the interval, with an arrow's head where that
    goes beyond the axis."""
    low, high = min(found.low, most), min(found.high, most)
    if low >= most:
        return
    where = {"transform": axes.get_xaxis_transform(), "clip_on": False, "zorder": 5}
    colour, height = theme.text, HEIGHTS[case]
    axes.plot([low, high], [height, height], color=colour, linestyle=LINES[case], lw=1.4, **where)
    if math.isinf(found.high):
        axes.plot([most], [height], ">", color=colour, markersize=5, **where)
    if math.isfinite(found.value):
        axes.plot([found.value], [height], "o", color=colour, markersize=6, **where)


def _frame(figure: Figure, title: str, subtitle: str, foot: str, theme: Theme) -> None:
    """Title, what it rests on, and how to read it, around the axes."""
    height = figure.get_figheight()
    bold = {"fontsize": 13, "fontweight": "bold", "va": "top"}
    figure.text(MARGIN, 1 - 0.1 / height, title, color=theme.text, **bold)
    lines = shortened(subtitle, 115)
    figure.text(MARGIN, 1 - 0.365 / height, lines, fontsize=SMALL, color=theme.muted, va="top")
    foot_inches = add_foot(figure, foot, theme) if foot else 0.1
    head_inches = 0.56 + 0.17 * lines.count("\n")
    rect = (0, foot_inches / height, 1, 1 - (foot_inches + head_inches) / height)
    figure.set_layout_engine("constrained", rect=rect, w_pad=0.2)
