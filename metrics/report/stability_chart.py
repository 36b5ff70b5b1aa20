"""The chart of stability_measures.py: small multiples, a panel for each."""

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator

from metrics.analysis.judgement import Judgement
from metrics.analysis.stability_measures import KINDS, Measure, measure_text
from metrics.report.chart_style import SMALL, Theme, add_title, looks, style

MAX_TIMES_VALUE = (
    4  # an axis ends at so many times the larger value: few rounds have wide intervals
)


def plot_stability(figure: Figure, judgement: Judgement, theme: Theme) -> list[str]:
    """How much does the same work vary, drift, and go wrong in each arm?"""
    *panels, last = figure.subplots(4, 2).flat
    is_cut = [
        draw_measures(style(axes, theme, grid="x"), name, judgement, theme)
        for axes, name in zip(panels, KINDS, strict=True)
    ]
    last.axis("off")
    marks = [
        Line2D([], [], color=look.colour, marker=look.marker, linewidth=3, label=look.label)
        for look in looks(judgement.comparison)
    ]
    last.legend(handles=marks, loc="center", frameon=False, fontsize=SMALL, labelcolor=theme.text)
    return ["A bar that leaves its axis is cut; the numbers are whole."] if any(is_cut) else []


def draw_measures(axes: Axes, name: str, judgement: Judgement, theme: Theme) -> bool:
    """One measure of both arms, the first on top; whether an interval reaches beyond the axis."""
    kind = KINDS[name]
    measures = [of_arm[name] for of_arm in judgement.stability.values()]
    limit = limit_of(measures) * kind.scale
    for place, (measure, look) in enumerate(
        zip(measures, looks(judgement.comparison), strict=True)
    ):
        low, value, high = (
            min(max(kind.scale * number, -limit), limit)
            for number in (measure.low, measure.value, measure.high)
        )
        axes.hlines(place, low, high, color=look.colour, linewidth=3)
        axes.plot([value], [place], look.marker, color=look.colour, markersize=8, clip_on=False)
        axes.text(
            0.01,
            place - 0.27,
            measure_text(measure, kind),
            transform=axes.get_yaxis_transform(),
            fontsize=SMALL,
            color=theme.text,
        )
    add_title(axes, f"{kind.label} (%)" if kind.unit == "%" else kind.label, theme)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_ylim(1.5, -0.85)
    axes.set_xlim(-limit if kind.signed else 0, limit)
    is_known = any(not math.isnan(one.value) for one in measures)
    axes.xaxis.set_major_locator(MaxNLocator(5) if is_known else NullLocator())
    axes.tick_params(axis="x", labelsize=8)
    if kind.signed and is_known:
        axes.axvline(0, color=theme.muted, linewidth=0.8)
    return any(abs(end) * kind.scale > limit for one in measures for end in (one.low, one.high))


def limit_of(measures: list[Measure]) -> float:
    """The end of the axis: holds all values, and intervals that are not far wider."""
    values = [abs(one.value) for one in measures if not math.isnan(one.value)]
    ends = [abs(end) for one in measures for end in (one.low, one.high) if not math.isnan(end)]
    largest = max(values, default=0.0)
    widest = max(ends, default=0.0)
    reach = min(widest, MAX_TIMES_VALUE * largest) if largest else widest
    return 1.1 * max(reach, largest) or 1.0
