"""The charts: one question each, both arms in the same colours everywhere.

`draw_*` functions take a Comparison and return a Figure; the caller saves it.
"""

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from metrics.summary import Comparison

# Okabe and Ito's blue and vermilion: told apart with any colour vision, and in grey.
COLOURS = {"on_prem": "#0072B2", "cloud": "#D55E00"}
MARKERS = {"on_prem": "o", "cloud": "^"}
SIZE_INCHES = (8, 5)
DPI = 120


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
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    n = len(comparison.pairs)
    figure.suptitle(title, fontsize=13, fontweight="bold", x=0.02, ha="left")
    axes.set_title(
        f"{n} pictures in both arms · {environments(comparison)}",
        fontsize=9,
        color="#555555",
        loc="left",
    )
    if comparison.problems:
        axes.set_title(
            "NOT COMPARABLE", fontsize=11, color="#B00020", fontweight="bold", loc="right"
        )
    figure.supxlabel(how_to_read, fontsize=8.5, color="#555555", x=0.02, ha="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.7)
    return figure, axes


def environments(comparison: Comparison) -> str:
    cloud = comparison.cloud.environment
    note = "embedded cloud on this machine, not AWS" if cloud == "embedded" else cloud
    return f"on-prem: {comparison.on_prem.environment}, cloud: {note}"


def labels(comparison: Comparison) -> dict[str, str]:
    cloud = comparison.cloud.environment
    return {"on_prem": "on-prem", "cloud": f"cloud ({cloud})" if cloud != "unknown" else "cloud"}


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
    for position, arm in enumerate(COLOURS):
        mean, median = times(comparison, arm).mean(), times(comparison, arm).median()
        axes.bar(position, mean, 0.55, color=COLOURS[arm])
        axes.hlines(median, position - 0.275, position + 0.275, color="black", linewidth=1.5)
        axes.annotate(
            f"mean {mean:.1f} ms\nmedian {median:.1f} ms",
            (position, max(mean, median)),
            xytext=(0, 4),
            textcoords="offset points",
            ha="center",
            fontsize=9,
        )
    axes.set_xticks([0, 1], labels(comparison).values())
    axes.margins(y=0.18)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("mean time per picture (ms)")
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
    axes.set_ylim(bottom=0)
    axes.set_ylabel("time per picture (ms)")
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
    axes.legend(frameon=False)
    axes.set(xlim=(0, None), ylim=(0, None))
    axes.grid(axis="x", color="#EEEEEE", linewidth=0.7)
    axes.set_xlabel("size of the input file (MB)")
    axes.set_ylabel("time per picture (ms)")
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
        bars = axes.bar([0 + offset, 1 + offset], seconds, 0.38, color=COLOURS[arm], label=label)
        texts = [f"{s:.2f} s" if s == s else "unknown" for s in seconds]
        axes.bar_label(bars, texts, padding=3, fontsize=9)
    axes.set_xticks([0, 1], ["busy time", "makespan"])
    axes.margins(y=0.15)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("time (s)")
    axes.legend(frameon=False)
    return figure


CHARTS_BY_NAME = {
    "avg_time": draw_avg_time,
    "boxplot_time": draw_boxplot_time,
    "size_vs_time": draw_size_vs_time,
    "total_time": draw_total_time,
}
CHART_NAMES = tuple(CHARTS_BY_NAME)
