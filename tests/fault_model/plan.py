"""From a seed to what happens in its campaign."""

import random
from dataclasses import dataclass

from lambda_function.metrics_log import ROWS_PREFIX, RowId, row_key

# What can go wrong with one request. "lost": carried out, but the answer never comes; "late": it
# arrives after the client gave it up; "torn": the body of an answer breaks off; "partial":
# DeleteObjects could not delete one of the keys; "killed": the sender's environment dies.
RETRIED = ("500", "503", "reset", "lost", "lost 500")  # which the client's own retries hide
FAULTS = (*RETRIED, "late", "torn", "partial", "killed before", "killed after")
# Requests of the handler and the wait, so that a seed can strike at one kind of them alone.
PLACES = (
    *("input get", "input head", "output put"),
    *("row put", "row get", "rows list", "rows delete"),
    *("csv get", "csv put", "csv head"),
    *("lease put", "lease head", "lease delete"),
)
APPENDING = ("row get", "csv get", "csv put")  # where a holder's stall lets another take over
# How long requests take, by weather: calm is plain work, a rain is hidden by the client's retries.
LATENCIES = {
    "calm": ["even", "even", "wild"],
    "rain": ["even", "wild"],
    "storm": ["even", "wild", "slow", "stalling"],
}
PICTURES = ("good", "bad", "poison", "slow")  # bad: no picture; the others end the environment
KEYS = ("a.jpg", "b c.jpg", "d+e/ü.jpg", "f%.jpg", 'g,"h".jpg', "i\nj.jpg")
JUNK = (b"", b"no row", b"\xff\xfe", b'"unclosed')


@dataclass(frozen=True)
class Run:
    """A run of the pipeline; one that does not wait is an upload by hand."""

    run_id: str
    keys: tuple[str, ...]
    rounds: int
    starts_at: float
    waits: bool
    timeout_s: float
    allow_partial: bool


@dataclass(frozen=True)
class Plan:
    """What a seed decides before anything runs; the rest is drawn on the way."""

    seed: int
    runs: tuple[Run, ...]
    pictures: dict[str, str]  # one of PICTURES by key
    junk: tuple[tuple[str, bytes], ...]  # under the rows' prefix from the beginning
    records_per_event: int
    duplicates: float  # how likely an event comes once more
    delay_s: float  # the longest that an event takes
    throttled: float  # how likely an event is turned away, beside the limit
    concurrency: int
    timeout_s: float  # of the function
    batch_rows: int
    latency: str  # even, wild, slow or stalling
    dead_lease: bool  # whether one lies there whose holder died long ago
    faults: dict[str, float]  # probability by kind
    place: str  # where alone they strike, and requests stall; empty: everywhere
    conflicts: float  # how likely a conditional PUT that met another change is answered 409
    outages: tuple[tuple[float, float], ...]  # when S3 answers hardly anything
    is_busy: bool  # whether functions leave rows to a later append
    skew_s: float  # of this machine's and Lambda's clock against S3's

    @property
    def undisturbed(self) -> bool:
        """Whether the function's part is plain work: then its requests are few, and known."""
        plain = set(self.pictures.values()) <= {"good", "bad"} and not self.junk
        return plain and not self.faults and not self.outages and self.latency == "even"


def plan_of(seed: int) -> Plan:
    rng = random.Random(seed)
    weather = rng.choice(["calm", "calm", "rain", "storm", "storm"])
    runs = _runs(rng)
    keys = sorted({key for run in runs for key in run.keys})
    latency = rng.choice(LATENCIES[weather])
    places = APPENDING if latency == "stalling" else PLACES
    place = rng.choice(places) if rng.random() < 0.5 else ""
    return Plan(
        seed=seed,
        runs=runs,
        pictures={key: _picture(rng, weather) for key in keys},
        junk=_junk(rng, runs),
        records_per_event=rng.choice([1, 1, 1, 2]),
        duplicates=rng.choice([0, 0, 0.2, 0.6, 0.85]),
        delay_s=rng.choice([0.05, 0.3, 2, 100]),
        throttled=rng.choice([0, 0, 0.2]),
        concurrency=rng.choice([1, 2, 4, 100, 100]),
        timeout_s=rng.choice([15, 60, 60, 60]),
        batch_rows=rng.choice([2, 3, 1000, 1000]),
        latency=latency,
        dead_lease=rng.random() < 0.15,
        faults=_faults(rng, weather, place),
        place=place,
        conflicts=rng.choice([0, 0.5]),
        outages=_outages(rng) if weather == "storm" else (),
        skew_s=rng.choice([0, -4000, 4000]),
        is_busy=rng.random() < 0.3,
    )


def _runs(rng: random.Random) -> tuple[Run, ...]:
    count, same_keys = rng.choice([1, 1, 2]), rng.random() < 0.2
    names = list(KEYS)
    rng.shuffle(names)
    shares = [names] * count if same_keys else [names[n::count] for n in range(count)]
    runs = []
    for number, share in enumerate(shares):
        waits = rng.random() < 0.6
        runs.append(
            Run(
                run_id=f"run-{number}",
                keys=tuple(share[: rng.randint(1, len(share))]),
                rounds=rng.choice([1, 2, 3]) if waits else 1,
                starts_at=rng.choice([0, rng.uniform(0, 10)]),
                waits=waits,
                timeout_s=rng.choice([1, 30, 300, 600, 600]),
                allow_partial=rng.random() < 0.3,
            )
        )
    return tuple(runs)


def _picture(rng: random.Random, weather: str) -> str:
    kinds = PICTURES if weather == "storm" else PICTURES[:2]
    return "good" if rng.random() < 0.75 else rng.choice(kinds)


def _junk(rng: random.Random, runs: tuple[Run, ...]) -> tuple[tuple[str, bytes], ...]:
    """Objects that are no rows, at times in the very place of a picture's row object."""
    if rng.random() < 0.7:
        return ()
    keys = [f"{ROWS_PREFIX}{place}/1/junk{n}" for n, place in enumerate(["a", "run-0", "z"])]
    if rng.random() < 0.2:
        keys.append(row_key(RowId(runs[0].run_id, 1, runs[0].keys[0])))
    return tuple((key, rng.choice(JUNK)) for key in keys)


def _faults(rng: random.Random, weather: str, place: str) -> dict[str, float]:
    if weather == "calm":
        return {}
    kinds = rng.sample(FAULTS if weather == "storm" else RETRIED, rng.choice([0, 1, 1, 2, 4]))
    rates = (0.1, 0.3, 0.6) if place else (0.01, 0.03, 0.1)
    return {kind: rng.choice(rates) / len(kinds) for kind in kinds}


def _outages(rng: random.Random) -> tuple[tuple[float, float], ...]:
    if rng.random() < 0.8:
        return ()
    start = rng.uniform(0, 100)
    return ((start, start + rng.uniform(5, 200)),)
