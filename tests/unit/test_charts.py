"""What every chart shows, and that it can be read: text inside the figure, none on another."""

import io
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import combinations
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.cbook import is_math_text
from matplotlib.collections import LineCollection, PathCollection, PolyCollection
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch
from matplotlib.text import Text
from PIL import Image
from rows import row

from lambda_function.metrics_log import COLUMNS, HEADER, rows_to_csv
from metrics.analysis.comparison import ARMS_OF_SELF_CHECK, Comparison, compare
from metrics.analysis.judgement import Judgement, judge_comparison
from metrics.analysis.rows import REFERENCE_COLUMNS, read_rows
from metrics.analysis.stability import residuals
from metrics.analysis.stability_measures import KINDS, measure_text
from metrics.common.paths import CHART_NAMES, PROJECT
from metrics.common.text import seconds, share_text
from metrics.report import chart_style, charts
from metrics.report.chart_style import COLOURS, DARK, LIGHT, Theme
from metrics.report.charts import CHARTS, chart_png

BEGIN = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
LONG_NAME = "embedded-on-a-machine-with-a-name-that-somebody-thought-was-a-good-idea-at-the-time"
FORMULA = r"$a_{$ $ \frac</title><script>"
CHART = {chart.name: chart for chart in CHARTS}
OF_PAIRS = ("avg_time", "boxplot_time", "size_vs_time", "paired_ratio", "cumulative_time")


def rows_of(source: str, pictures: int, rounds: int = 1, **facts: object) -> list:
    """Rows whose times differ from picture to picture and round to round, each 40 ms after the one
    before, with `facts` in place of any field."""
    is_cloud = source == "cloud"
    scale, environment = (1.3, "embedded") if is_cloud else (1.0, "local")
    rows = []
    for place in range(pictures * rounds):
        of_round, number = divmod(place, pictures)
        fields = {
            "source": source,
            "environment": environment,
            "round": of_round + 1,
            "timestamp": (BEGIN + timedelta(milliseconds=40 * place)).isoformat(),
            "orig_size": 200_000 + 7_919 * (number % 331),
            "proc_ms": scale * (20 + number * 37 % 41) * (1 + place * 13 % (7 + is_cloud) / 100),
            "cold_start": is_cloud and place < 2,
        }
        rows.append(row(f"{number}.jpg", **(fields | facts)))
    return rows


def failed(rows: list) -> list:
    facts = {"status": "error", "error": "UnreadableImage: broken", "new_size": 0}
    return [replace(r, **facts) for r in rows]


def compared(
    folder: Path, first: list, second: list, columns: int = len(COLUMNS), **options: object
) -> Comparison:
    """The comparison of CSV files that have the first so many columns."""
    frames = []
    for name, rows in (("first", first), ("second", second)):
        lines = (HEADER + rows_to_csv(rows)).splitlines()
        path = folder / f"{name}.csv"
        path.write_text("\n".join(",".join(line.split(",")[:columns]) for line in lines) + "\n")
        frames.append(read_rows(path, rows[0].source))
    return compare(*frames, **options)


def judged(folder: Path, first: list, second: list, **options: object) -> Judgement:
    return judge_comparison(compared(folder, first, second, **options))


def both(pictures: int, rounds: int = 1, **facts: object) -> tuple[list, list]:
    return tuple(rows_of(source, pictures, rounds, **facts) for source in ("on_prem", "cloud"))


def partly_failed(folder: Path) -> Comparison:
    first, second = both(16, 3)
    return compared(folder, failed(first[:2]) + first[2:], failed(second[:2]) + second[2:])


def partial(folder: Path) -> Comparison:
    first, second = both(16, 3)
    return compared(folder, first, second[:-5], allow_partial=True)


def a_against_a(folder: Path) -> Comparison:
    first = rows_of("on_prem", 16, 3)
    second = [replace(r, proc_ms=r.proc_ms * (0.95 + n % 4 / 20)) for n, r in enumerate(first)]
    return compared(folder, first, second, arms=ARMS_OF_SELF_CHECK)


def names_like_formulas(folder: Path) -> Comparison:
    """Text that would be drawn as mathematics, or not at all, wherever text can stand."""
    facts = dict.fromkeys(("environment", "worker", "run_id", "transform"), FORMULA)
    arms = ([replace(r, image_key=FORMULA + r.image_key) for r in arm] for arm in both(16, **facts))
    return compared(folder, *arms)


