"""summary.json: the judgement for machines.

Numbers are rounded to SIGNIFICANT_DIGITS, so that the same rows give the same bytes on another
machine, whose arithmetic may differ in the last bit. What is not known is null.
"""

import dataclasses
import json
import math
from pathlib import Path

from metrics.analysis.break_even import break_even_content
from metrics.analysis.comparison import ArmSummary, Comparison
from metrics.analysis.cost import PRICES_OF, Bill, cost_by_part, total_usd, work_usd
from metrics.analysis.interval import CONFIDENCE, POWER, RatioEstimate
from metrics.analysis.judgement import Judgement
from metrics.analysis.output_equivalence import MAX_DIFFERENCE, MIN_PSNR_DB
from metrics.analysis.sweep_results import Sweep, memory_mb
from metrics.common.findings import Finding
from metrics.report.verdict import verdict_per_picture, verdict_whole_job

# 1  2026-11: first version
# 2  2026-11-25: the field's usual names; `pictures` are different ones; failures by reason
FORMAT = 2
SIGNIFICANT_DIGITS = 9


def summary_bytes(judgement: Judgement) -> bytes:
    """The content of summary.json."""
    content = _rounded(summary_of(judgement))
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def is_summary(path: Path) -> bool:
    """Whether `path` is a summary.json, of any version of this program."""
    try:
        content = json.loads(path.read_bytes())
        return {"format", "run_id", "verdict", "ledger"} <= content.keys()
    except (OSError, ValueError, AttributeError, RecursionError):
        return False


def summary_of(judgement: Judgement) -> dict[str, object]:
    """`ratio` is B / A: above 1 the second arm is slower. Times of pictures are in ms. Where
    `pictures` are samples, they are different ones, and `files` are these with their copies."""
    comparison = judgement.comparison
    counts = comparison.equivalence_counts
    return {
        "format": FORMAT,
        "run_id": comparison.ledger.run_id,
        "comparable": not comparison.problems,
        "verdict": {
            "per_picture": verdict_per_picture(comparison),
            "whole_job": verdict_whole_job(comparison),
        },
        "problems": [_finding(problem) for problem in comparison.problems],
        "warnings": [_finding(warning) for warning in comparison.warnings],
        "pictures": {
            "files": len(comparison.contents),
            "different": comparison.different_pictures,
        },
        "ledger": _ledger(comparison),
        "output_equivalence": {
            "identical": counts["identical"],
            "equivalent": counts["equivalent"],
            "different": counts["different"],
            "without_hashes": counts[""],
            "tolerance": {"psnr_db": MIN_PSNR_DB, "largest_difference": MAX_DIFFERENCE},
        },
        "arms": {name: _arm(arm) for name, arm in comparison.summaries.items()},
        "per_picture": _estimate(comparison.per_picture)
        | {
            "signed_rank_p": comparison.signed_rank_p,
            "ratio_without_cold_starts": comparison.ratio_without_cold,
        },
        "per_picture_cpu_time": _estimate(comparison.per_picture_cpu),
        "whole_job": _estimate(comparison.whole_job),
        "stability": _stability(judgement),
        "break_even": break_even_content(judgement.break_even),
        "run": {
            key: comparison.record.get(key)
            for key in ("command_line", "cloud", "data_set", "environment")
        },
        "lambda": _bill(judgement.bill),
        "sweeps": [_sweep(sweep) for sweep in judgement.sweeps],
    }


def _finding(finding: Finding) -> dict[str, object]:
    return {"text": finding.text, "pictures": finding.names, "advice": finding.advice}


def _ledger(comparison: Comparison) -> dict[str, object]:
    ledger = comparison.ledger
    return {
        "completeness": ledger.completeness,
        "expected": ledger.expected,
        "accounted": ledger.accounted,
        "from_manifest": ledger.from_manifest,
        "rounds": ledger.counts.to_dict("records"),
        "late": {arm: len(rows) for arm, rows in ledger.late.items()},
        "unknown": {arm: len(rows) for arm, rows in ledger.unknown.items()},
    }


def _arm(arm: ArmSummary) -> dict[str, object]:
    return dataclasses.asdict(arm) | {"makespan_s": arm.makespan_s}


def _stability(judgement: Judgement) -> dict[str, object]:
    return {
        arm: {name: dataclasses.asdict(measure) for name, measure in measures.items()}
        for arm, measures in judgement.stability.items()
    }


def _estimate(estimate: RatioEstimate | None) -> dict[str, object]:
    if estimate is None:
        return {"ratio": None}
    return {
        "ratio": estimate.ratio,
        "low": estimate.low,
        "high": estimate.high,
        "confidence": CONFIDENCE,
        "pictures": estimate.pictures,
        "files": estimate.pictures + estimate.copies,
        "rounds": estimate.rounds,
        "drift_margin": estimate.drift_margin,
        "p_value": estimate.p_value,
        "variance_of_log_between_rounds": estimate.v_rounds,
        "variance_of_log_between_pictures": estimate.v_pictures,
        "detectable_difference": estimate.detectable_difference,
        "power_of_detectable_difference": POWER,
    }


def _bill(bill: Bill | None) -> dict[str, object] | None:
    if bill is None:
        return None
    return dataclasses.asdict(bill) | {
        "cost_usd": cost_by_part(bill.usage)
        | {"the work": work_usd(bill.usage), "in all": total_usd(bill.usage)},
        "prices": PRICES_OF,
    }


def _sweep(sweep: Sweep) -> dict[str, object]:
    """`makespan_s` by arm, `ratio` of the makespans, `time_ms` a picture and `cost_usd` (of
    1,000 pictures) with their intervals over the rounds."""
    return {
        "kind": sweep.kind,
        "answer": sweep.answer,
        "incomplete": sweep.broken,
        "points": [
            {
                **dataclasses.asdict(point.setting),
                "memory_mb": memory_mb(point),
                "whole": point.is_complete,
                "makespan_s": {
                    name: _estimate(point.makespan(name)) for name in point.comparison.summaries
                },
                "ratio": _estimate(point.ratio),
                "time_ms": _estimate(point.time_ms),
                "cost_usd": _estimate(point.cost_usd),
            }
            for point in sweep.points
        ],
    }


def _rounded(value: object) -> object:
    """Plain JSON values; numbers that are not finite become None."""
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(part) for part in value]
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, bool) or value is None:
        return value
    if not math.isfinite(value):
        return None
    if value == int(value) and abs(value) < 2**53:
        return int(value)
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")
