"""Joining the rows of both arms picture by picture, and judging them.

Vocabulary
    arm         A or B of a comparison: on-prem and the cloud, or two sets of on-prem passes
    pair        one picture of one round with a row in both arms, both `ok`
    ratio       proc_ms in B / proc_ms in A of a pair; above 1 the cloud is slower
    busy time   sum of proc_ms: work, whatever the parallelism
    cpu share   sum of cpu_ms / busy time; below 1 the processor was doing something else, too
    makespan    of a round: from its first picture's begin to its last one's end, by the rows' clock
    problem     something that voids the comparison; any makes the exit code 1
    warning     something that a reader should know before relying on it
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from metrics.analysis.clock_jumps import Jump, clock_jumps
from metrics.analysis.interval import (
    RatioEstimate,
    estimate_ratio,
    geometric_mean_ci,
    mean_of_copies,
)
from metrics.analysis.ledger import JOIN, Ledger, Manifest, contents_of, reconcile
from metrics.analysis.output_equivalence import STATES, PixelDifferences, classify
from metrics.analysis.stability import (
    FEW_PICTURES,
    cpu_utilisation,
    warnings_of_arm,
    warnings_of_machine,
    was_resumed,
)
from metrics.common.cli import UserError
from metrics.common.findings import Finding, names_of
from metrics.common.reasons import (
    MAX_REASONS,
    Failure,
    failure_findings,
    failures_by_reason,
    without_varying,
)
from metrics.common.text import counted, counted_pictures, printable

MAX_COLD_EFFECT = 0.02
SECONDS = r":\d\d:\d\d|T\d{6}"  # of a time in ISO 8601
YEARS = (1971, 2200)  # of timestamps that can be meant
PHASES = ("fetch_ms", "proc_ms", "store_ms")


@dataclass(frozen=True)
class Arm:
    """`name` ends the arm's columns, `label` is what a reader calls it, `source` is in its rows."""

    name: str
    label: str
    source: str


ARMS = (Arm("on_prem", "on-prem", "on_prem"), Arm("cloud", "the cloud", "cloud"))
ARMS_OF_SELF_CHECK = (
    Arm("pass_a", "on-prem A", "on_prem"),
    Arm("pass_b", "on-prem B", "on_prem"),
)


@dataclass(frozen=True)
class ArmSummary:
    """The numbers of one arm. Times of a picture are over its `ok` rows; NaN where unknown."""

    name: str
    label: str
    environment: str
    rows: int
    failed: int
    cold_starts: int
    workers: int
    mean_ms: float
    sd_ms: float
    cv: float
    median_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    min_ms: float
    max_ms: float
    cold_mean_ms: float
    processing_s: float
    cpu_utilisation: float
    makespans_s: tuple[float, ...]
    throughput_per_s: float
    failures: tuple[Failure, ...] = ()

    @property
    def makespan_s(self) -> float:
        """Of one round: the median over the rounds whose makespan is known."""
        known = [span for span in self.makespans_s if not math.isnan(span)]
        return float(np.median(known)) if known else math.nan


@dataclass(frozen=True)
class Joined:
    """The rows of both arms, side by side.

    `rows` are those that count, by arm name, with `begin_s` (seconds since 1970; NaN in the rounds
    of `clock_jumps`, too). `merged` has a line for each picture and round of either arm, `pairs`
    for each pair; columns of an arm end in `_` and its name, `arms` is `both` or the only arm, and
    `output_equivalence` is one of STATES or empty. `contents`, by image key, are equal for copies
    of one picture: where pictures are samples, they count once. `sequential`: the number of rounds
    was decided by looking at them.
    """

    arms: tuple[Arm, Arm]
    summaries: dict[str, ArmSummary]
    rows: dict[str, pd.DataFrame]
    ledger: Ledger
    merged: pd.DataFrame
    pairs: pd.DataFrame
    contents: pd.Series
    record: dict
    sequential: bool
    clock_jumps: Sequence[Jump]

    @property
    def first(self) -> ArmSummary:
        return self.summaries[self.arms[0].name]

    @property
    def second(self) -> ArmSummary:
        return self.summaries[self.arms[1].name]

    @property
    def ratios(self) -> pd.Series:
        return self.pairs[f"proc_ms_{self.second.name}"] / self.pairs[f"proc_ms_{self.first.name}"]

    @property
    def different_pictures(self) -> int:
        return self.contents.nunique()

    @property
    def equivalence_counts(self) -> dict[str, int]:
        counts = self.pairs["output_equivalence"].value_counts()
        return {state: int(counts.get(state, 0)) for state in (*STATES, "")}


