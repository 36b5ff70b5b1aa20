"""How all charts look: colours, head and foot, axes, legends, and numbers as text.

Vocabulary
    theme       the colours of everything but the arms: LIGHT and DARK
    look        an arm's colour, marker and line style, by its position in the comparison: told
                apart with any colour vision, and in grey
"""

import textwrap
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from metrics.analysis.comparison import Comparison
from metrics.common.text import counted, counted_pictures

COLOURS = ("#0072B2", "#D55E00")  # Okabe and Ito's blue and vermilion: first arm, second arm
MARKERS = ("o", "^")
LINES = ("-", "--")
# How much of an arm's colour a part of its bar has (the rest is background), and its hatch.
SHADES = {
    "fetch": (0.35, "////"),
    "process": (1.0, ""),
    "store": (0.6, "...."),
    "done": (1.0, ""),
    "failed": (0.35, "xxxx"),
    "missing": (0.0, ""),
}

WIDTH_INCHES = 8
DPI = 120
MARGIN = 0.02  # of the figure's width, beside its texts
TITLE_INCHES = 0.265
SUBTITLE_INCHES = 0.415  # of two lines
LINE_INCHES = 0.165  # of the foot
SUBTITLE_CHARACTERS = 115
FOOT_CHARACTERS = 130
LABEL_CHARACTERS = 24
SMALL = 9  # points


@dataclass(frozen=True)
class Theme:
    name: str
    background: str
    text: str
    muted: str
    grid: str
    bad: str
    caution: str


LIGHT = Theme("light", "#FFFFFF", "#1B1F24", "#555B63", "#DDE0E4", "#B00020", "#8A5300")
DARK = Theme("dark", "#1B1E24", "#E8E9EC", "#A6ACB7", "#363B44", "#FF8A80", "#FFB74D")


# --- head and foot ------------------------------------------------------------------------------


def add_head(figure: Figure, comparison: Comparison, title: str, theme: Theme) -> float:
    """Title, n and environment, and a mark on what must not be relied on; returns its inches."""
    height = figure.get_figheight()
    title_inches = TITLE_INCHES if title else 0
    top, below = 1 - 0.1 / height, 1 - (0.1 + title_inches) / height
    bold = {"fontsize": 13, "fontweight": "bold", "va": "top"}
    figure.text(MARGIN, top, title, color=theme.text, **bold)
    subtitle = shortened(f"{n_of(comparison)} · {environments(comparison)}", SUBTITLE_CHARACTERS)
    figure.text(MARGIN, below, subtitle, fontsize=SMALL, color=theme.muted, va="top")
    bold["fontsize"] = 11
    if comparison.problems:
        figure.text(1 - MARGIN, top, "NOT COMPARABLE", ha="right", color=theme.bad, **bold)
    elif comparison.is_partial:
        figure.text(1 - MARGIN, top, "PARTIAL", ha="right", color=theme.caution, **bold)
    return title_inches + SUBTITLE_INCHES


def add_foot(figure: Figure, text: str, theme: Theme) -> float:
    """Returns its height in inches."""
    lines = textwrap.wrap(text, FOOT_CHARACTERS, break_on_hyphens=False)
    bottom = 0.075 / figure.get_figheight()
    figure.text(MARGIN, bottom, "\n".join(lines), fontsize=8.5, color=theme.muted, va="bottom")
    return 0.15 + len(lines) * LINE_INCHES


def n_of(comparison: Comparison) -> str:
    """`16 pictures x 3 rounds in both arms`."""
    pairs = comparison.pairs
    rounds = pairs["round"].nunique()
    keys = pairs["image_key"].unique()
    different = comparison.contents.reindex(keys).nunique()
    pictures = counted_pictures(different, len(keys) - different)
    if rounds <= 1:
        return f"{pictures} in both arms"
    if len(pairs) == len(keys) * rounds:
        return f"{pictures} x {rounds} rounds in both arms"
    of = f"of {pictures} x {rounds} rounds"
    return f"{counted(len(pairs), 'pair')} {of} in both arms"


def environments(comparison: Comparison) -> str:
    names = {"embedded": "embedded cloud on this machine, not AWS"}
    return ", ".join(
        f"{arm.label}: {names.get(arm.environment, one_line(arm.environment))}"
        for arm in (comparison.first, comparison.second)
    )


# --- looks and texts ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Look:
    """How an arm is drawn. `label` has its environment, when its name does not say that."""

    name: str
    label: str
    colour: str
    marker: str
    line: str


