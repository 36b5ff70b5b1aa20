"""No original is lost: what a run would write, replace or delete is never a picture of a user's."""

import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest
from conftest import jpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image

from metrics.common import originals
from metrics.common.cli import UserError
from metrics.common.originals import (
    check_apart,
    check_folder,
    check_pictures,
    check_target,
    is_chart,
)
from metrics.common.paths import PROJECT, WRITTEN_FOLDERS
from onprem_images import dataset, sample_images
from onprem_images.dataset import load_pictures

PLACES = [folder.relative_to(PROJECT).as_posix() for folder in WRITTEN_FOLDERS]
TAKERS = {
    "pipeline": ("master_pipeline.py",),
    "dry run": ("master_pipeline.py", "--dry-run"),
    "resume": ("master_pipeline.py", "--resume"),
    "A/A, not cleaned": ("master_pipeline.py", "--self-check", "--no-clean"),
    "on-prem": ("onprem_images/local_image_proc.py",),
    "upload": ("upload_images_s3.py",),
    "upload, dry run": ("upload_images_s3.py", "--dry-run"),
    "benchmark": ("tests/benchmarks/aa.py", "--repeat", "1"),
}


def bytes_in(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def write(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(jpeg(700 + number, 600))
    return folder


def is_refused(done, *words: str) -> bool:
    """One line of error, exit code 1, that says all `words`."""
    lines = [line for line in done.stderr.splitlines() if line]
    assert done.returncode == 1, done.stderr
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    for word in words:
        assert word in lines[0]
    return True


# --- the places, as they are told apart -----------------------------------------------------------


@pytest.fixture
def places(tmp_path, monkeypatch) -> list[Path]:
    """Two places where runs write, one of them not made yet."""
    found = [tmp_path / "project" / "out", tmp_path / "project" / "deep" / "not made"]
    write(found[0], "a.jpg", "sub/b.jpg")
    monkeypatch.setattr(originals, "WRITTEN_FOLDERS", found)
    return found


@pytest.mark.parametrize(
    "spelling",
    ["out", "out/sub", "out/", "out/sub/..", "../project/out", "./out/.", ".", "..", "deep", "/"],
)
def test_a_place_what_is_in_it_and_what_is_above_it_is_no_folder_for_pictures(
    places, tmp_path, monkeypatch, spelling
):
    (tmp_path / "project" / "deep").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    for folder in (Path(spelling), tmp_path / "project" / spelling):
        with pytest.raises(UserError, match="is no place for pictures"):
            check_folder(folder)


def test_a_neighbour_of_a_place_is_a_folder_for_pictures(places, tmp_path):
    for name in ("project/out2", "project/outer", "pictures", "project/deep2"):
        check_pictures(write(tmp_path / name, "a.jpg").iterdir())
        check_folder(tmp_path / name)


def test_links_to_a_place_do_not_hide_it(places, tmp_path):
    pictures = write(tmp_path / "pictures", "a.jpg")
    (tmp_path / "project link").symlink_to(tmp_path / "project")
    for number, target in enumerate([places[0], places[0] / "sub", tmp_path / "project link/out"]):
        (tmp_path / f"link {number}").symlink_to(target)
        with pytest.raises(UserError, match="is no place for pictures"):
            check_folder(tmp_path / f"link {number}")
    for target in (places[0] / "a.jpg", tmp_path / "link 1" / "b.jpg"):
        link = pictures / target.name
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        with pytest.raises(UserError, match=rf"{link}' is really in .*remove the link"):
            check_pictures([link])


def test_a_place_that_is_itself_a_link_to_the_pictures_is_seen(tmp_path, monkeypatch):
    pictures = write(tmp_path / "photos", "2024/may/a.jpg")
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "out").symlink_to(pictures / "2024")
    monkeypatch.setattr(originals, "WRITTEN_FOLDERS", [tmp_path / "project" / "out"])
    for folder in (pictures, pictures / "2024", pictures / "2024" / "may", tmp_path / "project"):
        with pytest.raises(UserError, match="no place for pictures"):
            check_folder(folder)


def test_a_place_is_known_by_what_it_is_and_not_by_the_case_of_its_name(places, monkeypatch):
    """As where a file system takes OUT for out: the path differs, device and inode do not."""
    real_stat, other = Path.stat, places[0].with_name("OUT")
    monkeypatch.setattr(
        Path, "stat", lambda path, **how: real_stat(places[0] if path == other else path, **how)
    )
    with pytest.raises(UserError, match="no place for pictures"):
        check_folder(other)


NAMES = st.sampled_from(["a", "b", "A", "..", "."])


@settings(max_examples=300, deadline=None)
@given(parts=st.lists(NAMES, max_size=6), link=st.lists(NAMES, max_size=3))
def test_whatever_the_spelling_a_folder_is_refused_just_when_it_overlaps(
    tmp_path_factory, parts, link
):
    top = _TREE.setdefault("top", tmp_path_factory.mktemp("tree"))
    place = top / "a" / "b"
    for name in ("a/b/a", "a/A", "b/a", "b/b"):
        (top / name).mkdir(parents=True, exist_ok=True)
    leads = top / "b" / "A"
    leads.unlink(missing_ok=True)
    target = top / "a" / Path(*link)
    if target.exists():
        leads.symlink_to(target)
    folder = top / Path(*parts)
    if not folder.is_dir():
        return
    real = folder.resolve()
    overlaps = real.is_relative_to(place) or place.is_relative_to(real)
    clash = originals._Places([place]).clash_with(folder)
    assert bool(clash) == overlaps


_TREE: dict[str, Path] = {}


# --- the scripts that take pictures ---------------------------------------------------------------


@pytest.fixture
def photos(tmp_path) -> Path:
    return write(tmp_path / "photos", "a.jpg", "2024/b.jpg")


@pytest.mark.parametrize("taker", TAKERS.values(), ids=TAKERS)
def test_every_script_refuses_its_outputs_as_pictures_and_touches_nothing(
    checkout, run_script_in, taker
):
    write(checkout / "onprem_images" / "output_local", "a.jpg", "sub/b.jpg")
    before = bytes_in(checkout)
    script, *flags = taker
    done = run_script_in(script, *flags, "--images", "onprem_images/output_local")
    assert is_refused(done, "onprem_images/output_local", "no place for pictures")
    assert bytes_in(checkout) == before


@pytest.mark.parametrize("place", PLACES)
def test_every_place_is_refused(checkout, run_script_in, place):
    write(checkout / place, "deep/a.jpg")
    before = bytes_in(checkout)
    folder = f"images_to_upload/../{place}/deep"
    done = run_script_in("master_pipeline.py", "--dry-run", "--images", folder)
    assert is_refused(done, "no place for pictures", place)
    assert bytes_in(checkout) == before


@pytest.mark.parametrize("kind", ["file", "folder", "checkout", "own folder"])
def test_a_folder_with_a_link_into_the_outputs_is_refused_and_touches_nothing(
    checkout, run_script_in, photos, kind
):
    outputs = write(checkout / "onprem_images" / "output_local", "a.jpg", "sub/c.jpg")
    images, flags = photos, ("--images", str(photos))
    if kind == "file":
        (photos / "link.jpg").symlink_to(outputs / "sub" / "c.jpg")
    elif kind == "folder":
        (photos / "2024" / "link").symlink_to(outputs / "sub")
    elif kind == "checkout":
        (photos / "link").symlink_to(checkout)
    else:
        images, flags = checkout / "images_to_upload", ()
        (images / "link.jpg").symlink_to(outputs / "a.jpg")
    before = bytes_in(checkout), bytes_in(photos)
    for script in ("master_pipeline.py", "onprem_images/local_image_proc.py"):
        assert is_refused(run_script_in(script, *flags), "link", "output_local")
    assert is_refused(run_script_in("master_pipeline.py", "--dry-run", *flags), "link")
    assert (bytes_in(checkout), bytes_in(photos)) == before


@pytest.mark.parametrize("place", PLACES[:-1])
def test_a_place_that_is_a_link_to_the_pictures_is_refused(checkout, run_script_in, photos, place):
    (checkout / place).parent.mkdir(parents=True, exist_ok=True)
    (checkout / place).symlink_to(photos)
    before = bytes_in(photos)
    done = run_script_in("master_pipeline.py", "--images", str(photos / "2024"))
    assert is_refused(done, "no place for pictures", place)
    assert bytes_in(photos) == before


def test_a_checkout_that_is_reached_by_a_link_has_the_same_places(
    checkout, run_script_in, tmp_path
):
    (tmp_path / "link").symlink_to(checkout)
    write(checkout / "onprem_images" / "output_local", "a.jpg")
    folder = str(tmp_path / "link" / "onprem_images" / "output_local")
    assert is_refused(run_script_in("onprem_images/local_image_proc.py", "--images", folder))


def test_a_hard_link_to_an_output_keeps_the_picture_as_it_is(checkout, run_script_in, photos):
    flags = ("--images", str(photos), "--workers", "1")
    script = "onprem_images/local_image_proc.py"
    assert run_script_in(script, *flags).returncode == 0
    os.link(checkout / "onprem_images/output_local/a.jpg", photos / "linked.jpg")
    for name in ("local_metrics.csv", "outputs.jsonl"):
        os.link(checkout / "onprem_images/metrics" / name, photos / f"{name}.jpg")
    before = bytes_in(photos)
    assert run_script_in(script, *flags).returncode == 0
    assert bytes_in(photos) == before


def test_a_file_of_the_users_among_the_outputs_is_neither_written_over_nor_deleted(
    checkout, run_script_in, photos
):
    outputs = checkout / "onprem_images" / "output_local"
    write(outputs, "a.jpg")
    flags = ("--images", str(photos))
    before = bytes_in(checkout)
    for taker in ("pipeline", "dry run", "resume", "A/A, not cleaned", "on-prem"):
        done = run_script_in(*TAKERS[taker], *flags)
        assert is_refused(done, "output_local/a.jpg is not as a run wrote it")
        assert bytes_in(checkout) == before
    (outputs / "a.jpg").unlink()
    assert run_script_in("onprem_images/local_image_proc.py", *flags).returncode == 0
    (outputs / "a.jpg").write_bytes(b"edited by hand")
    done = run_script_in("onprem_images/local_image_proc.py", *flags)
    assert is_refused(done, "output_local/a.jpg")
    assert (outputs / "2024" / "b.jpg").exists()
    other = write(checkout.parent / "other", "c.jpg")
    done = run_script_in("onprem_images/local_image_proc.py", "--images", str(other))
    assert done.returncode == 0
    assert "left alone, changed since a run wrote it" in done.stderr
    assert bytes_in(outputs) | {"c.jpg": b""} == {"a.jpg": b"edited by hand", "c.jpg": b""}


# --- what flags name to be written ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("a.jpg", ()),
        ("2024/b.jpg", ["--dry-run"]),
        ("2024/new.zip", ["--dry-run"]),
        ("made/new.zip", ()),
    ],
)
def test_a_bundle_among_the_pictures_is_refused(checkout, run_script_in, photos, name, more):
    before = bytes_in(photos), bytes_in(checkout)
    flags = ("--images", str(photos), "--bundle", str(photos / name), *more)
    assert is_refused(run_script_in("master_pipeline.py", *flags), "--bundle", name)
    assert (bytes_in(photos), bytes_in(checkout)) == before
    assert not (photos / "made").exists()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["picture", "link to a picture", "hard link", "no file", "folder"])
