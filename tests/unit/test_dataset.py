"""The data set: every file has a key and an output of its own, or is refused by name."""

import os
import random
import sys
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from metrics.common.cli import UserError
from onprem_images import dataset, sample_images
from onprem_images.dataset import (
    MAX_KEY,
    NOT_PICTURES,
    Picture,
    check_keys,
    find_files,
    fingerprint,
    load_pictures,
    names_told_apart,
)

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="names and /proc of Linux")


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Stands for the project's own images_to_upload/, empty."""
    folder = tmp_path / "own"
    monkeypatch.setattr(dataset, "IMAGES", folder)
    return folder


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "pictures"
    path.mkdir()
    return path


def write(folder: Path, *names: str, content: bytes = b"x") -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def keys(folder: Path) -> list[str]:
    return sorted(find_files(folder))


# --- finding --------------------------------------------------------------------------------------


def test_files_of_nested_folders_are_found_whatever_their_type(folder):
    names = ["a.jpg", "b/c.png", "b/d e/ü+%.gif", "no type", "notes.txt"]
    write(folder, *names)
    assert keys(folder) == sorted(names)
    assert find_files(folder)["b/c.png"] == folder / "b" / "c.png"


def test_only_what_systems_leave_behind_is_ignored(folder):
    write(folder, *NOT_PICTURES, *(f"deep/{name}" for name in NOT_PICTURES), ".hidden.jpg")
    assert keys(folder) == [".hidden.jpg"]


def test_a_link_to_a_file_counts_under_its_own_name(folder, tmp_path):
    write(tmp_path, "elsewhere.jpg", content=b"1234")
    (folder / "link.jpg").symlink_to(tmp_path / "elsewhere.jpg")
    (picture,) = load_pictures(folder)
    assert (picture.image_key, picture.size) == ("link.jpg", 4)


def test_a_dangling_link_is_left_out_and_reported(folder, capsys):
    write(folder, "a.jpg")
    (folder / "gone.jpg").symlink_to(folder / "nowhere.jpg")
    assert keys(folder) == ["a.jpg"]
    assert "gone.jpg" in capsys.readouterr().err


def test_a_pipe_is_left_out_and_reported(folder, capsys):
    os.mkfifo(folder / "pipe.jpg")
    assert keys(folder) == []
    assert "pipe.jpg" in capsys.readouterr().err


def test_a_link_to_a_folder_is_followed(folder, tmp_path):
    write(tmp_path / "elsewhere", "deep/a.jpg")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    assert keys(folder) == ["linked/deep/a.jpg"]


def test_a_loop_of_links_ends_and_counts_each_file_once(folder):
    write(folder, "a.jpg", "deep/b.jpg")
    (folder / "deep" / "up").symlink_to(folder)
    assert keys(folder) == ["a.jpg", "deep/b.jpg"]


def test_a_folder_that_is_reached_twice_counts_once(folder):
    write(folder, "a/x.jpg")
    (folder / "b").symlink_to(folder / "a")
    assert keys(folder) == ["a/x.jpg"]


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"), [("a.png", "a.png.jpg"), ("b/a", "b/a.jpg"), ("é.tif", "é.tif.jpg")]
)
def test_two_files_with_the_same_output_are_refused_by_name(folder, one, other):
    write(folder, one, other, "bystander.png")
    with pytest.raises(UserError) as refusal:
        load_pictures(folder)
    assert repr(one) in str(refusal.value)
    assert repr(other) in str(refusal.value)
    assert "bystander" not in str(refusal.value)


@pytest.mark.parametrize("inner", ["a.jpg/b.png", "a.jpg/deep/er/b.jpg"])
def test_an_output_that_would_be_a_folder_of_another_is_refused(folder, inner):
    write(folder, "a", inner)
    with pytest.raises(UserError, match=r"'a' is a folder of that of 'a\.jpg/"):
        load_pictures(folder)


