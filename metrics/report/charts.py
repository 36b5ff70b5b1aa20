"""The charts: one question each, both arms in the same colours everywhere.

A `plot_*` function fills an empty figure and returns its notes: sentences for the foot that depend
on the data, such as "2,000 of 9,000 pictures are drawn". Chart.draw adds head and foot.
"""

import io
import itertools
import math
import sys
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cbook import boxplot_stats
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter
from PIL import Image

from metrics.analysis.comparison import PHASES, Comparison
from metrics.analysis.interval import RatioEstimate, drift_margin_text, ratio_text
from metrics.analysis.judgement import Judgement
from metrics.analysis.stability import NEIGHBOURS, residuals
from metrics.common.cli import UserError
from metrics.common.machine import available_cpus
from metrics.common.paths import ChartName
from metrics.common.text import counted, counted_pictures, digits, seconds, share_text
from metrics.common.worker_pool import results, worker_pool
from metrics.report.break_even_chart import plot_break_even
from metrics.report.chart_style import (
    DARK,
    DPI,
    LIGHT,
    SMALL,
    WIDTH_INCHES,
    Look,
    Theme,
    add_foot,
    add_head,
    add_legend,
    add_title,
    evenly_spaced,
    fill_of,
    finish_times,
    kinds_legend,
    looks,
    sample_note,
    say,
    stacked_bars,
    style,
    whole_numbers,
)
from metrics.report.matplotlib_settings import default_settings
from metrics.report.stability_chart import plot_stability

EQUAL_GREY = "#808080"  # a picture that took as long in both
PHASE_KINDS = ("fetch", "process", "store")
LEDGER_KINDS = ("done", "failed", "missing")
MAX_POINTS = 20_000
MAX_OUTLIERS = 1_000
MAX_BARS = 2_000
MAX_HATCHED = 24
MAX_WHISKERS = 60
MAX_DRAWN_ROUNDS = 6
MAX_SEPARATORS = 50
TIME_SLICES = 160
TICKS_OF_RATIOS = (1.001, 1.002, 1.005, 1.01, 1.02, 1.05, 1.1, 1.2, 1.5, 2, 3, 5)
TICKS_OF_RATIOS += tuple(digit * 10**power for power in range(1, 12) for digit in (1, 2, 5))


@dataclass(frozen=True)
class Chart:
    """`plot` fills an empty figure, and returns the notes of its foot. The report shows it only for
    judgements that it `is_about`: of others it says why there is nothing to see."""

    name: str
    title: str
    how_to_read: str
    plot: Callable[[Figure, Judgement, Theme], list[str]]
    height_inches: float = 5
    is_about: Callable[[Judgement], bool] = lambda _: True

    def draw(self, judgement: Judgement, theme: Theme = LIGHT, alone: bool = True) -> Figure:
        """The chart, with n and environment in its head; the caller saves it.

        When it does not stand alone, its title and how to read it are said beside it.
        """
        figure = Figure((WIDTH_INCHES, self.height_inches), dpi=DPI, facecolor=theme.background)
        FigureCanvasAgg(figure)
        notes = self.plot(figure, judgement, theme)
        head_inches = add_head(figure, judgement.comparison, self.title if alone else "", theme)
        texts = [self.how_to_read, *notes] if alone else notes
        foot = add_foot(figure, " ".join(texts), theme) / self.height_inches
        axes_rect = (0, foot, 1, 1 - foot - head_inches / self.height_inches)
        figure.set_layout_engine("constrained", rect=axes_rect, w_pad=0.12)
        return figure


# How a chart is drawn: theme, and whether it stands alone.
VARIANTS = {"light": (LIGHT, False), "dark": (DARK, False), "alone": (LIGHT, True)}
START_METHOD = "fork" if sys.platform == "linux" else "spawn"  # elsewhere forking is not safe

_to_draw: tuple[Judgement, dict[str, Chart]] | None = None  # by a process, see draw_charts


def draw_charts(judgement: Judgement, charts: Sequence[Chart]) -> dict[tuple[str, str], bytes]:
    """PNG files by name and variant, drawn on all processors: it is most of the time of judging.
    Raises UserError when one of those that draw dies."""
    by_name = {chart.name: chart for chart in charts}
    tasks = list(itertools.product(by_name, VARIANTS))
    prepare = partial(_set_to_draw, judgement, by_name)
    try:
        with worker_pool(min(available_cpus(), len(tasks)), prepare, START_METHOD) as pool:
            return dict(results(pool, _draw_variant, tasks))
    except BrokenProcessPool:
        raise UserError(
            "a process that draws charts died (out of memory?); the rows are there: "
            "compare_cloud_onprem_metrics.py --no-download judges them again"
        ) from None


