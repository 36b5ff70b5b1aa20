"""Whatever goes wrong, no row is lost, doubled or changed: the fast model, and that it bites."""

import itertools
import os
import subprocess
import sys

import pytest
from botocore.exceptions import ClientError
from fault_model.campaign import run_campaign
from fault_model.mutations import MUTATIONS, NO_LEASE, mutated
from fault_model.plan import FAULTS, plan_of
from fault_model.services import S3
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from metrics.common.cli import DONE, FAILED
from metrics.common.paths import PROJECT
from tests.benchmarks import fault_campaigns

SEEDS = 2000
LIMIT = 3000  # seeds within which an error in the code must be found; most take a few
BUCKET = "output-bucket"
COMMAND = "tests/benchmarks/fault_campaigns.py"


# --- what must hold -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def results() -> list:
    return [run_campaign(seed) for seed in range(SEEDS)]


def test_no_campaign_loses_doubles_or_changes_a_row(results):
    failed = [f"python {COMMAND} --seed {r.seed}: {r.failure}" for r in results if r.failure]
    assert not failed, "\n".join(failed)


def test_the_campaigns_meet_every_kind_of_fault(results):
    struck = {kind for result in results for kind in result.struck}
    assert struck == set(FAULTS)
    assert sum(result.rows for result in results) > 3 * SEEDS
    plans = [plan_of(seed) for seed in range(SEEDS)]
    for name in (
        "duplicates",
        "junk",
        "throttled",
        "conflicts",
        "outages",
        "dead_lease",
        "is_busy",
    ):
        assert any(getattr(plan, name) for plan in plans), name
    assert {kind for plan in plans for kind in plan.pictures.values()} == {
        *("good", "bad", "poison", "slow"),
    }


# --- that it bites ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MUTATIONS)
def test_an_error_in_the_code_is_found(name):
    """By what it does to the rows: a mutation that only breaks the Python code proves nothing."""
    with mutated(MUTATIONS[name]):
        failure = next(filter(None, (run_campaign(seed).failure for seed in range(LIMIT))), "")
    assert failure
    assert not failure.startswith(("TypeError", "NameError", "AttributeError", "UnboundLocal"))


def test_without_the_lease_no_row_is_lost_but_work_is_done_again():
    """Safety rests on the compare-and-swap alone; what the lease saves is noticed all the same."""
    with mutated([NO_LEASE]):
        failures = [f for seed in range(600) if (f := run_campaign(seed).failure)]
    assert failures
    assert all("in spite of the lease" in f or "requests for" in f for f in failures)


def test_the_code_is_as_it_was_after_a_mutation():
    seed = next(s for s in itertools.count() if plan_of(s).duplicates)
    before = run_campaign(seed)
    with mutated(MUTATIONS["the CSV is not searched for rows that are in it"]):
        pass
    assert run_campaign(seed) == before


# --- that a seed replays ------------------------------------------------------------------------


def test_a_seed_replays_exactly_in_another_process_with_another_hash_order():
    seed = next(s for s in itertools.count() if plan_of(s).faults and len(plan_of(s).runs) > 1)
    outputs = [
        subprocess.run(
            [sys.executable, str(PROJECT / COMMAND), "--seed", str(seed)],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONIOENCODING": "utf-8"},
            capture_output=True,
            check=True,
            timeout=60,
        ).stdout.decode()
        for hash_seed in ("1", "2")
    ]
    trace: list[str] = []
    run_campaign(seed, trace)
    assert outputs[0] == outputs[1]
    assert "\n".join(trace) in outputs[0]
    assert len(trace) > 20


def test_the_command_exits_1_and_prints_failing_seeds_and_their_steps(capsys):
    arguments = ["--seeds", "30", "--processes", "1"]
    assert fault_campaigns.main(arguments) == DONE
    with mutated(MUTATIONS["the lease is not given back"]):
        assert fault_campaigns.main(arguments) == FAILED
    output = capsys.readouterr().out
    assert "0 campaigns failed" in output
    assert "seed 0: the row" in output or "seed 0: the lease" in output
    assert "put_object 'metrics/lambda_metrics.lease'" in output