def test_names_that_only_look_alike_are_accepted():
    check_keys(["a.jpg", "a.png", "a.JPG", "A.jpg", "a.jpeg", "b/a.jpg", "a/b.jpg"])


@linux_only
def test_here_names_are_told_apart_by_case_and_by_normal_form(tmp_path):
    told_apart = names_told_apart(tmp_path / "not" / "there")
    assert len({told_apart(name) for name in ("a", "A", "\u00e9", "e\u0301")}) == 4
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def macos(monkeypatch):
    """File names as on macOS: neither case nor normal form makes another file."""

    def plain(name: str) -> str:
        return unicodedata.normalize("NFC", name).casefold()

    def exists(path: Path) -> bool:
        return plain(path.name) in {plain(other.name) for other in path.parent.iterdir()}

    monkeypatch.setattr(Path, "exists", exists)


@linux_only
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a.jpg", "A.jpg"),
        ("a.png", "A.PNG.JPG"),
        ("caf\u00e9.jpg", "cafe\u0301.jpg"),
        ("Sub/a.jpg", "sub/A.JPG"),
    ],
)
def test_names_that_are_one_file_for_the_output_folder_are_refused(macos, folder, one, other):
    write(folder, one, other, "bystander.jpg")
    with pytest.raises(UserError) as refusal:
        load_pictures(folder)
    assert repr(one) in str(refusal.value)
    assert repr(other) in str(refusal.value)


def test_an_output_that_is_a_folder_of_another_but_for_its_case_is_refused():
    with pytest.raises(UserError, match="is a folder of that of"):
        check_keys(["a.jpg", "A.JPG/b.jpg"], str.casefold)


@linux_only
def test_folders_that_differ_in_case_only_are_kept_where_their_files_differ(macos, folder):
    write(folder, "Sub/a.jpg", "sub/b.jpg")
    assert len(load_pictures(folder)) == 2


@linux_only
def test_a_name_that_is_not_utf_8_is_refused(folder):
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.jpg")).write_bytes(b"x")
    with pytest.raises(UserError, match=r"caf\\xe9\.jpg' is not UTF-8; rename it"):
        load_pictures(folder)


def test_a_key_is_measured_in_bytes_and_refused_when_s3_cannot_hold_it():
    folders = "éé/" * (MAX_KEY // 5 - 1)
    longest = folders + "x" * (MAX_KEY - len(folders.encode()))
    check_keys([longest])
    with pytest.raises(UserError, match="longer than"):
        check_keys([longest + "x"])


def test_a_name_whose_output_no_folder_can_hold_is_refused():
    check_keys(["é" * 123 + "x.png", "y" * 251 + ".jpg"])
    for name in ("é" * 124 + ".png", "folder/" + "z" * 252):
        with pytest.raises(UserError, match="too long a name"):
            check_keys([name])


@pytest.mark.parametrize("character", ["\x01", "\x0b", "\x1f", "\ufffe", "\uffff"])
def test_a_character_that_s3_cannot_list_is_refused(character):
    with pytest.raises(UserError, match="control character"):
        check_keys([f"a{character}b.jpg"])


def test_an_unreadable_folder_is_an_error_and_not_left_out(tmp_path, monkeypatch):
    (tmp_path / "locked").mkdir()
    real = os.scandir

    def deny(path):  # root, who may run the tests, can read every folder
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", deny)
    with pytest.raises(UserError, match=r"locked.*Permission denied"):
        find_files(tmp_path)


def test_the_longest_key_fits_s3_with_prefix_and_suffix():
    assert len("processed/") + MAX_KEY + len(".jpg") == 1024


# --- loading --------------------------------------------------------------------------------------


def test_a_missing_folder_is_an_error_that_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match=r"nowhere is not a folder.*--images"):
        load_pictures(tmp_path / "nowhere")


def test_a_file_in_place_of_the_folder_is_an_error(folder):
    write(folder, "a.jpg")
    with pytest.raises(UserError, match="is not a folder"):
        load_pictures(folder / "a.jpg")


