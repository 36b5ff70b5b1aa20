"""What every chart shows, and that it can be read: text inside the figure, none on another."""

import re
from datetime import UTC, datetime, timedelta
from itertools import combinations
from pathlib import Path

import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from rows import row

from lambda_function.metrics_log import HEADER, rows_to_csv
from metrics.charts import CHARTS_BY_NAME, COLOURS, save_charts
from metrics.summary import Comparison, compare, read_rows

BEGIN = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
LONG_NAME = "embedded-on-a-machine-with-a-name-that-somebody-thought-was-a-good-idea-at-the-time"
every_chart = pytest.mark.parametrize("draw", CHARTS_BY_NAME.values(), ids=CHARTS_BY_NAME)


def rows_of(source: str, pictures: int, **facts: object) -> list:
    """Rows whose times differ from picture to picture, with `facts` in place of any field."""
    scale, environment = (1.0, "local") if source == "on_prem" else (1.3, "embedded")
    rows = []
    for number in range(pictures):
        fields = {
            "source": source,
            "environment": environment,
            "timestamp": (BEGIN + timedelta(milliseconds=30 * number)).isoformat(),
            "orig_size": 200_000 + 7_919 * (number % 331),
            "proc_ms": scale * (20 + number * 37 % 41),
        }
        rows.append(row(f"{number}.jpg", **(fields | facts)))
    return rows


def compared(folder: Path, on_prem: list, cloud: list) -> Comparison:
    frames = []
    for source, rows in (("on_prem", on_prem), ("cloud", cloud)):
        path = folder / f"{source}.csv"
        path.write_text(HEADER + rows_to_csv(rows), newline="")
        frames.append(read_rows(path, source))
    return compare(*frames)


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Comparison]:
    def of(on_prem: list, cloud: list) -> Comparison:
        return compared(tmp_path_factory.mktemp("case"), on_prem, cloud)

    def both(pictures: int, **facts: object) -> Comparison:
        return of(rows_of("on_prem", pictures, **facts), rows_of("cloud", pictures, **facts))

    return {
        "1 picture": both(1),
        "16 pictures": both(16),
        "5,000 pictures": both(5000),
        "none matches": of(
            rows_of("on_prem", 3), [row(f"other/{r.image_key}") for r in rows_of("cloud", 2)]
        ),
        "unknown timestamps": both(16, timestamp="yesterday"),
        "equal times": both(16, proc_ms=25.0),
        "two magnitudes apart": of(
            rows_of("on_prem", 16, proc_ms=99.1), rows_of("cloud", 16, proc_ms=1.75)
        ),
        "hours": both(16, proc_ms=1.2345e7),
        "long environment names": of(
            rows_of("on_prem", 16, environment=LONG_NAME, run_id="a"),
            rows_of("cloud", 16, environment=LONG_NAME, run_id="b"),
        ),
    }


every_case = pytest.mark.parametrize(
    "case",
    [
        *("1 picture", "16 pictures", "5,000 pictures", "none matches", "unknown timestamps"),
        *("equal times", "two magnitudes apart", "hours", "long environment names"),
    ],
)


def texts_of(figure: Figure) -> list[Text]:
    """Texts that are drawn; tick labels beyond the ends of an axis are not."""
    figure.canvas.draw()
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


@every_chart
@every_case
def test_no_text_leaves_the_figure_or_lies_on_another(cases, case, draw):
    figure = draw(cases[case])
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


@every_chart
@every_case
def test_axes_of_numbers_start_at_0_and_name_their_unit(cases, case, draw):
    (axes,) = draw(cases[case]).axes
    low, high = axes.get_ylim()
    assert low == 0 < high
    assert axes.get_ylabel().endswith(("(ms)", "(s)"))
    if axes.get_xlabel():
        assert axes.get_xlim()[0] == 0
        assert axes.get_xlabel().endswith("(MB)")


@every_chart
def test_the_head_says_n_and_environment_and_the_foot_how_to_read_it(cases, draw):
    figure = draw(cases["16 pictures"])
    title, subtitle, foot = (text.get_text() for text in figure.texts)
    assert title
    assert subtitle == (
        "16 pictures in both arms · on-prem: local, cloud: embedded cloud on this machine, not AWS"
    )
    assert foot.count(".") >= 1
    assert "1 picture in both arms" in said(draw(cases["1 picture"]))


@every_chart
def test_not_comparable_stands_on_the_chart_when_there_is_a_problem_and_only_then(cases, draw):
    assert "NOT COMPARABLE" in said(draw(cases["none matches"]))
    assert "NOT COMPARABLE" not in said(draw(cases["16 pictures"]))