@dataclass(frozen=True)
class Comparison(Joined):
    """Both arms joined and judged.

    `per_picture`, `per_picture_cpu` and `whole_job` are B / A of proc_ms, cpu_ms and makespan; None
    where nothing can be said. `signed_rank_p` is Wilcoxon's, `ratio_without_cold` NaN where there
    is no cold start, or nothing else.
    """

    per_picture: RatioEstimate | None
    per_picture_cpu: RatioEstimate | None
    whole_job: RatioEstimate | None
    signed_rank_p: float
    ratio_without_cold: float
    problems: list[Finding]
    warnings: list[Finding]
    is_partial: bool


def compare(
    first: pd.DataFrame,
    second: pd.DataFrame,
    *,
    arms: tuple[Arm, Arm] = ARMS,
    run_id: str | None = None,
    manifest: Manifest | None = None,
    pixels: PixelDifferences | None = None,
    allow_partial: bool = False,
    record: dict | None = None,
) -> Comparison:
    """Join the arms' rows of one run, and find what voids the comparison.

    `run_id` defaults to the manifest's, or to the only one of `first`. Raises UserError when there
    are several, or when no row is of that run.
    """
    run_id = run_id or (manifest.run_id if manifest else only_run(first))
    given = dict(zip((arm.name for arm in arms), (first, second), strict=True))
    _check_run(given, run_id, manifest)
    joined = _joined(given, run_id, arms, manifest, pixels or {}, record or {})
    gaps, void = _gaps(joined.ledger, arms)
    estimates = _estimates(joined, is_partial=bool(gaps))
    problems = [
        *void,
        *([] if allow_partial else gaps),
        *_odd_arms(joined.rows, arms),
        *_different_work(joined, manifest),
        *_no_ratio(joined, estimates),
    ]
    excused = gaps if allow_partial else []
    return Comparison(
        **vars(joined),
        **estimates._asdict(),
        problems=problems,
        warnings=[*excused, *_warnings(joined, estimates)],
        is_partial=bool(gaps),
    )


def _check_run(given: dict[str, pd.DataFrame], run_id: str, manifest: Manifest | None) -> None:
    if manifest and manifest.run_id != run_id:
        raise UserError(f"the manifest is of run {manifest.run_id!r}, and not of run {run_id!r}")
    runs = {run for rows in given.values() for run in rows["run_id"].unique()}
    if run_id not in runs:
        raise UserError(f"no row of run {run_id!r}; there are {sorted(runs)}")


def only_run(rows: pd.DataFrame) -> str:
    runs = sorted(rows["run_id"].unique())
    if len(runs) != 1:
        raise UserError(f"the on-prem rows are of {len(runs)} runs {runs}; choose with --run-id")
    return runs[0]


def begin_s(rows: pd.DataFrame) -> pd.Series:
    """Seconds since 1970; NaN where a timestamp is no moment of our time, as in a file from
    elsewhere, or has no seconds, as a spreadsheet may write it: a makespan of it would be wrong by
    up to a minute."""
    begin = pd.to_datetime(rows["timestamp"], format="ISO8601", utc=True, errors="coerce")
    begin = begin.where(begin.dt.year.between(*YEARS))
    begin_s = (begin.dt.as_unit("us") - pd.Timestamp(0, tz="UTC").as_unit("us")).dt.total_seconds()
    on_the_minute = begin_s[begin_s % 60 == 0].index
    with_seconds = rows.loc[on_the_minute, "timestamp"].str.contains(SECONDS)
    begin_s[on_the_minute[~with_seconds.astype(bool)]] = math.nan
    return begin_s


