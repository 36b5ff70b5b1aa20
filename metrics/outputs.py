"""The files of output_local/: recorded before they are written, so that they can be told apart."""

import json
from pathlib import Path

from metrics.files import OUTPUT_LOCAL, OUTPUTS_JSON, shown, write_whole
from metrics.script import UserError


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
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise UserError(
            f"{shown(OUTPUTS_JSON)} is damaged ({error}); delete it, and the outputs by hand"
        ) from None
    return [path for name in names if is_inside(path := OUTPUT_LOCAL / name, OUTPUT_LOCAL)]


def is_inside(path: Path, folder: Path) -> bool:
    """Whether `path` is a file that really lies in `folder`, or in a folder below it."""
    try:
        return path.is_file() and path.parent.resolve().is_relative_to(folder.resolve())
    except OSError:  # a name that this file system cannot hold
        return False


def clear_outputs() -> None:
    """Delete the recorded files, and folders that this leaves empty."""
    outputs = recorded_outputs()
    for path in outputs:
        path.unlink(missing_ok=True)
    folders = {parent for path in outputs for parent in path.parents}
    for folder in sorted(folders, key=lambda path: len(path.parts), reverse=True):
        if OUTPUT_LOCAL in folder.parents and not any(folder.iterdir()):
            folder.rmdir()
    OUTPUTS_JSON.unlink(missing_ok=True)
