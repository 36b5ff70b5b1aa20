"""The function may do what it needs and nothing else: each permission is taken away in turn."""

import json

import boto3
import pytest
from botocore.exceptions import ClientError
from conftest import jpeg
from processes import until

from lambda_function.cloud import Buckets, Cloud, find_stack, make_client
from lambda_function.deploy import package_for, parameters_of_this_machine
from lambda_function.emulator.moto_roles import _matches
from lambda_function.metrics_log import CSV_KEY, LEASE_KEY, RowId, row_key
from lambda_function.stack.change_sets import deploy, find_site, parameters_for, template

STATEMENTS = {
    statement["Sid"]: statement
    for policy in template()["Resources"]["FunctionRole"]["Properties"]["Policies"]
    for statement in policy["PolicyDocument"]["Statement"]
}


def listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


PERMISSIONS = [
    (sid, action, number)
    for sid, statement in STATEMENTS.items()
    for action in listed(statement["Action"])
    for number, _ in enumerate(listed(statement["Resource"]))
]


class Function:
    """The stack's function under a policy that can be changed."""

    def __init__(self, cloud: Cloud):
        clients = ("s3", "iam", "lambda", "logs", "sqs", "sts")
        self.s3, self.iam, self.lambda_, self.logs, self.sqs, self.sts = (
            make_client(cloud, service) for service in clients
        )
        found = find_stack(make_client(cloud, "cloudformation"), cloud.stack)
        outputs = {o["OutputKey"]: o["OutputValue"] for o in found["Outputs"]}
        self.buckets = Buckets(outputs["InputBucket"], outputs["OutputBucket"])
        self.name, self.group = outputs["FunctionName"], outputs["LogGroupName"]
        self.queue = outputs["FailureQueueUrl"]
        self.role_arn = self.lambda_.get_function_configuration(FunctionName=self.name)["Role"]
        self.role = self.role_arn.rpartition("/")[2]
        (self.policy_name,) = self.iam.list_role_policies(RoleName=self.role)["PolicyNames"]
        answer = self.iam.get_role_policy(RoleName=self.role, PolicyName=self.policy_name)
        self.policy = answer["PolicyDocument"]
        self.count = 0

    def set_policy(self, policy: dict) -> None:
        self.iam.put_role_policy(
            RoleName=self.role, PolicyName=self.policy_name, PolicyDocument=json.dumps(policy)
        )

    def without(self, sid: str, action: str, number: int) -> dict:
        """The policy without one action on one resource."""
        statements = []
        for statement in self.policy["Statement"]:
            if statement["Sid"] != sid:
                statements.append(statement)
                continue
            actions, resources = listed(statement["Action"]), listed(statement["Resource"])
            for place, resource in enumerate(resources):
                left = [a for a in actions if (a, place) != (action, number)]
                if left:
                    part = {"Sid": f"{sid}{place}", "Action": left, "Resource": resource}
                    statements.append(statement | part)
        return self.policy | {"Statement": statements}

    def event(self, key: str, bucket: str | None = None) -> dict:
        bucket = bucket or self.buckets.input
        described = {"bucket": {"name": bucket}, "object": {"key": f"input/{key}"}}
        return {"Records": [{"eventName": "ObjectCreated:Put", "s3": described}]}

    def invoke(self, key: str) -> bool:
        """Whether an invocation for a picture succeeds."""
        answer = self.lambda_.invoke(
            FunctionName=self.name, Payload=json.dumps(self.event(key)).encode()
        )
        return "FunctionError" not in answer

    def exercise(self) -> set[str]:
        """Everything that the function does in its life; the parts of it that do not work."""
        self.count += 1
        key, failed = f"{self.count}.jpg", set()
        self.take_logs()
        # Without the trigger: what is invoked is told here, and nothing runs beside it.
        self.s3.put_object(
            Bucket=self.buckets.input, Key=f"input/{key}", Body=jpeg(), Metadata={"run-id": "r"}
        )
        # Somebody else holds the lease: the row waits for its holder.
        self.s3.put_object(Bucket=self.buckets.output, Key=LEASE_KEY, Body=b"other")
        if not self.invoke(key):
            failed.add("a row beside another writer")
        if not self.invoke("gone.jpg"):
            failed.add("telling that a picture is gone")
        self.s3.delete_object(Bucket=self.buckets.output, Key=LEASE_KEY)
        # The event once more, and nobody holds the lease: the row is there, and is appended.
        if not self.invoke(key):
            failed.add("appending")
        waits = row_key(RowId("r", 1, key))
        if "Contents" in self.s3.list_objects_v2(Bucket=self.buckets.output, Prefix=waits):
            failed.add("clearing the row away")
        if not self.take_logs():
            failed.add("logs")
        if not self.reports_failure():
            failed.add("failure queue")
        return failed

    def take_logs(self) -> int:
        """How many log streams there were; there are none then."""
        streams = self.logs.describe_log_streams(logGroupName=self.group)["logStreams"]
        for name in (stream["logStreamName"] for stream in streams):
            self.logs.delete_log_stream(logGroupName=self.group, logStreamName=name)
        return len(streams)

    def reports_failure(self) -> bool:
        """Whether an event that fails comes to the queue, before the next one is through."""
        of_others = self.event("a.jpg", bucket="a-bucket-of-somebody-else")
        self.lambda_.invoke(
            FunctionName=self.name, InvocationType="Event", Payload=json.dumps(of_others).encode()
        )
        self.invoke("missing.jpg")  # one environment: the one before has ended by now
        messages = self.sqs.receive_message(QueueUrl=self.queue).get("Messages", [])
        for message in messages:
            self.sqs.delete_message(QueueUrl=self.queue, ReceiptHandle=message["ReceiptHandle"])
        return bool(messages)


