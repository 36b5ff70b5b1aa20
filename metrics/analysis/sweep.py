"""Sweeps: the comparison again with another number of pictures, parallelism, or memory.

Each is a run of its own, in rounds, with a manifest and a ledger of its own, and is kept in a
folder of metrics/sweep/ until the next run. The main run, which is judged, comes last, and is a
point of every sweep. One thing is varied at a time.

Vocabulary
    scale         growing, nested sub-sets of the pictures
    parallelism   on-prem workers and environments of the function at once
    memory        the function's memory, which decides its share of a processor, and its price
    setting       what one run is done with
    point         a setting and what came of it
"""

import argparse
import bisect
import json
import random
import re
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from metrics.common.cli import UserError
from metrics.common.paths import (
    CLOUD_CSV,
    INVOCATIONS_CSV,
    LOCAL_CSV,
    MANIFEST_JSON,
    PART_PREFIX,
    RUN_JSON,
    SWEEP,
)
from metrics.common.text import counted

if TYPE_CHECKING:
    from onprem_images.dataset import Picture

MAIN = "main"  # the run that is judged, after those of the sweeps
KINDS = SCALE, PARALLELISM, MEMORY = "scale", "parallelism", "memory"
ROUNDS = 3  # of a point, unless --rounds says otherwise: fewer give no useful interval
MAX_RUN_ID = 40  # of a sweep: its runs' names are longer
SEED = 20261124
GOLDEN_RATIO = (5**0.5 - 1) / 2
SETTING_JSON = "setting.json"
KEPT = (LOCAL_CSV, CLOUD_CSV, MANIFEST_JSON, RUN_JSON, INVOCATIONS_CSV)  # of each run


@dataclass(frozen=True)
class Setting:
    """What one run is done with; `kind` is MAIN or the sweep's, `rounds` 0 for as many as it needs.
    `concurrency` and `memory_mb` are None where the function stays as it is."""

    kind: str
    pictures: int
    rounds: int
    workers: int
    concurrency: int | None = None
    memory_mb: int | None = None

    @property
    def is_main(self) -> bool:
        return self.kind == MAIN

    @property
    def name(self) -> str:
        """Of the folder that keeps it; the main run is kept nowhere."""
        value = {
            SCALE: f"{self.pictures}",
            PARALLELISM: f"{self.workers}-{self.concurrency}",
            MEMORY: f"{self.memory_mb}",
        }
        return f"{self.kind}-{value[self.kind]}"

    def __str__(self) -> str:
        rounds = counted(self.rounds, "round") if self.rounds else "rounds as needed"
        parts = [
            f"{counted(self.pictures, 'picture')} x {rounds}",
            counted(self.workers, "worker"),
            self.concurrency and counted(self.concurrency, "environment"),
            self.memory_mb and f"{self.memory_mb:,} MB",
        ]
        return f"{'comparison' if self.is_main else self.kind}: {', '.join(filter(None, parts))}"

    def run_id(self, of_sweep: str) -> str:
        return of_sweep if self.is_main else f"{of_sweep}.{self.name}"


def settings_of(args: argparse.Namespace, pictures: int) -> list[Setting]:
    """The runs that the flags ask for, the main run last. Raises UserError for sub-sets that there
    are too few pictures for."""
    if args.scale and args.scale[-1] > pictures:
        raise UserError(f"--scale asks for {args.scale[-1]} pictures, and there are {pictures}")
    main = _main_run(args, pictures)
    point = replace(main, rounds=args.rounds or ROUNDS)
    found = [*_of_scale(args, point), *_of_parallelism(args, point), *_of_memory(args, point)]
    if found and not args.precision:
        main = replace(main, rounds=point.rounds)
    return [*found, main]


def _main_run(args: argparse.Namespace, pictures: int) -> Setting:
    return Setting(
        kind=MAIN,
        pictures=pictures,
        rounds=0 if args.precision else args.rounds or 1,
        workers=args.workers[-1],
        concurrency=args.concurrency[-1] if len(args.concurrency) > 1 else None,
        memory_mb=args.memory[0] if len(args.memory) == 1 else None,
    )


def _of_scale(args: argparse.Namespace, point: Setting) -> Iterable[Setting]:
    for count in args.scale:
        if count < point.pictures:  # the main run has them all
            yield replace(point, kind=SCALE, pictures=count)


def _of_parallelism(args: argparse.Namespace, point: Setting) -> Iterable[Setting]:
    """Both lists end with what the main run has; the shorter one stays at its first number until
    the longer one is as near to its end."""
    point = replace(point, kind=PARALLELISM)
    for step in range(-max(len(args.workers), len(args.concurrency)), -1):
        workers = args.workers[max(step, -len(args.workers))]
        concurrency = args.concurrency[max(step, -len(args.concurrency))]
        is_set = point.concurrency is not None
        yield replace(point, workers=workers, concurrency=concurrency if is_set else None)


