"""The report: what it says, that hostile text cannot leave its place, and the page in a browser."""

import functools
import html
import io
import operator
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from conftest import jpeg
from PIL import Image, ImageDraw
from rows import row

from lambda_function.metrics_log import HEADER, rows_to_csv
from metrics.analysis import output_equivalence
from metrics.analysis.comparison import ARMS_OF_SELF_CHECK, Comparison, compare
from metrics.analysis.judgement import judge_comparison
from metrics.analysis.ledger import Manifest
from metrics.analysis.rounds import first_arm_leads, split_passes
from metrics.analysis.rows import read_rows
from metrics.analysis.stability_measures import KINDS, measure_text
from metrics.common.text import DASH
from metrics.report.charts import CHARTS, LIGHT, chart_png
from metrics.report.page import ReportChart, render_report, slowest_pictures, thumbnail
from metrics.report.verdict import (
    equivalence_line,
    ledger_line,
    verdict_per_picture,
    verdict_whole_job,
)

BEGIN = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
SCRIPT = "<script>alert(1)</script>"
RIGHT_TO_LEFT = "\N{RIGHT-TO-LEFT OVERRIDE}gpj.exe\N{HEBREW LETTER ALEF}"
QUOTES = """'"><img src=x onerror=alert(1)>"""
TITLE = f"</title></style>{SCRIPT}"
LONG = "w" * 251 + ".jpg"
HOSTILE = [
    *(SCRIPT, RIGHT_TO_LEFT, QUOTES, TITLE, LONG, "new\nline\x00\x1b[31m.jpg", "{{ 7 * 7 }}"),
    *("=HYPERLINK(1)", "$x$"),
]
RECORD = {
    "run_id": "run",
    "command_line": "master_pipeline.py --rounds 3",
    "cloud": "embedded",
    "data_set": {
        "pictures": 16,
        "bytes": 13_472_331,
        "fingerprint": "da" * 32,
        "left_out": {"dead link": 1, "in @eaDir": 2400},
    },
    "environment": {
        "python": "3.11.7",
        "packages": {"Pillow": "13.0.0", "moto": None},
        "system": "Linux",
        "cpu": "A processor",
        "cpus": 2,
        "memory_mb": 24105,
        "git_commit": "5998e3aa",
    },
    "steps": [
        {
            "step": "on-prem",
            "round": 1,
            "start": "2026-01-02T03:04:00.000+00:00",
            "end": "2026-01-02T03:04:01.500+00:00",
            "status": "done",
            "machine": {"steal_share": 0.031, "quota_throttled_ms": 0, "thermal_throttles": 0},
        },
        {
            "step": "compare",
            "start": "2026-01-02T03:04:02.000+00:00",
            "end": None,
            "status": "failed",
        },
    ],
    "exit_code": None,
}