def looks(comparison: Comparison) -> list[Look]:
    arms = (comparison.first, comparison.second)
    labels = [
        arm.label if arm.environment in ("local", "unknown") else f"{arm.label} ({arm.environment})"
        for arm in arms
    ]
    texts = [one_line(label, LABEL_CHARACTERS) for label in labels]
    names = [arm.name for arm in arms]
    return [Look(*look) for look in zip(names, texts, COLOURS, MARKERS, LINES, strict=True)]


def one_line(text: str, characters: int = 1000) -> str:
    """`text` of a file on one line, cut to size, and with no dollar that would begin a formula."""
    line = " ".join(text.split())
    cut = line if len(line) <= characters else line[: characters - 1] + "…"
    return cut.replace("$", r"\$")


def shortened(text: str, characters: int) -> str:
    """`text` in two lines at most."""
    return textwrap.fill(text, characters, max_lines=2, placeholder=" …")


# --- axes ---------------------------------------------------------------------------------------


def style(axes: Axes, theme: Theme, grid: str = "y") -> Axes:
    axes.set_facecolor(theme.background)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(theme.muted)
    axes.tick_params(which="both", color=theme.muted, labelcolor=theme.text)
    axes.xaxis.label.set_color(theme.text)
    axes.yaxis.label.set_color(theme.text)
    axes.set_axisbelow(True)
    axes.grid(axis=grid, color=theme.grid, linewidth=0.7)
    axes.xaxis.set_major_formatter("{x:,.10g}")
    axes.yaxis.set_major_formatter("{x:,.10g}")
    return axes


def add_legend(
    axes: Axes, theme: Theme, columns: int = 2, bottom: float = 1, **options: object
) -> None:
    """Above the axes, where it hides no data; `bottom` in heights of the axes."""
    legend = axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, bottom),
        ncols=columns,
        frameon=False,
        fontsize=SMALL,
        labelcolor=theme.text,
        **options,
    )
    for handle in legend.legend_handles:
        if not isinstance(handle, Patch):  # a band is as pale as in the chart
            handle.set_alpha(1)


def whole_numbers(axis: Axis, ticks: int | str = "auto") -> None:
    axis.set_major_locator(MaxNLocator(ticks, integer=True, steps=[1, 2, 5, 10]))


def add_title(axes: Axes, text: str, theme: Theme) -> None:
    axes.set_title(text, loc="left", fontsize=SMALL, color=theme.text)


def say(axes: Axes, text: str, theme: Theme) -> None:
    """In place of data."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=theme.text)


def finish_times(axes: Axes, comparison: Comparison, label: str, theme: Theme) -> None:
    """An axis of times from 0, with room above the highest; says so when there is none."""
    axes.set_ylabel(label)
    axes.margins(y=0.18)
    if comparison.pairs.empty:
        axes.set_ylim(0, 1)
        say(axes, "no picture in both arms", theme)
    axes.set_ylim(bottom=0)


def fill_of(kind: str, colour: str, theme: Theme) -> dict[str, object]:
    """Face, edge and hatch of a bar's part: told apart by lightness and hatch."""
    share, hatch = SHADES[kind]
    face = share * np.array(to_rgb(colour)) + (1 - share) * np.array(to_rgb(theme.background))
    return {"facecolor": tuple(face), "edgecolor": colour, "hatch": hatch}


def kinds_legend(axes: Axes, kinds: tuple[str, ...], theme: Theme, bottom: float = 1) -> None:
    patches = [Patch(**fill_of(kind, theme.muted, theme), label=kind) for kind in kinds]
    add_legend(axes, theme, len(kinds), bottom, handles=patches)


def stacked_bars(
    axes: Axes, bars: list[tuple[str, str, dict[str, float]]], theme: Theme, label: str
) -> None:
    """Horizontal bars, the first on top: for each a text above it, its colour, and its parts."""
    for place, (text, colour, parts) in enumerate(bars):
        ends = np.cumsum([0, *parts.values()])
        for left, (kind, width) in zip(ends, parts.items(), strict=False):
            if width:
                axes.barh(place, width, 0.42, left=left, **fill_of(kind, colour, theme))
        axes.annotate(
            text,
            (0, place - 0.21),
            xytext=(0, 3),
            textcoords="offset points",
            va="bottom",
            fontsize=SMALL,
            color=theme.text,
        )
    axes.set_yticks([])
    axes.set_ylim(len(bars) - 0.6, -0.75)
    axes.spines["left"].set_visible(False)
    axes.set_xlim(0, 1.02 * max((sum(parts.values()) for *_, parts in bars), default=0) or 1)
    axes.set_xlabel(label)


def evenly_spaced(count: int, most: int) -> np.ndarray:
    """Positions of at most `most` of `count` things, the first and the last among them."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(int)


def sample_note(count: int, most: int, what: str) -> list[str]:
    return [f"Of {count:,} {what} an even sample of {most:,} is drawn."] if count > most else []
