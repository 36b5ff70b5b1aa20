"""What an interrupted run left behind, so that it can go on where it ended."""

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING

from metrics.analysis.ledger import Manifest, read_manifest
from metrics.analysis.rows import read_rows
from metrics.analysis.run_record import record_of
from metrics.analysis.sweep import Setting, is_kept, nested_subset, settings_of
from metrics.common.cli import UserError
from metrics.common.paths import LOCAL_CSV, MANIFEST_JSON, RUN_JSON, shown
from metrics.run.round_runner import has_own_cloud

if TYPE_CHECKING:
    from onprem_images.dataset import Picture


@dataclass(frozen=True)
class Unfinished:
    """A run that is not done. `passes` is how often each arm takes all pictures, `record` what
    run.json says of it so far, `done_on_prem` the numbers of the passes that have all their rows.
    """

    run_id: str
    passes: int
    record: dict
    done_on_prem: frozenset[int]


def interrupted_run(
    args: argparse.Namespace, pictures: "list[Picture]"
) -> tuple[str, Unfinished | None]:
    """The id of the sweep or run to go on with, and what is done of its run that was under way, if
    the cloud still has that. The interrupted run's number of rounds takes the place of --rounds."""
    settings = settings_of(args, len(pictures))
    sweep_id, setting = sweep_of_manifest(settings)
    if args.run_id not in (None, sweep_id):
        raise UserError(f"the interrupted run is {sweep_id!r}, and not {args.run_id!r}")
    if not setting.is_main and is_kept(setting, sweep_id):
        return sweep_id, None
    precision = args.precision if setting.is_main else None
    cloud_name = "none" if args.self_check else args.cloud
    before = unfinished_run(nested_subset(pictures, setting.pictures), cloud_name, precision)
    rounds = before.passes // 2 if args.self_check else before.passes
    if len(settings) > 1 and not precision and rounds != setting.rounds:
        raise UserError(
            f"the interrupted sweep is one of {rounds} rounds, and not of {setting.rounds}; "
            "repeat its flags with --resume"
        )
    if has_own_cloud(args) and not args.self_check:
        if len(settings) > 1:
            return sweep_id, None  # that run begins anew; those that are kept are not done again
        raise UserError(
            "an embedded cloud ends with its run, and so do the rows in it: nothing to resume; "
            "a run on one that you start yourself (--endpoint-url) or on AWS can be"
        )
    if len(settings) == 1 and not args.precision:
        if args.rounds not in (None, rounds):
            raise UserError(
                f"the interrupted run is one of {rounds} rounds, and not of {args.rounds}"
            )
        args.rounds = rounds
    return sweep_id, before


def sweep_of_manifest(settings: list[Setting]) -> tuple[str, Setting]:
    """The id of the sweep or run that was interrupted here, and with which setting its last run was
    done. Raises UserError when there is none."""
    run_id = _manifest().run_id
    for setting in settings:
        if not setting.is_main and run_id.endswith(f".{setting.name}"):
            return run_id.removesuffix(f".{setting.name}"), setting
    return run_id, settings[-1]


def unfinished_run(
    pictures: "list[Picture]", cloud: str, precision: float | None = None
) -> Unfinished:
    """The run that was interrupted here. Raises UserError when it is done, or when it was about
    other pictures, another cloud, or rounds that are added `until` another width."""
    manifest = _manifest()
    run_id = manifest.run_id
    record = record_of(RUN_JSON.read_bytes() if RUN_JSON.exists() else None, run_id)
    if RUN_JSON.exists() and not record:
        raise UserError(
            f"nothing to resume: {shown(MANIFEST_JSON)} is of run {run_id!r}, and "
            f"{shown(RUN_JSON)} is not; start a new run"
        )
    if record.get("exit_code") is not None:
        raise UserError(f"nothing to resume: run {run_id!r} is done; start a new run")
    if (then := record.get("cloud", cloud)) != cloud:
        raise UserError(f"run {run_id!r} was begun with cloud {then!r}, and not with {cloud!r}")
    if manifest.precision != precision:
        then = f"--precision {manifest.precision:.3%}" if manifest.precision else "no --precision"
        raise UserError(f"run {run_id!r} was begun with {then}; go on with the same")
    listed = set(zip(manifest.pictures["image_key"], manifest.pictures["sha256"], strict=True))
    changed = {key for key, _ in listed ^ {(p.image_key, p.sha256) for p in pictures}}
    if changed:
        raise UserError(
            f"the pictures are not those of run {run_id!r}: {len(changed)} differ, such as "
            f"{min(changed)!r}; restore them, repeat the flags of that run (--images, --all-files, "
            "--scale), or start a new one"
        )
    return Unfinished(run_id, manifest.rounds, record, _done_on_prem(run_id, len(pictures)))


def _manifest() -> Manifest:
    if not MANIFEST_JSON.exists():
        raise UserError(f"nothing to resume: {shown(MANIFEST_JSON)} is not there; start a new run")
    return read_manifest(MANIFEST_JSON)


def _done_on_prem(run_id: str, pictures: int) -> frozenset[int]:
    if not LOCAL_CSV.exists():
        return frozenset()
    rows = read_rows(LOCAL_CSV, "on_prem")
    counts = rows.loc[rows["run_id"] == run_id, "round"].value_counts()
    return frozenset(int(number) for number in counts.index[counts == pictures])