def test_the_command_counts_alike_in_one_process_and_in_two(capsys):
    told = []
    for processes in ("1", "2"):
        fault_campaigns.main(["--seeds", "120", "--first-seed", "5", "--processes", processes])
        told.append(capsys.readouterr().out.splitlines()[:3])
    assert told[0] == told[1]


# --- that the model's S3 behaves like moto's ----------------------------------------------------

keys = st.sampled_from(["a", "a/b", "b", "rows/1", "rows/2", "rows/é"])
bodies = st.binary(max_size=4)


def outcome(client, operation: str, params: dict) -> object:
    """What a client's answer says, as far as the code under test can tell."""
    try:
        answer = getattr(client, operation)(Bucket=BUCKET, **params)
    except ClientError as error:
        meta = error.response["ResponseMetadata"]
        return meta["HTTPStatusCode"], error.response["Error"]["Code"]
    told = {n: answer.get(n) for n in ("ContentLength", "ETag", "Metadata", "IsTruncated")}
    told["status"] = answer["ResponseMetadata"]["HTTPStatusCode"]
    if operation == "get_object":
        told["body"] = answer["Body"].read()
    if operation == "list_objects_v2":
        told["keys"] = [(entry["Key"], entry["Size"]) for entry in answer.get("Contents", [])]
    if operation == "put_object":
        told["ContentLength"] = told["Metadata"] = None  # moto tells of them at times
    return told


class TwoS3s(RuleBasedStateMachine):
    """The same requests to moto's and to the model's; moto is reached through `client`."""

    client = None

    def __init__(self):
        super().__init__()
        self.model = S3(lambda: 0.0, lambda *_: None, {BUCKET: {}})
        for entry in self.client.list_objects_v2(Bucket=BUCKET).get("Contents", []):
            self.client.delete_object(Bucket=BUCKET, Key=entry["Key"])

    def both(self, operation: str, **params: object) -> None:
        assert outcome(self.model, operation, params) == outcome(self.client, operation, params)

    @rule(key=keys, body=bodies, run=st.sampled_from(["", "r1"]))
    def put(self, key, body, run):
        self.both("put_object", Key=key, Body=body, Metadata={"run-id": run} if run else {})

    @rule(key=keys, body=bodies)
    def put_if_absent(self, key, body):
        self.both("put_object", Key=key, Body=body, IfNoneMatch="*")

    @rule(key=keys, other=keys, body=bodies)
    def put_if_unchanged(self, key, other, body):
        there = self.model.buckets[BUCKET].get(other)
        self.both("put_object", Key=key, Body=body, IfMatch=there.etag if there else '"0"')

    @rule(key=keys)
    def get(self, key):
        self.both("get_object", Key=key)

    @rule(key=keys, first=st.integers(0, 5), length=st.integers(0, 5))
    def get_part(self, key, first, length):
        self.both("get_object", Key=key, Range=f"bytes={first}-{first + length}")

    @rule(key=keys)
    def head(self, key):
        self.both("head_object", Key=key)

    @rule(prefix=st.sampled_from(["", "a", "rows/"]), most=st.integers(1, 3), after=keys)
    def list(self, prefix, most, after):
        self.both("list_objects_v2", Prefix=prefix, MaxKeys=most, StartAfter=after)

    @rule(key=keys)
    def delete(self, key):
        self.both("delete_object", Key=key)

    @rule(some=st.lists(keys, min_size=1, unique=True))
    def delete_some(self, some):
        objects = [{"Key": key} for key in some]
        self.both("delete_objects", Delete={"Objects": objects, "Quiet": True})


def test_the_models_s3_answers_like_motos(s3):
    TwoS3s.client = s3
    run_state_machine_as_test(
        TwoS3s, settings=settings(max_examples=40, stateful_step_count=30, deadline=None)
    )