def _joined(
    given: dict[str, pd.DataFrame],
    run_id: str,
    arms: tuple[Arm, Arm],
    manifest: Manifest | None,
    pixels: PixelDifferences,
    record: dict,
) -> Joined:
    ledger, rows = reconcile(given, run_id, manifest)
    rows = {arm: part.assign(begin_s=begin_s(part)) for arm, part in rows.items()}
    spans = {arm: makespans_s(part) for arm, part in rows.items()}
    jumps = clock_jumps(record, spans, is_aa=arms[0].source == arms[1].source)
    for jump in jumps:
        rows[jump.arm].loc[rows[jump.arm]["round"] == jump.round, "begin_s"] = math.nan
    merged = _merged(rows, pixels)
    return Joined(
        arms=arms,
        summaries={arm.name: summarise(rows[arm.name], arm) for arm in arms},
        rows=rows,
        ledger=ledger,
        merged=merged,
        pairs=merged[_is_pair(merged, *rows)],
        contents=contents_of(rows, manifest),
        record=record,
        sequential=manifest is not None and manifest.precision is not None,
        clock_jumps=jumps,
    )


def _merged(rows: dict[str, pd.DataFrame], pixels: PixelDifferences) -> pd.DataFrame:
    a, b = rows
    merged = (
        rows[a]
        .drop(columns="begin_s")
        .merge(
            rows[b].drop(columns="begin_s"),
            on=JOIN,
            how="outer",
            suffixes=(f"_{a}", f"_{b}"),
            validate="one_to_one",
        )
    )
    has_a, has_b = (merged[f"source_{name}"].notna() for name in rows)
    alone = np.where(has_a, a, b)
    merged["arms"] = pd.Categorical(np.where(has_a & has_b, "both", alone))
    is_pair = _is_pair(merged, a, b)
    merged["output_equivalence"] = ""
    merged.loc[is_pair, "output_equivalence"] = classify(merged[is_pair], (a, b), pixels)
    return merged


def _is_pair(merged: pd.DataFrame, a: str, b: str) -> pd.Series:
    return (merged[f"status_{a}"] == "ok") & (merged[f"status_{b}"] == "ok")


# --- what voids the comparison ------------------------------------------------------------------


def _gaps(ledger: Ledger, arms: tuple[Arm, Arm]) -> tuple[list[Finding], list[Finding]]:
    """Rows that are missing, which --allow-partial excuses; rows that should not be, which void."""
    gaps, void = [], []
    for arm in arms:
        of_arm = ledger.counts[ledger.counts["arm"] == arm.name]
        expected = int(of_arm["expected"].sum())
        if len(lost := ledger.missing[arm.name]):
            text = f"{len(lost)} of {expected} pictures have no {arm.name} row"
            if (rounds := len(of_arm)) > 1:
                text = f"{len(lost)} of {expected} {arm.name} rows ({rounds} rounds) are missing"
            gaps.append(Finding(text, names_of(lost)))
        if len(double := ledger.duplicate[arm.name]):
            void.append(Finding(f"more than one {arm.name} row for a picture", names_of(double)))
        if len(unknown := ledger.unknown[arm.name]):
            void.append(
                Finding(
                    f"{arm.name} rows of pictures or rounds unknown to the manifest",
                    names_of(unknown),
                )
            )
    return gaps, void


def _odd_arms(rows: dict[str, pd.DataFrame], arms: tuple[Arm, Arm]) -> list[Finding]:
    """What voids an arm whatever the other one did."""
    problems = []
    for arm in arms:
        own = rows[arm.name]
        if others := sorted(set(own["source"].unique()) - {arm.source}):
            named = ", ".join(map(repr, others))
            problems.append(Finding(f"rows of source {named} among the {arm.name} rows"))
        if len(places := sorted(own["environment"].unique())) > 1:
            named = ", ".join(map(repr, places))
            problems.append(Finding(f"{arm.name} rows of different environments: {named}"))
        done = own[own["status"] == "ok"]
        if len(done) and (done["new_size"] == done["orig_size"]).all():
            problems.append(
                Finding(f"no picture was changed in the {arm.name} arm: new_size equals orig_size")
            )
    return problems


