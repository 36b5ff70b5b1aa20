"""The ledger: what was to be done against what came back, picture by picture and round by round.

Vocabulary
    manifest    what a run is about: its id, number of rounds, and every picture
    done        a row of the run says `ok`
    failed      a row of the run says `error`: the picture is accounted for all the same
    missing     a picture of the manifest without a row in that arm and round
    duplicate   a further row of a picture in the same arm and round; the first counts
    late        a row of another run
    unknown     a row of this run about a picture or a round that is not in the manifest
    completeness    done and failed rows / rows that there should be, over both arms
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from metrics.common.cli import UserError
from metrics.common.paths import shown

JOIN = ["image_key", "round"]
MAX_ROUNDS = 10_000  # more is a mistake
MAX_ROWS = 20_000_000  # of an arm: more would fill the memory, and is a mistake, too


@dataclass(frozen=True)
class Manifest:
    """What a run is about. `pictures` has the columns image_key, size (bytes) and sha256;
    `precision` is the half-width that rounds were added for, None when their number was fixed."""

    run_id: str
    rounds: int
    pictures: pd.DataFrame
    precision: float | None = None


@dataclass(frozen=True)
class Ledger:
    """`counts` has a line for each arm and round: expected, done, failed, missing, duplicate.

    `missing`, `late` and `unknown` hold rows by arm: image_key and round of what lacks a row, and
    the rows that do not count. `from_manifest` is False when what there should be is only what
    either arm has.
    """

    run_id: str
    counts: pd.DataFrame
    missing: dict[str, pd.DataFrame]
    duplicate: dict[str, pd.DataFrame]
    late: dict[str, pd.DataFrame]
    unknown: dict[str, pd.DataFrame]
    from_manifest: bool

    @property
    def expected(self) -> int:
        return int(self.counts["expected"].sum())

    @property
    def accounted(self) -> int:
        return int(self.counts["done"].sum() + self.counts["failed"].sum())

    @property
    def completeness(self) -> float:
        return self.accounted / self.expected if self.expected else 0.0


def reconcile(
    rows_by_arm: dict[str, pd.DataFrame], run_id: str, manifest: Manifest | None
) -> tuple[Ledger, dict[str, pd.DataFrame]]:
    """The ledger of a run, and of each arm's rows those that count: one a picture and round.

    Without a manifest, every picture and round of either arm is taken for expected in both.
    """
    of_run = {arm: rows["run_id"] == run_id for arm, rows in rows_by_arm.items()}
    late = {arm: rows[~of_run[arm]] for arm, rows in rows_by_arm.items()}
    own = {arm: rows[of_run[arm]] for arm, rows in rows_by_arm.items()}
    expected = _expected(own, manifest)
    unknown, duplicate, missing, counted, counts = {}, {}, {}, {}, []
    for arm, rows in own.items():
        is_known = _in(rows, expected)
        is_double = rows.duplicated(JOIN)
        unknown[arm] = rows[~is_known]
        duplicate[arm] = rows[is_known & is_double]
        counted[arm] = rows[is_known & ~is_double].reset_index(drop=True)
        missing[arm] = expected[~_in(expected, counted[arm])]
        counts.append(_counts_by_round(arm, expected, counted[arm], missing[arm], duplicate[arm]))
    ledger = Ledger(
        run_id, pd.concat(counts), missing, duplicate, late, unknown, manifest is not None
    )
    return ledger, counted


def _expected(own: dict[str, pd.DataFrame], manifest: Manifest | None) -> pd.DataFrame:
    if manifest is None:
        known = pd.concat([rows[JOIN] for rows in own.values()])
        keys, rounds = known["image_key"].unique(), sorted(known["round"].unique())
    else:
        keys, rounds = manifest.pictures["image_key"].unique(), range(1, manifest.rounds + 1)
    if len(keys) * len(rounds) > MAX_ROWS:
        product = f"{len(keys):,} pictures x {len(rounds):,} rounds"
        raise UserError(f"{product} are more than can be judged; are the rounds right?")
    parts = [pd.DataFrame({"image_key": keys, "round": number}) for number in rounds]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=JOIN)


def _in(rows: pd.DataFrame, others: pd.DataFrame) -> pd.Series:
    """Which of `rows` have a picture and round that is among `others`."""
    found = pd.Series(False, index=rows.index)
    for number, part in rows.groupby("round"):
        found[part.index] = part["image_key"].isin(others.loc[others["round"] == number, JOIN[0]])
    return found


def _counts_by_round(arm: str, expected, counted, missing, duplicate) -> pd.DataFrame:
    is_ok = counted["status"] == "ok"
    parts = {
        "expected": expected,
        "done": counted[is_ok],
        "failed": counted[~is_ok],
        "missing": missing,
        "duplicate": duplicate,
    }
    counts = pd.DataFrame({name: part["round"].value_counts() for name, part in parts.items()})
    counts = counts.fillna(0).astype(int).sort_index().rename_axis("round").reset_index()
    counts.insert(0, "arm", arm)
    return counts


def contents_of(rows_by_arm: dict[str, pd.DataFrame], manifest: Manifest | None) -> pd.Series:
    """What is in each picture of a run, by image key: equal texts are copies of one picture.

    By the manifest's hashes; where there is none, by what the rows say of output and input. A
    picture that neither tells of is one of its own.
    """
    if manifest is not None:
        known, column = manifest.pictures, "sha256"
    else:
        column = "output_sha256"
        columns = ["image_key", column, "orig_size"]
        known = pd.concat([rows[columns] for rows in rows_by_arm.values()])
    keys = known["image_key"].unique()
    contents = pd.Series(keys, index=keys, dtype=object)
    told = known[known[column] != ""].drop_duplicates("image_key")
    content = told[column]
    if manifest is None:  # inputs of different sizes are no copies, even if their outputs are equal
        content = content + " of " + told["orig_size"].astype(str)
    contents[told["image_key"].to_numpy()] = content.to_numpy()
    return contents


def parse_manifest(data: bytes) -> Manifest:
    """Of what manifest_bytes in dataset.py writes; else ValueError, KeyError or TypeError."""
    try:
        content = json.loads(data)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    run_id, rounds = content["run_id"], content.get("rounds", 1)
    if not isinstance(run_id, str):
        raise TypeError("run_id is no text")
    if type(rounds) is not int or not 1 <= rounds <= MAX_ROUNDS:
        raise ValueError(f"rounds is {rounds!r}")
    precision = content.get("precision")
    if precision is not None and not (isinstance(precision, float) and 0 < precision < math.inf):
        raise ValueError(f"precision is {precision!r}")
    lines = [(p["image_key"], p["size"], p["sha256"]) for p in content["pictures"]]
    for key, size, sha256 in lines:
        if not isinstance(key, str) or type(size) is not int or not isinstance(sha256, str):
            raise TypeError(f"picture {key!r} of {size!r} bytes")
        key.encode()  # a lone surrogate is no text: UnicodeEncodeError, which is a ValueError
    pictures = pd.DataFrame(lines, columns=["image_key", "size", "sha256"])
    return Manifest(run_id, rounds, pictures, precision)


def read_manifest(path: Path) -> Manifest:
    """Raises UserError that names the file when it cannot be read."""
    try:
        return parse_manifest(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{shown(path)} does not exist; name the run's manifest") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{shown(path)} is no manifest of a run ({error!r})") from None
