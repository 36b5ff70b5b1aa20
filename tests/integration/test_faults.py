"""Faults on demand, and that no row is lost to them."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import jpeg
from end_to_end import problems_of_campaign, problems_of_rows
from rows import row

from lambda_function.embedded_cloud import embedded_cloud, main
from lambda_function.emulator.faults import KINDS, OF_FUNCTIONS, Faults, Mishap, parse_faults
from onprem_images.dataset import Picture

SEEDS = (1, 2, 3, 4, 5)


def armed(seed: int, *kinds: str) -> Faults:
    faults = Faults(seed, kinds or KINDS)
    faults.arm()
    return faults


def of_requests(faults: Faults, count: int = 3000, by_function: bool = True) -> list:
    return [faults.of_request(f"PUT /{n % 50}", n % 2 == 0, by_function) for n in range(count)]


def test_a_seed_repeats_its_faults_in_any_order_of_asking():
    subjects = [f"GET /{number}" for number in range(500)]
    forward, backward = armed(1), armed(1)
    drawn = {what: forward.of_request(what, True, True) for what in subjects}
    assert drawn == {what: backward.of_request(what, True, True) for what in reversed(subjects)}
    assert drawn != {what: armed(2).of_request(what, True, True) for what in subjects}


def test_every_kind_happens_and_no_other_than_those_that_were_chosen():
    faults = armed(1)
    of_requests(faults)
    for number in range(500):
        faults.waits_of_event(f"key {number}")
        faults.of_batch("rows")
    assert set(faults.happened) == set(KINDS)
    only = armed(1, "kill")
    of_requests(only)
    assert [only.waits_of_event(f"key {number}") for number in range(500)] == [[0.0]] * 500
    assert {only.of_batch("rows") for _ in range(500)} == {Mishap()}
    assert set(only.happened) == {"kill"}


def test_nothing_goes_wrong_before_the_faults_are_armed():
    faults = Faults(1)
    assert {kind for kind, _ in of_requests(faults)} == {""}
    assert not faults.happened


def test_only_functions_are_killed_and_only_conditional_writes_conflict():
    faults = armed(1)
    assert not {kind for kind, _ in of_requests(faults, by_function=False)} & set(OF_FUNCTIONS)
    plain = {faults.of_request(f"GET /{number}", False, True)[0] for number in range(3000)}
    assert "conflict" not in plain


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "no seed"), ("x", "no seed"), ("-1", "no seed"), ("1:kill,cow", "duplicate, delay, ")],
)
def test_a_seed_or_kind_that_is_none_exits_2_and_says_what_there_is(text, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        main([f"--faults={text}"])
    assert message in capsys.readouterr().err


def test_a_seed_alone_stands_for_all_kinds():
    assert str(parse_faults("7")) == str(parse_faults("7:" + ",".join(KINDS)))


@pytest.mark.slow
def test_no_row_is_lost_torn_changed_or_doubled_whatever_goes_wrong():
    with ThreadPoolExecutor(len(SEEDS)) as pool:
        problems = dict(zip(SEEDS, pool.map(problems_of_campaign, SEEDS), strict=True))
    assert problems == {seed: [] for seed in SEEDS}


def test_a_row_that_is_missing_double_or_of_other_work_is_a_problem(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg())
    picture = Picture("a.jpg", path, path.stat().st_size, "")
    assert problems_of_rows([], [picture]) == ["not one row: 'a.jpg'"]
    assert problems_of_rows([row("b")], [])[0] == "unexpected: 'b'"
    other = row("a.jpg", output_sha256="0" * 64)
    assert problems_of_rows([other], [picture])[0].startswith("other work: 'a.jpg'")
    assert "not one row: 'a.jpg'" in problems_of_rows([other, other], [picture])


def test_the_pipeline_on_an_unreliable_cloud_has_every_row_or_names_what_it_lacks(
    checkout, run_script_in
):
    for number in range(8):
        (checkout / "images_to_upload" / f"{number}.jpg").write_bytes(jpeg(60 + number))
    with embedded_cloud(2, faults="6") as cloud:
        done = run_script_in("master_pipeline.py", "--endpoint-url", cloud.endpoint_url)
    assert "Traceback" not in done.stderr
    summary = json.loads((checkout / "metrics/summary.json").read_text())
    rows = [r for r in summary["ledger"]["rounds"] if r["arm"] == "cloud"]
    assert [r["done"] + r["failed"] for r in rows] == [8], done.stderr
    assert done.returncode == (0 if rows[0]["failed"] == 0 else 1)