def _set_to_draw(judgement: Judgement, charts: dict[str, Chart]) -> None:
    global _to_draw
    _to_draw = judgement, charts


def _draw_variant(name: str, variant: str) -> tuple[tuple[str, str], bytes]:
    judgement, charts = _to_draw
    return (name, variant), chart_png(judgement, charts[name], *VARIANTS[variant])


def chart_png(judgement: Judgement, chart: Chart, theme: Theme, alone: bool = True) -> bytes:
    """The chart as a PNG file: the same bytes for the same judgement, whoever draws it."""
    file = io.BytesIO()
    with default_settings():
        figure = chart.draw(judgement, theme, alone)
        figure.canvas.draw()  # once, where savefig() would do it twice
    Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).save(file, "PNG", dpi=(DPI, DPI))
    return file.getvalue()


# --- pictures in both arms ----------------------------------------------------------------------


def times(comparison: Comparison, arm: str) -> pd.Series:
    return comparison.pairs[f"proc_ms_{arm}"]


def plot_avg_time(figure: Figure, judgement: Judgement, theme: Theme) -> list[str]:
    """How long does a picture take on average?"""
    comparison = judgement.comparison
    axes = style(figure.add_subplot(), theme)
    arms = looks(comparison)
    for place, look in enumerate(() if comparison.pairs.empty else arms):
        of_arm = times(comparison, look.name)
        mean, median = of_arm.mean(), of_arm.median()
        axes.bar(place, mean, 0.55, color=look.colour)
        axes.hlines(median, place - 0.275, place + 0.275, color=theme.text, linewidth=1.5)
        axes.annotate(
            f"mean {digits(mean)} ms\nmedian {digits(median)} ms",
            (place, max(mean, median)),
            xytext=(0, 4),
            textcoords="offset points",
            ha="center",
            fontsize=SMALL,
            color=theme.text,
        )
    axes.set_xticks([0, 1], [look.label for look in arms])
    axes.set_xlim(-0.6, 1.6)
    finish_times(axes, comparison, "mean time per picture (ms)", theme)
    if comparison.problems or comparison.per_picture is None:
        return []
    between = f"{comparison.second.label} / {comparison.first.label}"
    add_title(axes, f"ratio of times, {between}: {ratio_text(comparison.per_picture)}", theme)
    return drift_note(comparison.per_picture)


def plot_boxplot_time(figure: Figure, judgement: Judgement, theme: Theme) -> list[str]:
    """How much does the time vary from picture to picture?"""
    comparison = judgement.comparison
    axes = style(figure.add_subplot(), theme)
    arms = looks(comparison)
    beyond = 0
    for place, look in enumerate(() if comparison.pairs.empty else arms):
        (box,) = boxplot_stats(times(comparison, look.name), whis=(5, 95))
        outliers = np.sort(box["fliers"])
        beyond = max(beyond, len(outliers))
        box["fliers"] = outliers[evenly_spaced(len(outliers), MAX_OUTLIERS)]
        line = {"color": look.colour, "linewidth": 1.5}
        dots = {"markersize": 5, "alpha": 0.6, "markeredgewidth": 0}
        axes.bxp(
            [box],
            positions=[place],
            widths=0.5,
            patch_artist=True,
            boxprops={"facecolor": look.colour, "edgecolor": look.colour},
            whiskerprops=line,
            capprops=line,
            medianprops={"color": theme.text, "linewidth": 2},
            flierprops={"marker": look.marker, "markerfacecolor": look.colour} | dots,
        )
    axes.set_xticks([0, 1], [look.label for look in arms])
    axes.set_xlim(-0.6, 1.6)
    finish_times(axes, comparison, "time per picture (ms)", theme)
    return sample_note(beyond, MAX_OUTLIERS, "beyond the whiskers")