def _different_work(joined: Joined, manifest: Manifest | None) -> list[Finding]:
    """Evidence that the arms did not do the same to the same pictures."""
    merged, pairs = joined.merged, joined.pairs
    names = a, b = joined.first.name, joined.second.name
    problems = []

    def note(rows: pd.DataFrame, what: str, why: str = "") -> None:
        if len(rows):
            keys = names_of(rows)
            problems.append(Finding(f"{what} for {counted(len(keys), 'picture')}{why}", keys))

    both = merged[merged["arms"] == "both"]
    failed = both[(both[f"status_{a}"] != "ok") | (both[f"status_{b}"] != "ok")]
    unlike = failed[_outcome(failed, a) != _outcome(failed, b)]
    for why, part in _by_outcomes(unlike, names):
        note(part, "the arms differ in success or error", f" ({why})")
    note(both[both[f"orig_size_{a}"] != both[f"orig_size_{b}"]], "the input differs in size")
    if manifest is not None:
        sizes = manifest.pictures.drop_duplicates("image_key").set_index("image_key")["size"]
        expected = pairs["image_key"].map(sizes)
        note(pairs[pairs[f"orig_size_{a}"] != expected], "the input is not the manifest's")
    versions = [pairs[f"transform_{name}"].astype(object) for name in names]
    note(pairs[versions[0] != versions[1]], "other transform versions")
    is_different = pairs["output_equivalence"] == "different"
    hashes = [pairs[f"output_sha256_{name}"] for name in names]
    has_hash = [part != "" for part in hashes]
    other_hash = is_different & (hashes[0] != hashes[1])
    other_size = pairs[f"new_size_{a}"] != pairs[f"new_size_{b}"]
    note(pairs[other_hash & has_hash[0] & has_hash[1]], "the output differs")
    note(pairs[has_hash[0] != has_hash[1]], "only one arm has the output's hash")
    note(pairs[other_size & ~has_hash[0] & ~has_hash[1]], "the output differs in size")
    return problems


def _by_outcomes(rows: pd.DataFrame, names: tuple[str, str]) -> list[tuple[str, pd.DataFrame]]:
    """What became of the pictures in each arm, and the rows of which that is true."""
    alike = [rows[f"error_{name}"].astype(object).map(without_varying) for name in names]
    alike += [rows[f"status_{name}"].astype(object) for name in names]
    parts = sorted((part for _, part in rows.groupby(alike)), key=len, reverse=True)
    found = []
    for part in parts[:MAX_REASONS]:
        said = (f"{name}: {_what_became(part, name)}" for name in names)
        found.append(("; ".join(said), part))
    if others := parts[MAX_REASONS:]:
        found.append((f"{len(others)} other pairs of outcomes", pd.concat(others)))
    return found


def _what_became(rows: pd.DataFrame, arm: str) -> str:
    """The outcome that `rows` have in common."""
    if (rows[f"status_{arm}"] == "ok").all():
        return "ok"
    return failures_by_reason(_errors(rows, arm))[0].reason


def _no_ratio(joined: Joined, estimates: "Estimates") -> list[Finding]:
    if joined.pairs.empty:
        # Where both arms failed alike, nothing else that voids the comparison says why.
        why = _why_none_was_done(joined.summaries)
        return [Finding(f"no picture was processed in both arms{why}")]
    if estimates.per_picture is None:
        return [Finding("no picture was processed in both arms in every round")]
    return []


def _why_none_was_done(summaries: dict[str, ArmSummary]) -> str:
    """The commonest reason of each arm; empty where one of them did any picture."""
    if not all(arm.failed == arm.rows > 0 for arm in summaries.values()):
        return ""
    said = (f"{name}: {arm.failures[0].reason}" for name, arm in summaries.items())
    return f" ({'; '.join(said)})"


def _outcome(rows: pd.DataFrame, arm: str) -> pd.Series:
    """Status and error class; the error's wording may differ between systems."""
    error_class = rows[f"error_{arm}"].astype(object).map(lambda text: text.split(":", 1)[0])
    return rows[f"status_{arm}"].astype(object) + error_class


# --- numbers ------------------------------------------------------------------------------------


def summarise(rows: pd.DataFrame, arm: Arm) -> ArmSummary:
    """The numbers of the rows that count (with `begin_s`) in one arm."""
    done = rows[rows["status"] == "ok"]
    times = done["proc_ms"]
    spans = makespans_s(rows)
    per_round = done["round"].value_counts().reindex(spans.index, fill_value=0)
    return ArmSummary(
        name=arm.name,
        label=arm.label,
        environment=", ".join(
            printable(place) for place in sorted(set(rows["environment"].unique()) - {""})
        )
        or "unknown",
        rows=len(rows),
        failed=len(rows) - len(done),
        cold_starts=int(rows["cold_start"].sum()),
        workers=_workers(rows),
        mean_ms=times.mean(),
        sd_ms=times.std(),
        cv=times.std() / times.mean() if len(times) else math.nan,
        median_ms=times.median(),
        p90_ms=times.quantile(0.90),
        p95_ms=times.quantile(0.95),
        p99_ms=times.quantile(0.99),
        min_ms=times.min(),
        max_ms=times.max(),
        cold_mean_ms=done.loc[done["cold_start"], "proc_ms"].mean(),
        processing_s=times.sum() / 1000,
        cpu_utilisation=cpu_utilisation(done),
        makespans_s=tuple(spans),
        throughput_per_s=float((per_round / spans).median()) if len(spans) else math.nan,
        failures=tuple(failures_by_reason(_errors(rows[rows["status"] != "ok"]))),
    )


