"""Why pictures failed: how many and which, by reason.

Errors are free text, so the same fault may be worded with another number, request id or temporary
folder for each picture: what differs in these only is one reason.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from metrics.common.findings import Finding
from metrics.common.text import counted, printable

MAX_REASONS = 8  # that a reader gets one by one; all are in summary.json
MAX_BEGIN, MAX_END = 150, 130  # characters of an error: its class first, its cause last
UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
VARYING = re.compile(rf"(?i:{UUID})|(?:/[^/\s:'\"]+)+/|\d+")


@dataclass(frozen=True)
class Failure:
    """Pictures that failed for one reason, of which `error` is the commonest wording; `varies` when
    there are others. A picture has a row, and may fail, in each round."""

    error: str
    varies: bool
    rows: int
    pictures: list[str]

    @property
    def reason(self) -> str:
        """In one line that a terminal may show."""
        line = " ".join(self.error.split()) or "no reason in its row"
        if len(line) > MAX_BEGIN + MAX_END:
            line = f"{line[:MAX_BEGIN]} ... {line[-MAX_END:]}"
        return printable(line) + (" (and alike)" if self.varies else "")


@cache
def without_varying(error: str) -> str:
    """What `error` has in common with others of its reason."""
    return VARYING.sub("#", error)


def failures_by_reason(failed: Iterable[tuple[str, str]]) -> list[Failure]:
    """From image keys and errors; the reason with the most pictures first."""
    wordings: dict[str, Counter[str]] = defaultdict(Counter)
    pictures: dict[str, dict[str, None]] = defaultdict(dict)
    for image_key, error in failed:
        reason = without_varying(error)
        wordings[reason][error] += 1
        pictures[reason][image_key] = None
    found = []
    for reason, counts in wordings.items():
        error = min(counts, key=lambda text: (-counts[text], text))
        found.append(Failure(error, len(counts) > 1, counts.total(), list(pictures[reason])))
    return sorted(found, key=lambda failure: (-len(failure.pictures), failure.error))


def failure_findings(who: str, failures: list[Failure] | tuple[Failure, ...]) -> list[Finding]:
    """A line for each of the commonest reasons, and one for all others."""
    found = [
        Finding(
            f"{who}: {counted(len(one.pictures), 'picture')} failed ({one.reason})", one.pictures
        )
        for one in failures[:MAX_REASONS]
    ]
    if others := failures[MAX_REASONS:]:
        names = list(dict.fromkeys(name for one in others for name in one.pictures))
        text = f"{who}: {counted(len(names), 'picture')} failed for {len(others)} other reasons"
        found.append(Finding(text, names, "each is in its row"))
    return found