def rows_of(source: str, keys: list[str], rounds: int, factor: float = 1.0, **facts) -> list:
    """Rows whose times differ from picture to picture and a little from round to round."""
    rows = []
    for number in range(1, rounds + 1):
        trails = (source == "cloud") == first_arm_leads(number)
        for place, key in enumerate(keys):
            begin = BEGIN + timedelta(seconds=4 * number + 2 * trails, milliseconds=30 * place)
            mixed = (3, 7) if source == "on_prem" else (7, 4)
            noise = (place * mixed[0] + number * mixed[1] + place // 5) % 5 / 100
            ms = factor * (20 + place * 37 % 41) * (1 + noise)
            fields = {
                "source": source,
                "environment": "local" if source == "on_prem" else "embedded",
                "timestamp": begin.isoformat(),
                "round": number,
                "proc_ms": round(ms, 3),
                "cpu_ms": round(0.97 * ms, 3),
                "cold_start": source == "cloud" and number == 1 and place == 0,
                "worker": f"{source}-{place % 2}",
            }
            rows.append(row(key, **(fields | facts)))
    return rows


def frames(folder: Path, *arms: list) -> list[pd.DataFrame]:
    found = []
    for rows in arms:
        path = folder / "rows.csv"
        path.write_text(HEADER + rows_to_csv(rows), newline="")
        found.append(read_rows(path, rows[0].source))
    return found


def manifest_of(keys: list[str], rounds: int, run_id: str = "run") -> Manifest:
    pictures = pd.DataFrame({"image_key": keys, "size": 1000, "sha256": keys})
    return Manifest(run_id, rounds, pictures)


def names(count: int) -> list[str]:
    return [f"holiday/picture {number}.jpg" for number in range(count)]


Compared = Callable[..., Comparison]


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Compared:
    """A comparison of 16 pictures x 3 rounds, but for what is said otherwise."""

    def build(keys=None, rounds=3, factor=1.3, lost=0, cloud_facts=None, facts=None, **options):
        keys = keys or names(16)
        on_prem = rows_of("on_prem", keys, rounds, **(facts or {}))
        cloud = rows_of("cloud", keys, rounds, factor, **(facts or {}), **(cloud_facts or {}))
        parts = frames(tmp_path_factory.mktemp("rows"), on_prem, cloud[lost:])
        defaults = {"manifest": manifest_of(keys, rounds), "record": RECORD}
        return compare(*parts, **(defaults | options))

    return build


@pytest.fixture(scope="module")
def states(compared: Compared) -> dict[str, Comparison]:
    return {
        "comparable": compared(),
        "cannot tell": compared(factor=1.001),
        "not comparable": compared(lost=7, cloud_facts={"output_sha256": "cd" * 32}),
    }


every_state = pytest.mark.parametrize("state", ["comparable", "cannot tell", "not comparable"])


@functools.cache
def charts() -> list[ReportChart]:
    def png(text: str, paper: str, ink: str) -> bytes:
        picture = Image.new("RGB", (960, 600), paper)
        ImageDraw.Draw(picture).text((40, 40), text, fill=ink, font_size=30)
        output = io.BytesIO()
        picture.save(output, "PNG")
        return output.getvalue()

    return [
        ReportChart(
            name,
            title,
            f"How to read {name}.",
            png(title, "white", "black"),
            png(title, "#111", "#eee"),
        )
        for name, title in (("avg_time", "Average time"), ("total_time", "Total time"))
    ]


def no_output(arm: str, key: str, sha256: str) -> None:
    return None


def page_of(comparison: Comparison, outputs=no_output, changes=()) -> str:
    judgement = replace(judge_comparison(comparison), changes=changes)
    return render_report(judgement, charts(), slowest_pictures(comparison, outputs))


class Page(HTMLParser):
    """Elements with their attributes, and the text of each element with an id."""

    def __init__(self, page: str):
        super().__init__()
        self.elements, self.open, self.text = [], [], {"": ""}
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag in ("td", "th", "br"):
            self.handle_data(" ")
        if tag not in ("meta", "link", "br", "img", "source"):
            self.open.append((tag, dict(attributes).get("id", "")))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        if not self.open or self.open[-1][0] == "style":
            return
        for name in {name for _, name in self.open} | {""}:
            self.text[name] = self.text.get(name, "") + data

    def said(self, name: str = "") -> str:
        return " ".join(self.text[name].split())


def said(comparison: Comparison, name: str = "", **options) -> str:
    return Page(page_of(comparison, **options)).said(name)


# --- the verdict ----------------------------------------------------------------------------------


@every_state
def test_the_verdict_is_the_verdict_to_the_letter_and_its_state_a_word_and_a_colour(states, state):
    page = page_of(states[state])
    assert Page(page).text["verdict"] == verdict_per_picture(states[state])
    assert f"<h2>{state}</h2>" in page
    mood = {"comparable": "good", "cannot tell": "open", "not comparable": "bad"}[state]
    assert f'<div class="verdict {mood}">' in page


@every_state
def test_the_whole_job_has_the_verdict_s_own_sentence_or_none(states, state):
    page = Page(page_of(states[state]))
    assert page.text.get("whole-job", "") == verdict_whole_job(states[state])


@every_state
def test_the_verdict_comes_before_everything_else_and_sections_in_their_order(states, state):
    page = Page(page_of(states[state], changes=["slower than before"]))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    optional = ["problems"] if state == "not comparable" else []
    job = ["whole-job"] if verdict_whole_job(states[state]) else []
    drawn = ["chart-avg_time", "chart-total_time"]
    assert ids == [
        *("verdict", *job, *optional, "ledger", "same-work", "numbers", "estimate"),
        *(
            "stability",
            "break-even",
            "charts",
            *drawn,
            "warnings",
            "method",
            "environment",
            "slowest",
            "changes",
        ),
    ]


def test_problems_are_listed_with_their_pictures_and_only_when_there_are_any(states):
    text = said(states["not comparable"], "problems")
    for problem in states["not comparable"].problems:
        assert problem.text in text
        assert problem.named() in text
    assert "Problems" not in said(states["comparable"])


def test_failures_have_a_table_by_arm_and_reason_and_without_any_there_is_none(states, compared):
    facts = {"status": "error", "error": "OSError: truncated", "new_size": 0}
    text = said(compared(cloud_facts=facts), "ledger")
    assert "Why pictures failed" in text
    assert "the cloud 16 48 OSError: truncated" in text
    assert "'holiday/picture 0.jpg'" in text
    assert "Why pictures failed" not in said(states["comparable"])


def test_copies_are_told_apart_from_different_pictures(compared):
    keys = names(16)
    pictures = pd.DataFrame({"image_key": keys, "size": 1000, "sha256": ["one", "one", *keys[2:]]})
    text = said(compared(manifest=Manifest("run", 3, pictures)))
    assert "different pictures, n 15 (16 with copies)" in text
    assert "only 15 different pictures among 16" in text


def test_the_embedded_cloud_is_said_not_to_be_aws_and_aws_is_not(compared):
    note = "The embedded cloud is not AWS."
    assert note in said(compared())
    assert note not in said(compared(cloud_facts={"environment": "aws"}))


def test_a_partial_comparison_says_so(compared):
    partial = compared(lost=3, allow_partial=True)
    assert verdict_per_picture(partial).startswith("on-prem is")
    assert "Partial: rows are missing." in said(partial)
    assert "Partial" not in said(compared())


# --- evidence -------------------------------------------------------------------------------------


def test_the_ledger_has_a_line_for_each_arm_and_round_and_names_what_is_missing(states):
    text = said(states["not comparable"], "ledger")
    assert ledger_line(states["not comparable"]) in text
    for number, missing in ((1, 7), (2, 0), (3, 0)):
        assert f"on-prem, round {number} 16 16 0 0 0" in text
        assert f"the cloud, round {number} 16 {16 - missing} 0 {missing} 0" in text
    assert "7 missing rows ('holiday/picture 0.jpg', " in text
    assert "and 2 more);" in text
    assert "on-prem: none missing; 0 late rows (of another run); 0 unknown rows" in text


def test_late_and_unknown_rows_are_counted_for_each_arm(compared, tmp_path):
    keys = names(16)
    on_prem, cloud = rows_of("on_prem", keys, 1), rows_of("cloud", keys, 1)
    late = [row("late", run_id="earlier")]
    unknown = [row("u1"), row("u2")]
    parts = frames(tmp_path, on_prem, cloud + late + unknown)
    text = said(compare(*parts, manifest=manifest_of(keys, 1)), "ledger")
    assert "the cloud: none missing; 1 late row (of another run); 2 unknown rows" in text


def test_same_work_is_counted_and_its_tolerance_and_versions_stated(states):
    text = said(states["not comparable"], "same-work")
    assert equivalence_line(states["not comparable"]) in text
    assert "identical 0 the hashes are equal" in text
    assert f"at least {output_equivalence.MIN_PSNR_DB} dB" in text
    assert f"nowhere more than {output_equivalence.MAX_DIFFERENCE} of 255 levels" in text
    assert "on-prem 'v1'; the cloud 'v1'." in text


def test_numbers_are_those_of_the_summary(states):
    comparison = states["comparable"]
    text = said(comparison, "numbers")
    for name, field in (("mean", "mean_ms"), ("99th percentile", "p99_ms"), ("slowest", "max_ms")):
        values = [getattr(arm, field) for arm in (comparison.first, comparison.second)]
        assert f"{name} (ms) {values[0]:.1f} {values[1]:.1f}" in text
    assert "rows, n 48 48" in text
    assert "cold starts 0 1" in text
    for number in range(3):
        spans = [arm.makespans_s[number] for arm in (comparison.first, comparison.second)]
        assert f"makespan, round {number + 1} (s) {spans[0]:.3f} {spans[1]:.3f}" in text


def test_makespans_stay_with_their_round_when_an_arm_lacks_one(compared, tmp_path):
    on_prem, cloud = rows_of("on_prem", names(3), 3), rows_of("cloud", names(3), 3)
    parts = frames(tmp_path, [r for r in on_prem if r.round != 2], cloud)
    text = said(compare(*parts, manifest=manifest_of(names(3), 3)), "numbers")
    assert re.search(rf"makespan, round 2 \(s\) {DASH} 0\.\d+", text)
    assert re.search(r"makespan, round 3 \(s\) 0\.\d+ 0\.\d+", text)


def test_the_estimate_has_ratio_interval_p_values_allowance_and_detectable_difference(states):
    comparison, text = states["comparable"], said(states["comparable"], "estimate")
    estimate = comparison.per_picture
    assert f"ratio {estimate.ratio:.3f}" in text
    assert f"95% CI {estimate.low:.3f} to {estimate.high:.3f}" in text
    assert "pictures x rounds 16 x 3 16 x 3 3 rounds" in text
    assert "allowance for drift none needed" in text
    assert "detectable difference, power 80%" in text
    assert f"without cold starts: {comparison.ratio_without_cold:.3f}." in text
    assert "signed-rank test over the pictures: p < 0.001." in text
    assert "knows nothing of the machine's drift" in text


def test_one_round_states_the_allowance_for_drift(compared):
    assert "allowance for drift 25% 25%" in said(compared(rounds=1), "estimate")


def test_warnings_say_what_to_do(states):
    comparison, text = states["comparable"], said(states["comparable"], "warnings")
    assert len(comparison.warnings) == 2
    for warning in comparison.warnings:
        assert f"{warning.text} What to do: {warning.advice}." in text


def test_the_order_of_the_arms_is_what_the_rows_say(states, compared):
    text = "on-prem began round 1 first; the cloud began rounds 2, 3 first."
    assert text in said(states["comparable"], "method")
    assert "unknown" in said(compared(facts={"timestamp": "yesterday"}), "method")


def test_the_environment_is_the_run_record_s(states):
    text = said(states["comparable"], "environment")
    for fact in (
        "master_pipeline.py --rounds 3",
        "A processor",
        "2,400 in @eaDir, 1 dead link",
        "da" * 32,
        "Pillow 13.0.0",
        "5998e3aa",
    ):
        assert fact in text
    assert "on-prem, round 1 2026-01-02 03:04:00 UTC 1.50 done 3.1%" in text
    assert f"compare 2026-01-02 03:04:02 UTC {DASH} under way" in text  # what writes the report
    assert "None" not in text


def test_no_run_record_is_said(compared):
    assert "No run record" in said(compared(record=None), "environment")


@pytest.mark.parametrize("record", [{"steps": [{"step": "clean"}]}, {"environment": None}])
def test_a_run_record_with_gaps_is_shown_as_far_as_it_goes(compared, record):
    assert said(compared(record=record), "environment")


def test_charts_are_in_the_page_in_both_colours_with_caption_and_alternative_text(states):
    page = Page(page_of(states["comparable"]))
    for chart in charts():
        assert f"{chart.title} {chart.how_to_read}" in page.said("charts")
    dark = [attributes for tag, attributes in page.elements if tag == "source"]
    light = [attributes for tag, attributes in page.elements if tag == "img"]
    assert {a["media"] for a in dark} == {"screen and (prefers-color-scheme: dark)"}
    assert [a["alt"] for a in light] == ["Chart: Average time", "Chart: Total time"]
    assert [a["srcset"] for a in dark] != [a["src"] for a in light]


def test_changes_are_listed_and_else_there_is_no_such_section(states):
    assert "4% slower" in said(states["comparable"], "changes", changes=["4% slower"])
    assert "changes" not in Page(page_of(states["comparable"])).text


# --- slowest pictures -----------------------------------------------------------------------------


def test_the_slowest_pictures_are_each_once_and_by_the_slower_arm(tmp_path):
    keys = ["a", "b", "c"]
    times = {"on_prem": {"a": [1, 9], "b": [5, 5], "c": [2, 2]}}
    times["cloud"] = {"a": [1, 1], "b": [10, 1], "c": [3, 8]}
    rows = {
        source: [
            row(key, source=source, round=number + 1, proc_ms=float(of_key[key][number]))
            for key in keys
            for number in (0, 1)
        ]
        for source, of_key in times.items()
    }
    found = slowest_pictures(compare(*frames(tmp_path, *rows.values())), no_output, 3)
    assert [(p.image_key, p.round) for p in found] == [("b", 1), ("a", 2), ("c", 2)]
    assert [row.proc_ms for row in found[0].rows] == [5, 10]


def test_outputs_are_asked_for_by_arm_key_and_hash_and_become_small_jpegs(compared):
    asked = []

    def outputs(arm: str, key: str, sha256: str) -> bytes:
        asked.append((arm, key, sha256))
        return jpeg(800, 600)

    (picture,) = slowest_pictures(compared(), outputs, 1)
    sha256 = row(picture.image_key).output_sha256
    assert asked == [(arm, picture.image_key, sha256) for arm in ("on_prem", "cloud")]
    for data in (picture.on_prem_jpeg, picture.cloud_jpeg):
        with Image.open(io.BytesIO(data)) as small:
            assert (small.format, small.size) == ("JPEG", (240, 180))


def in_format(name: str) -> bytes:
    output = io.BytesIO()
    Image.new("RGB", (32, 24)).save(output, name)
    return output.getvalue()


@pytest.mark.parametrize(
    "data",
    [None, b"", b"\xff\xd8\xff", jpeg()[:-300], in_format("PNG"), in_format("GIF"), b"<svg/>"],
    ids=["none", "empty", "head", "cut", "png", "gif", "svg"],
)
def test_what_is_no_whole_jpeg_has_no_thumbnail(data):
    assert thumbnail(data) is None


def test_a_jpeg_far_larger_than_any_output_is_not_decoded():
    assert thumbnail(jpeg(5000, 5000)) is None


def test_a_page_without_outputs_says_so_and_one_with_them_shows_them(states):
    assert said(states["comparable"], "slowest").count("output not at hand") == 10
    page = page_of(states["comparable"], lambda *_: jpeg(800, 600))
    assert page.count('<img src="data:image/jpeg;base64,') == 10
    assert "output not at hand" not in page


# --- hostile and odd input ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hostile(compared: Compared) -> Comparison:
    """Text that tries to leave its place wherever text can stand."""
    record = {
        **RECORD,
        "command_line": QUOTES + "\udc80",  # as an argument that is no UTF-8 is read
        "environment": {"cpu": SCRIPT, "packages": {SCRIPT: RIGHT_TO_LEFT}, "system": LONG * 3},
        "steps": [{"step": SCRIPT, "start": QUOTES, "end": LONG, "status": RIGHT_TO_LEFT}],
    }
    cloud_facts = {
        "environment": SCRIPT + LONG,
        "worker": QUOTES + LONG,
        "transform": SCRIPT,
        "error": RIGHT_TO_LEFT,
    }
    keys, facts = HOSTILE + names(10), {"run_id": TITLE}
    manifest = manifest_of(keys, 3, TITLE)
    return compared(
        keys=keys, lost=6, cloud_facts=cloud_facts, facts=facts, record=record, manifest=manifest
    )


def test_hostile_text_becomes_neither_element_nor_attribute(hostile, states):
    def kinds(page: str) -> set:
        return {(tag, *attributes) for tag, attributes in Page(page).elements}

    page = page_of(hostile, changes=HOSTILE)
    assert kinds(page) <= kinds(page_of(states["not comparable"], changes=["x"]))
    assert html.escape(SCRIPT, quote=False) in page
    assert "alert(1)" not in re.sub(r"&lt;script&gt;alert\(1\)|onerror=alert\(1\)&gt;", "", page)
    assert "{{ 7 * 7 }}" in page
    assert page.partition("<title>")[2].partition("</title>")[0].endswith(html.escape(TITLE))


def test_characters_that_cannot_be_printed_are_written_as_their_escapes(hostile):
    page = page_of(hostile, changes=HOSTILE)
    assert re.sub(r"[\n]", "", page).isprintable()
    assert r"new\nline\x00\x1b[31m.jpg" in page
    assert r"\u202egpj.exe" in page
    page.encode()


def test_the_verdict_stays_exact_when_it_quotes_hostile_text(compared):
    comparison = compared(cloud_facts={"environment": f"{SCRIPT} &amp; {QUOTES}"})
    assert SCRIPT in verdict_per_picture(comparison)
    assert Page(page_of(comparison)).text["verdict"] == verdict_per_picture(comparison)


def reference(tmp_path: Path, source: str, new_size: int, count: int) -> pd.DataFrame:
    lines = ["timestamp,image_key,orig_size,new_size,proc_ms"]
    lines += [f"2025-11-20T10:00:00Z,{n}.jpg,1000,{new_size},{n + 1}.5" for n in range(count)]
    path = tmp_path / f"{source}.csv"
    path.write_text("\n".join(lines))
    return read_rows(path, source)


def test_reference_files_of_five_columns_are_shown_with_what_is_unknown(tmp_path):
    comparison = compare(
        reference(tmp_path, "on_prem", 500, 5), reference(tmp_path, "cloud", 1000, 2)
    )
    text = said(comparison)
    assert "3 of 5 pictures have no cloud row" in text
    assert "runs on unknown unknown" in text
    assert f"CPU time / wall time {DASH} {DASH}" in text
    assert "different 2" in text
    assert not re.search(r"\bnan\b", text)


@pytest.mark.parametrize(
    "facts",
    [{"timestamp": "yesterday"}, {"status": "error", "error": "Unreadable: x"}, {"proc_ms": 25.0}],
    ids=["no timestamps", "all failed", "equal times"],
)
@pytest.mark.parametrize("rounds", [1, 3])
@pytest.mark.parametrize("count", [1, 16])
def test_no_number_is_ever_nan_or_infinite(compared, facts, rounds, count):
    text = said(compared(keys=names(count), rounds=rounds, facts=facts))
    assert not re.search(r"\b(nan|NaN|inf|None|NaT)\b", text)


def test_arms_without_a_common_picture_have_no_estimate_and_no_slowest_picture(tmp_path):
    parts = frames(tmp_path, rows_of("on_prem", ["a"], 1), rows_of("cloud", ["b"], 1))
    text = said(compare(*parts))
    assert "there is nothing to estimate" in text
    assert "No picture was processed in both arms." in text


def test_an_arm_against_itself_is_called_by_its_own_labels(tmp_path):
    (passes,) = frames(tmp_path, rows_of("on_prem", names(16), 4))
    comparison = compare(*split_passes(passes), arms=ARMS_OF_SELF_CHECK)
    text = said(comparison)
    assert "Both arms are the same." in text
    assert "on-prem A, round 1 16 16" in text
    assert "on-prem B, round 2 16 16" in text
    assert "the cloud" not in text


def test_the_same_input_gives_the_same_page(compared):
    assert page_of(compared()) == page_of(compared())


@every_state
def test_the_page_needs_nothing_but_itself(states, state):
    page = page_of(states[state], lambda *_: jpeg())
    loading = ("src", "srcset", "href", "action", "data", "poster", "background", "style")
    for tag, attributes in Page(page).elements:
        assert tag not in ("script", "iframe", "object", "embed", "base")
        for name in loading:
            value = attributes.get(name, "")
            assert "//" not in value.split("base64,")[0]
            if name in ("src", "srcset", "href"):
                assert value.startswith(("data:", "#")) or value == ""
    style = page.partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


def test_every_measure_of_stability_stands_in_the_page_with_interval_or_reason(states):
    comparison = states["comparable"]
    stability, text = judge_comparison(comparison).stability, said(comparison, "stability")
    for name, kind in KINDS.items():
        both = [measure_text(of_arm[name], kind) for of_arm in stability.values()]
        assert " ".join([kind.label, *both]) in text
    assert "never retries no log lines" in text


def test_headings_are_in_order_and_tables_have_captions_and_scopes(states):
    page = Page(page_of(states["not comparable"], changes=["x"]))
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in zip([0, *levels], levels, strict=False))
    tags = [tag for tag, _ in page.elements]
    assert tags.count("table") == tags.count("caption") == 7
    assert all("scope" in attributes for tag, attributes in page.elements if tag == "th")
    assert dict(page.elements)["html"] == {"lang": "en"}