CASES: dict[str, Callable[[Path], Comparison]] = {
    "1 picture": lambda folder: compared(folder, *both(1)),
    "16 pictures": lambda folder: compared(folder, *both(16)),
    "16 x 3": lambda folder: compared(folder, *both(16, 3)),
    "16 x 6": lambda folder: compared(folder, *both(16, 6)),
    "2 x 60": lambda folder: compared(folder, *both(2, 60)),
    "5,000 pictures": lambda folder: compared(folder, *both(5000)),
    "A/A": a_against_a,
    "five columns": lambda folder: compared(
        folder,
        rows_of("on_prem", 501),
        rows_of("cloud", 169, new_size=200_000, orig_size=200_000),
        columns=len(REFERENCE_COLUMNS),
    ),
    "partly failed": partly_failed,
    "all failed": lambda folder: compared(folder, *map(failed, both(3))),
    "partial": partial,
    "none matches": lambda folder: compared(
        folder,
        rows_of("on_prem", 3),
        [row(f"other/{r.image_key}") for r in rows_of("cloud", 2)],
    ),
    "unknown timestamps": lambda folder: compared(folder, *both(16, timestamp="yesterday")),
    "equal times": lambda folder: compared(folder, *both(16, proc_ms=25.0)),
    "two magnitudes apart": lambda folder: compared(
        folder, rows_of("on_prem", 16, proc_ms=99.1), rows_of("cloud", 16, proc_ms=1.75)
    ),
    "hours": lambda folder: compared(folder, *both(16, proc_ms=1.2345e7)),
    "long environment names": lambda folder: compared(
        folder,
        rows_of("on_prem", 16, environment=LONG_NAME, run_id="a"),
        rows_of("cloud", 16, environment=LONG_NAME, run_id="b"),
    ),
    "names like formulas": names_like_formulas,
}

every_chart = pytest.mark.parametrize("name", CHART_NAMES)
# Long text, many marks: what can be read there can be read in the others, as a rule.
WORST = ("2 x 60", "names like formulas")
every_case = pytest.mark.parametrize(
    "case",
    [case if case in WORST else pytest.param(case, marks=pytest.mark.slow) for case in CASES],
)
both_themes = pytest.mark.parametrize("theme", [LIGHT, DARK], ids=lambda theme: theme.name)


class Drawn:
    """Comparisons and figures by case, each made once."""

    def __init__(self, folders: pytest.TempPathFactory) -> None:
        self.folders, self.comparisons, self.judgements, self.figures = folders, {}, {}, {}

    def comparison(self, case: str) -> Comparison:
        if case not in self.comparisons:
            self.comparisons[case] = CASES[case](self.folders.mktemp("case"))
        return self.comparisons[case]

    def judgement(self, case: str) -> Judgement:
        if case not in self.judgements:
            self.judgements[case] = judge_comparison(self.comparison(case))
        return self.judgements[case]

    def __call__(self, case: str, name: str, theme: Theme = LIGHT) -> Figure:
        key = (case, name, theme.name)
        if key not in self.figures:
            figure = CHART[name].draw(self.judgement(case), theme)
            figure.canvas.draw()
            self.figures[key] = figure
        return self.figures[key]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    return Drawn(tmp_path_factory)


def texts_of(figure: Figure) -> list[Text]:
    """Texts that are drawn; tick labels beyond the ends of an axis are not."""
    hidden = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                hidden.add(tick.label2)
                if not low <= tick.get_loc() <= high:
                    hidden.add(tick.label1)
    texts = figure.findobj(lambda artist: isinstance(artist, Text) and artist.get_visible())
    return [text for text in texts if text.get_text().strip() and text not in hidden]


def said(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in texts_of(figure))


def foot(figure: Figure) -> str:
    return figure.texts[-1].get_text().replace("\n", " ")


# --- every chart --------------------------------------------------------------------------------


def test_the_charts_are_those_that_the_project_names_in_their_order():
    assert tuple(chart.name for chart in CHARTS) == CHART_NAMES
    assert len({chart.title for chart in CHARTS}) == len(CHARTS)


def assert_readable(figure: Figure) -> None:
    """No text leaves the figure, or lies on another one or on a legend."""
    texts = texts_of(figure)
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
    assert len(boxes) >= 8
    whole = figure.bbox
    outside = [
        text
        for text, box in boxes
        if box.x0 < 0 or box.y0 < 0 or box.x1 > whole.width or box.y1 > whole.height
    ]
    assert outside == []
    assert [(a, b) for (a, x), (b, y) in combinations(boxes, 2) if x.overlaps(y)] == []
    for legend in filter(None, (axes.get_legend() for axes in figure.axes)):
        others = set(texts) - set(legend.get_texts())
        frame = legend.get_window_extent()
        assert [t.get_text() for t in others if t.get_window_extent().overlaps(frame)] == []


@every_chart
@every_case
def test_no_text_leaves_the_figure_or_lies_on_another(drawn, case, name):
    assert_readable(drawn(case, name))


@every_chart
@pytest.mark.parametrize("case", ["16 x 3", "none matches"])
def test_nor_does_it_on_a_dark_background(drawn, case, name):
    assert_readable(drawn(case, name, DARK))


@every_chart
@pytest.mark.parametrize("case", [*WORST, "five columns", "none matches"])
def test_axes_name_their_unit_and_start_at_0_but_those_around_a_middle(drawn, case, name):
    for axes in drawn(case, name).axes:
        for label, (low, high) in (
            (axes.get_xlabel(), axes.get_xlim()),
            (axes.get_ylabel(), axes.get_ylim()),
        ):
            if label.endswith("(ratio of times)"):
                assert low * high == pytest.approx(1)
            elif name == "stability_over_time" and label.endswith("(%)"):
                assert low == -high
            elif label:
                assert label.endswith(("(ms)", "(s)", "(MB)", "(%)", "(number)", "(USD)"))
                assert low == 0 < high