def test_a_bundle_replaces_nothing_but_a_bundle(checkout, run_script_in, photos, tmp_path, kind):
    target = tmp_path / "cat.jpg"
    if kind == "picture":
        target.write_bytes(jpeg())
    elif kind == "link to a picture":
        target.symlink_to(photos / "a.jpg")
    elif kind == "hard link":
        os.link(photos / "a.jpg", target)
    elif kind == "no file":
        target.symlink_to(tmp_path / "nowhere")
    else:
        target.mkdir()
    flags = ("--images", str(photos), "--bundle", str(target), "--self-check", "--dry-run")
    assert is_refused(run_script_in("master_pipeline.py", *flags), "--bundle", "cat.jpg")
    done = run_script_in(
        "compare_cloud_onprem_metrics.py", "--no-download", "--bundle", str(target)
    )
    assert is_refused(done, "--bundle", "cat.jpg")


@pytest.mark.slow
def test_a_bundle_is_replaced_by_the_next_one(checkout, run_script_in, photos, tmp_path):
    bundle, flags = tmp_path / "run.zip", ("--self-check", "--rounds", "1")
    bundle.touch()  # as mktemp does it
    for run_id in ("one", "two"):
        done = run_script_in(
            *("master_pipeline.py", *flags, "--run-id", run_id),
            *("--images", str(photos), "--bundle", str(bundle)),
        )
        assert done.returncode == 0, done.stderr
        assert run_of_bundle(bundle) == run_id
    elsewhere = tmp_path / "elsewhere"
    compare = ("compare_cloud_onprem_metrics.py", "--from-bundle", str(bundle), "--output")
    for _ in range(2):  # results of this project are replaced
        assert run_script_in(*compare, str(elsewhere)).returncode == 0
    foreign = write(tmp_path / "foreign", "charts/avg_time.png")
    (tmp_path / "foreign text").mkdir()
    (tmp_path / "foreign text" / "report.html").write_text("my thesis")
    for folder in (foreign, tmp_path / "foreign text"):
        before = bytes_in(folder)
        assert is_refused(run_script_in(*compare, str(folder)), "--output")
        assert bytes_in(folder) == before
    pictures = write(checkout / "images_to_upload", "mine.jpg")
    for folder in (pictures, pictures / "new"):
        assert is_refused(run_script_in(*compare, str(folder)), "among the pictures")
    assert list(bytes_in(pictures)) == ["mine.jpg"]


