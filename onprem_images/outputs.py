"""The files of output_local/: recorded before they are written, so that they can be told apart."""

import json
from pathlib import Path

from metrics.common.cli import UserError
from metrics.common.paths import OUTPUT_LOCAL, OUTPUTS_JSON, shown, write_whole


def record_outputs(names: list[str]) -> None:
    """Note which files below OUTPUT_LOCAL the run is about to write."""
    write_whole(OUTPUTS_JSON, json.dumps(names, indent=0).encode())


def check_no_links(names: list[str]) -> None:
    """Raise UserError when a link in OUTPUT_LOCAL would lead an output out of it, or to another."""
    folder = OUTPUT_LOCAL.resolve()
    for parent in {Path(name).parent for name in names}:
        if (folder / parent).resolve() != folder / parent:
            raise UserError(f"{shown(OUTPUT_LOCAL / parent)} leads elsewhere; remove the link")


def recorded_outputs() -> list[Path]:
    """Files that an earlier run recorded, and that are still there. A name that leads out of the
    folder, directly or through a link, is nobody's."""
    try:
        names = json.loads(OUTPUTS_JSON.read_bytes())
        if not isinstance(names, list):
            raise TypeError("no list")
        paths = [OUTPUT_LOCAL / name for name in names]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(
            f"{shown(OUTPUTS_JSON)} is damaged ({error}); delete it, and the outputs by hand"
        ) from None
    return [path for path in paths if is_in_place(path, OUTPUT_LOCAL)]


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
    delete_files([*recorded_outputs(), OUTPUTS_JSON])


def delete_files(paths: list[Path]) -> None:
    """Delete files, and folders below OUTPUT_LOCAL that this leaves empty."""
    for path in paths:
        path.unlink(missing_ok=True)
    folders = {parent for path in paths for parent in path.parents}
    for folder in sorted(folders, key=lambda path: len(path.parts), reverse=True):
        if OUTPUT_LOCAL in folder.parents and not any(folder.iterdir()):
            folder.rmdir()