def contrast(first: str, second: str) -> float:
    """Of two colours, as WCAG 2 defines it."""

    def luminance(colour: str) -> float:
        digits = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
        parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return sum(map(operator.mul, (0.2126, 0.7152, 0.0722), linear))

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def test_text_stands_out_from_what_is_behind_it_in_light_and_dark(states):
    page = page_of(states["comparable"])
    light, dark = re.findall(r":root \{([^}]*--good[^}]*)\}", page)
    for block in (light, dark):
        colours = dict(re.findall(r"--([\w-]+): (#\w+);", block))
        pairs = [(text, back) for text in ("text", "quiet") for back in ("page", "card")]
        pairs += [(mood, f"{mood}-back") for mood in ("good", "open", "bad")]
        pairs += [("text", f"{mood}-back") for mood in ("good", "open", "bad")]
        for text, back in pairs:
            assert contrast(colours[text], colours[back]) >= 4.5, (text, back)


# --- in a browser ---------------------------------------------------------------------------------

FLAGS = [
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--disable-dev-shm-usage",  # containers may have too little of it
]
every_screen = pytest.mark.parametrize("screen", [(1280, 900), (390, 844)], ids=["wide", "narrow"])
every_scheme = pytest.mark.parametrize("scheme", ["light", "dark"])