def plot_size_vs_time(figure: Figure, judgement: Judgement, theme: Theme) -> list[str]:
    """Does the difference depend on the size of the picture?"""
    comparison = judgement.comparison
    axes = style(figure.add_subplot(), theme, grid="both")
    pairs = comparison.pairs
    shown = evenly_spaced(len(pairs), MAX_POINTS)
    for look in looks(comparison):
        axes.scatter(
            pairs[f"orig_size_{look.name}"].to_numpy()[shown] / 1e6,
            times(comparison, look.name).to_numpy()[shown],
            s=26,
            alpha=opacity(len(shown)),
            color=look.colour,
            marker=look.marker,
            label=look.label,
            linewidths=0,
        )
    add_legend(axes, theme)
    axes.set_xlim(left=0)
    axes.set_xlabel("size of the input file (MB)")
    finish_times(axes, comparison, "time per picture (ms)", theme)
    return sample_note(len(pairs), MAX_POINTS, "pairs")


def opacity(points: int) -> float:
    """Of each of so many points, so that dense places look dense."""
    return 0.8 if points <= 200 else 0.3 if points <= 5000 else 0.2


def plot_cumulative_time(figure: Figure, judgement: Judgement, theme: Theme) -> list[str]:
    """Within what time is which share of the pictures done?"""
    comparison = judgement.comparison
    axes = style(figure.add_subplot(), theme, grid="both")
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("time per picture (ms)")
    axes.set_ylabel("pictures done within that time (%)")
    if comparison.pairs.empty:
        say(axes, "no picture in both arms", theme)
        axes.set_xlim(0, 1)
        return []
    for look in looks(comparison):
        of_arm = times(comparison, look.name)
        half, most = (digits(of_arm.quantile(share)) for share in (0.5, 0.95))
        axes.ecdf(
            of_arm,
            compress=True,
            color=look.colour,
            linestyle=look.line,
            linewidth=2,
            label=f"{look.label}: 50% within {half} ms, 95% within {most} ms",
        )
    axes.set_xlim(left=0)
    add_legend(axes, theme, columns=1)
    return []


def plot_paired_ratio(figure: Figure, judgement: Judgement, theme: Theme) -> list[str]:
    """Is one arm faster for every picture, or only on average, and how sure is that?"""
    comparison = judgement.comparison
    axes = style(figure.add_subplot(), theme)
    first, second = comparison.first.label, comparison.second.label
    axes.set_xlabel("pictures, sorted by ratio (number)")
    axes.set_ylabel(f"{second} / {first} (ratio of times)")
    logs = log_ratios(comparison)
    axes.set_xlim(0, len(logs) + 1)
    whole_numbers(axes.xaxis)
    ratio_axis(axes, limit_of_ratios(logs, comparison.per_picture))
    if logs.empty:
        say(axes, "no picture in both arms", theme)
        return []
    axes.axhline(1, color=theme.text, linewidth=1)
    draw_whiskers(axes, logs, theme)
    draw_ratios(axes, logs, comparison)
    draw_estimate(axes, comparison.per_picture, theme)
    words = {"transform": axes.transAxes, "fontsize": SMALL, "color": theme.text}
    axes.text(0.01, 0.97, f"{second} slower ↑", va="top", **words)
    axes.text(0.99, 0.03, f"{second} faster ↓", ha="right", **words)
    add_legend(axes, theme)
    notes = drift_note(comparison.per_picture)
    notes += sample_note(len(logs), MAX_POINTS, "pictures")
    estimate = comparison.per_picture
    if estimate and estimate.pictures + estimate.copies < len(logs):
        used = counted_pictures(estimate.pictures, estimate.copies)
        notes.append(f"The mean is over the {used} with a pair in every round.")
    elif estimate and estimate.copies:
        notes.append(f"The mean is over {counted(estimate.pictures, 'different picture')}.")
    return notes


def drift_note(estimate: RatioEstimate | None) -> list[str]:
    if estimate is None or not (wider := drift_margin_text(estimate)):
        return []
    return [f"One round: the interval is{wider}."]


def log_ratios(comparison: Comparison) -> pd.DataFrame:
    """mean, min and max over the rounds of each picture's log ratio, sorted by mean."""
    logs = np.log(comparison.ratios)
    by_picture = logs.groupby(comparison.pairs["image_key"].to_numpy(), sort=False)
    return by_picture.agg(["mean", "min", "max"]).sort_values("mean", kind="stable")


