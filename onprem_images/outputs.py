"""The files of output_local/: recorded before they are written, so that they can be told apart.

The record has a line for each, with its name and the hash of its bytes. A file is the project's own
when it is recorded with just these bytes: one that a user put there, or changed since, is not.
"""

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from metrics.common.cli import UserError
from metrics.common.paths import OUTPUT_LOCAL, OUTPUTS_JSONL, shown
from metrics.common.text import printable


def record_output(name: str, sha256: str) -> None:
    """Note a file below OUTPUT_LOCAL that is about to be written. Workers do so side by side: each
    line is one write at the file's end, which the system does not mix with another."""
    OUTPUTS_JSONL.parent.mkdir(parents=True, exist_ok=True)
    with OUTPUTS_JSONL.open("ab", buffering=0) as file:
        file.write(json.dumps([name, sha256]).encode() + b"\n")


def check_outputs(names: list[str]) -> None:
    """Raise UserError when one of these files of OUTPUT_LOCAL could not be written without a loss:
    a link would lead it elsewhere, or something is there that is not the project's own."""
    folder = OUTPUT_LOCAL.resolve()
    for parent in {Path(name).parent for name in names}:
        if (folder / parent).resolve() != folder / parent:
            raise UserError(f"{shown(OUTPUT_LOCAL / parent)} leads elsewhere; remove the link")
    recorded = _record()
    for name in names:
        path = OUTPUT_LOCAL / name
        if os.path.lexists(path) and not _is_own(path, recorded.get(name, set())):
            raise UserError(
                f"{printable(shown(path))} is not as a run wrote it, and this run would replace "
                "it; move it away, or delete it"
            )


def recorded_outputs() -> list[Path]:
    """The project's own files, of earlier runs. A name that leads out of the folder, directly or
    through a link, is nobody's; a file that was changed since is the user's, and is named."""
    found = []
    for name, hashes in _record().items():
        path = OUTPUT_LOCAL / name
        if not is_in_place(path, OUTPUT_LOCAL):
            continue
        if _is_own(path, hashes):
            found.append(path)
        else:
            named = printable(shown(path))
            print(f"left alone, changed since a run wrote it: {named}", file=sys.stderr)
    return found


def _is_own(path: Path, hashes: set[str]) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() in hashes


def _record() -> dict[str, set[str]]:
    """Names with the hashes of what was written there, which may be several: of several passes."""
    found: dict[str, set[str]] = {}
    try:
        for name, sha256 in _lines():
            found.setdefault(name, set()).add(sha256)
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(
            f"{shown(OUTPUTS_JSONL)} is damaged ({error}); delete it, and the outputs by hand"
        ) from None
    return found


def _lines() -> Iterator[tuple[str, str]]:
    if not OUTPUTS_JSONL.exists():
        return
    *lines, _ = OUTPUTS_JSONL.read_bytes().split(b"\n")  # what is not ended was not written
    for line in lines:
        name, sha256 = json.loads(line)
        if not (isinstance(name, str) and isinstance(sha256, str)):
            raise TypeError(f"no name and hash: {line[:80]!r}")
        yield name, sha256


def is_in_place(path: Path, folder: Path) -> bool:
    """Whether `path` is a file below `folder` that is reached through no link and no `..`: only
    such may be deleted."""
    try:
        return folder in path.parents and path.parent.resolve() == path.parent and path.is_file()
    except (OSError, ValueError):  # a name that this file system cannot hold
        return False


def is_inside(path: Path, folder: Path) -> bool:
    """Whether `path` is a file that really lies in `folder`, or in a folder below it."""
    try:
        return path.is_file() and path.parent.resolve().is_relative_to(folder.resolve())
    except OSError:  # a name that this file system cannot hold
        return False


def clear_outputs() -> None:
    """Delete the outputs that are recorded, and the record."""
    delete_files([*recorded_outputs(), OUTPUTS_JSONL])


def delete_files(paths: list[Path]) -> None:
    """Delete files, and folders below OUTPUT_LOCAL that this leaves empty."""
    for path in paths:
        path.unlink(missing_ok=True)
    folders = {parent for path in paths for parent in path.parents}
    for folder in sorted(folders, key=lambda path: len(path.parts), reverse=True):
        if OUTPUT_LOCAL in folder.parents and not any(folder.iterdir()):
            folder.rmdir()