@pytest.fixture(scope="module")
def start_browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable]:
    """Starts a headless Chromium; without one the tests are skipped, but in CI they fail."""
    from selenium import webdriver

    programs = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    if absent := [name for name, path in programs.items() if path is None]:
        reason = f"{' and '.join(absent)} not found: the page was not tried in a browser"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    drivers = []

    def start() -> webdriver.Chrome:
        options = webdriver.ChromeOptions()
        options.binary_location = programs["chromium"]
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
            options.add_argument(flag)
        service = webdriver.ChromeService(executable_path=programs["chromedriver"])
        drivers.append(webdriver.Chrome(options=options, service=service))
        return drivers[-1]

    yield start
    for driver in drivers:
        driver.quit()


@pytest.fixture(scope="module")
def running() -> list:
    """The browser that the tests of this file share."""
    return []


@pytest.fixture
def browser(start_browser: Callable, running: list):
    """One that answers: a tab that crashed is the failure of one test, and not of all after it."""
    from selenium.common import WebDriverException

    try:
        running[-1].execute_script("return 1")
    except (IndexError, WebDriverException):
        running.append(start_browser())
    return running[-1]


@pytest.fixture(scope="module")
def pages(states, hostile, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Addresses of the pages, on disk."""
    folder, found = tmp_path_factory.mktemp("pages"), {}
    for name, comparison in (*states.items(), ("hostile", hostile)):
        path = folder / f"{name}.html"
        path.write_text(page_of(comparison, lambda *_: jpeg(800, 600), HOSTILE), encoding="utf-8")
        found[name] = path.as_uri()
    return found


def show(browser, address: str, screen: tuple[int, int], scheme: str) -> None:
    """Windows have a least width, so the screen is emulated."""
    width, height = screen
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    browser.get_log("browser")  # what earlier pages said
    browser.get(address)


@every_scheme
@every_screen
@pytest.mark.parametrize("name", ["comparable", "cannot tell", "not comparable", "hostile"])
def test_a_browser_shows_the_page_whole(browser, pages, name, screen, scheme):
    show(browser, pages[name], screen, scheme)
    assert browser.get_log("browser") == []
    widths = browser.execute_script(
        "return Array.from(document.images, image => image.complete ? image.naturalWidth : 0)"
    )
    assert len(widths) == 12
    assert min(widths) > 0
    width, inner = browser.execute_script(
        "return [document.documentElement.scrollWidth, innerWidth]"
    )
    assert inner == screen[0]
    assert width <= inner


@every_screen
@every_state
def test_a_reader_sees_the_verdict_without_scrolling(browser, pages, states, state, screen):
    show(browser, pages[state], screen, "light")
    text, bottom = browser.execute_script(
        "const verdict = document.getElementById('verdict');"
        "return [verdict.textContent, verdict.getBoundingClientRect().bottom]"
    )
    assert text == verdict_per_picture(states[state])
    assert bottom < screen[1]


@every_scheme
def test_colours_and_charts_follow_the_reader_s_scheme(browser, pages, scheme):
    show(browser, pages["comparable"], (1280, 900), scheme)
    paper, chart, light = browser.execute_script(
        "const image = document.querySelector('figure img');"
        "return [getComputedStyle(document.body).backgroundColor, image.currentSrc, image.src]"
    )
    is_dark = max(map(int, re.findall(r"\d+", paper))) < 64
    assert is_dark == (scheme == "dark")
    assert (chart != light) == (scheme == "dark")


def test_a_script_in_a_picture_s_name_does_not_run(browser, pages):
    show(browser, pages["hostile"], (1280, 900), "light")
    assert browser.execute_script("return document.scripts.length") == 0
    assert "alert(1)" in browser.execute_script("return document.body.textContent")


def test_the_project_s_own_charts_are_all_in_the_page(browser, states, tmp_path):
    judgement, drawn = judge_comparison(states["comparable"]), []
    for chart in CHARTS:
        png = chart_png(judgement, chart, LIGHT)
        drawn.append(ReportChart(chart.name, chart.title, chart.how_to_read, png, png))
    (path := tmp_path / "report.html").write_text(render_report(judgement, drawn, []))
    show(browser, path.as_uri(), (390, 844), "dark")
    shown = browser.execute_script(
        "return Array.from(document.querySelectorAll('figure'), figure =>"
        " [figure.id, figure.querySelector('img').naturalWidth > 0])"
    )
    assert shown == [[f"chart-{chart.name}", True] for chart in CHARTS]
