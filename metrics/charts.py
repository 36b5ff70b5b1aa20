"""The charts: one question each, both arms in the same colours everywhere.

`draw_*` functions take a Comparison and return a Figure; the caller saves it.
"""

import math
import textwrap
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from metrics.files import CHART_NAMES
from metrics.summary import Comparison

# Okabe and Ito's blue and vermilion: told apart with any colour vision, and in grey.
COLOURS = {"on_prem": "#0072B2", "cloud": "#D55E00"}
MARKERS = {"on_prem": "o", "cloud": "^"}
SIZE_INCHES = (8, 5)
DPI = 120
GREY = "#555555"
MARGIN = 0.02  # of the figure, around its texts
AXES_RECT = (0, 0.055, 1, 0.81)  # what the texts at head and foot leave to the axes: x, y, w, h
SUBTITLE_CHARACTERS = 100
LABEL_CHARACTERS = 28


def save_charts(comparison: Comparison, folder: Path) -> list[Path]:
    """Draw every chart into `folder`; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, draw in CHARTS_BY_NAME.items():
        path = folder / f"{name}.png"
        draw(comparison).savefig(path, dpi=DPI)
        paths.append(path)
    return paths


def new_figure(comparison: Comparison, title: str, how_to_read: str) -> tuple[Figure, Axes]:
    """A figure whose title says n and environment, and whose foot says how to read it."""
    figure = Figure(figsize=SIZE_INCHES, layout="constrained")
    figure.get_layout_engine().set(rect=AXES_RECT, w_pad=0.12)
    FigureCanvasAgg(figure)
    figure.text(MARGIN, 0.98, title, fontsize=13, fontweight="bold", va="top")
    n = len(comparison.pairs)
    counted = f"{n:,} picture{'' if n == 1 else 's'} in both arms"
    subtitle = shortened(f"{counted} · {environments(comparison)}", SUBTITLE_CHARACTERS)
    figure.text(MARGIN, 0.927, subtitle, fontsize=9, color=GREY, va="top")
    if comparison.problems:
        style = {"color": "#B00020", "fontsize": 11, "fontweight": "bold"}
        figure.text(1 - MARGIN, 0.98, "NOT COMPARABLE", ha="right", va="top", **style)
    figure.text(MARGIN, 0.015, how_to_read, fontsize=8.5, color=GREY)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.7)
    axes.yaxis.set_major_formatter("{x:,.10g}")
    return figure, axes


def shortened(text: str, characters: int) -> str:
    """`text` in two lines at most."""
    return textwrap.fill(text, characters, max_lines=2, placeholder=" …")


def add_legend(axes: Axes) -> None:
    """Above the axes, where it hides no data."""
    legend = axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, fontsize=9
    )
    for handle in legend.legend_handles:
        handle.set_alpha(1)


def finish_times(axes: Axes, comparison: Comparison, label: str) -> None:
    """An axis of times from 0, with room above the highest; says so when there is none."""
    axes.set_ylabel(label)
    axes.margins(y=0.18)
    if comparison.pairs.empty:
        axes.set_ylim(0, 1)
        axes.text(0.5, 0.5, "no picture in both arms", transform=axes.transAxes, ha="center")
    axes.set_ylim(bottom=0)


def number(value: float) -> str:
    """Three digits or more."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:#.3g}"


def environments(comparison: Comparison) -> str:
    cloud = comparison.cloud.environment
    note = "embedded cloud on this machine, not AWS" if cloud == "embedded" else cloud
    return f"on-prem: {comparison.on_prem.environment}, cloud: {note}"


def labels(comparison: Comparison) -> dict[str, str]:
    cloud = comparison.cloud.environment
    label = f"cloud ({cloud})" if cloud != "unknown" else "cloud"
    return {"on_prem": "on-prem", "cloud": shortened(label, LABEL_CHARACTERS)}


def times(comparison: Comparison, arm: str) -> pd.Series:
    return comparison.pairs[f"proc_ms_{arm}"]