@every_chart
def test_the_head_says_n_and_environment_and_the_foot_how_to_read_it(drawn, name):
    figure = drawn("16 pictures", name)
    title, subtitle, *_ = (text.get_text() for text in figure.texts)
    assert title == CHART[name].title
    assert subtitle == (
        "16 pictures in both arms · on-prem: local, the cloud: embedded cloud on this machine, "
        "not AWS"
    )
    assert foot(figure).startswith(CHART[name].how_to_read)
    assert "1 picture in both arms" in said(drawn("1 picture", name))


def test_n_tells_copies_from_different_pictures(tmp_path):
    first, second = ([replace(r, output_sha256="0", orig_size=1) for r in rows] for rows in both(4))
    comparison = compared(tmp_path, first, second)
    assert chart_style.n_of(comparison) == "1 different picture (4 with copies) in both arms"
    figure = Figure()
    notes = charts.plot_paired_ratio(figure, judge_comparison(comparison), LIGHT)
    assert "The mean is over 1 different picture." in notes


@every_chart
def test_n_is_pictures_by_rounds_and_of_pairs_where_some_lack_a_round(drawn, name):
    assert "16 pictures x 3 rounds in both arms" in said(drawn("16 x 3", name))
    assert "43 pairs of 16 pictures x 3 rounds in both arms" in said(drawn("partial", name))


@every_chart
def test_arms_of_an_a_a_comparison_are_called_by_their_names(drawn, name):
    assert "on-prem A: local, on-prem B: local" in said(drawn("A/A", name))
    assert "cloud" not in said(drawn("A/A", name))


@every_chart
def test_what_must_not_be_relied_on_is_marked_and_nothing_else(drawn, name):
    marks = {
        case: re.findall("NOT COMPARABLE|PARTIAL", said(drawn(case, name)))
        for case in ("none matches", "five columns", "partial", "16 pictures", "A/A")
    }
    assert marks == {
        "none matches": ["NOT COMPARABLE"],
        "five columns": ["NOT COMPARABLE"],
        "partial": ["PARTIAL"],
        "16 pictures": [],
        "A/A": [],
    }


@every_chart
@pytest.mark.parametrize("case", [*WORST, "hours", "unknown timestamps", "all failed"])
def test_numbers_are_written_out_and_none_is_nan(drawn, case, name):
    assert not re.search(r"\b(nan|inf)\b|\d\.?e[+-]?\d|10\^", said(drawn(case, name)))


@pytest.mark.parametrize("name", OF_PAIRS)
def test_charts_of_pairs_say_when_there_is_none(drawn, name):
    assert "no picture in both arms" in said(drawn("none matches", name))
    assert "no picture in both arms" in said(drawn("all failed", name))
    assert "no picture in both arms" not in said(drawn("1 picture", name))


def test_stability_has_a_panel_for_each_measure_with_both_arms_value_and_interval(drawn):
    judgement, figure = drawn.judgement("16 x 6"), drawn("16 x 6", "stability")
    *panels, legend = figure.axes
    assert [t.get_text() for t in legend.get_legend().get_texts()] == [
        "on-prem",
        "the cloud (embedded)",
    ]
    for axes, (name, kind) in zip(panels, KINDS.items(), strict=True):
        assert axes.get_title(loc="left").removesuffix(" (%)") == kind.label
        measures = [of_arm[name] for of_arm in judgement.stability.values()]
        assert [t.get_text() for t in axes.texts] == [measure_text(m, kind) for m in measures]
        marks = [float(line.get_xdata()[0]) for line in axes.lines if len(line.get_xdata()) == 1]
        assert marks == pytest.approx([kind.scale * m.value for m in measures], nan_ok=True)
        low, high = axes.get_xlim()
        assert low == (-high if kind.signed else 0)
        assert all(low <= mark <= high for mark in marks if not math.isnan(mark))


def test_an_interval_beyond_the_axis_is_cut_and_said_so(drawn):
    figure = drawn("16 x 3", "stability")
    assert foot(figure).endswith("A bar that leaves its axis is cut; the numbers are whole.")
    for axes in figure.axes:
        for bar in axes.collections:
            reach = np.abs(bar.get_segments()).max(initial=0)
            assert reach <= max(1, axes.get_xlim()[1])  # 1 is the second arm's place


# --- files and themes ---------------------------------------------------------------------------


def test_there_is_a_chart_of_each_promised_name():
    assert tuple(chart.name for chart in CHARTS) == CHART_NAMES


@every_chart
def test_a_chart_is_a_png_with_something_in_it(drawn, name):
    chart = CHARTS[CHART_NAMES.index(name)]
    png = chart_png(drawn.judgement("16 pictures"), chart, LIGHT)
    with Image.open(io.BytesIO(png)) as picture:
        picture.load()
        assert picture.format == "PNG"
        assert picture.width == 960
        assert picture.height >= 600
        assert len(picture.convert("RGB").getcolors(2**20)) > 10  # not blank