def limit_of_ratios(logs: pd.DataFrame, estimate: RatioEstimate | None) -> float:
    """Log of the ratio at the end of the axis: fits the pictures, and an interval that is not far
    wider than they are."""
    widest = float(logs.abs().to_numpy().max(initial=math.log(1.1)))
    if estimate is None:
        return widest * 1.15
    of_interval = abs(estimate.log_ratio) + estimate.log_half_width
    return max(widest, min(of_interval, 3 * widest)) * 1.15


def ratio_axis(axes: Axes, limit: float) -> None:
    """A log axis around 1 on which twice as slow lies as far from 1 as twice as fast."""
    axes.set_yscale("log")
    axes.set_ylim(math.exp(-limit), math.exp(limit))
    ticks = []
    last = limit * 1.2
    for tick in reversed(TICKS_OF_RATIOS):
        if math.log(tick) <= min(limit, last - limit / 4.5) and math.log(tick) > limit / 6:
            ticks.append(tick)
            last = math.log(tick)
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(FixedLocator([1, *ticks, *(1 / tick for tick in ticks)]))
    axes.yaxis.set_ticklabels(["1", *(f"{t:,g}" for t in ticks), *(f"1/{t:,g}" for t in ticks)])


def draw_whiskers(axes: Axes, logs: pd.DataFrame, theme: Theme) -> None:
    if len(logs) <= MAX_WHISKERS and (logs["min"] < logs["max"]).any():
        rank = np.arange(1, len(logs) + 1)
        low, high = np.exp(logs["min"]), np.exp(logs["max"])
        line = {"color": theme.muted, "alpha": 0.7, "linewidth": 1.2, "zorder": 2}
        axes.vlines(rank, low, high, **line, label="range over the rounds")


def draw_ratios(axes: Axes, logs: pd.DataFrame, comparison: Comparison) -> None:
    """Each picture in the colour and with the marker of the arm that was faster."""
    mean = logs["mean"].to_numpy()
    shown = evenly_spaced(len(mean), MAX_POINTS)
    for arm, look, sign in zip(comparison.arms, looks(comparison), (1, -1), strict=True):
        of_look = shown[mean[shown] * sign > 0]
        count = int((mean * sign > 0).sum())
        axes.scatter(
            of_look + 1,
            np.exp(mean[of_look]),
            s=36 if len(mean) <= MAX_WHISKERS else 12,
            color=look.colour,
            marker=look.marker,
            linewidths=0,
            label=f"{arm.label} faster: {counted(count, 'picture')}",
            zorder=4,
        )
    if len(equal := shown[mean[shown] == 0]):
        label = f"equal: {counted(int((mean == 0).sum()), 'picture')}"
        square = {"s": 24, "color": EQUAL_GREY, "marker": "s", "linewidths": 0, "zorder": 4}
        axes.scatter(equal + 1, np.ones(len(equal)), label=label, **square)


def draw_estimate(axes: Axes, estimate: RatioEstimate | None, theme: Theme) -> None:
    if estimate is None:
        return
    ratio, _, interval = ratio_text(estimate).partition(", ")
    line = {"color": theme.text, "linestyle": "--", "linewidth": 1.2}
    axes.axhline(estimate.ratio, **line, label=f"geometric mean {ratio}")
    band = {"color": theme.muted, "alpha": 0.22, "linewidth": 0, "zorder": 1}
    axes.axhspan(estimate.low, estimate.high, **band, label=f"its {interval}")


# --- whole arms ---------------------------------------------------------------------------------


def plot_total_time(figure: Figure, judgement: Judgement, theme: Theme) -> list[str]:
    """How long does the whole job take, and how much work is in it?"""
    comparison = judgement.comparison
    axes = style(figure.add_subplot(), theme)
    arms = (comparison.first, comparison.second)
    rounds = max(len(arm.makespans_s) for arm in arms)
    for offset, arm, look in zip((-0.2, 0.2), arms, looks(comparison), strict=True):
        values = [arm.processing_s / max(len(arm.makespans_s), 1), arm.makespan_s]
        bars = axes.bar(
            [0 + offset, 1 + offset],
            np.nan_to_num(values),
            0.38,
            color=look.colour,
            label=f"{look.label}, n = {arm.rows:,}",  # unmatched pictures are in these sums, too
        )
        texts = [seconds(value) for value in values]
        axes.bar_label(bars, texts, padding=3, fontsize=SMALL, color=theme.text)
    names = ["busy time", "makespan"]
    if rounds > 1:
        names = [f"busy time\n(mean of {rounds} rounds)", f"makespan\n(median of {rounds} rounds)"]
    axes.set_xticks([0, 1], names)
    axes.margins(y=0.15)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("time of a round (s)" if rounds > 1 else "time (s)")
    add_legend(axes, theme)
    return []


