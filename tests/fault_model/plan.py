"""From a seed to what happens in its campaign."""

import random
from dataclasses import dataclass

# What can go wrong with one request. "lost": carried out, but the answer never comes; "late": it
# arrives after the client gave it up; "torn": the body of an answer breaks off; "killed": the
# sender's environment dies.
RETRIED = ("500", "503", "reset", "lost", "lost 500")  # which the client's own retries hide
FAULTS = (*RETRIED, "late", "torn", "killed before", "killed after")
# Requests of the functions and the wait, so that a seed can strike at one kind of them alone.
PLACES = (
    *("input get", "input head", "output put"),
    *("rows send", "rows send", "rows send"),  # its faults are hidden by many tries
    *("csv get", "csv put", "csv create", "csv copy", "csv part", "csv complete"),
    *("failures receive", "failures delete"),
)
WRITING = ("csv get", "csv put", "csv complete")  # where a stall lets another writer be faster
# How long requests take, by weather: calm is plain work, a rain is hidden by the client's retries.
LATENCIES = {
    "calm": ["even", "even", "wild"],
    "rain": ["even", "wild"],
    "storm": ["even", "wild", "slow", "stalling"],
}
PICTURES = ("good", "bad", "poison", "slow")  # bad: no picture; the others end the environment
KEYS = ("a.jpg", "b c.jpg", "d+e/ü.jpg", "f%.jpg", 'g,"h".jpg', "i\nj.jpg")
JUNK = ("", "no row", '{"image_key": 1}', "[]", '{"run_id": "run-0"}')
NEVER = 10**9  # bytes: no CSV is as large


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
    junk: tuple[str, ...]  # messages in the rows queue from the beginning that are no rows
    records_per_event: int
    duplicates: float  # how likely an event comes once more
    delay_s: float  # the longest that an event takes
    throttled: float  # how likely an event is turned away, beside the limit
    concurrency: int
    timeout_s: float  # of the function
    latency: str  # even, wild, slow or stalling
    # Of the rows queue:
    batch_size: int
    writers: int  # at once
    max_receives: int
    doubled: float  # how likely a batch is delivered twice at once
    undeleted: float  # how likely the deletion of a batch is lost
    behind_s: float  # until the queue delivers anything
    # Of the writer:
    copy_from: int  # bytes of the CSV
    part_bytes: int
    cleaned_at: float  # when somebody deletes the CSV; 0: never
    faults: dict[str, float]  # probability by kind
    place: str  # where alone they strike, and requests stall; empty: everywhere
    conflicts: float  # how likely a conditional write that met another change is answered 409
    outages: tuple[tuple[float, float], ...]  # when S3 answers hardly anything
    skew_s: float  # of this machine's and Lambda's clock against S3's

    @property
    def undisturbed(self) -> bool:
        """Whether the functions' part is plain work: then their requests are few, and known."""
        plain = set(self.pictures.values()) <= {"good", "bad"} and not self.cleaned_at
        return plain and not self.faults and not self.outages and self.latency == "even"


def plan_of(seed: int) -> Plan:
    rng = random.Random(seed)
    weather = rng.choice(["calm", "calm", "rain", "storm", "storm"])
    runs = _runs(rng)
    cleans = rng.random() < 0.2 and not any(run.waits for run in runs)
    keys = sorted({key for run in runs for key in run.keys})
    latency = rng.choice(LATENCIES[weather])
    places = WRITING if latency == "stalling" else PLACES
    place = rng.choice(places) if rng.random() < 0.5 else ""
    return Plan(
        seed=seed,
        runs=runs,
        pictures={key: _picture(rng, weather) for key in keys},
        junk=() if rng.random() < 0.7 else tuple(rng.choices(JUNK, k=3)),
        records_per_event=rng.choice([1, 1, 1, 2]),
        duplicates=rng.choice([0, 0, 0.2, 0.6, 0.85]),
        delay_s=rng.choice([0.05, 0.3, 2, 100]),
        throttled=rng.choice([0, 0, 0.2]),
        concurrency=rng.choice([1, 2, 4, 100, 100]),
        timeout_s=rng.choice([15, 60, 60, 60]),
        latency=latency,
        batch_size=rng.choice([1, 2, 10, 10]),
        writers=rng.choice([1, 2, 2]),
        max_receives=rng.choice([2, 5]),
        doubled=rng.choice([0, 0, 0.2]),
        undeleted=rng.choice([0, 0, 0.2]),
        behind_s=rng.choice([0, 0, 0, 0, 0, 0, 0, 3600]),
        copy_from=rng.choice([NEVER, NEVER, 300, 900]),
        part_bytes=rng.choice([700, NEVER]),
        cleaned_at=rng.uniform(0.1, 30) if cleans else 0,
        faults=_faults(rng, weather, place),
        place=place,
        conflicts=rng.choice([0, 0.5]),
        outages=_outages(rng) if weather == "storm" else (),
        skew_s=rng.choice([0, -4000, 4000]),
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


def _faults(rng: random.Random, weather: str, place: str) -> dict[str, float]:
    if weather == "calm":
        return {}
    kinds = rng.sample(FAULTS if weather == "storm" else RETRIED, rng.choice([0, 1, 1, 2, 4]))
    rates = (0.1, 0.3, 0.6, 0.9) if place else (0.01, 0.03, 0.1)
    return {kind: rng.choice(rates) / len(kinds) for kind in kinds}


def _outages(rng: random.Random) -> tuple[tuple[float, float], ...]:
    if rng.random() < 0.8:
        return ()
    start = rng.uniform(0, 100)
    return ((start, start + rng.uniform(5, 200)),)