@pytest.fixture(scope="module")
def function(embedded) -> Function:
    """A stack of its own, with one environment, whose events are not retried."""
    cloud = Cloud("embedded", embedded.endpoint_url, stack="least-privilege")
    chosen = parameters_of_this_machine() | {"ReservedConcurrency": "1"}
    parameters = parameters_for(None, chosen)
    assert deploy(find_site(cloud), None, package_for(parameters, True), parameters, lambda _: True)
    function = Function(cloud)
    config = function.lambda_.get_function_event_invoke_config(FunctionName=function.name)
    function.lambda_.put_function_event_invoke_config(
        FunctionName=function.name,
        MaximumRetryAttempts=0,
        DestinationConfig=config["DestinationConfig"],
    )
    function.s3.put_bucket_notification_configuration(
        Bucket=function.buckets.input, NotificationConfiguration={}
    )
    return function


def test_the_function_works_under_the_policy_of_the_template_and_needs_none_beyond_it(function):
    function.set_policy(function.policy)
    assert function.exercise() == set()


@pytest.mark.parametrize(("sid", "action", "number"), PERMISSIONS)
def test_without_one_permission_something_fails(function, sid, action, number):
    function.set_policy(function.without(sid, action, number))
    try:
        assert function.exercise() != set()
    finally:
        function.set_policy(function.policy)
        function.s3.delete_object(Bucket=function.buckets.output, Key=LEASE_KEY)


def test_an_action_more_in_the_policy_would_be_found(function):
    """What the test above rests on: a permission that is not needed makes nothing fail."""
    wider = json.loads(json.dumps(function.policy))
    wider["Statement"][0]["Action"] = ["s3:GetObject", "s3:DeleteObject"]
    original, function.policy = function.policy, wider
    try:
        function.set_policy(function.without("ReadPictures", "s3:DeleteObject", 0))
        assert function.exercise() == set()
    finally:
        function.policy = original
        function.set_policy(original)