def plot_completeness(figure: Figure, judgement: Judgement, theme: Theme) -> list[str]:
    """Is every picture accounted for?"""
    comparison = judgement.comparison
    axes = style(figure.add_subplot(), theme, grid="x")
    ledger = comparison.ledger
    counts = ledger.counts.assign(of=", round " + ledger.counts["round"].astype(str))
    rounds = counts["round"].nunique()
    if rounds > MAX_DRAWN_ROUNDS:
        counts = counts.drop(columns="of").groupby("arm", as_index=False).sum()
        counts = counts.assign(of=f", {rounds} rounds")
    bars = []
    for look in looks(comparison):
        for line in counts[counts["arm"] == look.name].itertuples():
            name = look.label + (line.of if rounds > 1 else "")
            parts = {kind: getattr(line, kind) for kind in LEDGER_KINDS}
            bars.append((f"{name}: {ledger_text(line)}", look.colour, parts))
    whole_numbers(axes.xaxis)
    stacked_bars(axes, bars, theme, "rows (number)")
    kinds_legend(axes, LEDGER_KINDS, theme)
    share = share_text(ledger.accounted, ledger.expected)
    title = f"completeness {share}: {ledger.accounted:,} of {ledger.expected:,} rows"
    axes.set_title(title, loc="right", fontsize=11, fontweight="bold", color=theme.text)
    notes = [] if ledger.from_manifest else ["No manifest: what either arm has is expected."]
    return [*uncounted(comparison), *notes]


def ledger_text(line) -> str:
    """One line of the ledger's counts."""
    parts = [
        f"{getattr(line, kind):,} {kind}"
        for kind in (*LEDGER_KINDS, "duplicate")
        if getattr(line, kind) or kind == "done"
    ]
    return f"{share_text(line.done + line.failed, line.expected)} ({', '.join(parts)})"


def uncounted(comparison: Comparison) -> list[str]:
    """Late and unknown rows, which belong to no round of the run."""
    ledger, notes = comparison.ledger, []
    for arm in comparison.arms:
        late, unknown = len(ledger.late[arm.name]), len(ledger.unknown[arm.name])
        if late or unknown:
            notes.append(f"Not counted, {arm.label}: {late:,} late, {unknown:,} unknown rows.")
    return notes


def plot_phases(figure: Figure, judgement: Judgement, theme: Theme) -> list[str]:
    """Where does the time go: reading, processing or writing, warm or cold?"""
    comparison = judgement.comparison
    axes = style(figure.add_subplot(), theme, grid="x")
    bars = []
    for look in looks(comparison):
        rows = comparison.rows[look.name]
        is_ok, is_cold = (rows["status"] == "ok").to_numpy(), rows["cold_start"].to_numpy(bool)
        for state, chosen in (("warm", is_ok & ~is_cold), ("cold starts", is_ok & is_cold)):
            if chosen.any():
                means = rows.loc[chosen, list(PHASES)].mean()
                parts = dict(zip(PHASE_KINDS, means, strict=True))
                known = {kind: ms for kind, ms in parts.items() if not math.isnan(ms)}
                text = f"{look.label}, {state}, n = {chosen.sum():,}: {phases_text(known)}"
                bars.append((text, look.colour, known))
    stacked_bars(axes, bars, theme, "mean time per picture (ms)")
    kinds_legend(axes, PHASE_KINDS, theme)
    if not bars:
        say(axes, "no picture was processed", theme)
    elif any(len(known) < len(PHASES) for *_, known in bars):
        return ["Phases that the files do not have are left out."]
    return []


def phases_text(known: dict[str, float]) -> str:
    parts = " + ".join(f"{kind} {digits(ms)}" for kind, ms in known.items())
    return f"{parts} ms" if len(known) == 1 else f"{parts} = {digits(sum(known.values()))} ms"


# --- over time ----------------------------------------------------------------------------------