def run_of_bundle(bundle: Path) -> str:
    with zipfile.ZipFile(bundle) as archive:
        return json.loads(archive.read("bundle.json"))["run_id"]


@pytest.mark.slow
def test_a_download_does_not_replace_a_file_that_is_no_download(checkout, run_script_in, tmp_path):
    picture = tmp_path / "cat.jpg"
    picture.write_bytes(jpeg())
    published = tmp_path / "published.csv"
    published.write_text("timestamp,image_key,orig_size,new_size,proc_ms\n2025-11-01,a,1,1,1\n")
    own = write(checkout / "images_to_upload", "a.jpg")
    assert run_script_in("onprem_images/local_image_proc.py").returncode == 0
    local = checkout / "onprem_images/metrics/local_metrics.csv"
    for path in (picture, published, local, own / "a.jpg"):
        before = path.read_bytes()
        done = run_script_in("compare_cloud_onprem_metrics.py", "--cloud-csv", str(path))
        assert is_refused(done, "--cloud-csv", path.name)
        assert path.read_bytes() == before


def test_a_chart_replaces_a_chart_and_no_picture(tmp_path):
    Figure().savefig(tmp_path / "chart.png")
    Image.new("RGB", (5, 5)).save(tmp_path / "picture.png")
    (tmp_path / "damaged.png").write_bytes(b"\x89PNG")
    check_target(tmp_path / "chart.png", "--output", is_chart)
    check_target(tmp_path / "new.png", "--output", is_chart)
    for name in ("picture.png", "damaged.png"):
        with pytest.raises(UserError, match=f"--output would replace .*{name}"):
            check_target(tmp_path / name, "--output", is_chart)


