"""Saying what follows from a comparison: one sentence on each question, and the tables."""

import math

import pandas as pd

from metrics.analysis.comparison import ArmSummary, Comparison
from metrics.analysis.interval import (
    MIN_PICTURES,
    RatioEstimate,
    drift_margin_text,
    ratio_text,
    times_text,
)
from metrics.analysis.stability import (
    MIN_CPU_UTILISATION,
    ON_THIS_MACHINE,
    is_throttled,
    was_resumed,
)
from metrics.common.text import counted, counted_pictures, difference, p_value, percent, seconds


def verdict_per_picture(comparison: Comparison) -> str:
    """One sentence on `proc_ms`: which arm is faster and how sure that is, or why none can tell."""
    if comparison.problems:
        reasons = "; ".join(problem.text for problem in comparison.problems)
        return f"not comparable: {reasons}"
    estimate = comparison.per_picture
    basis = _basis(comparison, estimate)
    if estimate.pictures < MIN_PICTURES:
        return (
            f"cannot tell which is faster per picture: fewer than {MIN_PICTURES}"
            f"{' different' if estimate.copies else ''} pictures "
            f"(ratio {ratio_text(estimate)}{basis})"
        )
    if estimate.includes_1:
        return f"cannot tell which is faster per picture: {_no_difference(estimate, basis)}"
    if crowded := _crowded_arms(comparison):
        return (
            f"cannot tell which is faster per picture: {crowded} had the processor for less than "
            f"{MIN_CPU_UTILISATION:.0%} of the time, and processor time does not show the "
            f"difference (ratio of processor times {ratio_text(comparison.per_picture_cpu)}; of "
            f"wall times {ratio_text(estimate)}{basis})"
        )
    return f"{_winner(comparison, estimate)} is {times_text(estimate, 'faster per picture', basis)}"


def verdict_whole_job(comparison: Comparison) -> str:
    """One sentence on the makespan; empty when the arms are not comparable."""
    estimate = comparison.whole_job
    if comparison.problems:
        return ""
    if estimate is None:
        return f"cannot tell which finishes the whole job sooner: {_why_no_makespans(comparison)}"
    spans = " against ".join(
        f"{seconds(arm.makespan_s)} ({_workers(arm)}{arm.label})"
        for arm in (comparison.first, comparison.second)
    )
    basis = f", {counted(estimate.rounds, 'round')}, {where(comparison)}"
    if estimate.includes_1:
        return (
            f"cannot tell which finishes the whole job sooner: makespan {spans}; "
            f"{_no_difference(estimate, basis)}"
        )
    winner = _winner(comparison, estimate)
    return f"{winner} finishes the whole job {times_text(estimate, f'sooner: {spans}', basis)}"


def _why_no_makespans(comparison: Comparison) -> str:
    if comparison.is_partial:
        return "rows are missing"
    if was_resumed(comparison.record):
        return "the run was interrupted and resumed, and a makespan may hold the pause"
    if comparison.clock_jumps:
        return "; ".join(dict.fromkeys(jump.text for jump in comparison.clock_jumps))
    spans = [arm.makespan_s for arm in (comparison.first, comparison.second)]
    if any(map(math.isnan, spans)):
        return "timestamps are unknown"
    return (
        f"one round, makespans {seconds(spans[0])} ({comparison.first.label}) against "
        f"{seconds(spans[1])} ({comparison.second.label}), does not tell chance from difference; "
        "use --rounds 3 or more"
    )


def _basis(comparison: Comparison, estimate: RatioEstimate) -> str:
    pictures = counted_pictures(estimate.pictures, estimate.copies)
    parts = f", {pictures} x {counted(estimate.rounds, 'round')}"
    cold = sum(arm.cold_starts for arm in comparison.summaries.values())
    cold_note = f", {counted(cold, 'cold start')} included" if cold else ""
    completeness = comparison.ledger.completeness
    partial = f", partial: {percent(completeness)} of the rows" if comparison.is_partial else ""
    unproved = ", same work not proved" if comparison.equivalence_counts[""] else ""
    notes = f"{cold_note}{partial}{unproved}"
    return f"{parts}{drift_margin_text(estimate)}{notes}, {where(comparison)}"


def where(comparison: Comparison) -> str:
    """What stands for the cloud: the embedded one's times are this machine's."""
    environment = comparison.second.environment
    known = {"embedded": "embedded cloud, not AWS", "aws": "AWS", "local": "this machine"}
    return known.get(environment, f"cloud environment {environment}")