def plot_timeline(figure: Figure, judgement: Judgement, theme: Theme) -> list[str]:
    """When was which picture in work, and did the workers stand idle?"""
    comparison = judgement.comparison
    *panels, below = figure.subplots(3, sharex=True, height_ratios=(2, 2, 1.1))
    rounds = {number for rows in comparison.rows.values() for number in rows["round"].unique()}
    first = min(rounds, default=1)
    edges = [phase_edges(comparison.rows[arm.name], first) for arm in comparison.arms]
    end_s = max((part[:, -1].max() for part, _ in edges if len(part)), default=0) or 1
    style(below, theme, grid="both")
    whole_numbers(below.yaxis, 3)
    notes = [f"Round {first} of {len(rounds)} is drawn."] if len(rounds) > 1 else []
    for axes, look, (part, unknown) in zip(panels, looks(comparison), edges, strict=True):
        draw_pictures(style(axes, theme, grid="x"), part, unknown, look, theme)
        draw_in_work(below, part, end_s, look)
        notes += sample_note(len(part), MAX_BARS, "pictures")
    kinds_legend(panels[0], PHASE_KINDS, theme, bottom=1.12)  # its title is below
    below.set_xlim(0, end_s * 1.02)
    below.set_ylim(bottom=0)
    below.set_xlabel("time since the arm's first picture of the round was begun (s)")
    below.set_ylabel("in work\n(number)")
    add_legend(below, theme)
    figure.align_ylabels()
    return list(dict.fromkeys(notes))  # most often both arms have as many


def phase_edges(rows: pd.DataFrame, round_number: int) -> tuple[np.ndarray, int]:
    """Begin of fetch, process and store, and the end, in seconds from the arm's first begin: a line
    for each picture of the round in order of begin. And how many have no timestamp.

    A phase that is not known takes no time.
    """
    chosen = (rows["round"] == round_number).to_numpy()
    begin_s = rows["begin_s"].to_numpy()[chosen]
    took_s = np.nan_to_num(rows.loc[chosen, list(PHASES)].to_numpy(dtype=float)) / 1000
    edges = np.cumsum(np.column_stack([begin_s, took_s]), axis=1)
    known = edges[~np.isnan(begin_s)]
    known = known[np.argsort(known[:, 0], kind="stable")]
    return known - known[:1, :1], len(edges) - len(known)


def draw_pictures(axes: Axes, edges: np.ndarray, unknown: int, look: Look, theme: Theme) -> None:
    """A bar of three phases for each picture, the first begun at the bottom."""
    drawn = edges[evenly_spaced(len(edges), MAX_BARS)]
    rank = np.linspace(0, len(edges), len(drawn) + 1)
    few = len(drawn) <= MAX_HATCHED
    gap = 0.1 if few else 0
    low, high = rank[:-1] + gap, rank[1:] - gap
    for kind, left, right in zip(PHASE_KINDS, drawn.T, drawn.T[1:], strict=False):
        corners = np.array([(left, low), (right, low), (right, high), (left, high)])
        fill = fill_of(kind, look.colour, theme)
        if not few:
            fill |= {"edgecolor": fill["facecolor"], "hatch": ""}
        bars = PolyCollection(corners.transpose(2, 0, 1), **fill, linewidths=0.6 if few else 1.5)
        axes.add_collection(bars, autolim=False)
    makespan_s = math.nan if unknown or not len(edges) else edges[:, -1].max()
    title = f"{look.label}: {counted(len(edges) + unknown, 'picture')}, makespan "
    title += seconds(makespan_s)
    if not math.isnan(makespan_s):
        axes.axvline(makespan_s, color=theme.text, linewidth=1.2, linestyle=":")
    elif unknown:
        title += f" ({unknown:,} without timestamp)"
    add_title(axes, title, theme)
    axes.set_ylim(0, max(len(edges), 1))
    whole_numbers(axes.yaxis, 4)
    axes.set_ylabel("pictures begun\n(number)")
    if not len(edges):
        say(axes, "timestamps unknown" if unknown else "no picture", theme)


def draw_in_work(axes: Axes, edges: np.ndarray, end_s: float, look: Look) -> None:
    """How many pictures were in work at a time, averaged over each of TIME_SLICES."""
    slices = np.linspace(0, end_s, TIME_SLICES + 1)
    done_s = in_work_until(edges, slices)
    axes.stairs(
        np.diff(done_s) / np.diff(slices),
        slices,
        baseline=None,
        color=look.colour,
        linestyle=look.line,
        linewidth=1.6,
        label=look.label,
    )


