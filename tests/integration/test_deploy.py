"""deploy.py: create, status, update and delete, what they refuse, and what they leave."""

import functools
import io
import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
from conftest import jpeg
from processes import LIMIT_S, hear_ctrl_c
from rows import waited_rows

from lambda_function.cloud import Cloud, find_buckets, find_stack, make_client
from lambda_function.deploy import LAMBDA_PYTHONS, main
from lambda_function.metrics_log import CSV_KEY, RowId, read_object
from lambda_function.stack import change_sets, package, removal, smoke_test
from lambda_function.stack.change_sets import (
    PROJECT,
    TEMPLATE,
    Site,
    find_site,
    is_package,
    template,
)
from lambda_function.stack.package import THIS_PYTHON, build_zip
from lambda_function.stack.removal import leftovers, versions
from lambda_function.stack.smoke_test import run_smoke_test
from metrics.common.cli import UserError
from metrics.common.paths import PROJECT as PROJECT_FOLDER


def script(cloud: Cloud):
    """The script, as `run("create", "--yes")`, with its exit code as the result."""

    def run(command: str, *flags: str) -> int:
        where = ("--endpoint-url", cloud.endpoint_url, "--stack", cloud.stack)
        return main([command, *where, *flags])

    return run


@pytest.fixture(autouse=True)
def _quick(monkeypatch) -> None:
    """No waiting for what is there at once here, and the zip is built once."""
    monkeypatch.setattr(removal, "LEFTOVER_LIMIT_S", 0)
    monkeypatch.setattr(smoke_test, "POLL_S", 0.05)
    monkeypatch.setattr("lambda_function.deploy.build_zip", zip_built_once)


zip_built_once = functools.cache(build_zip)


@pytest.fixture
def cloud(embedded) -> Iterator[Cloud]:
    """Room for a stack of the test's own, in the embedded cloud that all share."""
    cloud = Cloud("embedded", embedded.endpoint_url, stack=f"t{uuid.uuid4().hex[:8]}")
    yield cloud
    site = find_site(cloud)
    for bucket in map(site.bucket, removal.OWN_PREFIXES):
        if change_sets.bucket_exists(site.s3, bucket):
            removal.empty_bucket(site.s3, bucket)
            site.s3.delete_bucket(Bucket=bucket)
    site.cloudformation.delete_stack(StackName=cloud.stack)


@pytest.fixture
def deploy(cloud):
    return script(cloud)


@pytest.fixture(scope="module")
def standing(embedded) -> Cloud:
    """A stack that stands already, for tests that leave it as it was."""
    cloud = Cloud("embedded", embedded.endpoint_url, stack="standing")
    assert script(cloud)("create", "--yes", "--expire-days", "9") == 0
    return cloud


@pytest.fixture
def answer(monkeypatch):
    """Answer the script's question."""
    return lambda text: monkeypatch.setattr("sys.stdin", io.StringIO(text))


def everything(cloud: Cloud) -> dict[str, object]:
    """What is there, under whatever name: it must be the same before and after."""
    site = find_site(cloud)
    lists = {
        "buckets": [b["Name"] for b in site.s3.list_buckets()["Buckets"]],
        "stacks": [s["StackId"] for s in site.cloudformation.describe_stacks()["Stacks"]],
        "change sets": [
            s["ChangeSetId"]
            for s in site.cloudformation.list_change_sets(StackName=cloud.stack)["Summaries"]
            if s.get("StackName") == cloud.stack
        ],
        "groups": [g["logGroupName"] for g in site.logs.describe_log_groups()["logGroups"]],
        "roles": [r["RoleName"] for r in make_client(cloud, "iam").list_roles()["Roles"]],
        "queues": make_client(cloud, "sqs").list_queues().get("QueueUrls", []),
        "functions": [
            f["FunctionName"] for f in make_client(cloud, "lambda").list_functions()["Functions"]
        ],
        "tagged": leftovers(site),
    }
    return {name: sorted(found) for name, found in lists.items()}


def stack_of(cloud: Cloud) -> dict | None:
    return find_stack(make_client(cloud, "cloudformation"), cloud.stack)


# --- the life of a stack -------------------------------------------------------------------------