@every_chart
def test_a_chart_that_does_not_stand_alone_lacks_title_and_how_to_read_it(drawn, name):
    chart = CHARTS[CHART_NAMES.index(name)]
    figure = chart.draw(drawn.judgement("16 pictures"), LIGHT, alone=False)
    text = said(figure)
    assert chart.title not in text
    assert chart.how_to_read.split(".")[0] not in text
    assert "16 pictures in both arms" in text


@every_chart
def test_the_same_judgement_gives_the_same_bytes_which_tell_nothing_else(drawn, name):
    judgement = drawn.judgement("16 x 3")
    png = chart_png(judgement, CHART[name], LIGHT)
    assert png == chart_png(judgement, CHART[name], LIGHT)
    with Image.open(io.BytesIO(png)) as picture:
        assert set(picture.info) <= {"dpi"}


HOSTILE = "savefig.dpi: 30\nfont.size: 20\ntext.usetex: True\nfont.family: serif\nno such key\n"
NO_UTF_8 = HOSTILE.encode() + b"# caf\xe9\n"


@every_chart
def test_settings_of_a_program_that_draws_with_matplotlib_change_no_byte(drawn, name):
    judgement = drawn.judgement("16 x 3")
    png = chart_png(judgement, CHART[name], LIGHT)
    settings = {"font.size": 20, "text.usetex": True, "font.family": ["serif"]}
    settings |= {"axes.facecolor": "red", "lines.linewidth": 9, "axes.grid": True}
    with matplotlib.rc_context(settings):
        before = dict(dict.items(matplotlib.rcParams))
        assert chart_png(judgement, CHART[name], LIGHT) == png
        assert dict(dict.items(matplotlib.rcParams)) == before  # and they are given back


def test_matplotlib_is_imported_without_any_setting_of_the_user_s(tmp_path):
    here, home = tmp_path / "here", tmp_path / "home" / "matplotlib"
    for folder in (here, home, home / "stylelib"):
        folder.mkdir(parents=True)
    for path in (here / "matplotlibrc", home / "matplotlibrc", home / "stylelib" / "a.mplstyle"):
        path.write_bytes(NO_UTF_8)
    settings = tmp_path / "some.name"
    settings.write_bytes(NO_UTF_8)
    program = (
        "import os, metrics.report.judgement, matplotlib, matplotlib.font_manager\n"
        "from metrics.report.matplotlib_settings import default_settings\n"
        "with default_settings():\n"
        "    print(matplotlib.rcParams['font.size'], matplotlib.font_manager.findfont(None))\n"
        "print(os.environ['MPLBACKEND'], os.path.exists('matplotlibrc'))"
    )
    for backend in ("module://matplotlib_inline.backend_inline", "bogus"):
        variables = {"MPLBACKEND": backend, "MATPLOTLIBRC": str(settings)}
        variables |= {"XDG_CONFIG_HOME": str(home.parent), "PYTHONPATH": str(PROJECT)}
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=here,
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert (done.returncode, done.stderr) == (0, "")
        size, font, *others = done.stdout.split()
        assert (float(size), others) == (10, [backend, "True"])
        assert font.startswith(matplotlib.get_data_path())


