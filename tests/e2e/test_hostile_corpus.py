"""The hostile corpus through both arms, once: equal outcomes, true colours, names that read back.

All tests look at the result of one run as a user does it, on the embedded cloud.
"""

import csv
import functools
import hashlib
import html
import io
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import copy_project
from hostile_corpus import (
    ANYTHING,
    ERROR,
    GROUPS,
    LINKED,
    Specimen,
    name_picture,
    names,
    pictures,
    specimens,
    write_corpus,
)
from PIL import Image, ImageStat
from processes import LIMIT_S

from lambda_function.cloud import find_buckets, make_client
from lambda_function.image_transform import (
    TARGET_SIZE,
    UnreadableImage,
    output_name,
    transform_image,
)
from lambda_function.metrics_log import HEADER, MetricRow, rows_from_csv
from metrics.run.cleaning import list_keys

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # of Pillow's, about odd and old formats
    pytest.mark.skipif(sys.platform != "linux", reason="names that only Linux tells apart"),
]
RUN_ID = "hostile"
NEAR = 12  # grey levels: what JPEG and resizing may change in a flat area
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # spreadsheets run such cells, exports may differ
PLACES = ((0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75))


@dataclass(frozen=True)
class Run:
    """What both arms made of the corpus. Outputs are keys and names, not prefixes and folders."""

    project: Path
    rows: dict[str, list[MetricRow]]  # by arm
    processed: set[str]
    compared: subprocess.CompletedProcess
    left_outside: set[Path]

    def by_key(self, arm: str) -> dict[str, MetricRow]:
        return {row.image_key: row for row in self.rows[arm]}

    def output(self, key: str) -> bytes:
        return (self.project / "onprem_images/output_local" / output_name(key)).read_bytes()


@functools.cache
def expected_keys() -> set[str]:
    return {
        *(f"pictures/{specimen.name}" for specimen in pictures()),
        *(f"names/{name}" for name in names()),
        *LINKED,
    }


@pytest.fixture(scope="module")
def run(embedded, tmp_path_factory) -> Run:
    top = tmp_path_factory.mktemp("hostile")
    project = copy_project(top / "project")
    write_corpus(top / "corpus")
    before = set(top.rglob("*"))
    buckets, s3 = find_buckets(embedded), make_client(embedded, "s3")
    processed_before = set(list_keys(s3, buckets.output, "processed/"))

    def script(name: str, *arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, str(project / name), *arguments],
            env={"AWS_ENDPOINT_URL": embedded.endpoint_url, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=2 * LIMIT_S,
        )

    images = ("--images", str(top / "corpus"))
    for name in ("onprem_images/local_image_proc.py", "upload_images_s3.py"):
        done = script(name, *images, "--run-id", RUN_ID)
        assert done.returncode == 0, done.stderr[-2000:]
    compared = script("compare_cloud_onprem_metrics.py", "--timeout", str(LIMIT_S))
    files = {"on_prem": "onprem_images/metrics/local_metrics.csv"}
    files |= {"cloud": "metrics/lambda_metrics.csv"}
    processed = set(list_keys(s3, buckets.output, "processed/")) - processed_before
    own = [project / "onprem_images/output_local", project / "onprem_images/metrics"]
    return Run(
        project=project,
        rows={
            arm: rows_from_csv((project / path).read_bytes().decode().removeprefix(HEADER))
            for arm, path in files.items()
        },
        processed={key.removeprefix("processed/") for key in processed},
        compared=compared,
        left_outside={
            path
            for path in set(top.rglob("*")) - before
            if path.is_file()
            and not any(path.is_relative_to(folder) for folder in (*own, project / "metrics"))
        },
    )


def shown(data: bytes) -> tuple[tuple[float, ...], ...]:
    """Mean colours of an output's quarters, of which every promise about its form holds."""
    image = Image.open(io.BytesIO(data))
    assert (image.format, image.mode, image.size) == ("JPEG", "RGB", TARGET_SIZE)
    assert "icc_profile" not in image.info
    colours = []
    for x, y in PLACES:
        left, top = int(x * image.width), int(y * image.height)
        place = image.crop((left - 8, top - 8, left + 8, top + 8))
        colours.append(tuple(ImageStat.Stat(place).mean))
    return tuple(colours)


def is_near(found: tuple, expected: tuple) -> bool:
    return all(
        abs(a - b) <= NEAR
        for colours in zip(found, expected, strict=True)
        for a, b in zip(*colours, strict=True)
    )


def of_outcome(group: str, *outcomes: str) -> list[Specimen]:
    return [specimen for specimen in specimens(group) if specimen.outcome in outcomes]


def readable(group: str) -> list[Specimen]:
    return [s for s in specimens(group) if s.outcome not in (ERROR, ANYTHING)]


# --- pictures -------------------------------------------------------------------------------------


def test_every_file_has_one_row_in_each_arm_under_its_very_name(run):
    for rows in run.rows.values():
        assert sorted(row.image_key for row in rows) == sorted(expected_keys())
        assert {row.run_id for row in rows} == {RUN_ID}


