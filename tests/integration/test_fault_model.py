"""Whatever goes wrong, no row is lost, doubled or changed: the fast model, and that it bites."""

import itertools
import os
import subprocess
import sys

import pytest
from botocore.exceptions import ClientError
from fault_model.campaign import run_campaign
from fault_model.mutations import MUTATIONS, mutated
from fault_model.plan import FAULTS, plan_of
from fault_model.services import S3
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from moto.s3.responses import S3Response

from lambda_function.emulator.moto_patches import if_it_matches
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
    names = ("duplicates", "junk", "throttled", "conflicts", "outages", "cleaned_at")
    for name in (*names, "doubled", "undeleted", "behind_s"):
        assert any(getattr(plan, name) for plan in plans), name
    assert {plan.writers for plan in plans} == {1, 2}
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


def test_the_code_is_as_it_was_after_a_mutation():
    seed = next(s for s in itertools.count() if plan_of(s).duplicates)
    before = run_campaign(seed)
    with mutated(MUTATIONS["the CSV is not searched for rows that are in it"]):
        pass
    assert run_campaign(seed) == before


# --- that a seed replays ------------------------------------------------------------------------


@pytest.mark.slow
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
    with mutated(MUTATIONS["writes of the CSV have no condition"]):
        assert fault_campaigns.main(arguments) == FAILED
    output = capsys.readouterr().out
    assert "0 campaigns failed" in output
    assert "seed 1: the CSV changed where it was written already" in output
    assert "put_object 'metrics/lambda_metrics.csv'" in output


@pytest.mark.slow
def test_the_command_counts_alike_in_one_process_and_in_two(capsys):
    told = []
    for processes in ("1", "2"):
        fault_campaigns.main(["--seeds", "120", "--first-seed", "5", "--processes", processes])
        told.append(capsys.readouterr().out.splitlines()[:3])
    assert told[0] == told[1]


# --- that the model's S3 behaves like moto's ----------------------------------------------------

keys = st.sampled_from(["a", "a/b", "b", "é"])
bodies = st.binary(max_size=4)


def outcome(client, operation: str, params: dict) -> object:
    """What a client's answer says, as far as the code under test can tell."""
    try:
        answer = getattr(client, operation)(Bucket=BUCKET, **params)
    except ClientError as error:
        meta = error.response["ResponseMetadata"]
        return meta["HTTPStatusCode"], error.response["Error"]["Code"]
    names = ("ContentLength", "ETag", "Metadata", "ContentRange", "CopyPartResult")
    told = {name: answer.get(name) for name in names}
    told["status"] = answer["ResponseMetadata"]["HTTPStatusCode"]
    if operation == "get_object":
        told["body"] = answer["Body"].read()
    if operation == "put_object":
        told["ContentLength"] = told["Metadata"] = None  # moto tells of them at times
    if told["CopyPartResult"]:
        told["CopyPartResult"] = told["CopyPartResult"]["ETag"]
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

    @rule(key=keys, first=st.integers(0, 5))
    def get_end(self, key, first):
        self.both("get_object", Key=key, Range=f"bytes={first}-")

    @rule(key=keys)
    def head(self, key):
        self.both("head_object", Key=key)

    @rule(key=keys, body=bodies, other=keys, again=st.booleans())
    def append_by_copy(self, key, body, other, again):
        """A copy in a multipart upload, which is completed under a condition, perhaps again."""
        there = self.model.buckets[BUCKET].get(other)
        condition = {"IfMatch": there.etag if there else '"0"'}
        clients = (self.model, self.client)
        begin = {"Bucket": BUCKET, "Key": key, "Metadata": {"g": "1"}}
        ids = [client.create_multipart_upload(**begin)["UploadId"] for client in clients]

        def both(operation: str, **params: object) -> object:
            told, told_by_moto = (
                outcome(client, operation, params | {"UploadId": upload_id})
                for client, upload_id in zip(clients, ids, strict=True)
            )
            assert told == told_by_moto
            return told

        source = {"Bucket": BUCKET, "Key": key}
        size = len(self.model.buckets[BUCKET][key].body) if key in self.there() else 0
        parts = []
        if size:
            where = {"CopySource": source, "CopySourceRange": f"bytes=0-{size - 1}"}
            told = both("upload_part_copy", Key=key, PartNumber=1, **where)
            parts.append({"PartNumber": 1, "ETag": told["CopyPartResult"]})
        told = both("upload_part", Key=key, PartNumber=2, Body=body)
        parts.append({"PartNumber": 2, "ETag": told["ETag"]})
        complete = {"MultipartUpload": {"Parts": parts}, **condition}
        told = both("complete_multipart_upload", Key=key, **complete)
        if again and isinstance(told, tuple):  # refused: what was uploaded is there still
            both("complete_multipart_upload", Key=key, **complete)

    def there(self) -> set[str]:
        return set(self.model.buckets[BUCKET])

    @rule(key=keys)
    def delete(self, key):
        self.both("delete_object", Key=key)


@pytest.mark.slow
def test_the_models_s3_answers_like_motos(s3, monkeypatch):
    """As the embedded cloud mends moto, with parts of an upload that may be small."""
    monkeypatch.setattr("moto.s3.models.S3_UPLOAD_PART_MIN_SIZE", 1)
    conditional = if_it_matches(S3Response._key_response_post)
    monkeypatch.setattr(S3Response, "_key_response_post", conditional)
    TwoS3s.client = s3
    run_state_machine_as_test(
        TwoS3s, settings=settings(max_examples=40, stateful_step_count=30, deadline=None)
    )