def _of_memory(args: argparse.Namespace, point: Setting) -> Iterable[Setting]:
    for memory in args.memory if len(args.memory) > 1 else ():
        yield replace(point, kind=MEMORY, memory_mb=memory)


def nested_subset(pictures: "list[Picture]", count: int) -> "list[Picture]":
    """So many of `pictures`, of the same mix of sizes; a larger sub-set holds every smaller one.

    Each next picture is the one whose rank by size is nearest to the next place of a golden-ratio
    sequence, whose beginnings all cover their range evenly (Knuth, The Art of Computer Programming,
    vol. 3, 6.4).
    """
    if count >= len(pictures):
        return pictures
    left = sorted(pictures, key=lambda picture: (picture.size, picture.image_key))
    ranks, n = list(range(len(left))), len(left)
    place, chosen = random.Random(SEED).random(), []  # nosec B311 # to be repeated
    for _ in range(count):
        wanted = place * n
        at = min(bisect.bisect_left(ranks, wanted - 0.5), len(ranks) - 1)
        chosen.append(ranks.pop(at))
        place = (place + GOLDEN_RATIO) % 1
    is_chosen = {left[rank].image_key for rank in chosen}
    return [picture for picture in pictures if picture.image_key in is_chosen]


# --- what is kept of each run -------------------------------------------------------------------


def keep(setting: Setting, folder: Path = SWEEP) -> None:
    """Copy what lies here of the run just done. It is kept whole, or not at all."""
    folder.mkdir(exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=folder, prefix=PART_PREFIX))
    for path in KEPT:
        if path.exists():
            shutil.copyfile(path, part / path.name)
    (part / SETTING_JSON).write_text(json.dumps(asdict(setting)))
    part.chmod(0o755)
    for earlier in leftovers(folder):
        if earlier.name == setting.name:
            delete(earlier)
    part.rename(folder / setting.name)


def is_kept(setting: Setting, run_id: str, folder: Path = SWEEP) -> bool:
    """Whether the run of that sweep was done before, with the very setting."""
    found = kept_settings(run_id, folder)
    return any(there == setting for there, _ in found)


def kept_settings(run_id: str, folder: Path = SWEEP) -> list[tuple[Setting, Path]]:
    """Settings and folders of the runs that are kept of this sweep. What else lies there is left
    out: it is of another run, or not ours."""
    found = []
    for path in sorted(folder.glob(f"*/{SETTING_JSON}")):
        try:
            setting = Setting(**json.loads(path.read_bytes()))
            manifest = json.loads((path.parent / MANIFEST_JSON.name).read_bytes())
            is_own = manifest["run_id"] == setting.run_id(run_id)
            if is_own and path.parent.name == setting.name and _is_plain(setting):
                found.append((setting, path.parent))
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            continue
    return sorted(found, key=lambda item: _order(item[0]))


def _is_plain(setting: Setting) -> bool:
    counts = (setting.pictures, setting.rounds, setting.workers)
    others = (setting.concurrency, setting.memory_mb)
    return all(type(n) is int for n in counts) and all(n is None or type(n) is int for n in others)


def _order(setting: Setting) -> tuple:
    numbers = (setting.pictures, setting.workers, setting.concurrency or 0, setting.memory_mb or 0)
    return (KINDS.index(setting.kind), *numbers)


def kept_files(folder: Path) -> list[tuple[str, bytes]]:
    """All that keep() put there, by names such as `scale-8/manifest.json`."""
    paths = sorted(folder.glob("*/*"))
    names = [f"{path.parent.name}/{path.name}" for path in paths]
    return [(n, p.read_bytes()) for n, p in zip(names, paths, strict=True) if is_kept_file(n)]


def is_kept_file(name: str) -> bool:
    """Whether keep() gives a file such a name; it leads nowhere else."""
    folder, _, file = name.partition("/")
    return is_name(folder) and file in {path.name for path in KEPT} | {SETTING_JSON}


def is_name(folder: str) -> bool:
    """Whether a setting may have this name."""
    return bool(re.fullmatch(rf"({'|'.join(KINDS)})-[0-9]+(-([0-9]+|None))?", folder))


def leftovers(folder: Path = SWEEP) -> Iterable[Path]:
    """Folders that keep() made, whole or not."""
    names = {path.name for path in KEPT} | {SETTING_JSON}
    if folder.is_symlink():  # what lies behind a link is nobody's
        return
    for path in folder.glob("*"):
        if path.is_symlink() or not path.is_dir():
            continue
        held = {inner.name for inner in path.iterdir()}
        if held <= names and (is_name(path.name) or path.name.startswith(PART_PREFIX)):
            yield path


def clean(folder: Path = SWEEP) -> None:
    for path in list(leftovers(folder)):
        delete(path)


def delete(kept: Path) -> None:
    for file in kept.iterdir():
        file.unlink()
    kept.rmdir()
