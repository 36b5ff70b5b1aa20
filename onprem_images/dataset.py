"""The data set: which pictures there are, and under which keys both arms know them.

Every regular file below the folder counts, but for the few that systems put there themselves
(NOT_PICTURES): a file that is no picture becomes an `error` row in both arms, so nothing is left
out unseen. Links are followed.
"""

import hashlib
import json
import os
import random
import re
import sys
import tempfile
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lambda_function.image_transform import output_name
from metrics.common.cli import UserError
from metrics.common.paths import IMAGES, MANIFEST_JSON, OUTPUT_LOCAL, shown, write_whole

NOT_PICTURES = {".gitkeep", ".gitignore", ".DS_Store", "Thumbs.db", "desktop.ini"}
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


def load_pictures(folder: Path) -> list[Picture]:
    """The pictures of `folder`, largest first.

    Generates the sample set when the project's own folder holds none. Raises UserError when
    there is none elsewhere, or when names rule out that every picture gets an output of its own.
    """
    IMAGES.mkdir(exist_ok=True)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; put pictures there, or name one with --images")
    paths = find_files(folder)
    if not paths and folder.samefile(IMAGES):
        from onprem_images.sample_images import generate_sample_images

        print(f"no picture in {shown(folder)}: generating a sample set", file=sys.stderr)
        generate_sample_images(folder)
        paths = find_files(folder)
    if not paths:
        raise UserError(f"no picture in {folder}; put some there, or name a folder with --images")
    check_keys(list(paths), names_told_apart(OUTPUT_LOCAL))
    with ThreadPoolExecutor() as pool:
        pictures = list(pool.map(lambda item: _picture(*item), paths.items()))
    return sorted(pictures, key=lambda picture: (-picture.size, picture.image_key))


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


def find_files(folder: Path) -> dict[str, Path]:
    """Regular files below `folder` by key. A folder that is reached twice counts once."""
    files, seen = {}, set()
    for top, names, file_names in os.walk(folder, followlinks=True, onerror=_refuse):
        real = os.path.realpath(top)
        if real in seen:  # a link back up, which would never end
            names.clear()
            continue
        seen.add(real)
        names.sort()
        for name in file_names:
            path = Path(top, name)
            if name not in NOT_PICTURES:
                files[path.relative_to(folder).as_posix()] = path
    special = [path for path in files.values() if not path.is_file()]
    for path in special:
        print(f"left out, not a regular file: {os.fsencode(path)!r}", file=sys.stderr)
    return {key: path for key, path in files.items() if path not in special}


def _refuse(error: OSError) -> None:
    raise UserError(f"{error.filename!r} cannot be read: {error.strerror}") from error


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
        if max(len(part.encode()) for part in output_name(key).split("/")) > MAX_NAME:
            raise UserError(f"the output of {key!r} would have too long a name; shorten it")
        other = outputs.setdefault(told_apart(output_name(key)), key)
        if other != key:
            raise UserError(f"{other!r} and {key!r} would have the same output; rename one")
    for output, key in outputs.items():
        for parent in Path(output).parents:
            if (other := outputs.get(parent.as_posix())) is not None:
                raise UserError(f"the output of {other!r} is a folder of that of {key!r}")


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


def _picture(key: str, path: Path) -> Picture:
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return Picture(key, path, file.tell(), digest)
    except OSError:  # each arm says so when it comes to it
        return Picture(key, path, 0, "")


def describe_data_set(pictures: list[Picture]) -> dict[str, object]:
    """What run.json says of the data set."""
    size = sum(picture.size for picture in pictures)
    return {"pictures": len(pictures), "bytes": size, "fingerprint": fingerprint(pictures)}


def fingerprint(pictures: list[Picture]) -> str:
    """One hash of all keys and contents: equal for equal data sets, in any order of listing."""
    lines = sorted(f"{picture.sha256} {picture.image_key}\n" for picture in pictures)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def write_manifest(
    run_id: str, rounds: int, pictures: list[Picture], until: float | None = None
) -> None:
    """Write down, before a run begins, what it is about."""
    write_whole(MANIFEST_JSON, manifest_bytes(run_id, rounds, pictures, until))


def manifest_bytes(
    run_id: str, rounds: int, pictures: list[Picture], until: float | None = None
) -> bytes:
    """What a run is about, as JSON: the ledger holds the rows against it, cleaning goes by it.
    `until` is there when rounds are added until the interval is so narrow."""
    content = {
        "run_id": run_id,
        "rounds": rounds,
        "pictures": [
            {"image_key": p.image_key, "size": p.size, "sha256": p.sha256} for p in pictures
        ],
    }
    if until is not None:
        content["precision"] = until
    return json.dumps(content, ensure_ascii=False).encode()
