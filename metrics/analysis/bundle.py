"""What a judgement rests on, packed into one file and unpacked again.

A bundle is a zip of the rows of both arms, the manifest, run.json, invocations.csv, what was
measured of the pixels, the few outputs that the report shows, the choices made, and the summary and
report that followed.
"""

import hashlib
import json
import lzma
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from metrics.analysis.assumptions import Assumptions, checked
from metrics.analysis.output_equivalence import (
    Outputs,
    PixelDifferences,
    pixels_from_csv,
    pixels_to_csv,
)
from metrics.analysis.sweep import is_kept_file, kept_files
from metrics.common.cli import UserError
from metrics.common.originals import check_apart, check_target
from metrics.common.paths import SWEEP, shown, whole_file

# 1  2026-11: first version
# 2  2026-11-25: columns, keys and choices have the field's usual names; copies of a picture count
#    as one sample, so that other statistics follow from the same rows
FORMAT = 2
EARLIEST_ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # fixed, so that the same run gives the same bundle
MAX_MEMBER = 2**32  # bytes, unpacked: a zip that claims more was made to do harm
OUTPUTS = "outputs/"
NOT_A_BUNDLE = (  # what reading a file raises that is no zip, a damaged or an odd one
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError),
    *(KeyError, TypeError, ValueError, AttributeError),
)


@dataclass(frozen=True)
class Choices:
    """What a user decided about the judgement, beside the rows."""

    run_id: str | None = None
    self_check: bool = False
    allow_partial: bool = False
    assumptions: Assumptions = field(default_factory=Assumptions)


@dataclass(frozen=True)
class RunFiles:
    """All that a judgement rests on. A file that there is none of is None."""

    local_csv: Path
    cloud_csv: Path | None
    manifest: Path | None
    run_json: bytes | None
    invocations: bytes | None
    outputs: Outputs
    pixels: PixelDifferences = field(default_factory=dict)
    choices: Choices = field(default_factory=Choices)
    sweep: Path | None = None  # the folder of the runs before it, see sweep.py


def pack(
    target: Path,
    run_files: RunFiles,
    pixels: PixelDifferences,
    outputs: dict[str, bytes],
    results: list[Path],
) -> None:
    """Write the bundle. `outputs` are JPEGs by their hash; `results` go in under their names."""
    members = {
        "bundle.json": json.dumps({"format": FORMAT, **asdict(run_files.choices)}).encode(),
        "local_metrics.csv": run_files.local_csv.read_bytes(),
        "pixel_differences.csv": pixels_to_csv(pixels),
    }
    if run_files.cloud_csv:
        members["lambda_metrics.csv"] = run_files.cloud_csv.read_bytes()
    if run_files.manifest:
        members["manifest.json"] = run_files.manifest.read_bytes()
    if run_files.run_json:
        members["run.json"] = run_files.run_json
    if run_files.invocations:
        members["invocations.csv"] = run_files.invocations
    members |= {f"{OUTPUTS}{sha256}.jpg": jpeg for sha256, jpeg in outputs.items()}
    if run_files.sweep:
        members |= {f"{SWEEP.name}/{name}": data for name, data in kept_files(run_files.sweep)}
    members |= {path.name: path.read_bytes() for path in results}
    with whole_file(target) as file, zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            entry = zipfile.ZipInfo(name, EARLIEST_ZIP_TIME)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data, zipfile.ZIP_DEFLATED)


def check_bundle(target: Path, pictures: Iterable[Path] = ()) -> None:
    """Raise UserError for a --bundle that would replace anything but a bundle, or lies among the
    pictures."""
    check_target(target, "--bundle", is_bundle)
    check_apart(target.parent, target, "--bundle", pictures)


def is_bundle(path: Path) -> bool:
    """Whether pack() wrote it, by what all bundles of all versions hold."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {"bundle.json", "local_metrics.csv"} <= set(archive.namelist())
    except NOT_A_BUNDLE:
        return False


def unpack(bundle: Path, folder: Path) -> tuple[RunFiles, bytes]:
    """The run files in a bundle, its files put into `folder`, and the summary.json that was packed.

    Only members that pack() writes are read. Raises UserError for anything that is no bundle.
    """
    try:
        with zipfile.ZipFile(bundle) as archive:
            choices = _choices(json.loads(_member(archive, "bundle.json")), bundle)
            run_files = _run_files(archive, choices, folder)
            return run_files, _member(archive, "summary.json")
    except FileNotFoundError:
        raise UserError(
            f"{shown(bundle)} does not exist; name a file that --bundle wrote"
        ) from None
    except NOT_A_BUNDLE as error:
        raise UserError(f"{shown(bundle)} is no bundle that --bundle wrote ({error})") from None


def _choices(content: dict, bundle: Path) -> Choices:
    if (packed := content.pop("format")) != FORMAT:
        raise UserError(
            f"{shown(bundle)} is a bundle of format {packed}, and this program reads format "
            f"{FORMAT}; use the version that packed it (the git_commit in its run.json)"
        )
    content["assumptions"] = checked(content.get("assumptions", {}))  # older ones have none
    choices = Choices(**content)
    if not (choices.run_id is None or isinstance(choices.run_id, str)):
        raise TypeError(f"run_id is {choices.run_id!r}")
    if not (isinstance(choices.self_check, bool) and isinstance(choices.allow_partial, bool)):
        raise TypeError(f"odd choices {choices}")
    return choices


def _run_files(archive: zipfile.ZipFile, choices: Choices, folder: Path) -> RunFiles:
    names = set(archive.namelist())
    if "lambda_metrics.csv" not in names and not choices.self_check:
        raise ValueError("no cloud rows in it")

    def content(name: str) -> bytes | None:
        return _member(archive, name) if name in names else None

    paths = {}
    for name in {"local_metrics.csv", "lambda_metrics.csv", "manifest.json"} & names:
        paths[name] = folder / name
        paths[name].write_bytes(_member(archive, name))
    for name in names:
        if is_kept_file(name.removeprefix(f"{SWEEP.name}/")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(_member(archive, name))
    jpegs = [_member(archive, name) for name in names if name.startswith(OUTPUTS)]
    outputs = {hashlib.sha256(jpeg).hexdigest(): jpeg for jpeg in jpegs}
    return RunFiles(
        local_csv=paths["local_metrics.csv"],
        cloud_csv=paths.get("lambda_metrics.csv"),
        manifest=paths.get("manifest.json"),
        run_json=content("run.json"),
        invocations=content("invocations.csv"),
        outputs=lambda _source, _key, sha256: outputs.get(sha256),
        pixels=pixels_from_csv(_member(archive, "pixel_differences.csv")),
        choices=choices,
        sweep=folder / SWEEP.name,
    )


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).file_size > MAX_MEMBER:
        raise ValueError(f"{name} is too large")
    return archive.read(name)