def test_both_arms_give_the_same_output_or_the_same_error(run):
    cloud = run.by_key("cloud")
    for key, row in run.by_key("on_prem").items():
        for field in ("status", "error", "output_sha256", "orig_size", "new_size", "transform"):
            assert getattr(row, field) == getattr(cloud[key], field), (key, field)


@pytest.mark.parametrize("group", GROUPS)
def test_what_can_be_read_shows_its_colours_upright(run, group):
    for specimen in readable(group):
        key = f"pictures/{specimen.name}"
        assert run.by_key("on_prem")[key].status == "ok", key
        assert is_near(shown(run.output(key)), specimen.outcome), (key, shown(run.output(key)))


@pytest.mark.parametrize("group", GROUPS)
def test_nothing_but_an_error_row_comes_of_what_cannot_be_read(run, group):
    for specimen in of_outcome(group, ERROR):
        key = f"pictures/{specimen.name}"
        row = run.by_key("on_prem")[key]
        assert (row.status, row.new_size, row.output_sha256) == ("error", 0, ""), key
        assert re.fullmatch(r"UnreadableImage: .{1,200}", row.error), key
        assert not re.search(r"(?<![0-9])0x[0-9a-fA-F]{3,}", row.error), key


def test_outputs_are_those_of_the_ok_rows_and_all_lie_where_they_belong(run):
    done = {output_name(row.image_key) for row in run.rows["on_prem"] if row.status == "ok"}
    folder = run.project / "onprem_images/output_local"
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == done == run.processed
    assert run.left_outside == set()
    for row in run.rows["on_prem"]:
        if row.status == "ok":
            output = run.output(row.image_key)
            assert hashlib.sha256(output).hexdigest() == row.output_sha256


def test_the_comparison_stands_with_errors_on_both_sides(run):
    assert run.compared.returncode == 0, run.compared.stderr[-2000:]
    assert "completeness 100.0%" in run.compared.stdout
    assert "0 equivalent, 0 different" in run.compared.stdout


@pytest.mark.parametrize("group", [group for group in GROUPS if of_outcome(group, ERROR)])
def test_a_refusal_repeats_to_the_letter(group):
    for specimen in of_outcome(group, ERROR):
        reasons = []
        for _ in range(2):
            with pytest.raises(UnreadableImage) as refusal:
                transform_image(specimen.data)
            reasons.append(str(refusal.value))
        assert reasons[0] == reasons[1], specimen.name


def test_claims_are_refused_by_their_header():
    # What is decoded, or begun to be, fails in other words.
    for specimen in of_outcome("oversized", ERROR):
        if specimen.name != "oversized/claim.avif":  # libavif refuses that itself
            with pytest.raises(UnreadableImage, match="pixels are too many to decode"):
                transform_image(specimen.data)


def test_no_icc_profile_changes_a_byte(run):
    """Decided, see image_transform.py; a profile that makes red of blue would show."""
    outputs = {}
    for specimen in specimens("profiles"):
        name, _, kind = specimen.name.rpartition(".")
        mode = next((m for m in ("grey", "CMYK") if name.endswith(m)), "RGB")
        row = run.by_key("on_prem")[f"pictures/{specimen.name}"]
        outputs.setdefault((mode, kind), set()).add(row.output_sha256)
    assert len(outputs) == 8
    assert {len(hashes) for hashes in outputs.values()} == {1}


# --- names ----------------------------------------------------------------------------------------


def test_each_name_has_its_own_pictures_output(run):
    for number, name in enumerate(names()):
        assert run.output(f"names/{name}") == transform_image(name_picture(number)), name


def test_names_read_back_exactly_from_the_merged_rows(run):
    with (run.project / "metrics/merged_metrics.csv").open(
        newline="", encoding="utf-8-sig"
    ) as file:
        keys = [record["image_key"] for record in csv.DictReader(file)]
    plain = [key for key in expected_keys() if not key.startswith(FORMULA)]
    assert len(keys) == len(expected_keys())
    assert set(plain) <= set(keys)


def test_the_summary_is_json_and_the_report_has_no_tag_or_control_character_of_a_name(run):
    json.loads((run.project / "metrics/summary.json").read_text())
    report = (run.project / "metrics/report.html").read_text()
    assert "<script>alert" not in report
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in html.unescape(report)


def test_a_name_that_cannot_be_kept_is_one_line_of_error_before_anything_starts(
    checkout, run_script_in
):
    (checkout / "images_to_upload" / b"caf\xe9.jpg".decode(errors="surrogateescape")).touch()
    done = run_script_in("master_pipeline.py")
    assert done.returncode == 1
    assert done.stderr == "error: b'caf\\xe9.jpg' is not UTF-8; rename it\n"
    assert not (checkout / "metrics/run.json").exists()
    assert not (checkout / "onprem_images/output_local").exists()
