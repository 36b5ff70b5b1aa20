"""No original of a user's is lost: pictures lie where no run writes, and what a flag names to be
written replaces only what this project wrote.

Places are told apart by device and inode, not by name: `..`, links, another case of a name where
that makes no difference, and bind mounts lead to the same ones.
"""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from metrics.common.cli import UserError
from metrics.common.paths import IMAGES, WRITTEN_FOLDERS, shown

Identity = tuple[int, int]  # device and inode


def check_folder(folder: Path) -> None:
    """Raise UserError when `folder` is, lies in or holds a place where runs write."""
    if place := _Places(WRITTEN_FOLDERS).clash_with(folder):
        raise UserError(
            f"{str(folder)!r} is no place for pictures: runs write and delete in {shown(place)}; "
            "name another folder with --images, or copy the pictures to one"
        )


def check_pictures(paths: Iterable[Path]) -> None:
    """Raise UserError for a picture that lies, by its real path, where runs write."""
    places = _Places(WRITTEN_FOLDERS)
    for folder, path in _folders_of(paths).items():
        if place := places.clash_with(folder):
            raise UserError(
                f"the picture {str(path)!r} is really in {str(folder)!r}, and runs write and "
                f"delete in {shown(place)}; remove the link, or copy the picture"
            )


def check_target(path: Path, flag: str, is_own: Callable[[Path], bool]) -> None:
    """Raise UserError when `path`, which a flag names to be written, holds anything but what
    `is_own` takes for this project's. An empty file is nothing to lose."""
    if path.is_dir():
        raise UserError(f"{shown(path)} is a folder; name a file for {flag}")
    if not os.path.lexists(path):
        return
    try:
        is_free = path.is_file() and (path.stat().st_size == 0 or is_own(path))
    except OSError:
        is_free = False
    if not is_free:
        raise UserError(
            f"{flag} would replace {shown(path)}, which is not one that this project wrote; "
            "name another file, or move that one away"
        )


def is_chart(path: Path) -> bool:
    """Whether matplotlib drew it, as its PNG files say. A user's picture may be a PNG, too."""
    from PIL import Image

    try:
        with Image.open(path, formats=["PNG"]) as image:
            return str(image.info.get("Software")).startswith("Matplotlib")
    except (OSError, ValueError, SyntaxError):
        return False


def check_apart(folder: Path, path: Path, flag: str, pictures: Iterable[Path] = ()) -> None:
    """Raise UserError when `folder`, to which a flag with `path` makes a script write, is among the
    pictures: the next run would take what is written for one of them."""
    if place := _Places([IMAGES, *_folders_of(pictures)]).holding(folder):
        raise UserError(
            f"{flag} {shown(path)} lies among the pictures of {shown(place)}; name another place"
        )


class _Places:
    def __init__(self, folders: Iterable[Path]):
        self._at: dict[Identity, Path] = {}
        self._above: dict[Identity, Path] = {}
        for folder in folders:
            real = Path(os.path.realpath(folder))
            if here := _identity(real):
                self._at.setdefault(here, folder)
            for parent in (*real.parents, *folder.parents):  # a walk may come by either way
                if above := _identity(parent):
                    self._above.setdefault(above, folder)

    def holding(self, folder: Path) -> Path | None:
        """The place that is `folder`, or above it."""
        real = Path(os.path.realpath(folder))
        steps = map(_identity, (real, *real.parents))
        return next((self._at[step] for step in steps if step in self._at), None)

    def clash_with(self, folder: Path) -> Path | None:
        """The place that is `folder`, above it, or below it."""
        return self.holding(folder) or self._above.get(_identity(folder))


def _identity(folder: Path) -> Identity | None:
    """None for what is not there: nothing lies in it, and it is the same as nothing."""
    try:
        found = folder.stat()
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def _folders_of(paths: Iterable[Path]) -> dict[Path, Path]:
    """The folders that files really lie in, each with one of them."""
    found: dict[Path, Path] = {}
    for path in paths:
        found.setdefault(path.parent, path)
        if path.is_symlink():
            found.setdefault(Path(os.path.realpath(path)).parent, path)
    return found