def in_work_until(edges: np.ndarray, until_s: np.ndarray) -> np.ndarray:
    """Sum of the seconds that pictures had been in work until each time."""
    begin, end = np.sort(edges[:, 0]), np.sort(edges[:, -1])
    return _sum_since(begin, until_s) - _sum_since(end, until_s)


def _sum_since(moments: np.ndarray, until_s: np.ndarray) -> np.ndarray:
    """Sum over the (sorted) moments before each time of how long ago they were."""
    sums = np.concatenate([[0], np.cumsum(moments)])
    count = np.searchsorted(moments, until_s)
    return count * until_s - sums[count]


def plot_stability_over_time(figure: Figure, judgement: Judgement, theme: Theme) -> list[str]:
    """Did the speed of an arm change, and how much does it scatter?"""
    comparison = judgement.comparison
    panels = figure.subplots(2, sharex=True, sharey=True)
    drawn = [residuals_by_place(comparison.rows[arm.name]) for arm in comparison.arms]
    known = np.concatenate([part["percent"].to_numpy() for part, _ in drawn])
    limit = limit_of_residuals(known)
    notes = []
    for axes, look, (part, reason) in zip(panels, looks(comparison), drawn, strict=True):
        style(axes, theme)
        axes.set_ylabel("off the expected\ntime (%)")
        add_title(axes, f"{look.label}: {residuals_text(part['percent'], limit)}", theme)
        if reason:
            say(axes, reason, theme)
        else:
            axes.axhline(0, color=theme.text, linewidth=0.8)
            draw_residuals(axes, part, limit, look, theme)
        notes += sample_note(len(part), MAX_POINTS, "times")
    panels[1].set_ylim(-limit, limit)
    panels[1].set_xlim(0, max(1, *(len(part) for part, _ in drawn)) + 1)
    whole_numbers(panels[1].xaxis)
    panels[1].yaxis.set_major_formatter(lambda x, _: f"{x:+,.10g}" if x else "0")
    panels[1].set_xlabel("place in the order of begin (number)")
    return list(dict.fromkeys(notes))