def test_create_run_status_update_and_delete_work_and_leave_nothing(cloud, deploy, capsys):
    before = everything(cloud)
    assert deploy("create", "--yes") == 0
    out = capsys.readouterr().out
    for name, resource in template()["Resources"].items():
        assert re.search(rf"Add +{name} +{resource['Type']}\n", out)
    assert "the smoke test's row was there" in out
    s3, buckets = make_client(cloud, "s3"), find_buckets(cloud)
    assert [*versions(s3, buckets.input), *versions(s3, buckets.output)] == []  # of the smoke test

    metadata = {"run-id": "r", "round": "1"}
    s3.put_object(Bucket=buckets.input, Key="input/a.jpg", Body=jpeg(), Metadata=metadata)
    (row,) = waited_rows(s3, buckets.output, {RowId("r", 1, "a.jpg")}, LIMIT_S)
    assert (row.status, row.memory_mb) == ("ok", 1769)

    assert deploy("update", "--memory", "3008", "--log-retention-days", "7", "--yes") == 0
    out = capsys.readouterr().out
    assert "MemorySize = 3008 (now 1769)" in out
    changed = re.findall(r"^  Modify +(\w+)", out, re.MULTILINE)
    assert sorted(changed) == ["Function", "LogGroup", "WriterLogGroup"]
    assert deploy("create", "--yes") == 0  # a flag that is not given leaves it as it is
    out = capsys.readouterr().out
    assert "MemorySize = 3008\n" in out
    assert "Modify" not in out
    assert deploy("status") == 0
    out = capsys.readouterr().out
    assert "UPDATE_COMPLETE" in out
    assert "MemorySize = 3008" in out
    assert f"InputBucket = {buckets.input}" in out
    name = re.search(r"FunctionName = (\S+)", out).group(1)
    configuration = make_client(cloud, "lambda").get_function_configuration(FunctionName=name)
    assert configuration["MemorySize"] == 3008

    assert deploy("delete", "--yes") == 0
    assert f"nothing is left of stack {cloud.stack!r}" in capsys.readouterr().out
    assert everything(cloud) == before
    assert deploy("delete", "--yes") == 0  # once more
    assert deploy("status") == 1
    assert "not found; run deploy.py create" in capsys.readouterr().err


def test_creating_again_changes_nothing_and_asks_nobody(standing, answer, capsys):
    answer("")
    assert script(standing)("create") == 0
    out = capsys.readouterr().out
    assert "Modify" not in out
    assert "the smoke test's row was there" in out
    assert stack_of(standing)["StackStatus"] == "CREATE_COMPLETE"


def test_a_new_zip_takes_the_place_of_the_one_before(cloud, deploy, monkeypatch):
    assert deploy("create", "--yes") == 0
    monkeypatch.setattr("lambda_function.deploy.build_zip", build_zip)
    modules = (*package.ZIP_MODULES, "cloud.py")
    monkeypatch.setattr(package, "ZIP_MODULES", modules)
    assert deploy("update", "--yes") == 0
    site = find_site(cloud)
    (left,) = versions(site.s3, site.bucket("code"))
    parameters = {p["ParameterKey"]: p["ParameterValue"] for p in stack_of(cloud)["Parameters"]}
    assert left["Key"] == parameters["CodeKey"]


def test_updating_what_is_not_there_says_what_to_do(deploy, capsys):
    assert deploy("update", "--yes") == 1
    assert "not found; run deploy.py create" in capsys.readouterr().err


def test_everything_that_can_bear_tags_bears_those_of_project_and_stack(standing):
    site, sts = find_site(standing), make_client(standing, "iam")
    tagged = leftovers(site)
    for part in ("-input-", "-output-", "-code-", ":log-group:", ":sqs:", ":lambda:", ":stack/"):
        assert any(part in name for name in tagged), part
    resources = site.cloudformation.list_stack_resources(StackName=standing.stack)
    roles = [
        r["PhysicalResourceId"]
        for r in resources["StackResourceSummaries"]
        if r["ResourceType"] == "AWS::IAM::Role"
    ]
    assert len(roles) == 2
    for role in roles:
        assert sts.list_role_tags(RoleName=role)["Tags"] == site.tags
    assert template()["Parameters"]["Project"]["Default"] == PROJECT