def _errors(failed: pd.DataFrame, arm: str = "") -> Iterator[tuple[str, str]]:
    """Image keys and errors; of merged rows, those of an arm."""
    return zip(failed["image_key"], failed[f"error_{arm}" if arm else "error"], strict=True)


def _workers(rows: pd.DataFrame) -> int:
    """The most that a round had; 0 when the rows do not tell."""
    named = rows[rows["worker"] != ""]
    return int(named.groupby("round")["worker"].nunique().max()) if len(named) else 0


def makespans_s(rows: pd.DataFrame) -> pd.Series:
    """By round; NaN for a round with a timestamp that cannot be read."""
    end_s = rows["begin_s"] + rows[list(PHASES)].sum(axis=1) / 1000
    by_round = pd.DataFrame({"round": rows["round"], "begin": rows["begin_s"], "end": end_s})
    groups = by_round.groupby("round")
    spans = groups["end"].max() - groups["begin"].min()
    return spans.where(~by_round["begin"].isna().groupby(by_round["round"]).any())


class Estimates(NamedTuple):
    """As in Comparison."""

    per_picture: RatioEstimate | None
    per_picture_cpu: RatioEstimate | None
    whole_job: RatioEstimate | None
    signed_rank_p: float
    ratio_without_cold: float


def _estimates(joined: Joined, is_partial: bool) -> Estimates:
    has_makespans = not (is_partial or was_resumed(joined.record))
    return Estimates(
        per_picture=_per_picture(joined, "proc_ms"),
        per_picture_cpu=_per_picture(joined, "cpu_ms"),
        whole_job=_whole_job(joined) if has_makespans else None,
        signed_rank_p=_signed_rank_p(joined),
        ratio_without_cold=_ratio_without_cold(joined),
    )


def _per_picture(joined: Joined, column: str) -> RatioEstimate | None:
    """The ratio over pictures that are pairs in every round."""
    logs, keys = log_ratio_table(joined, column)
    if len(logs) == 0:
        return None
    return estimate_ratio(logs, sequential=joined.sequential, contents=joined.contents[keys])


def _signed_rank_p(joined: Joined) -> float:
    """Of Wilcoxon's test over the pictures, which knows nothing of drift."""
    logs, keys = log_ratio_table(joined, "proc_ms")
    if len(logs) == 0:
        return math.nan
    means = mean_of_copies(logs, joined.contents[keys]).mean(axis=1)
    return float(stats.wilcoxon(means).pvalue) if np.any(means) else 1.0


def log_ratio_table(joined: Joined, column: str) -> tuple[np.ndarray, pd.Index]:
    """Log ratios by picture and round, none missing, and the pictures' keys: of the rounds that
    keep the most of them (all, as a rule), and the pictures that are pairs in each of these."""
    pairs = joined.pairs
    a, b = (pairs[f"{column}_{arm.name}"].to_numpy() for arm in joined.arms)
    known = (a > 0) & (b > 0)
    picture, keys = pd.factorize(pairs["image_key"][known])
    number, rounds = pd.factorize(pairs["round"][known], sort=True)
    logs = np.full((len(keys), len(rounds)), math.nan)
    logs[picture, number] = np.log(b[known] / a[known])
    is_known = ~np.isnan(logs)
    fullest = np.argsort(-is_known.sum(axis=0), kind="stable")
    kept = [n * int(is_known[:, fullest[:n]].all(axis=1).sum()) for n in range(1, len(rounds) + 1)]
    chosen = np.sort(fullest[: len(kept) - int(np.argmax(kept[::-1]))]) if kept else []
    has_all = is_known[:, chosen].all(axis=1) if kept else np.zeros(len(keys), bool)
    return logs[has_all][:, chosen], keys[has_all]