def luminance(colour: object) -> float:
    """Relative luminance as WCAG 2 has it."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: object, b: object) -> float:
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


@both_themes
@every_chart
def test_every_text_stands_out_from_the_background(drawn, name, theme):
    for case in ("16 x 3", "none matches", "partial"):
        figure = drawn(case, name, theme)
        assert to_hex(figure.get_facecolor()).upper() == theme.background
        for text in texts_of(figure):
            assert contrast(text.get_color(), theme.background) >= 4.5, text.get_text()


@both_themes
@pytest.mark.parametrize("colour", COLOURS)
def test_the_colours_of_the_arms_stand_out_from_both_backgrounds(colour, theme):
    assert contrast(colour, theme.background) >= 3  # WCAG 2 on graphics


@every_chart
def test_nothing_is_darker_than_a_dark_background(drawn, name):
    png = chart_png(drawn.judgement("16 x 3"), CHART[name], DARK)
    with Image.open(io.BytesIO(png)) as picture:
        darkest, _ = picture.convert("L").getextrema()
    with Image.new("RGB", (1, 1), DARK.background) as pixel:
        assert darkest >= pixel.convert("L").getpixel((0, 0)) - 1  # blending rounds


def test_arms_differ_in_marker_and_line_style_and_parts_of_bars_in_hatch():
    assert len(set(chart_style.MARKERS)) == len(set(chart_style.LINES)) == 2
    for kinds in (charts.PHASE_KINDS, charts.LEDGER_KINDS):
        styles = [chart_style.SHADES[kind] for kind in kinds]
        assert len(set(styles)) == len({share for share, _ in styles}) == len(kinds)


# --- avg_time, boxplot_time, size_vs_time, total_time -------------------------------------------


def bars_of(figure: Figure) -> list[tuple[str, float]]:
    """Colour and height of each bar."""
    (axes,) = figure.axes
    return [(to_hex(bar.get_facecolor()).upper(), bar.get_height()) for bar in axes.patches]


def test_average_bars_are_the_means_in_the_colours_of_the_arms(tmp_path):
    on_prem = [row("a", proc_ms=1.0), row("b", proc_ms=4.0)]
    cloud = [row("a", proc_ms=10.0), row("b", proc_ms=20.0), row("only here", proc_ms=999.0)]
    figure = CHART["avg_time"].draw(judged(tmp_path, on_prem, cloud))
    assert bars_of(figure) == [(COLOURS[0], 2.5), (COLOURS[1], 15.0)]
    assert "mean 2.50 ms\nmedian 2.50 ms" in said(figure)
    assert "mean 15.0 ms\nmedian 15.0 ms" in said(figure)


def test_the_averages_come_with_the_interval_of_the_ratio_unless_it_is_void(drawn):
    estimate = drawn.comparison("16 x 3").per_picture
    figure = drawn("16 x 3", "avg_time")
    assert f"the cloud / on-prem: {estimate.ratio:.2f}, 95% CI" in said(figure)
    assert "widened" not in said(figure)
    assert "widened by 25%" in foot(drawn("16 pictures", "avg_time"))
    assert "ratio" not in said(drawn("five columns", "avg_time"))


def test_the_box_plot_draws_the_median_of_each_arm(drawn):
    (axes,) = drawn("16 pictures", "boxplot_time").axes
    levels = {line.get_ydata()[0] for line in axes.lines if len(set(line.get_ydata())) == 1}
    for arm in ("on_prem", "cloud"):
        assert drawn.comparison("16 pictures").pairs[f"proc_ms_{arm}"].median() in levels


def test_the_scatter_has_a_marker_for_each_picture_of_each_arm(drawn):
    (axes,) = drawn("16 pictures", "size_vs_time").axes
    pairs = drawn.comparison("16 pictures").pairs
    for points, arm in zip(axes.collections, ("on_prem", "cloud"), strict=True):
        assert points.get_offsets()[:, 0].tolist() == (pairs[f"orig_size_{arm}"] / 1e6).tolist()
        assert points.get_offsets()[:, 1].tolist() == pairs[f"proc_ms_{arm}"].tolist()


def test_total_bars_are_busy_time_and_makespan_of_each_arm_with_its_own_n(tmp_path):
    later = (BEGIN + timedelta(seconds=10)).isoformat()
    facts = {"fetch_ms": 0.0, "store_ms": 0.0}
    on_prem = [row("a", timestamp=BEGIN.isoformat(), proc_ms=2000.0, **facts)]
    cloud = [
        row("a", timestamp=BEGIN.isoformat(), proc_ms=500.0, **facts),
        row("b", timestamp=later, proc_ms=1000.0, **facts),
    ]
    figure = CHART["total_time"].draw(judged(tmp_path, on_prem, cloud))
    expected = [(COLOURS[0], 2.0), (COLOURS[0], 2.0), (COLOURS[1], 1.5), (COLOURS[1], 11.0)]
    assert bars_of(figure) == expected
    assert "on-prem (embedded), n = 1" in said(figure)
    assert "the cloud (embedded), n = 2" in said(figure)


def test_total_bars_of_several_rounds_are_of_one_round(drawn):
    comparison = drawn.comparison("16 x 3")
    heights = [height for _, height in bars_of(drawn("16 x 3", "total_time"))]
    assert heights == pytest.approx(
        [
            *(comparison.first.processing_s / 3, comparison.first.makespan_s),
            *(comparison.second.processing_s / 3, comparison.second.makespan_s),
        ]
    )
    assert "busy time\n(mean of 3 rounds)" in said(drawn("16 x 3", "total_time"))


def test_an_unknown_makespan_is_called_unknown_and_the_busy_time_still_drawn(drawn):
    figure = drawn("unknown timestamps", "total_time")
    assert said(figure).count("unknown") == 2
    assert [height > 0 for _, height in bars_of(figure)] == [True, False, True, False]


# --- completeness, phases ------------------------------------------------------------------------


def widths_of(figure: Figure) -> list[float]:
    (axes,) = figure.axes
    return [bar.get_width() for bar in axes.patches]


def test_completeness_bars_are_done_failed_and_missing_rows_by_arm_and_round(drawn):
    assert widths_of(drawn("partly failed", "completeness")) == [14, 2, 16, 16] * 2
    assert widths_of(drawn("partial", "completeness")) == [16, 16, 16, 16, 16, 11, 5]
    text = said(drawn("partial", "completeness"))
    assert "the cloud (embedded), round 3: 68.8% (11 done, 5 missing)" in text
    assert "completeness 94.8%: 91 of 96 rows" in text


def test_completeness_of_many_rounds_is_summed_by_arm(drawn):
    assert widths_of(drawn("2 x 60", "completeness")) == [120, 120]
    assert "on-prem, 60 rounds: 100% (120 done)" in said(drawn("2 x 60", "completeness"))


def test_completeness_names_rows_that_do_not_count(tmp_path):
    first, second = both(4)
    other = [row("9.jpg", source="on_prem", run_id="other")]
    comparison = compared(tmp_path, first + first[:2] + other, second, run_id="run")
    figure = CHART["completeness"].draw(judge_comparison(comparison))
    assert "on-prem: 100% (4 done, 2 duplicate)" in said(figure)
    assert "Not counted, on-prem: 1 late, 0 unknown rows." in foot(figure)
    assert "Not counted, the cloud" not in foot(figure)


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [(0, 0, "0%"), (0, 9, "0%"), (9, 9, "100%"), (1, 10**6, "0.1%"), (10**6 - 1, 10**6, "99.9%")],
)
def test_only_all_is_100_percent_and_only_nothing_0(part, whole, text):
    assert share_text(part, whole) == text


def test_phase_bars_are_means_of_warm_pictures_and_of_cold_starts_apart(drawn):
    cloud = drawn.comparison("16 pictures").rows["cloud"]
    expected = [1.5, drawn.comparison("16 pictures").first.mean_ms, 2.5]
    for is_cold in (False, True):
        expected += [1.5, cloud.loc[cloud["cold_start"] == is_cold, "proc_ms"].mean(), 2.5]
    figure = drawn("16 pictures", "phases")
    assert widths_of(figure) == pytest.approx(expected)
    assert "on-prem, warm, n = 16: fetch 1.50 + process" in said(figure)
    assert "the cloud (embedded), warm, n = 14:" in said(figure)
    assert "the cloud (embedded), cold starts, n = 2:" in said(figure)
    assert said(figure).count("cold starts") == 1


def test_phases_that_a_file_lacks_are_left_out_and_the_foot_says_so(drawn):
    figure = drawn("five columns", "phases")
    assert len(widths_of(figure)) == 2
    assert re.search(r"on-prem, warm, n = 501: process [\d.]+ ms", said(figure))
    assert "left out" in foot(figure)
    assert "left out" not in foot(drawn("16 pictures", "phases"))


def test_failed_pictures_have_no_phases(drawn):
    assert "the cloud (embedded), cold starts" not in said(drawn("partly failed", "phases"))
    assert "no picture was processed" in said(drawn("all failed", "phases"))


# --- paired_ratio, cumulative_time --------------------------------------------------------------


def ratios_drawn(figure: Figure) -> dict[str, list[float]]:
    """Ratios by label, of marks."""
    (axes,) = figure.axes
    marks = [part for part in axes.collections if isinstance(part, PathCollection)]
    return {mark.get_label(): mark.get_offsets()[:, 1].tolist() for mark in marks}


def test_ratios_are_geometric_means_over_the_rounds_sorted_with_the_range_as_whiskers(tmp_path):
    def rows(source: str, *times: tuple[str, int, float]) -> list:
        return [row(key, source=source, round=n, proc_ms=ms) for key, n, ms in times]

    names = [("a", 1), ("b", 1), ("c", 1), ("a", 2), ("b", 2), ("c", 2)]
    first = rows("on_prem", *((key, n, 10.0) for key, n in names))
    times = (0.5, 1.0, 10.0, 3200.0, 4.0, 10.0)
    second = rows("cloud", *((key, n, ms) for (key, n), ms in zip(names, times, strict=True)))
    figure = CHART["paired_ratio"].draw(judged(tmp_path, first, second))
    (axes,) = figure.axes
    slower, faster, equal = ratios_drawn(figure).values()
    assert (slower, faster, equal) == (pytest.approx([4.0]), pytest.approx([0.2]), [1.0])
    (whiskers,) = (part for part in axes.collections if isinstance(part, LineCollection))
    ends = [[y for _, y in segment] for segment in whiskers.get_segments()]
    assert ends == [pytest.approx(e) for e in ([0.1, 0.4], [1, 1], [0.05, 320])]
    assert "on-prem faster: 1 picture" in said(figure)
    assert "the cloud faster: 1 picture" in said(figure)
    assert "equal: 1 picture" in said(figure)


def test_the_band_is_the_interval_of_the_mean_ratio(drawn):
    estimate = drawn.comparison("16 x 3").per_picture
    (axes,) = drawn("16 x 3", "paired_ratio").axes
    (band,) = axes.patches
    assert (band.get_y(), band.get_y() + band.get_height()) == pytest.approx(
        (estimate.low, estimate.high)
    )
    levels = [line.get_ydata()[0] for line in axes.lines]
    assert levels == [1, pytest.approx(estimate.ratio)]


def test_an_interval_that_was_widened_for_drift_is_said_to_be(drawn):
    assert "widened by 25%" in foot(drawn("16 pictures", "paired_ratio"))
    assert "widened" not in foot(drawn("16 x 3", "paired_ratio"))


def test_pictures_that_lack_a_round_are_drawn_but_said_not_to_be_in_the_mean(drawn):
    figure = drawn("partial", "paired_ratio")
    assert sum(map(len, ratios_drawn(figure).values())) == 16
    assert "The mean is over the 11 pictures with a pair in every round." in foot(figure)


def test_without_an_estimate_the_ratios_have_no_mean(tmp_path):
    first, second = both(2, 2)
    comparison = compared(tmp_path, first, [second[0], second[3]], allow_partial=True)
    comparison = replace(comparison, per_picture=None)
    figure = CHART["paired_ratio"].draw(judge_comparison(comparison))
    assert sum(map(len, ratios_drawn(figure).values())) == 2
    assert "geometric mean" not in said(figure)


@pytest.mark.parametrize("limit", [1.002, 1.01, 1.1, 1.25, 1.7, 2.5, 8, 80, 5000, 1e9])
def test_an_axis_of_ratios_has_ticks_on_both_sides_of_1_and_few(limit):
    axes = Figure().add_subplot()
    charts.ratio_axis(axes, math.log(limit))
    ticks = sorted(axes.get_yticks())
    assert 3 <= len(ticks) <= 9
    assert all(1 / limit <= tick <= limit for tick in ticks)
    assert np.log(ticks) == pytest.approx(-np.log(ticks[::-1]))


def test_the_distribution_rises_from_0_to_all_over_the_sorted_times(drawn):
    (axes,) = drawn("16 pictures", "cumulative_time").axes
    for line, arm in zip(axes.lines, ("on_prem", "cloud"), strict=True):
        times = sorted(drawn.comparison("16 pictures").pairs[f"proc_ms_{arm}"])
        assert sorted(set(line.get_xdata())) == sorted(set(times))
        assert (line.get_ydata()[0], line.get_ydata()[-1]) == (0, 1)
    assert [line.get_linestyle() for line in axes.lines] == ["-", "--"]
    assert re.search(
        "on-prem: 50% within [0-9.]+ ms", said(drawn("16 pictures", "cumulative_time"))
    )


# --- timeline, stability ------------------------------------------------------------------------


def at(second: float, key: str, **facts: object):
    return row(key, timestamp=(BEGIN + timedelta(seconds=second)).isoformat(), **facts)


def test_the_timeline_draws_each_phase_of_each_picture_in_order_of_begin(tmp_path):
    phases = {"fetch_ms": 1000.0, "proc_ms": 2000.0, "store_ms": 500.0}
    first = [at(5, "late", **phases), at(3, "early", **phases)]
    second = [at(90, "late", **phases), at(91, "early", **phases)]
    figure = CHART["timeline"].draw(judged(tmp_path, first, second))
    panel, other, _ = figure.axes
    drawn = [
        [path.get_extents() for path in part.get_paths()]
        for part in panel.collections
        if isinstance(part, PolyCollection)
    ]
    spans = [[(box.x0, box.x1) for box in boxes] for boxes in drawn]
    assert spans == [[(0, 1), (2, 3)], [(1, 3), (3, 5)], [(3, 3.5), (5, 5.5)]]
    assert [round(box.y0) for box in drawn[0]] == [0, 1]
    assert "makespan 5.5 s" in panel.get_title(loc="left")
    assert "makespan 4.5 s" in other.get_title(loc="left")
    assert panel.get_xlim()[1] >= 5.5


def test_pictures_in_work_are_counted_over_time(tmp_path):
    phases = {"fetch_ms": 0.0, "proc_ms": 2000.0, "store_ms": 0.0}
    first = [at(0, "a", **phases), at(1, "b", **phases), at(6, "c", **phases)]
    figure = CHART["timeline"].draw(judged(tmp_path, first, first))
    steps, _ = (part for part in figure.axes[-1].patches if isinstance(part, StepPatch))
    values, edges, _ = steps.get_data()
    middle = (edges[1:] + edges[:-1]) / 2
    for second, count in ((0.5, 1), (1.5, 2), (2.5, 1), (4, 0), (7, 1)):
        assert values[np.argmin(abs(middle - second))] == pytest.approx(count)
    assert np.sum(values * np.diff(edges)) == pytest.approx(3 * 2)


def test_of_several_rounds_the_timeline_draws_the_first_and_says_so(drawn):
    figure = drawn("16 x 3", "timeline")
    assert "Round 1 of 3 is drawn." in foot(figure)
    spans = [seconds(span) for span in drawn.comparison("16 x 3").first.makespans_s]
    assert spans[0] not in spans[1:]
    assert f"on-prem: 16 pictures, makespan {spans[0]}" in said(figure)
    assert "Round" not in foot(drawn("16 pictures", "timeline"))


def test_a_timeline_without_timestamps_says_so(drawn):
    text = said(drawn("unknown timestamps", "timeline"))
    assert text.count("timestamps unknown") == 2
    assert text.count("makespan unknown (16 without timestamp)") == 2


def test_a_picture_without_timestamp_makes_the_makespan_unknown_and_the_others_are_drawn(tmp_path):
    first, second = both(4)
    first[2] = replace(first[2], timestamp="?")
    figure = CHART["timeline"].draw(judged(tmp_path, first, second))
    assert "on-prem: 4 pictures, makespan unknown (1 without timestamp)" in said(figure)
    assert len(figure.axes[0].collections[0].get_paths()) == 3


def points_of(axes) -> np.ndarray:
    marks = [part for part in axes.collections if isinstance(part, PathCollection)]
    return np.concatenate([np.asarray(mark.get_offsets()) for mark in marks])


def test_stability_draws_residuals_in_order_of_begin_round_after_round(tmp_path):
    first, second = both(16, 3)
    comparison = compared(tmp_path, first[::-1], second[::-1])
    panels = CHART["stability_over_time"].draw(judge_comparison(comparison)).axes
    for axes, arm in zip(panels, ("on_prem", "cloud"), strict=True):
        rows = comparison.rows[arm].sort_values("begin_s")
        assert points_of(axes)[:, 0].tolist() == list(range(1, 49))
        assert points_of(axes)[:, 1].tolist() == (np.expm1(residuals(rows)) * 100).tolist()
        (separators,) = (part for part in axes.collections if isinstance(part, LineCollection))
        assert [segment[0][0] for segment in separators.get_segments()] == [16.5, 32.5]


def test_the_running_median_follows_a_change_of_speed_and_not_an_outlier(tmp_path):
    first, second = both(100, proc_ms=100.0)
    first = [
        replace(r, orig_size=1000 + place * 37 % 101, proc_ms=ms)
        for place, r in enumerate(first)
        for ms in [900.0 if place == 20 else 100.0 if place < 80 else 130.0]
    ]
    axes = CHART["stability_over_time"].draw(judged(tmp_path, first, second)).axes[0]
    (median,) = (line for line in axes.lines if len(line.get_xdata()) == 100)
    values = median.get_ydata()
    assert values[20] == pytest.approx(0, abs=3)
    assert values[50] == pytest.approx(0, abs=3)
    assert values[95] == pytest.approx(30, abs=3)


def test_points_far_off_are_counted_and_kept_at_the_edge_of_the_axis(tmp_path):
    first, second = both(100, proc_ms=100.0)
    first[50] = replace(first[50], proc_ms=900.0)
    axes = CHART["stability_over_time"].draw(judged(tmp_path, first, second)).axes[0]
    assert axes.get_title(loc="left") == "on-prem: n = 100, 1 beyond the axis (crosses at its edge)"
    assert len(points_of(axes)) == 100
    assert abs(points_of(axes)[:, 1]).max() <= axes.get_ylim()[1]


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("1 picture", "one round of fewer than 11 pictures: nothing tells what was to be expected"),
        ("unknown timestamps", "timestamps unknown: the order is not known"),
        ("all failed", "no picture was processed"),
    ],
)
def test_where_no_residual_is_known_stability_says_why(drawn, case, reason):
    assert said(drawn(case, "stability_over_time")).count(reason) == 2


def test_pictures_that_were_processed_in_one_of_two_rounds_have_no_residual(tmp_path):
    first, second = both(2, 2)
    comparison = compared(tmp_path, [first[0], first[3]], second, allow_partial=True)
    text = said(CHART["stability_over_time"].draw(judge_comparison(comparison)))
    assert text.count("no picture was processed in two rounds") == 1


# --- many pictures ------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "most"), [(0, 5), (1, 5), (5, 5), (6, 5), (10**6, 1000)])
def test_an_even_sample_has_no_more_than_it_may_and_both_ends(count, most):
    sample = charts.evenly_spaced(count, most)
    assert len(sample) == len(set(sample)) == min(count, most)
    assert count == 0 or (sample[0], sample[-1]) == (0, count - 1)
    gaps = np.diff(sample)
    assert len(gaps) == 0 or gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize(
    ("name", "constant", "note"),
    [
        ("boxplot_time", "MAX_OUTLIERS", "Of 26 beyond the whiskers an even sample of 10"),
        ("size_vs_time", "MAX_POINTS", "Of 250 pairs an even sample of 10 is drawn."),
        ("paired_ratio", "MAX_POINTS", "Of 250 pictures an even sample of 10 is drawn."),
        ("timeline", "MAX_BARS", "Of 250 pictures an even sample of 10 is drawn."),
        ("stability_over_time", "MAX_POINTS", "Of 250 times an even sample of 10 is drawn."),
    ],
)
def test_of_many_points_a_sample_is_drawn_and_the_foot_says_so(
    tmp_path, monkeypatch, name, constant, note
):
    comparison = compared(tmp_path, *both(250))
    assert "sample" not in foot(CHART[name].draw(judge_comparison(comparison)))
    monkeypatch.setattr(charts, constant, 10)
    figure = CHART[name].draw(judge_comparison(comparison))
    assert foot(figure).count(note) == 1
    axes = figure.axes[0]
    if name in ("size_vs_time", "paired_ratio", "stability_over_time"):
        count = 20 if name == "size_vs_time" else 10
        assert len(points_of(axes)) == count
    if name == "timeline":
        assert len(axes.collections[0].get_paths()) == 10


@every_chart
def test_no_text_of_a_row_is_drawn_as_mathematics(drawn, name):
    assert [t for t in texts_of(drawn("names like formulas", name)) if is_math(t)] == []


def is_math(text: Text) -> bool:
    return is_math_text(text.get_text()) and text.get_parse_math()


def test_a_dollar_of_a_row_is_drawn_with_matplotlib_s_escape(drawn):
    assert r"\$a_{\$ \$ \frac" in said(drawn("names like formulas", "avg_time"))
