"""Rounds: repeating both arms so that a drift of the machine does not look like a difference.

One round is one pass of each arm over all pictures. Which arm goes first changes from round to
round: A B, B A, B A, A B, and so on. A steady drift then cancels over every two rounds, a curved
one over every four; and a round is as often followed by one of the same order as of the other,
without which a drift that lasts about as long as a pass would make the rounds' differences
resemble each other, and the interval too narrow. A disturbance that itself repeats every few
passes (a job every minute, say) can still fall on the same arm again and again: no fixed order
helps there.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

MIN_ROUNDS = 4  # of a run that adds rounds: the first that cancels a steady and a curved drift


def first_arm_leads(round_number: int) -> bool:
    """Whether A (on-prem) goes before B (the cloud) in this round, counted from 1."""
    return round_number % 4 in (0, 1)


def split_passes(rows: "pd.DataFrame") -> "tuple[pd.DataFrame, pd.DataFrame]":
    """On-prem passes 1, 2, 3, ... as rounds of two arms A and B, for comparing on-prem with itself.

    Passes 1 and 2 are the first round, 3 and 4 the second; the lead changes as between real arms.
    """
    passes = rows["round"]
    rounds = (passes + 1) // 2
    leads = rounds.map(first_arm_leads).astype(bool)
    is_a = (passes % 2 == 1) == leads
    paired = rows.assign(round=rounds)
    return paired[is_a].reset_index(drop=True), paired[~is_a].reset_index(drop=True)