def _whole_job(joined: Joined) -> RatioEstimate | None:
    a, b = (np.array(arm.makespans_s) for arm in (joined.first, joined.second))
    if len(a) != len(b):
        return None
    known = ~np.isnan(a) & ~np.isnan(b)
    a, b = a[known], b[known]
    if len(a) < 2 or not (np.all(a > 0) and np.all(b > 0)):
        return None  # one round tells nothing of how much makespans scatter
    return geometric_mean_ci(b / a, joined.sequential)


def _ratio_without_cold(joined: Joined) -> float:
    """Geometric mean over the pairs in which no arm had a cold start, copies of a picture in a
    round as one."""
    pairs = joined.pairs
    is_cold = pairs[[f"cold_start_{arm.name}" for arm in joined.arms]].astype(bool).any(axis=1)
    warm = pairs[~is_cold]
    if warm.empty or len(warm) == len(pairs):
        return math.nan
    logs = np.log(joined.ratios[warm.index])
    by_content = logs.groupby([warm["image_key"].map(joined.contents), warm["round"]])
    return math.exp(by_content.mean().mean())


# --- what a reader should know ------------------------------------------------------------------


def _warnings(joined: Joined, estimates: Estimates) -> list[Finding]:
    found = _few_samples(joined, estimates.per_picture)
    for arm in joined.arms:
        found += _warnings_of_arm(joined, arm)
    found += _cold_starts_that_count(estimates)
    found += [jump.finding for jump in joined.clock_jumps]
    return found + warnings_of_machine(joined.record)


def _few_samples(joined: Joined, estimate: RatioEstimate | None) -> list[Finding]:
    found = []
    if (different := joined.different_pictures) < (files := len(joined.contents)):
        text = f"only {counted(different, 'different picture')} among {files:,}"
        found.append(Finding(text, advice="copies of a picture count as one"))
    if estimate is not None and estimate.pictures < FEW_PICTURES:
        pictures = counted_pictures(estimate.pictures, estimate.copies)
        text = f"only {pictures}: other pictures may say otherwise"
        found.append(Finding(text, advice=f"use {FEW_PICTURES} or more"))
    if unproved := joined.equivalence_counts[""]:
        text = f"same work is not proved for {counted(unproved, 'pair')}: no hashes, sizes only"
        found.append(Finding(text))
    if estimate is None:
        return found
    if estimate.rounds < joined.pairs["round"].nunique():
        text = f"only {estimate.rounds} rounds count in the headline: the others have gaps"
        found.append(Finding(text))
    if left_out := joined.pairs["image_key"].nunique() - estimate.pictures - estimate.copies:
        pictures = counted(left_out, "picture")
        text = f"{pictures} without a pair in every round are left out of the headline"
        found.append(Finding(text))
    return found


def _warnings_of_arm(joined: Joined, arm: Arm) -> list[Finding]:
    rows = joined.rows[arm.name]
    found = warnings_of_arm(arm.label, rows[rows["status"] == "ok"])
    if len(odd := rows.loc[rows["begin_s"].isna(), "timestamp"]):
        text = (
            f"{arm.label}: {counted(len(odd), 'timestamp')} such as {odd.iloc[0]!r} "
            f"{'are' if len(odd) > 1 else 'is'} no ISO 8601 time with seconds, so nothing is "
            "said of the whole job"
        )
        found.append(Finding(text, advice="a spreadsheet may have changed the file"))
    if len(late := joined.ledger.late[arm.name]):
        runs = ", ".join(sorted({repr(str(run)) for run in late["run_id"]})[:3])
        text = f"{arm.label}: {counted(len(late), 'row')} of other runs ({runs}) do not count"
        found.append(Finding(text))
    return found + failure_findings(arm.label, joined.summaries[arm.name].failures)


def _cold_starts_that_count(estimates: Estimates) -> list[Finding]:
    estimate, warm = estimates.per_picture, estimates.ratio_without_cold
    if estimate is None or math.isnan(warm):
        return []
    if abs(math.log(warm) - estimate.log_ratio) <= math.log1p(MAX_COLD_EFFECT):
        return []
    text = (
        f"cold starts count: without them the ratio is {warm:.2f}, with them {estimate.ratio:.2f}"
    )
    return [Finding(text, advice="more rounds make them rarer")]
