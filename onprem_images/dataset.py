"""The data set: which pictures there are, and under which keys both arms know them.

Every regular file below the folder counts, but for what systems and programs put there themselves
(side_files.py): any other file that is no picture becomes an `error` row in both arms. What is left
out is counted by kind, so that nothing is left out unseen. Links are followed.
"""

import errno
import hashlib
import json
import os
import random
import re
import sys
import tempfile
import unicodedata
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lambda_function.image_transform import output_name
from metrics.common.cli import UserError
from metrics.common.findings import Finding
from metrics.common.originals import check_folder, check_pictures
from metrics.common.paths import IMAGES, MANIFEST_JSON, OUTPUT_LOCAL, shown, write_whole
from metrics.common.text import counted, printable
from onprem_images.side_files import kind_of_file, kind_of_folder

PLACEHOLDER = ".gitkeep"  # keeps the project's own folder in git, and is nobody's file
FOLDER, FILE = "folder", "file"
# What is no picture whatever its name, and is left out with --all-files, too.
DEAD_LINK, SPECIAL_FILE, REPEATED_FOLDER = "dead link", "special file", "repeated folder"
NEVER_TAKEN = (DEAD_LINK, SPECIAL_FILE, REPEATED_FOLDER)
# The errors of a link that leads nowhere.
DEAD = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
CHUNK = 2**18  # bytes; a larger buffer is slow to get for each of many small files
READERS = 8  # threads that hash: on a network share each file takes a while to open
LARGEST_FIRST = 10  # one picture in so many goes first by size
MAX_KEY = 1024 - len("processed/.jpg")  # bytes; S3 allows 1,024 with prefix and suffix
MAX_NAME = 255  # bytes of a file or folder name, on all common file systems
# What XML 1.0 cannot carry: S3 could store such a key, but neither list nor delete it in a batch.
NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")


@dataclass(frozen=True)
class Picture:
    """One input. `image_key` is its path below the folder, with `/`; `size` is in bytes.

    `sha256` is of the content when it was listed, empty when the file could not be read.
    """

    image_key: str
    path: Path
    size: int
    sha256: str


@dataclass(frozen=True)
class DataSet:
    """`pictures`, the largest first, and the keys of what was `left_out`, by kind."""

    pictures: list[Picture]
    left_out: dict[str, list[str]]


def load_pictures(folder: Path, all_files: bool = False) -> list[Picture]:
    """The pictures of `folder`, as load_data_set finds them."""
    return load_data_set(folder, all_files).pictures


def load_data_set(folder: Path, all_files: bool = False) -> DataSet:
    """What `folder` holds; side files count as pictures if `all_files` do. Says on stderr what is
    left out.

    Generates the sample set when the project's own folder holds none. Raises UserError when
    there is none elsewhere, when one lies where runs write, or when names rule out that every
    picture gets an output of its own.
    """
    if (encoding := sys.getfilesystemencoding()) != "utf-8":  # scripts see to it
        raise UserError(f"Python reads file names as {encoding} here; start it with -X utf8")
    IMAGES.mkdir(exist_ok=True)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; put pictures there, or name one with --images")
    check_folder(folder)  # before a walk that may be long
    files, left_out = list_files(folder, all_files)
    check_pictures(files.values())
    if not files and folder.samefile(IMAGES):
        from onprem_images.sample_images import generate_sample_images

        print(f"no picture in {shown(folder)}: generating a sample set", file=sys.stderr)
        generate_sample_images(folder)
        files, left_out = list_files(folder, all_files)
    say_left_out(left_out)
    if not files:
        raise UserError(f"no picture in {folder}; put some there, or name a folder with --images")
    check_keys(list(files), names_told_apart(OUTPUT_LOCAL))
    pictures = sorted(_read(files), key=lambda picture: (-picture.size, picture.image_key))
    return DataSet(pictures, left_out)