@every_chart
@every_case
def test_numbers_are_written_out_and_none_is_nan(cases, case, draw):
    assert not re.search(r"\bnan\b|\d\.?e[+-]?\d", said(draw(cases[case])))


@pytest.mark.parametrize("name", ["avg_time", "boxplot_time", "size_vs_time"])
def test_charts_of_pairs_say_when_there_is_none(cases, name):
    draw = CHARTS_BY_NAME[name]
    assert "no picture in both arms" in said(draw(cases["none matches"]))
    assert "no picture in both arms" not in said(draw(cases["1 picture"]))


def bars_of(figure: Figure) -> list[tuple[str, float]]:
    """Colour and height of each bar."""
    (axes,) = figure.axes
    return [(to_hex(bar.get_facecolor()).upper(), bar.get_height()) for bar in axes.patches]


def test_average_bars_are_the_means_in_the_colours_of_the_arms(tmp_path):
    on_prem = [row("a", proc_ms=1.0), row("b", proc_ms=4.0)]
    cloud = [row("a", proc_ms=10.0), row("b", proc_ms=20.0), row("only here", proc_ms=999.0)]
    figure = CHARTS_BY_NAME["avg_time"](compared(tmp_path, on_prem, cloud))
    assert bars_of(figure) == [(COLOURS["on_prem"], 2.5), (COLOURS["cloud"], 15.0)]
    assert "mean 2.50 ms\nmedian 2.50 ms" in said(figure)
    assert "mean 15.0 ms\nmedian 15.0 ms" in said(figure)


def test_total_bars_are_busy_time_and_makespan_of_each_arm_with_its_own_n(tmp_path):
    later = (BEGIN + timedelta(seconds=10)).isoformat()
    facts = {"fetch_ms": 0.0, "store_ms": 0.0}
    on_prem = [row("a", timestamp=BEGIN.isoformat(), proc_ms=2000.0, **facts)]
    cloud = [
        row("a", timestamp=BEGIN.isoformat(), proc_ms=500.0, **facts),
        row("b", timestamp=later, proc_ms=1000.0, **facts),
    ]
    figure = CHARTS_BY_NAME["total_time"](compared(tmp_path, on_prem, cloud))
    assert bars_of(figure) == [
        (COLOURS["on_prem"], 2.0),
        (COLOURS["on_prem"], 2.0),
        (COLOURS["cloud"], 1.5),
        (COLOURS["cloud"], 11.0),
    ]
    assert "on-prem, n = 1" in said(figure)
    assert "cloud (embedded), n = 2" in said(figure)


def test_an_unknown_makespan_is_called_unknown_and_the_busy_time_still_drawn(cases):
    figure = CHARTS_BY_NAME["total_time"](cases["unknown timestamps"])
    assert said(figure).count("unknown") == 2
    assert [height > 0 for _, height in bars_of(figure)] == [True, False, True, False]


def test_the_scatter_has_a_marker_for_each_picture_of_each_arm(cases):
    (axes,) = CHARTS_BY_NAME["size_vs_time"](cases["16 pictures"]).axes
    for points, arm in zip(axes.collections, COLOURS, strict=True):
        pairs = cases["16 pictures"].pairs
        assert points.get_offsets()[:, 0].tolist() == (pairs[f"orig_size_{arm}"] / 1e6).tolist()
        assert points.get_offsets()[:, 1].tolist() == pairs[f"proc_ms_{arm}"].tolist()


def test_the_box_plot_draws_the_median_of_each_arm(cases):
    comparison = cases["16 pictures"]
    (axes,) = CHARTS_BY_NAME["boxplot_time"](comparison).axes
    levels = {line.get_ydata()[0] for line in axes.lines if len(set(line.get_ydata())) == 1}
    for arm in COLOURS:
        assert comparison.pairs[f"proc_ms_{arm}"].median() in levels


def test_four_png_files_of_the_promised_names_are_saved(cases, tmp_path):
    paths = save_charts(cases["16 pictures"], tmp_path / "new" / "charts")
    names = ["avg_time.png", "boxplot_time.png", "size_vs_time.png", "total_time.png"]
    assert [path.name for path in paths] == names
    for path in paths:
        with Image.open(path) as picture:
            picture.load()
            assert picture.format == "PNG"
            assert picture.size == (960, 600)
            assert len(picture.convert("RGB").getcolors(960 * 600)) > 10  # not blank