def residuals_by_place(rows: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Round, place in the run and residual in percent of each `ok` row; or why there is none."""
    columns = ["image_key", "round", "orig_size", "proc_ms", "begin_s"]
    done = rows.loc[rows["status"] == "ok", columns]
    percent = np.expm1(residuals(done)) * 100
    order = np.lexsort((done["begin_s"], done["round"]))
    by_place = pd.DataFrame({"round": done["round"], "percent": percent}).iloc[order]
    by_place.insert(0, "place", np.arange(1, len(done) + 1))
    known = by_place[by_place["percent"].notna()]
    if done.empty:
        return known, "no picture was processed"
    if known.empty:
        few = f"one round of fewer than {NEIGHBOURS} pictures"
        few = few if done["round"].nunique() == 1 else "no picture was processed in two rounds"
        return known, f"{few}: nothing tells what was to be expected"
    if done["begin_s"].isna().any():
        return known[:0], "timestamps unknown: the order is not known"
    return known, ""


def limit_of_residuals(percent: np.ndarray) -> float:
    """The end of the axis: most points are within, and the median can be read."""
    if len(percent) == 0:
        return 10.0
    far, most = np.abs(percent).max() * 1.1, 4 * np.percentile(np.abs(percent), 90)
    return float(max(5.0, far if far < 2 * most else most))


def residuals_text(percent: pd.Series, limit: float) -> str:
    text = f"n = {len(percent):,}"
    beyond = int((percent.abs() > limit).sum())
    return f"{text}, {beyond:,} beyond the axis (crosses at its edge)" if beyond else text


def draw_residuals(axes: Axes, part: pd.DataFrame, limit: float, look: Look, theme: Theme) -> None:
    """Points, the running median over the drawn ones, and a line between rounds."""
    shown = part.iloc[evenly_spaced(len(part), MAX_POINTS)]
    beyond = shown["percent"].abs() > limit
    within, outside = shown[~beyond], shown[beyond]
    dots = {"s": 16, "alpha": opacity(len(shown)), "color": look.colour, "linewidths": 0}
    axes.scatter(within["place"], within["percent"], marker=look.marker, **dots)
    edge = np.sign(outside["percent"]) * limit * 0.96
    axes.scatter(outside["place"], edge, s=24, color=look.colour, marker="x")
    separate = part["round"].nunique() <= MAX_SEPARATORS
    window = max(5, len(shown) // 20) | 1
    groups = shown.groupby(shown["round"] if separate else np.zeros(len(shown)), sort=False)
    median = groups["percent"].rolling(window, center=True, min_periods=1).median()
    axes.plot(shown["place"], median.to_numpy(), color=theme.text, linewidth=1.6)
    if separate:
        starts = part.groupby("round")["place"].min().iloc[1:] - 0.5
        axes.vlines(starts, -limit, limit, color=theme.muted, linewidth=0.8, linestyle=":")


CHARTS = (
    Chart(
        ChartName.AVG_TIME,
        "Average processing time per picture",
        "Lower is faster. Bar: mean of proc_ms (decode, resize, encode; no transfer). "
        "Line across: median.",
        plot_avg_time,
    ),
    Chart(
        ChartName.BOXPLOT_TIME,
        "Spread of processing time over pictures",
        "Box: the middle half of the pictures; line: median; whiskers: 5th to 95th percentile; "
        "marks: pictures beyond.",
        plot_boxplot_time,
    ),
    Chart(
        ChartName.SIZE_VS_TIME,
        "Processing time by file size",
        "A circle for each time of the first arm, a triangle for the second. Marks above one "
        "another are of files of the same size: equal heights mean equal times.",
        plot_size_vs_time,
    ),
    Chart(
        ChartName.TOTAL_TIME,
        "The whole job: work and elapsed time",
        "Busy: sum of all proc_ms, whatever the parallelism. Makespan: first begin to last end, "
        "transfers and waiting included.",
        plot_total_time,
    ),
    Chart(
        ChartName.COMPLETENESS,
        "Completeness: is every picture accounted for?",
        "A full bar of one colour is what a comparison needs. Failed pictures are accounted for, "
        "missing ones are not.",
        plot_completeness,
        height_inches=5.6,
    ),
    Chart(
        ChartName.PAIRED_RATIO,
        "Ratio of times, picture by picture",
        "Each mark is a picture, in the colour of the arm that was faster. The band is where the "
        "mean may lie: when 1 is in it, neither arm is shown to be faster.",
        plot_paired_ratio,
    ),
    Chart(
        ChartName.CUMULATIVE_TIME,
        "Share of pictures done within a time",
        "The line further to the left is the faster arm; a steep line means that pictures take "
        "about the same time.",
        plot_cumulative_time,
    ),
    Chart(
        ChartName.TIMELINE,
        "Timeline: which picture was in work when",
        "Each bar is a picture, from the begin of reading to the end of writing; a steeper rise is "
        "a higher throughput. Dotted line: the makespan. Below: how many pictures were in work "
        "at a time.",
        plot_timeline,
        height_inches=7,
    ),
    Chart(
        ChartName.PHASES,
        "Where the time of a picture goes",
        "Fetch: read or download; process: proc_ms; store: write or upload. A cold start is the "
        "first picture of a new worker.",
        plot_phases,
    ),
    Chart(
        ChartName.STABILITY_OVER_TIME,
        "Stability: did the speed change during the run?",
        "Points: time against what was to be expected of the picture; line: running median. A line "
        "that stays at 0 means a steady machine; dotted lines part the rounds.",
        plot_stability_over_time,
        height_inches=6,
    ),
    Chart(
        ChartName.STABILITY,
        "Stability: how steady was each arm?",
        "Mark: what was measured, by round (geometric mean) or as a share; bar: its 95% interval. "
        "Bars that lie apart mean arms that differ. Drift above 0: it became slower.",
        plot_stability,
        height_inches=7,
    ),
    Chart(
        ChartName.BREAK_EVEN,
        "Cost of a month by its number of pictures",
        "The lower line is the cheaper arm; where they cross, the dot. Steps: one machine is full "
        "and a further one is needed. Bands: 95% intervals, from the spread over the rounds.",
        plot_break_even,
        height_inches=7.4,
        is_about=lambda judgement: not isinstance(judgement.break_even, str),
    ),
)