def test_a_neighbour_of_the_pictures_may_be_written_to(tmp_path):
    pictures = list(write(tmp_path / "photos", "a.jpg").iterdir())
    check_apart(tmp_path, tmp_path / "run.zip", "--bundle", pictures)
    check_apart(tmp_path / "not made", tmp_path / "not made" / "run.zip", "--bundle", pictures)


# --- the sample set -------------------------------------------------------------------------------


def test_the_sample_set_never_takes_the_place_of_what_is_there(tmp_path, monkeypatch):
    small = (sample_images.SamplePicture("deep/one.jpg", 161, 120, "beach", 0.4),)
    monkeypatch.setattr(sample_images, "PICTURES", small)
    monkeypatch.setattr(dataset, "IMAGES", tmp_path / "own")
    link = tmp_path / "own" / "deep" / "one.jpg"
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "a disk that is not mounted" / "one.jpg")
    with pytest.raises(UserError, match=r"one\.jpg is in the way of a sample picture"):
        load_pictures(tmp_path / "own")
    assert os.readlink(link) == str(tmp_path / "a disk that is not mounted" / "one.jpg")
    assert list((tmp_path / "own").rglob("*.tmp")) == []
    shutil.rmtree(link.parent)
    assert len(load_pictures(tmp_path / "own")) == 1