def order_of_pass(pictures: list[Picture], round_number: int) -> list[Picture]:
    """The order in which both arms take `pictures` (largest first) in a round.

    The largest tenth first, so that no large picture is left for the end; the rest shuffled, so
    that a drift during the pass is not mistaken for an effect of the pictures' size. The shuffle
    depends on the round alone, so every run repeats it; and which pictures are in work together
    changes their times, so the two passes that --self-check compares (1 and 2, 3 and 4) agree.
    """
    head = -(-len(pictures) // LARGEST_FIRST)
    rest = pictures[head:]
    random.Random((round_number + 1) // 2).shuffle(rest)  # nosec B311 # to be repeated
    return pictures[:head] + rest


def list_files(
    folder: Path, all_files: bool = False
) -> tuple[dict[str, Path], dict[str, list[str]]]:
    """Regular files below `folder` by key, and the keys of what is left out, by kind.

    A folder that is reached twice counts once. The work is in proportion to the entries: one scan
    and one stat for a folder, one stat for a link, and none for a file.
    """
    files: dict[str, Path] = {}
    left_out: dict[str, list[str]] = defaultdict(list)
    seen: set[tuple[int, int]] = set()
    waiting = [
        ("", "")
    ]  # folders, by key and the kind of all that is in them; the next one is last
    while waiting:
        top, kind = waiting.pop()
        path = os.path.join(folder, top) if top else os.fspath(folder)
        try:
            if not kind and not _is_new(path, seen):  # perhaps a link back up, which never ends
                left_out[REPEATED_FOLDER].append(top)
                continue
            with os.scandir(path) as scan:
                found = [entry for entry in scan if entry.name != PLACEHOLDER]
        except OSError as error:
            if not kind:
                raise UserError(f"{path!r} cannot be read: {error.strerror}") from error
            left_out[kind].append(top)  # it is the system's own, such as lost+found
            continue
        inner = []
        for entry in sorted(found, key=lambda entry: entry.name):
            key, is_a = f"{top}/{entry.name}" if top else entry.name, _type_of(entry)
            why = kind or ("" if all_files else _kind(entry, is_a, path))
            if is_a == FOLDER and not (why and entry.is_symlink()):
                inner.append((key, why))
            elif why or is_a != FILE:
                left_out[why or is_a].append(key)
            else:
                files[key] = Path(entry.path)
        waiting += reversed(inner)
    return files, dict(left_out)


def _is_new(path: str, seen: set[tuple[int, int]]) -> bool:
    found = os.stat(path)
    identity = (found.st_dev, found.st_ino)
    is_new = identity not in seen
    seen.add(identity)
    return is_new


def _type_of(entry: os.DirEntry) -> str:
    try:
        if entry.is_symlink():
            entry.stat()  # follows it; the answers below come from this
        if entry.is_dir():
            return FOLDER
        return FILE if entry.is_file() else SPECIAL_FILE
    except OSError as error:
        # Where it leads may not be seen: perhaps to a picture, and then each arm says so.
        return DEAD_LINK if error.errno in DEAD else FILE


def _kind(entry: os.DirEntry, is_a: str, parent: str) -> str:
    """Why its name leaves `entry` out; empty when it does not."""
    if is_a == FOLDER:
        return kind_of_folder(entry.name, os.path.basename(parent))
    return kind_of_file(entry.name)


def say_left_out(left_out: dict[str, list[str]]) -> None:
    """On stderr: side files by kind in one line, and anything else with names."""
    side = {kind: len(keys) for kind, keys in left_out.items() if kind not in NEVER_TAKEN}
    if side:
        print(f"left out: {in_words(side)}; --all-files takes them", file=sys.stderr)
    for kind in NEVER_TAKEN:
        if keys := left_out.get(kind):
            print(f"left out: {Finding(counted(len(keys), kind), keys)}", file=sys.stderr)


def in_words(left_out: dict[str, int]) -> str:
    """Counts by kind, the largest first: `3 in @eaDir, 2 ._*, 1 dead link`."""
    return ", ".join(
        counted(count, kind) if kind in NEVER_TAKEN else f"{count:,} {printable(kind)}"
        for kind, count in Counter(left_out).most_common()
    )


def print_left_out(left_out: dict[str, list[str]]) -> None:
    """What --dry-run says of it: every name."""
    for kind, keys in sorted(left_out.items()):
        print(f"would leave out {len(keys):,} {printable(kind)}")
        for key in keys:
            print(f"  {printable(key)}")


def check_keys(keys: list[str], told_apart: Callable[[str], str] = str) -> None:
    """Raise UserError for a key that S3 or the output folder cannot hold, and for two that would
    share an output. Names for which `told_apart` returns the same are the same file."""
    outputs: dict[str, str] = {}
    for key in keys:
        try:
            length = len(key.encode())
        except UnicodeEncodeError:
            raise UserError(f"{os.fsencode(key)!r} is not UTF-8; rename it") from None
        if length > MAX_KEY:
            raise UserError(f"{key!r} is longer than {MAX_KEY} bytes; shorten it")
        if NOT_XML.search(key):
            raise UserError(f"{key!r} has a control character that S3 cannot list; rename it")
        output = output_name(key)
        if max(len(part.encode()) for part in output.split("/")) > MAX_NAME:
            raise UserError(f"the output of {key!r} would have too long a name; shorten it")
        other = outputs.setdefault(told_apart(output), key)
        if other != key:
            raise UserError(f"{other!r} and {key!r} would have the same output; rename one")
    for parent, key in _folders_of(outputs).items():
        if (other := outputs.get(parent)) is not None:
            raise UserError(f"the output of {other!r} is a folder of that of {key!r}")


def _folders_of(outputs: dict[str, str]) -> dict[str, str]:
    """All folders above `outputs`, each once, with the key of an output in it."""
    folders: dict[str, str] = {}
    for output, key in outputs.items():
        parent = output.rpartition("/")[0]
        while parent and parent not in folders:
            folders[parent] = key
            parent = parent.rpartition("/")[0]
    return folders


def names_told_apart(folder: Path) -> Callable[[str], str]:
    """What is left of a name where `folder` lies, once all is gone that makes no difference there:
    by default upper and lower case on macOS and Windows, and Unicode's two normal forms on macOS.
    """
    while not folder.is_dir():
        folder = folder.parent
    try:
        with tempfile.TemporaryDirectory(
            dir=folder, prefix=".Probe-\N{LATIN SMALL LETTER E WITH ACUTE}-"
        ) as path:
            probe = Path(path)
            no_case = probe.with_name(probe.name.swapcase()).exists()
            no_form = probe.with_name(unicodedata.normalize("NFD", probe.name)).exists()
    except OSError:  # nothing can be written there, as the on-prem arm will say
        return str

    def told_apart(name: str) -> str:
        name = name.casefold() if no_case else name
        return unicodedata.normalize("NFC", name) if no_form else name

    return told_apart


def _read(files: dict[str, Path]) -> list[Picture]:
    """Size and hash of each file. The readers share what is left to do, so that neither a large
    file nor a task for each small one holds them up."""
    waiting = deque(files.items())

    def read_on(_: int) -> list[Picture]:
        done = []
        while True:
            try:
                key, path = waiting.popleft()
            except IndexError:
                return done
            done.append(_picture(key, path))

    with ThreadPoolExecutor(READERS) as pool:
        try:
            return [picture for done in pool.map(read_on, range(READERS)) for picture in done]
        except BaseException:
            waiting.clear()
            raise


def _picture(key: str, path: Path) -> Picture:
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("rb", buffering=0) as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
                size += len(chunk)
    except OSError:  # each arm says so when it comes to it
        return Picture(key, path, 0, "")
    return Picture(key, path, size, digest.hexdigest())


def describe_data_set(data_set: DataSet) -> dict[str, object]:
    """What run.json says of the data set."""
    return {
        "pictures": len(data_set.pictures),
        "bytes": sum(picture.size for picture in data_set.pictures),
        "fingerprint": fingerprint(data_set.pictures),
        "left_out": {kind: len(keys) for kind, keys in sorted(data_set.left_out.items())},
    }


def different_pictures(pictures: list[Picture]) -> int:
    """How many there are without copies."""
    return len({picture.sha256 or picture.image_key for picture in pictures})


def fingerprint(pictures: list[Picture]) -> str:
    """One hash of all keys and contents: equal for equal data sets, in any order of listing."""
    lines = sorted(f"{picture.sha256} {picture.image_key}\n" for picture in pictures)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def write_manifest(
    run_id: str, rounds: int, pictures: list[Picture], precision: float | None = None
) -> None:
    """Write down, before a run begins, what it is about."""
    write_whole(MANIFEST_JSON, manifest_bytes(run_id, rounds, pictures, precision))


def manifest_bytes(
    run_id: str, rounds: int, pictures: list[Picture], precision: float | None = None
) -> bytes:
    """What a run is about, as JSON: the ledger holds the rows against it, cleaning goes by it.
    `precision` is there when rounds are added until the interval is so narrow."""
    content = {
        "run_id": run_id,
        "rounds": rounds,
        "pictures": [
            {"image_key": p.image_key, "size": p.size, "sha256": p.sha256} for p in pictures
        ],
    }
    if precision is not None:
        content["precision"] = precision
    return json.dumps(content, ensure_ascii=False).encode()
