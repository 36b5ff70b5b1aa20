"""The data set: every file has a key and an output of its own, or is refused by name."""

import contextlib
import os
import random
import sys
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from metrics.analysis.run_record import is_record
from metrics.common.cli import UserError
from onprem_images import dataset, sample_images, side_files
from onprem_images.dataset import (
    MAX_KEY,
    Picture,
    check_keys,
    describe_data_set,
    fingerprint,
    list_files,
    load_data_set,
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
    return sorted(list_files(folder)[0])


# --- finding --------------------------------------------------------------------------------------


def test_files_of_nested_folders_are_found_whatever_their_type(folder):
    names = ["a.jpg", "b/c.png", "b/d e/ü+%.gif", "no type", "notes.txt"]
    write(folder, *names)
    assert keys(folder) == sorted(names)
    assert list_files(folder)[0]["b/c.png"] == folder / "b" / "c.png"


def test_hidden_pictures_count(folder):
    write(folder, ".hidden.jpg", ".private/a.jpg")
    assert keys(folder) == [".hidden.jpg", ".private/a.jpg"]


def test_a_link_to_a_file_counts_under_its_own_name(folder, tmp_path):
    write(tmp_path, "elsewhere.jpg", content=b"1234")
    (folder / "link.jpg").symlink_to(tmp_path / "elsewhere.jpg")
    (picture,) = load_pictures(folder)
    assert (picture.image_key, picture.size) == ("link.jpg", 4)


def test_a_dangling_link_is_left_out_and_reported(folder, capsys):
    write(folder, "a.jpg")
    (folder / "gone.jpg").symlink_to(folder / "nowhere.jpg")
    (folder / "itself.jpg").symlink_to(folder / "itself.jpg")
    (folder / "under a file.jpg").symlink_to(folder / "a.jpg" / "b.jpg")
    (folder / "long.jpg").symlink_to("x" * 300)
    data_set = load_data_set(folder)
    assert [picture.image_key for picture in data_set.pictures] == ["a.jpg"]
    dead = ["gone.jpg", "itself.jpg", "long.jpg", "under a file.jpg"]
    assert data_set.left_out == {"dead link": dead}
    named = ", ".join(map(repr, dead))
    assert capsys.readouterr().err == f"left out: 4 dead links: {named}\n"


def test_of_many_dead_links_the_first_are_named(folder, capsys):
    write(folder, "a.jpg")
    for number in range(12):
        (folder / f"{number:02}.jpg").symlink_to("nowhere")
    load_pictures(folder)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("left out: 12 dead links: '00.jpg', ")
    assert line.endswith(" and 7 more")


def test_a_pipe_is_left_out_and_reported(folder, capsys):
    write(folder, "a.jpg")
    os.mkfifo(folder / "pipe.jpg")
    assert len(load_pictures(folder)) == 1
    assert capsys.readouterr().err == "left out: 1 special file: 'pipe.jpg'\n"


@linux_only
def test_a_link_that_may_not_be_followed_may_lead_to_a_picture_and_stays(folder, monkeypatch):
    (folder / "a.jpg").symlink_to("elsewhere")

    class Entry:  # as for a user who may not look into the folder of the target
        name, path = "a.jpg", str(folder / "a.jpg")

        def is_symlink(self) -> bool:
            return True

        def stat(self) -> None:
            raise PermissionError(13, "Permission denied", self.path)

    scan = contextlib.nullcontext([Entry()])
    monkeypatch.setattr(os, "scandir", lambda path: scan)
    assert keys(folder) == ["a.jpg"]


def test_a_link_to_a_folder_is_followed(folder, tmp_path):
    write(tmp_path / "elsewhere", "deep/a.jpg")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    assert keys(folder) == ["linked/deep/a.jpg"]


def test_a_loop_of_links_ends_and_counts_each_file_once(folder):
    write(folder, "a.jpg", "deep/b.jpg")
    (folder / "deep" / "up").symlink_to(folder)
    assert keys(folder) == ["a.jpg", "deep/b.jpg"]


def test_a_folder_that_is_reached_twice_counts_once_and_is_named(folder, capsys):
    write(folder, "a/x.jpg")
    (folder / "b").symlink_to(folder / "a")
    assert [picture.image_key for picture in load_pictures(folder)] == ["a/x.jpg"]
    assert capsys.readouterr().err == "left out: 1 repeated folder: 'b'\n"


# --- what systems and programs leave beside pictures ----------------------------------------------

SIDE_FILES = {
    "@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg": "in @eaDir",
    "album/@eaDir/b.jpg/SYNOPHOTO_THUMB_M.jpg": "in @eaDir",
    "#recycle/a.jpg": "in #recycle",
    "#snapshot/a.jpg": "in #snapshot",
    "$RECYCLE.BIN/S-1-5-21/$R1.jpg": "in $RECYCLE.BIN",
    "$Recycle.Bin/$R2.jpg": "in $RECYCLE.BIN",
    "RECYCLER/S-1-5-21-1/Dc1.jpg": "in RECYCLER/S-1-*",
    "System Volume Information/x": "in System Volume Information",
    "FOUND.000/FILE0000.CHK": "in found.[0-9][0-9][0-9]",
    ".Trash-1000/files/a.jpg": "in .Trash-*",
    ".Trashes/501/a.jpg": "in .Trashes",
    ".AppleDouble/a.jpg": "in .AppleDouble",
    ".Spotlight-V100/x": "in .Spotlight-V100",
    ".fseventsd/x": "in .fseventsd",
    "__MACOSX/._a.jpg": "in __MACOSX",
    "My.photoslibrary/resources/derivatives/a.jpeg": "in *.photoslibrary/resources",
    ".thumbnails/normal/a.png": "in .thumbnails",
    "lost+found/#1": "in lost+found",
    ".snapshot/daily/a.jpg": "in .snapshot",
    ".@__thumb/a.jpg": "in .@__thumb",
    "@Recycle/a.jpg": "in @Recycle",
    ".sync/a": "in .sync",
    ".stfolder/x": "in .stfolder",
    ".stversions/a~1.jpg": "in .stversions",
    ".dropbox.cache/a.jpg": "in .dropbox*",
    ".git/HEAD": "in .git",
    "Catalog Previews.lrdata/0/a.lrprev": "in *.lrdata",
    ".picasaoriginals/a.jpg": "in .picasaoriginals",
    "CaptureOne/Cache/Thumbnails/a.cot": "in CaptureOne/Cache",
    "CaptureOne/Settings153/a.cos": "in CaptureOne/Settings*",
    "._a.jpg": "._*",
    "album/._b.jpg": "._*",
    ".DS_Store": ".DS_Store",
    "Icon\r": "Icon\r",
    "Thumbs.db": "Thumbs.db",
    "album/thumbs.db": "Thumbs.db",
    "album/THUMBS.DB": "Thumbs.db",
    "ehthumbs.db": "ehthumbs.db",
    "Desktop.ini": "desktop.ini",
    ".nomedia": ".nomedia",
    ".nfs000000000012": ".nfs0000*",
    ".trashed-1699999999-a.jpg": ".trashed-*",
    ".dropbox": ".dropbox*",
    ".gitignore": ".gitignore",
    "a.xmp": "*.xmp",
    "a.jpg.XMP": "*.xmp",
    "Catalog.lrcat": "*.lrcat",
    "Catalog.lrcat.lock": "*.lrcat.lock",
    "Catalog.lrcat-wal": "*.lrcat-*",
    ".picasa.ini": ".picasa.ini",
    "Picasa.ini": "Picasa.ini",
    "a.cos": "*.cos",
    "a.jpg.json": "*.json",
    "a.jpg.supplemental-metadata.json": "*.json",
    "metadata.json": "*.json",
    "IMG_1.AAE": "*.aae",
    "MVI_1.THM": "*.thm",
    "IMG_1.acr": "*.acr",
    "Thumbs.db:encryptable": "Thumbs.db:encryptable",
    "a.jpg.part": "*.part",
    "a.jpg.crdownload": "*.crdownload",
    "a.tmp": "*.tmp",
    "~$notes.docx": "~$*",
    ".~lock.notes.odt#": ".~lock.*#",
    "a.jpg@SynoEAStream": "*@SynoEAStream",
}
PICTURES = [
    *("a.jpg", "tmp/b.jpg", "a.tmp.jpg", "part", "json", "x.tmp/a.jpg", "a.xmp/b.jpg"),
    *("my@eaDir/a.jpg", "@eaDir2/a.jpg", "recycle/a.jpg", "#recycle.jpg", "@eaDir.jpg"),
    *("thumbs.db.jpg", "my thumbs.db", "Thumbs.db/a.jpg", "desktop.ini.png", "DS_Store"),
    *(".Trash-1000.jpg", "Trash-1/a.jpg", "lost+found.jpg", "lost/found/a.jpg"),
    *("CaptureOne/a.jpg", "Cache/a.jpg", "Settings/a.jpg", "RECYCLER/a.jpg", "found.12/a.jpg"),
    *("git/a.jpg", "a.git.jpg", ".git.jpg", "_a.jpg", ".a.jpg", "Icon.jpg", "~a.jpg", "a.jpg~"),
    *("notes.txt", "film.mov", "no type", "Originals/a.jpg", "resources/a.jpg", "sync/a.jpg"),
]


def test_side_files_are_left_out_at_any_depth_and_counted_by_kind(folder):
    deeper = {f"album/of/{key}": kind for key, kind in SIDE_FILES.items()}
    write(folder, *SIDE_FILES, *deeper, "a.jpg")
    files, left_out = list_files(folder)
    assert list(files) == ["a.jpg"]
    kinds = {key: kind for kind, keys in left_out.items() for key in keys}
    assert kinds == SIDE_FILES | deeper


def test_every_pattern_of_the_tables_matches_and_is_shown_as_its_kind():
    for pattern in all_patterns(side_files.FILES):
        assert side_files.kind_of_file(example_of(pattern).upper()) == pattern
    for pattern in all_patterns(side_files.FOLDERS):
        parent, _, name = example_of(pattern).rpartition("/")
        assert side_files.kind_of_folder(name, parent) == f"in {pattern}"


def all_patterns(table: dict[str, tuple[str, ...]]) -> list[str]:
    return [pattern for patterns in table.values() for pattern in patterns]


def example_of(pattern: str) -> str:
    return pattern.replace("[0-9]", "7").replace("*", "x")


def test_names_that_are_side_files_only_in_part_are_pictures(folder):
    write(folder, *PICTURES)
    files, left_out = list_files(folder)
    assert sorted(files) == sorted(PICTURES)
    assert left_out == {}


def test_all_files_are_taken_when_asked_for(folder, capsys):
    names = [key for key in SIDE_FILES if key != "Icon\r"]  # a name that S3 cannot list
    write(folder, *names)
    data_set = load_data_set(folder, all_files=True)
    assert sorted(picture.image_key for picture in data_set.pictures) == sorted(names)
    assert data_set.left_out == {}
    assert capsys.readouterr().err == ""


def test_what_keeps_an_empty_folder_in_git_is_no_file_at_all(folder):
    write(folder, ".gitkeep", "a/.gitkeep")
    assert list_files(folder, all_files=True) == ({}, {})


def test_what_is_left_out_is_said_in_one_line_the_most_first(folder, capsys):
    write(folder, "a.jpg", "._a.jpg", "._b.jpg", "THUMBS.DB", *(f"@eaDir/{n}" for n in range(1200)))
    load_pictures(folder)
    assert capsys.readouterr().err == (
        "left out: 1,200 in @eaDir, 2 ._*, 1 Thumbs.db; --all-files takes them\n"
    )


def test_the_folder_itself_counts_whatever_its_name_and_place(tmp_path):
    folder = tmp_path / "@eaDir" / "#recycle"
    write(folder, "a.jpg", "@eaDir/b.jpg")
    assert keys(folder) == ["a.jpg"]


def test_a_folder_of_the_systems_that_may_not_be_read_is_left_out_as_a_whole(folder, monkeypatch):
    write(folder, "a.jpg", "lost+found/b.jpg", "@eaDir/c.jpg")
    real = os.scandir

    def deny(path):  # root, who may run the tests, can read every folder
        if str(path).endswith("lost+found"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", deny)
    files, left_out = list_files(folder)
    assert list(files) == ["a.jpg"]
    assert left_out == {"in @eaDir": ["@eaDir/c.jpg"], "in lost+found": ["lost+found"]}


def test_no_link_is_followed_in_what_is_left_out(folder):
    write(folder, "a.jpg", "album/b.jpg")
    (folder / "@eaDir").mkdir()
    (folder / "@eaDir" / "up").symlink_to(folder)
    (folder / ".Trash-1").symlink_to(folder / "album")
    files, left_out = list_files(folder)
    assert list(files) == ["a.jpg", "album/b.jpg"]
    assert left_out == {"in @eaDir": ["@eaDir/up"], "in .Trash-*": [".Trash-1"]}


def test_a_link_of_another_name_into_what_is_left_out_is_the_users_own(folder):
    write(folder, ".snapshot/daily/a.jpg")
    (folder / "yesterday").symlink_to(folder / ".snapshot" / "daily")
    files, left_out = list_files(folder)
    assert list(files) == ["yesterday/a.jpg"]
    assert left_out == {"in .snapshot": [".snapshot/daily/a.jpg"]}


def test_run_json_counts_what_was_left_out(folder):
    write(folder, "a.jpg", "._a.jpg", "@eaDir/1", "@eaDir/2")
    (folder / "gone.jpg").symlink_to("nowhere")
    described = describe_data_set(load_data_set(folder))
    assert (described["pictures"], described["bytes"]) == (1, 1)
    assert described["left_out"] == {"._*": 1, "dead link": 1, "in @eaDir": 2}
    assert is_record({"data_set": described})


# --- what it costs --------------------------------------------------------------------------------


def flat(folder: Path, size: int) -> None:
    write(folder, *(f"{n}.jpg" for n in range(size)))


def dead_links(folder: Path, size: int) -> None:
    flat(folder, size // 2)
    for n in range(size // 2):
        (folder / f"dead {n}.jpg").symlink_to("nowhere")


def links_to_pictures(folder: Path, size: int) -> None:
    write(folder, "a.jpg")
    for n in range(size):
        (folder / f"link {n}.jpg").symlink_to("a.jpg")


def links_to_one_folder(folder: Path, size: int) -> None:
    write(folder, *(f"a/{n}.jpg" for n in range(20)))
    for n in range(size):
        (folder / f"link {n}").symlink_to("a")


def links_in_a_circle(folder: Path, size: int) -> None:
    for n in range(size // 2):
        write(folder, f"{n}/a.jpg")
        (folder / str(n) / "next").symlink_to(folder / str((n + 1) % (size // 2)))


def deep(folder: Path, size: int) -> None:
    write(folder, "d/" * (size // 2) + "a.jpg")


def side_folders(folder: Path, size: int) -> None:
    write(folder, "a.jpg", *(f"@eaDir/{n}/thumb.jpg" for n in range(size // 2)))


LINKS = (dead_links, links_to_pictures, links_to_one_folder, links_in_a_circle)


@pytest.mark.parametrize("shape", [flat, *LINKS, deep, side_folders])
def test_the_work_of_listing_is_in_proportion_to_the_entries(tmp_path, shape):
    work = []
    for size in (200, 800):
        folder = tmp_path / str(size)
        folder.mkdir()
        shape(folder, size)
        work.append(calls_of(load_pictures, folder))
    assert work[1] < 5 * work[0]


def calls_of(function, *args) -> int:
    """How many functions are called meanwhile, those written in C included, in this thread."""
    count = 0

    def profile(frame, event: str, argument) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        function(*args)
    finally:
        sys.setprofile(None)
    return count


def test_a_file_is_listed_without_asking_for_its_state_and_read_once(folder, monkeypatch):
    write(folder, *(f"{n}/{n}.jpg" for n in range(5)))
    asked, opened = [], []
    real_stat, real_open = os.stat, Path.open
    monkeypatch.setattr(os, "stat", lambda p, **kw: (asked.append(p), real_stat(p, **kw))[1])
    monkeypatch.setattr(
        Path, "open", lambda p, *a, **kw: (opened.append(p), real_open(p, *a, **kw))[1]
    )
    files, _ = list_files(folder)
    assert sorted(asked) == sorted([str(folder), *(str(folder / str(n)) for n in range(5))])
    dataset._read(files)
    assert sorted(opened) == sorted(files.values())


def test_a_tree_of_a_thousand_levels_is_listed(tmp_path):
    depth, at_top = 1000, os.getcwd()
    os.chdir(tmp_path)
    try:
        for _ in range(depth):
            os.mkdir("d")
            os.chdir("d")
        Path("a.jpg").write_bytes(b"x")
        os.chdir(at_top)
        assert keys(tmp_path) == ["d/" * depth + "a.jpg"]
        with pytest.raises(UserError, match="longer than"):
            load_pictures(tmp_path)
    finally:
        os.chdir(at_top)
        (tmp_path / ("d/" * depth) / "a.jpg").unlink()
        for level in range(depth, 0, -1):  # what removes folders for pytest goes not so deep
            os.rmdir(tmp_path / ("d/" * level))


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
        list_files(tmp_path)


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