def draw_avg_time(comparison: Comparison) -> Figure:
    """How long does a picture take on average?"""
    figure, axes = new_figure(
        comparison,
        "Average processing time per picture",
        "Lower is faster. Bar: mean of proc_ms (decode, resize, encode; no transfer). "
        "Line across: median.",
    )
    for position, arm in enumerate(() if comparison.pairs.empty else COLOURS):
        mean, median = times(comparison, arm).mean(), times(comparison, arm).median()
        axes.bar(position, mean, 0.55, color=COLOURS[arm])
        axes.hlines(median, position - 0.275, position + 0.275, color="black", linewidth=1.5)
        axes.annotate(
            f"mean {number(mean)} ms\nmedian {number(median)} ms",
            (position, max(mean, median)),
            xytext=(0, 4),
            textcoords="offset points",
            ha="center",
            fontsize=9,
        )
    axes.set_xticks([0, 1], labels(comparison).values())
    axes.set_xlim(-0.6, 1.6)
    finish_times(axes, comparison, "mean time per picture (ms)")
    return figure


def draw_boxplot_time(comparison: Comparison) -> Figure:
    """How much does the time vary from picture to picture?"""
    figure, axes = new_figure(
        comparison,
        "Spread of processing time over pictures",
        "Box: the middle half of the pictures; line: median; whiskers: 5th to 95th percentile; "
        "dots: pictures beyond.",
    )
    boxes = axes.boxplot(
        [times(comparison, arm) for arm in COLOURS],
        tick_labels=list(labels(comparison).values()),
        whis=(5, 95),
        widths=0.5,
        patch_artist=True,
        medianprops={"color": "black", "linewidth": 1.5},
        flierprops={"markersize": 3, "alpha": 0.6},
    )
    for box, colour in zip(boxes["boxes"], COLOURS.values(), strict=True):
        box.set_facecolor(colour)
        box.set_alpha(0.75)
    finish_times(axes, comparison, "time per picture (ms)")
    return figure


def draw_size_vs_time(comparison: Comparison) -> Figure:
    """Does the difference depend on the size of the picture?"""
    figure, axes = new_figure(
        comparison,
        "Processing time by file size",
        "Each picture twice: a circle for on-prem, a triangle for the cloud. Equal heights mean "
        "equal times.",
    )
    dense = 0.8 if len(comparison.pairs) <= 200 else 0.3
    for arm, label in labels(comparison).items():
        axes.scatter(
            comparison.pairs[f"orig_size_{arm}"] / 1e6,
            times(comparison, arm),
            s=24,
            alpha=dense,
            color=COLOURS[arm],
            marker=MARKERS[arm],
            label=label,
            linewidths=0,
        )
    add_legend(axes)
    axes.set_xlim(left=0)
    axes.grid(axis="x", color="#EEEEEE", linewidth=0.7)
    axes.set_xlabel("size of the input file (MB)")
    finish_times(axes, comparison, "time per picture (ms)")
    return figure


def draw_total_time(comparison: Comparison) -> Figure:
    """How long does the whole job take, and how much work is in it?"""
    figure, axes = new_figure(
        comparison,
        "The whole job: work and elapsed time",
        "Busy: sum of all proc_ms, whatever the parallelism. Makespan: first begin to last end, "
        "transfers and waiting included.",
    )
    arms = {"on_prem": comparison.on_prem, "cloud": comparison.cloud}
    for offset, (arm, label) in zip((-0.2, 0.2), labels(comparison).items(), strict=True):
        seconds = [arms[arm].busy_s, arms[arm].makespan_s]
        texts = ["unknown" if math.isnan(s) else f"{number(s)} s" for s in seconds]
        bars = axes.bar(
            [0 + offset, 1 + offset],
            [0 if math.isnan(s) else s for s in seconds],
            0.38,
            color=COLOURS[arm],
            label=f"{label}, n = {arms[arm].rows:,}",  # unmatched pictures are in these sums, too
        )
        axes.bar_label(bars, texts, padding=3, fontsize=9)
    axes.set_xticks([0, 1], ["busy time", "makespan"])
    axes.margins(y=0.15)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("time (s)")
    add_legend(axes)
    return figure


CHARTS_BY_NAME = dict(
    zip(
        CHART_NAMES,
        (draw_avg_time, draw_boxplot_time, draw_size_vs_time, draw_total_time),
        strict=True,
    )
)