def _winner(comparison: Comparison, estimate: RatioEstimate) -> str:
    return (comparison.first if estimate.ratio > 1 else comparison.second).label


def _no_difference(estimate: RatioEstimate, basis: str) -> str:
    more = estimate.with_rounds(max(4, 2 * estimate.rounds))
    return (
        f"the interval includes 1 (ratio {ratio_text(estimate)}{basis}); this run could have seen "
        f"a difference of {difference(estimate.detectable_difference)} or more; "
        f"--rounds {more.rounds} would see {difference(more.detectable_difference)}"
    )


def _workers(arm: ArmSummary) -> str:
    return f"{counted(arm.workers, 'worker')}, " if arm.workers else ""


def _crowded_arms(comparison: Comparison) -> str:
    """Labels of the arms on this machine whose processor was shared, when the difference is in
    wall time only: then the sharing made it, and not the arm. Empty otherwise. A small function is
    held to its share by its memory: that is the arm."""
    crowded = [
        arm.label
        for arm in comparison.summaries.values()
        if arm.environment in ON_THIS_MACHINE and arm.cpu_utilisation < MIN_CPU_UTILISATION
        if not is_throttled(comparison.rows[arm.name])
    ]
    cpu = comparison.per_picture_cpu
    if not crowded or cpu is None:
        return ""
    same_side = (cpu.ratio > 1) == (comparison.per_picture.ratio > 1)
    return "" if same_side and not cpu.includes_1 else " and ".join(crowded)


def table(comparison: Comparison) -> str:
    """The summary of both arms as aligned text."""
    arms = comparison.summaries.values()
    columns = {
        "arm": [arm.name for arm in arms],
        "runs on": [arm.environment for arm in arms],
        "n": [arm.rows for arm in arms],
        "failed": [arm.failed for arm in arms],
        "cold": [arm.cold_starts for arm in arms],
        "mean ms": [f"{arm.mean_ms:.1f}" for arm in arms],
        "median ms": [f"{arm.median_ms:.1f}" for arm in arms],
        "p95 ms": [f"{arm.p95_ms:.1f}" for arm in arms],
        "processing s": [f"{arm.processing_s:.2f}" for arm in arms],
        "CPU utilisation": [f"{arm.cpu_utilisation:.0%}" for arm in arms],
        "makespan s": [f"{arm.makespan_s:.2f}" for arm in arms],
        "throughput /s": [f"{arm.throughput_per_s:.1f}" for arm in arms],
    }
    return pd.DataFrame(columns).replace(["nan", "nan%"], "-").to_string(index=False)


def ratio_line(comparison: Comparison) -> str:
    """The ratios of the pairs in one line; empty when there is none, or it says nothing."""
    ratios, estimate = comparison.ratios, comparison.per_picture
    if estimate is None or comparison.problems:  # such a number would only be quoted
        return ""
    # Of one round the p-value is about the drift_margin: beside the interval it would only puzzle.
    sure = f", paired test {p_value(estimate.p_value)}" if estimate.drift_margin == 1 else ""
    mean = f"{ratio_text(estimate)}{sure}"
    if estimate.pictures < MIN_PICTURES:
        mean = f"{estimate.ratio:.2f} (too few pictures for an interval)"
    names = f"{comparison.second.name}/{comparison.first.name}"
    return (
        f"{names} time per picture: geometric mean {mean}; "
        f"ratios from {ratios.min():.3f} to {ratios.max():.3f}, median {ratios.median():.3f}"
    )


def ledger_line(comparison: Comparison) -> str:
    """Completeness in one line."""
    ledger = comparison.ledger
    counts = ledger.counts.drop(columns=["arm", "round", "expected"]).sum().to_dict()
    counts["late"] = sum(map(len, ledger.late.values()))
    counts["unknown"] = sum(map(len, ledger.unknown.values()))
    said = [f"{count:,} {name}" for name, count in counts.items() if count]
    rows = f"{ledger.accounted:,} of {ledger.expected:,} rows"
    source = "" if ledger.from_manifest else " (no manifest: what either arm has is expected)"
    return f"completeness {percent(ledger.completeness)}: {', '.join([rows, *said])}{source}"


def equivalence_line(comparison: Comparison) -> str:
    """How many outputs are identical, equivalent, different or unproved, in one line."""
    counts = comparison.equivalence_counts
    unproved = counts.pop("")
    said = [f"{count:,} {state}" for state, count in counts.items()]
    if unproved:
        said.append(f"{unproved:,} without hashes, compared by size only")
    return f"same work: of {counted(len(comparison.pairs), 'pair')}, {', '.join(said)}"