@pytest.fixture(scope="module")
def as_function(function, embedded):
    """An S3 client with the permissions of the function."""
    session = function.sts.assume_role(RoleArn=function.role_arn, RoleSessionName="test")
    keys = session["Credentials"]
    return boto3.client(
        "s3",
        endpoint_url=embedded.endpoint_url,
        region_name="us-east-1",
        aws_access_key_id=keys["AccessKeyId"],
        aws_secret_access_key=keys["SecretAccessKey"],
        aws_session_token=keys["SessionToken"],
    )


FORBIDDEN = [
    ("get_object", "input", "other/a.jpg"),
    ("put_object", "input", "input/a.jpg"),
    ("delete_object", "input", "input/a.jpg"),
    ("get_object", "output", "processed/a.jpg"),
    ("delete_object", "output", "processed/a.jpg"),
    ("put_object", "output", "metrics/manifests/a.json"),
    ("get_object", "output", "metrics/manifests/a.json"),
    ("delete_object", "output", CSV_KEY),
    ("put_object", "output", "metrics/lambda_metrics.txt"),
    ("delete_bucket", "output", None),
    ("get_object_acl", "input", "input/a.jpg"),
]


@pytest.mark.parametrize(("call", "bucket", "key"), FORBIDDEN)
def test_outside_of_its_prefixes_the_function_is_denied(function, as_function, call, bucket, key):
    where = {"Bucket": getattr(function.buckets, bucket)} | ({"Key": key} if key else {})
    with pytest.raises(ClientError) as caught:
        getattr(as_function, call)(**where)
    assert caught.value.response["Error"]["Code"] == "AccessDenied"


KEYS_NOT_THERE = (("input", "input/missing"), ("output", "metrics/rows/r/1/missing"))


def test_what_is_not_there_is_hidden_from_who_may_not_list(function, as_function):
    """On S3 a function without s3:ListBucket could not tell what is gone from what is denied."""

    def codes() -> dict[str, str]:
        return {kind: code_of(kind, key) for kind, key in KEYS_NOT_THERE}

    def code_of(kind: str, key: str) -> str:
        with pytest.raises(ClientError) as caught:
            as_function.get_object(Bucket=getattr(function.buckets, kind), Key=key)
        return caught.value.response["Error"]["Code"]

    assert codes() == {"input": "NoSuchKey", "output": "NoSuchKey"}
    function.set_policy(function.without("FindPictures", "s3:ListBucket", 0))
    try:
        assert codes() == {"input": "AccessDenied", "output": "NoSuchKey"}
    finally:
        function.set_policy(function.policy)


def test_deleting_many_objects_is_held_to_each_key(function, as_function):
    bucket = function.buckets.output
    for keys, denied in (
        (["metrics/rows/a/1/x"], 0),
        (["metrics/rows/a/1/x", "processed/a.jpg"], 2),
    ):
        answer = as_function.delete_objects(
            Bucket=bucket, Delete={"Objects": [{"Key": key} for key in keys]}
        )
        assert [e["Code"] for e in answer.get("Errors", [])] == ["AccessDenied"] * denied


def test_the_user_may_do_everything_meanwhile(function):
    assert until(lambda: function.s3.list_objects_v2(Bucket=function.buckets.output))
    function.s3.put_object(Bucket=function.buckets.output, Key="anything", Body=b"")
    function.s3.delete_object(Bucket=function.buckets.output, Key="anything")


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("arn:aws:s3:::in/*", "arn:aws:s3:::in/new\nline.jpg", True),
        ("arn:aws:s3:::in/*", "arn:aws:s3:::in/\n", True),
        ("arn:aws:s3:::in/?.jpg", "arn:aws:s3:::in/\n.jpg", True),
        ("arn:aws:s3:::in", "arn:aws:s3:::in\n", False),
        ("arn:aws:s3:::in.x/*", "arn:aws:s3:::in-x/a", False),
        ("s3:Get*", "s3:PutObject", False),
    ],
)
def test_wildcards_of_policies_match_as_in_iam(pattern, text, matches):
    assert bool(_matches(pattern, text)) is matches