def test_an_empty_folder_of_the_users_is_refused_and_stays_empty(folder):
    write(folder, ".gitkeep")
    with pytest.raises(UserError, match="no picture in"):
        load_pictures(folder)
    assert [path.name for path in folder.iterdir()] == [".gitkeep"]


def test_the_projects_own_folder_is_filled_with_the_sample_set(own_folder, monkeypatch, capsys):
    small = (
        sample_images.SamplePicture("deep/one.jpg", 161, 120, "beach", 0.4),
        sample_images.SamplePicture("two.jpg", 80, 60, "town"),
    )
    monkeypatch.setattr(sample_images, "PICTURES", small)
    pictures = load_pictures(own_folder)
    assert [picture.image_key for picture in pictures] == ["deep/one.jpg", "two.jpg"]
    assert Image.open(own_folder / "two.jpg").size == (80, 60)
    assert "generating a sample set" in capsys.readouterr().err


def test_a_picture_in_the_projects_own_folder_keeps_the_sample_set_away(own_folder):
    write(own_folder, "mine.jpg")
    assert [picture.image_key for picture in load_pictures(own_folder)] == ["mine.jpg"]
    assert [path.name for path in own_folder.iterdir()] == ["mine.jpg"]


def test_the_largest_come_first_and_equals_by_name(folder):
    for name, size in {"b": 5, "c": 900, "a": 5, "d/e": 70}.items():
        write(folder, name, content=bytes(size))
    pictures = load_pictures(folder)
    assert [picture.image_key for picture in pictures] == ["c", "d/e", "a", "b"]
    assert [picture.size for picture in pictures] == [900, 70, 5, 5]


def test_a_picture_carries_the_hash_of_its_content(folder):
    write(folder, "a.jpg", content=b"abc")
    (picture,) = load_pictures(folder)
    sha256_of_abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert picture == Picture("a.jpg", folder / "a.jpg", 3, sha256_of_abc)


@linux_only
def test_a_file_that_cannot_be_read_stays_in_the_set_without_a_hash(folder):
    (folder / "bad.jpg").symlink_to("/proc/self/mem")  # regular, and unreadable even for root
    write(folder, "good.jpg")
    good, bad = load_pictures(folder)
    assert (good.image_key, bad.image_key) == ("good.jpg", "bad.jpg")
    assert (bad.size, bad.sha256) == (0, "")


# --- fingerprint ----------------------------------------------------------------------------------


def picture(key: str, sha256: str) -> Picture:
    return Picture(key, Path(key), 1, sha256)


SET = [picture(f"{number}.jpg", f"{number:064x}") for number in range(20)]


def test_the_fingerprint_does_not_depend_on_the_order():
    shuffled = random.Random(1).sample(SET, len(SET))
    assert shuffled != SET
    assert fingerprint(shuffled) == fingerprint(SET)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param([*SET[:-1], picture("other.jpg", SET[-1].sha256)], id="name"),
        pytest.param([*SET[:-1], picture(SET[-1].image_key, "f" * 64)], id="content"),
        pytest.param(SET[:-1], id="one fewer"),
        pytest.param([*SET, picture("new.jpg", SET[0].sha256)], id="one more"),
        pytest.param(
            [*SET[:-2], picture("18.jpg", SET[19].sha256), picture("19.jpg", SET[18].sha256)],
            id="two contents swapped",
        ),
    ],
)
def test_the_fingerprint_tells_other_sets_apart(other):
    assert fingerprint(other) != fingerprint(SET)


def test_the_same_files_in_another_place_have_the_same_fingerprint(folder, tmp_path):
    for place in (folder, tmp_path / "copy"):
        write(place, "a.jpg", content=b"1")
        write(place, "b/c.png", content=b"2")
    copy = load_pictures(tmp_path / "copy")
    assert fingerprint(load_pictures(folder)) == fingerprint(copy)