def test_buckets_block_the_public_expire_what_runs_leave_and_take_tls_only(standing):
    s3, buckets = make_client(standing, "s3"), find_buckets(standing)
    prefixes = {"input": ["input/"], "output": ["processed/", "metrics/"]}
    for kind, bucket in vars(buckets).items():
        block = s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
        assert all(block.values())
        encryption = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]
        assert "AES256" in json.dumps(encryption)
        *expire, abort = s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
        assert [rule["Prefix"] for rule in expire] == prefixes[kind]
        assert {rule["Expiration"]["Days"] for rule in expire} == {9}
        assert abort["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"] == 1
        policy = json.loads(s3.get_bucket_policy(Bucket=bucket)["Policy"])
        (statement,) = policy["Statement"]
        assert statement["Effect"] == "Deny"
        assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
        assert statement["Resource"] == [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    site = find_site(standing)
    block = s3.get_public_access_block(Bucket=site.bucket("code"))
    assert all(block["PublicAccessBlockConfiguration"].values())


# --- looking first -------------------------------------------------------------------------------


def test_a_dry_run_of_create_names_all_resources_and_touches_nothing(cloud, deploy, capsys):
    before = everything(cloud)
    assert deploy("create", "--dry-run") == 0
    out = capsys.readouterr().out
    assert all(f" {name} " in out for name in template()["Resources"])
    assert find_site(cloud).bucket("code") in out
    assert everything(cloud) == before


def test_a_dry_run_of_update_and_delete_says_what_changes_and_touches_nothing(standing, capsys):
    before = everything(standing)
    assert script(standing)("update", "--dry-run", "--memory", "2048") == 0
    out = capsys.readouterr().out
    assert "MemorySize = 2048 (now 1769)" in out
    assert "the template is the same as the stack's" in out
    assert script(standing)("delete", "--dry-run") == 0
    assert "1 object versions" in capsys.readouterr().out  # the zip
    assert everything(standing) == before


@pytest.mark.parametrize("text", ["n\n", "\n", "no\n", "yess\n"])
def test_whoever_does_not_agree_gets_nothing_made(cloud, deploy, answer, capsys, text):
    before = everything(cloud)
    answer(text)
    assert deploy("create") == 1
    assert "nothing was changed" in capsys.readouterr().out
    assert everything(cloud) == before


def test_without_anybody_to_answer_nothing_is_made_and_the_flag_is_named(
    cloud, deploy, answer, capsys
):
    before = everything(cloud)
    answer("")
    assert deploy("create") == 1
    assert "use --yes" in capsys.readouterr().err
    assert everything(cloud) == before


def test_an_interrupt_at_the_question_leaves_nothing(cloud, deploy, monkeypatch):
    before = everything(cloud)

    def interrupt(_: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.input", interrupt)
    assert deploy("create") == 130
    assert everything(cloud) == before


@pytest.mark.parametrize(
    ("flag", "value", "named"),
    [
        ("--memory", "511", "no whole number of 512 to 10240"),
        ("--memory", "1e3", "no whole number of 512 to 10240"),
        ("--function-timeout", "901", "no whole number of 15 to 900"),
        ("--concurrency", "-1", "no whole number of 0 or more"),
        ("--log-retention-days", "2", "none of 1, 3, 5, 7, 14, 30, 60, 90"),
        ("--architecture", "arm", "none of x86_64, arm64"),
        ("--expire-days", "0", "no whole number of 1 or more"),
        ("--python", "2.7", "invalid choice: '2.7'"),
    ],
)
def test_a_value_that_the_template_does_not_allow_exits_2(deploy, capsys, flag, value, named):
    with pytest.raises(SystemExit) as caught:
        deploy("create", flag, value)
    assert caught.value.code == 2
    assert named in capsys.readouterr().err


def test_a_python_whose_lambda_cannot_load_pillow_is_refused_on_aws(monkeypatch):
    from argparse import Namespace

    from lambda_function.deploy import chosen_parameters

    args = Namespace(python="3.11")
    with pytest.raises(UserError, match=r"python3.11 cannot load Pillow's wheel .* --python 3.13"):
        chosen_parameters(args, Cloud("aws"), None)
    assert chosen_parameters(Namespace(python=None), Cloud("aws"), None) == {}
    here = chosen_parameters(Namespace(python=None), Cloud("aws", "http://127.0.0.1:1"), None)
    assert here["Runtime"] == f"python{THIS_PYTHON}"


def test_the_template_has_no_finding_and_describes_every_parameter():
    from cfnlint.api import lint_file

    assert lint_file(TEMPLATE) == []
    assert all(p["Description"] for p in template()["Parameters"].values())
    default = template()["Parameters"]["Runtime"]["Default"]
    assert default.removeprefix("python") in LAMBDA_PYTHONS


# --- stacks that are not as they should be -------------------------------------------------------


def foreign_stack(cloud: Cloud) -> str:
    body = {"Resources": {"Group": {"Type": "AWS::Logs::LogGroup"}}}
    made = make_client(cloud, "cloudformation").create_stack(
        StackName=cloud.stack, TemplateBody=json.dumps(body)
    )
    return made["StackId"]


@pytest.mark.parametrize("command", ["create", "update", "delete", "status"])
def test_a_stack_that_this_project_did_not_make_is_refused(cloud, deploy, capsys, command):
    foreign_stack(cloud)
    before = everything(cloud)
    assert deploy(command, *(["--yes"] if command != "status" else [])) == 1
    assert "that this project did not make" in capsys.readouterr().err
    assert everything(cloud) == before


def foreign_change_set(cloud: Cloud, description: str) -> str:
    """A change set that waits for somebody, with the empty stack that was made for it."""
    body = {"Resources": {"Group": {"Type": "AWS::Logs::LogGroup"}}}
    return make_client(cloud, "cloudformation").create_change_set(
        StackName=cloud.stack,
        ChangeSetName="waiting",
        ChangeSetType="CREATE",
        Description=description,
        TemplateBody=json.dumps(body),
    )["StackId"]


def test_when_the_zip_cannot_be_put_no_change_set_is_left(cloud, deploy, capsys, monkeypatch):
    def refuse(*_: object) -> None:
        raise UserError("the bucket is not ours")

    before = everything(cloud)
    monkeypatch.setattr(change_sets, "put_package", refuse)
    assert deploy("create", "--yes") == 1
    assert "the bucket is not ours" in capsys.readouterr().err
    assert everything(cloud) == before


def test_a_change_set_that_somebody_else_left_waiting_is_refused(cloud, deploy, capsys):
    foreign_change_set(cloud, "somebody's")
    assert deploy("create", "--yes") == 1
    assert "that this project did not make" in capsys.readouterr().err


def test_a_change_set_that_this_script_left_waiting_is_no_obstacle_to_who_agrees(
    cloud, deploy, answer
):
    stack_id = foreign_change_set(cloud, change_sets.CHANGE_SET_TEXT)
    assert stack_of(cloud)["StackStatus"] == "REVIEW_IN_PROGRESS"
    answer("y\n")
    assert deploy("create") == 0
    assert stack_of(cloud)["StackStatus"] == "CREATE_COMPLETE"
    assert stack_of(cloud)["StackId"] != stack_id


def test_a_failure_names_the_first_resource_and_the_reason_and_create_works_after_it(
    cloud, deploy, capsys
):
    site = find_site(cloud)
    site.s3.create_bucket(Bucket=site.bucket("output"))
    site.s3.put_object(Bucket=site.bucket("output"), Key="processed/precious", Body=b"1")
    assert deploy("create", "--yes") == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "OutputBucket (AWS::S3::Bucket) failed: " in err
    assert "state ROLLBACK_COMPLETE" in err
    assert stack_of(cloud)["StackStatus"] == "ROLLBACK_COMPLETE"
    # Nor does delete touch the bucket that was in the way, though it says that it is there.
    assert deploy("delete", "--yes") == 1
    assert f"still there: arn:aws:s3:::{site.bucket('output')}" in capsys.readouterr().err
    assert read_object(site.s3, site.bucket("output"), "processed/precious")
    assert deploy("create", "--yes") == 1
    removal.empty_bucket(site.s3, site.bucket("output"))
    site.s3.delete_bucket(Bucket=site.bucket("output"))
    assert deploy("create", "--yes") == 0  # ROLLBACK_COMPLETE is out of the way


def test_an_update_that_fails_is_rolled_back_and_says_why(standing, capsys, monkeypatch):
    """A zip that somebody deleted before CloudFormation came to it."""
    monkeypatch.setattr(change_sets, "put_package", lambda *_: None)
    monkeypatch.setattr("lambda_function.deploy.build_zip", lambda *_: b"another zip")
    assert script(standing)("update", "--memory", "2048", "--yes") == 1
    err = capsys.readouterr().err
    assert "Function (AWS::Lambda::Function) failed: Error occurred while GetObject" in err
    assert "state UPDATE_ROLLBACK_COMPLETE" in err
    assert script(standing)("status") == 0
    assert "MemorySize = 1769\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("state", "named"),
    [
        ("UPDATE_IN_PROGRESS", "wait until that is over"),
        ("DELETE_FAILED", "run deploy.py delete first"),
        ("ROLLBACK_FAILED", "run deploy.py delete first"),
        ("UPDATE_ROLLBACK_FAILED", "continue-update-rollback"),
    ],
)
def test_a_state_that_has_to_end_first_is_named_with_the_next_step(state, named, monkeypatch):
    site = Site("s", "1", "us-east-1", None, None, None, None)
    described = {"StackStatus": state, "Tags": site.tags}
    monkeypatch.setattr(change_sets, "find_stack", lambda *_: described)
    with pytest.raises(UserError, match=named) as caught:
        change_sets.deployable_stack(site)
    assert state in str(caught.value)


# --- the smoke test ------------------------------------------------------------------------------


@pytest.fixture
def trigger(standing) -> Iterator[Callable[[bool], None]]:
    """Switch the notification of the input bucket on and off."""
    s3, bucket = make_client(standing, "s3"), find_buckets(standing).input
    configuration = s3.get_bucket_notification_configuration(Bucket=bucket)
    configuration.pop("ResponseMetadata")

    def switch(on: bool) -> None:
        s3.put_bucket_notification_configuration(
            Bucket=bucket, NotificationConfiguration=configuration if on else {}
        )

    yield switch
    switch(True)


def test_the_smoke_test_finds_a_trigger_that_does_not_fire_and_leaves_nothing(
    standing, trigger, capsys, monkeypatch
):
    s3, buckets = make_client(standing, "s3"), find_buckets(standing)
    trigger(False)
    monkeypatch.setattr(smoke_test, "LIMIT_S", 0.2)
    assert script(standing)("create", "--yes") == 1
    assert f"no output of the smoke test's s3://{buckets.input}/input/" in capsys.readouterr().err
    left = [version["Key"] for bucket in vars(buckets).values() for version in versions(s3, bucket)]
    assert not any("smoke" in key for key in left)


def test_its_picture_is_put_again_until_the_notification_is_in_force(
    standing, trigger, monkeypatch
):
    s3, buckets = make_client(standing, "s3"), find_buckets(standing)
    trigger(False)
    puts = []

    class Late:
        """The S3 client, whose bucket begins to tell of objects with the third one."""

        def __getattr__(self, name: str):
            return getattr(s3, name)

        def put_object(self, **request: object) -> None:
            puts.append(request["Key"])
            trigger(len(puts) == 3)
            s3.put_object(**request)

    monkeypatch.setattr(smoke_test, "PUT_AGAIN_S", 0.1)
    run_smoke_test(Late(), buckets)
    assert len(puts) >= 3
    assert len(set(puts)) == 1


def test_the_smoke_test_leaves_no_row_among_those_of_runs(standing):
    s3, buckets = make_client(standing, "s3"), find_buckets(standing)
    run_smoke_test(s3, buckets)
    metadata = {"run-id": "r", "round": "1"}
    s3.put_object(Bucket=buckets.input, Key="input/a.jpg", Body=jpeg(), Metadata=metadata)
    waited_rows(s3, buckets.output, {RowId("r", 1, "a.jpg")}, LIMIT_S)
    assert b"smoke" not in read_object(s3, buckets.output, CSV_KEY).data


def test_a_permission_of_the_writer_that_is_missing_fails_the_smoke_test(standing, monkeypatch):
    """As would an SDK without If-Match: the row does not come."""
    s3, buckets = make_client(standing, "s3"), find_buckets(standing)
    iam = make_client(standing, "iam")
    resources = make_client(standing, "cloudformation").describe_stack_resource(
        StackName=standing.stack, LogicalResourceId="WriterRole"
    )
    where = {
        "RoleName": resources["StackResourceDetail"]["PhysicalResourceId"],
        "PolicyName": "metrics-writer",
    }
    policy = iam.get_role_policy(**where)["PolicyDocument"]
    left = [s for s in policy["Statement"] if s["Sid"] != "AppendRows"]
    iam.put_role_policy(**where, PolicyDocument=json.dumps(policy | {"Statement": left}))
    monkeypatch.setattr(smoke_test, "LIMIT_S", 3)
    try:
        with pytest.raises(UserError, match="no row of the smoke test's"):
            run_smoke_test(s3, buckets)
    finally:
        iam.put_role_policy(**where, PolicyDocument=json.dumps(policy))


# --- delete --------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["y\n", "\n", "image-pipeline\n"])
def test_delete_asks_for_the_name_of_the_stack(standing, answer, capsys, text):
    before = everything(standing)
    answer(text)
    assert script(standing)("delete") == 1
    assert "nothing was deleted" in capsys.readouterr().out
    assert everything(standing) == before


def test_objects_of_others_are_kept_unless_that_is_asked_for(standing, capsys):
    s3, buckets = make_client(standing, "s3"), find_buckets(standing)
    s3.put_object(Bucket=buckets.input, Key="holiday/precious.jpg", Body=b"1")
    before = everything(standing)
    for flags in (["--yes"], ["--dry-run"]):
        assert script(standing)("delete", *flags) == 1
        err = capsys.readouterr().err
        assert f"1 objects in s3://{buckets.input} are not of this project" in err
        assert "'holiday/precious.jpg'" in err
        assert "--force" in err
    assert everything(standing) == before
    assert script(standing)("delete", "--dry-run", "--force") == 0
    assert "1 of them of others" in capsys.readouterr().out
    s3.delete_object(Bucket=buckets.input, Key="holiday/precious.jpg")


def test_delete_removes_all_versions_and_with_force_what_is_of_others_but_no_other_bucket(
    cloud, deploy, answer
):
    assert deploy("create", "--yes") == 0
    s3, buckets, other = make_client(cloud, "s3"), find_buckets(cloud), f"{cloud.stack}-other"
    s3.create_bucket(Bucket=other)
    for bucket, key in ((buckets.output, "processed/a"), (buckets.input, "b"), (other, "input/a")):
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        for body in (b"1", b"2"):
            s3.put_object(Bucket=bucket, Key=key, Body=body)
        s3.delete_object(Bucket=bucket, Key=key)
        assert [version["Key"] for version in versions(s3, bucket)] == [key] * 3
    answer(f"{cloud.stack}\n")
    assert deploy("delete", "--force") == 0
    assert stack_of(cloud) is None
    assert len(list(versions(s3, other))) == 3
    removal.empty_bucket(s3, other)
    s3.delete_bucket(Bucket=other)


def test_what_a_delete_did_not_finish_the_next_one_does(cloud, deploy, capsys):
    """An object that comes in between makes CloudFormation keep the bucket."""
    assert deploy("create", "--yes") == 0
    buckets, original = find_buckets(cloud), removal.empty_bucket

    def and_one_comes(s3, bucket: str) -> None:
        original(s3, bucket)
        if bucket == buckets.output:
            s3.put_object(Bucket=bucket, Key="processed/late", Body=b"1")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(removal, "empty_bucket", and_one_comes)
        assert deploy("delete", "--yes") == 1
    err = capsys.readouterr().err
    assert "not empty" in err
    assert "state DELETE_FAILED; run deploy.py delete again" in err
    assert deploy("create", "--yes") == 1
    assert "run deploy.py delete first" in capsys.readouterr().err
    assert deploy("delete", "--yes") == 0


@pytest.mark.parametrize("kind", ["tag", "name"])
def test_delete_exits_1_when_something_is_left_and_names_it(cloud, deploy, capsys, kind):
    site = find_site(cloud)
    group = f"/aws/lambda/{cloud.stack}"
    original = removal.remove

    def and_something_stays(*arguments: object) -> None:
        original(*arguments)
        if kind == "name":
            site.logs.create_log_group(logGroupName=group)
        else:
            tags = {tag["Key"]: tag["Value"] for tag in site.tags}
            site.logs.create_log_group(logGroupName="elsewhere", tags=tags)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(removal, "remove", and_something_stays)
        assert deploy("delete", "--yes") == 1
    err = capsys.readouterr().err
    named = f"log group {group}" if kind == "name" else ":log-group:elsewhere"
    assert named in err
    assert "still there" in err
    site.logs.delete_log_group(logGroupName=group if kind == "name" else "elsewhere")


# --- as a user runs it ---------------------------------------------------------------------------


def test_help_works_from_anywhere_and_shows_two_commands_to_try(run_script_in, tmp_path):
    done = run_script_in("lambda_function/deploy.py", "--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("    python lambda_function/deploy.py ") >= 2


@pytest.mark.parametrize("command", ["create", "update", "status", "delete"])
def test_help_of_a_command_shows_the_defaults_of_the_template(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "default: None" not in text
    assert "--input-bucket" not in text
    assert ("--yes" in text) == ("--dry-run" in text) == (command != "status")
    for parameter in ("MemorySize", "TimeoutSeconds", "ExpireDays", "LogRetentionDays"):
        default = f"(default: {template()['Parameters'][parameter]['Default']})"
        assert (default in text) == (command in ("create", "update"))


def test_the_rehearsal_of_the_readme_works_against_an_empty_embedded_cloud(
    checkout, run_script_in, tmp_path
):
    (checkout / "images_to_upload" / "a.jpg").write_bytes(jpeg(900, 700))
    (checkout / "images_to_upload" / "b.jpg").write_bytes(jpeg(500, 400))
    script = checkout / "lambda_function" / "embedded_cloud.py"
    server = subprocess.Popen(
        [sys.executable, str(script), "--empty"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        preexec_fn=hear_ctrl_c,
    )
    try:
        url = server.stdout.readline().strip().partition("=")[2]
        for command in (
            ("lambda_function/deploy.py", "create", "--yes"),
            ("lambda_function/deploy.py", "status"),
            ("master_pipeline.py", "--endpoint-url", url),
            ("lambda_function/deploy.py", "delete", "--yes"),
        ):
            done = run_script_in(*command, AWS_ENDPOINT_URL=url)
            assert done.returncode == 0, (command, done.stdout, done.stderr)
        assert "nothing is left of stack 'image-pipeline'" in done.stdout
        assert leftovers(find_site(Cloud("embedded", url))) == []
    finally:
        server.terminate()
        server.communicate(timeout=LIMIT_S)


def test_no_client_is_made_but_by_the_one_factory_and_the_functions():
    made = re.compile(r"boto3\.(?:client|resource)\(|Session\(|\.client\(")
    found = {
        path.relative_to(PROJECT_FOLDER).as_posix()
        for path in PROJECT_FOLDER.rglob("*.py")
        if path.relative_to(PROJECT_FOLDER).parts[0] not in ("tests", ".venv")
        and made.search(path.read_text())
    }
    functions = {"lambda_function/handler.py", "lambda_function/metrics_writer.py"}
    timed = "metrics/analysis/forecast_local_step.py"  # what making one takes; it asks nobody
    assert found == {"lambda_function/cloud.py", timed, *functions}


@pytest.mark.parametrize(
    ("stack", "reason"),
    [
        ({"StackStatus": "CREATE_COMPLETE", "EnableTerminationProtection": True}, "is protected"),
        ({"StackStatus": "UPDATE_IN_PROGRESS"}, "is UPDATE_IN_PROGRESS"),
    ],
)
def test_what_cloudformation_would_not_delete_is_not_emptied_first(stack, reason):
    site = SimpleNamespace(stack="s")
    with pytest.raises(UserError, match=f"{reason}.*nothing was deleted"):
        removal.check_deletable(site, stack)
    for state in ("CREATE_COMPLETE", "ROLLBACK_COMPLETE", "REVIEW_IN_PROGRESS", "DELETE_FAILED"):
        removal.check_deletable(site, {"StackStatus": state})
    removal.check_deletable(site, None)


def test_only_packages_count_as_ours_in_the_code_bucket():
    assert is_package(f"{'0a' * 32}.zip")
    for key in ("notes.txt", f"{'0a' * 32}.zip.bak", f"x/{'0a' * 32}.zip", "0a.zip"):
        assert not is_package(key)
