"""Each function may do what it needs and nothing else: each permission is taken away in turn."""

import json
from collections.abc import Iterator

import boto3
import pytest
from botocore.exceptions import ClientError
from conftest import jpeg
from processes import until
from rows import row

from lambda_function.cloud import Buckets, Cloud, find_stack, make_client
from lambda_function.deploy import package_for, parameters_of_this_machine
from lambda_function.emulator.moto_roles import _matches
from lambda_function.metrics_log import (
    CSV_KEY,
    SMOKE_TEST_KEY,
    SMOKE_TEST_RUN,
    delete_objects,
    row_to_message,
)
from lambda_function.stack.change_sets import deploy, find_site, parameters_for, template


def listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def permissions(role: str) -> Iterator[tuple[str, str, int]]:
    """Of a role in the template: statement, action, and the place of the resource in it."""
    for policy in template()["Resources"][role]["Properties"]["Policies"]:
        for statement in policy["PolicyDocument"]["Statement"]:
            for action in listed(statement["Action"]):
                for number, _ in enumerate(listed(statement["Resource"])):
                    yield statement["Sid"], action, number


class Function:
    """A function of the stack under a policy that can be changed."""

    name_output, group_output = "FunctionName", "LogGroupName"

    def __init__(self, cloud: Cloud):
        clients = ("s3", "iam", "lambda", "logs", "sqs", "sts")
        self.s3, self.iam, self.lambda_, self.logs, self.sqs, self.sts = (
            make_client(cloud, service) for service in clients
        )
        found = find_stack(make_client(cloud, "cloudformation"), cloud.stack)
        outputs = {o["OutputKey"]: o["OutputValue"] for o in found["Outputs"]}
        self.buckets = Buckets(outputs["InputBucket"], outputs["OutputBucket"])
        self.name, self.group = outputs[self.name_output], outputs[self.group_output]
        self.failures, self.rows = outputs["FailureQueueUrl"], outputs["RowsQueueUrl"]
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

    def invoke(self, event: dict) -> bool:
        """Whether an invocation succeeds."""
        answer = self.lambda_.invoke(FunctionName=self.name, Payload=json.dumps(event).encode())
        return "FunctionError" not in answer

    def exercise(self) -> set[str]:
        """Everything that the function does in its life; the parts of it that do not work."""
        self.count += 1
        self.take_logs()
        failed = self.work()
        if not self.take_logs():
            failed.add("logs")
        return failed

    def work(self) -> set[str]:
        raise NotImplementedError

    def take_logs(self) -> int:
        """How many log streams there were; there are none then."""
        streams = self.logs.describe_log_streams(logGroupName=self.group)["logStreams"]
        for name in (stream["logStreamName"] for stream in streams):
            self.logs.delete_log_stream(logGroupName=self.group, logStreamName=name)
        return len(streams)


class Handler(Function):
    def event(self, key: str, bucket: str | None = None) -> dict:
        bucket = bucket or self.buckets.input
        described = {"bucket": {"name": bucket}, "object": {"key": f"input/{key}"}}
        return {"Records": [{"eventName": "ObjectCreated:Put", "s3": described}]}

    def work(self) -> set[str]:
        # Without the trigger: what is invoked is told here, and nothing runs beside it.
        key, failed = f"{self.count}.jpg", set()
        self.s3.put_object(
            Bucket=self.buckets.input, Key=f"input/{key}", Body=jpeg(), Metadata={"run-id": "r"}
        )
        if not self.invoke(self.event(key)):
            failed.add("a picture")
        if not self.invoke(self.event("gone.jpg")):
            failed.add("telling that a picture is gone")
        if not self.reports_failure():
            failed.add("failure queue")
        return failed

    def reports_failure(self) -> bool:
        """Whether an event that fails comes to the queue, before the next one is through."""
        of_others = self.event("a.jpg", bucket="a-bucket-of-somebody-else")
        self.lambda_.invoke(
            FunctionName=self.name, InvocationType="Event", Payload=json.dumps(of_others).encode()
        )
        self.invoke(self.event("missing.jpg"))  # one environment: the one before has ended by now
        messages = self.sqs.receive_message(QueueUrl=self.failures).get("Messages", [])
        for message in messages:
            self.sqs.delete_message(QueueUrl=self.failures, ReceiptHandle=message["ReceiptHandle"])
        return bool(messages)


class Writer(Function):
    name_output, group_output = "WriterName", "WriterLogGroupName"

    def work(self) -> set[str]:
        failed = set()
        delete_objects(self.s3, self.buckets.output, [CSV_KEY, SMOKE_TEST_KEY])
        rows = [row(f"{self.count}"), row(f"{self.count}", run_id=SMOKE_TEST_RUN)]
        messages = [{"messageId": one.run_id, "body": row_to_message(one)} for one in rows]
        if not self.invoke({"Records": messages}):
            failed.add("appending")
        if not self.may_poll():
            failed.add("polling")
        return failed

    def may_poll(self) -> bool:
        """Whether its role lets Lambda take messages for it."""
        about = {"QueueUrl": self.rows, "AttributeNames": ["QueueArn"]}
        arn = self.sqs.get_queue_attributes(**about)["Attributes"]["QueueArn"]
        try:
            made = self.lambda_.create_event_source_mapping(
                EventSourceArn=arn, FunctionName=self.name, BatchSize=10
            )
        except ClientError:
            return False
        self.lambda_.delete_event_source_mapping(UUID=made["UUID"])
        return True


@pytest.fixture(scope="module")
def cloud(embedded) -> Cloud:
    """A stack of its own, with one environment, whose events are not retried; without trigger."""
    cloud = Cloud("embedded", embedded.endpoint_url, stack="least-privilege")
    chosen = parameters_of_this_machine() | {"ReservedConcurrency": "1"}
    parameters = parameters_for(None, chosen)
    assert deploy(find_site(cloud), None, package_for(parameters, True), parameters, lambda _: True)
    function = Handler(cloud)
    config = function.lambda_.get_function_event_invoke_config(FunctionName=function.name)
    function.lambda_.put_function_event_invoke_config(
        FunctionName=function.name,
        MaximumRetryAttempts=0,
        DestinationConfig=config["DestinationConfig"],
    )
    function.s3.put_bucket_notification_configuration(
        Bucket=function.buckets.input, NotificationConfiguration={}
    )
    return cloud


@pytest.fixture(scope="module")
def function(cloud) -> Handler:
    return Handler(cloud)


@pytest.fixture(scope="module")
def writer(cloud) -> Writer:
    return Writer(cloud)


@pytest.mark.parametrize("name", ["function", "writer"])
def test_a_function_works_under_the_policy_of_the_template(request, name):
    function = request.getfixturevalue(name)
    function.set_policy(function.policy)
    assert function.exercise() == set()


@pytest.mark.parametrize(
    ("name", "sid", "action", "number"),
    [
        *(("function", *one) for one in permissions("FunctionRole")),
        *(("writer", *one) for one in permissions("WriterRole")),
    ],
)
def test_without_one_permission_something_fails(request, name, sid, action, number):
    function = request.getfixturevalue(name)
    function.set_policy(function.without(sid, action, number))
    try:
        assert function.exercise() != set()
    finally:
        function.set_policy(function.policy)


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


def client_of(function: Function, service: str, endpoint_url: str):
    """A client with the permissions of a function."""
    session = function.sts.assume_role(RoleArn=function.role_arn, RoleSessionName="test")
    keys = session["Credentials"]
    return boto3.client(
        service,
        endpoint_url=endpoint_url,
        region_name="us-east-1",
        aws_access_key_id=keys["AccessKeyId"],
        aws_secret_access_key=keys["SecretAccessKey"],
        aws_session_token=keys["SessionToken"],
    )


@pytest.fixture(scope="module")
def as_function(function, embedded):
    return client_of(function, "s3", embedded.endpoint_url)


@pytest.fixture(scope="module")
def as_writer(writer, embedded):
    return client_of(writer, "s3", embedded.endpoint_url)


FORBIDDEN = [
    ("get_object", "input", "other/a.jpg"),
    ("put_object", "input", "input/a.jpg"),
    ("delete_object", "input", "input/a.jpg"),
    ("get_object", "output", "processed/a.jpg"),
    ("delete_object", "output", "processed/a.jpg"),
    ("put_object", "output", "metrics/manifests/a.json"),
    ("get_object", "output", "metrics/manifests/a.json"),
    ("get_object", "output", CSV_KEY),
    ("put_object", "output", CSV_KEY),
    ("delete_object", "output", CSV_KEY),
    ("list_objects_v2", "output", None),
    ("delete_bucket", "output", None),
    ("get_object_acl", "input", "input/a.jpg"),
]
FORBIDDEN_TO_WRITER = [
    ("get_object", "input", "input/a.jpg"),
    ("put_object", "input", "input/a.jpg"),
    ("list_objects_v2", "input", None),
    ("get_object", "output", "processed/a.jpg"),
    ("put_object", "output", "processed/a.jpg"),
    ("put_object", "output", "metrics/lambda_metrics.txt"),
    ("put_object", "output", "metrics/manifests/a.json"),
    ("delete_object", "output", CSV_KEY),
    ("delete_bucket", "output", None),
]


@pytest.mark.parametrize(
    ("role", "call", "bucket", "key"),
    [
        *(("as_function", *one) for one in FORBIDDEN),
        *(("as_writer", *one) for one in FORBIDDEN_TO_WRITER),
    ],
)
def test_outside_of_its_prefixes_a_function_is_denied(request, function, role, call, bucket, key):
    where = {"Bucket": getattr(function.buckets, bucket)} | ({"Key": key} if key else {})
    with pytest.raises(ClientError) as caught:
        getattr(request.getfixturevalue(role), call)(**where)
    assert caught.value.response["Error"]["Code"] == "AccessDenied"


def code_of(client, bucket: str, key: str) -> str:
    with pytest.raises(ClientError) as caught:
        client.get_object(Bucket=bucket, Key=key)
    return caught.value.response["Error"]["Code"]


def test_what_is_not_there_is_hidden_from_who_may_not_list(function, as_function, as_writer):
    """On S3 a function without s3:ListBucket could not tell what is gone, or a first run, from what
    is denied."""
    output, gone = function.buckets.output, (function.buckets.input, "input/missing")
    function.s3.delete_object(Bucket=output, Key=CSV_KEY)
    assert code_of(as_function, *gone) == "NoSuchKey"
    assert code_of(as_function, output, CSV_KEY) == "AccessDenied"
    assert code_of(as_writer, output, CSV_KEY) == "NoSuchKey"
    function.set_policy(function.without("FindPictures", "s3:ListBucket", 0))
    try:
        assert code_of(as_function, *gone) == "AccessDenied"
    finally:
        function.set_policy(function.policy)


@pytest.mark.parametrize(
    ("name", "call", "queue"),
    [
        ("function", "receive_message", "rows"),
        ("function", "receive_message", "failures"),
        ("function", "purge_queue", "rows"),
        ("writer", "receive_message", "failures"),
        ("writer", "purge_queue", "rows"),
    ],
)
def test_a_function_uses_the_queues_as_it_has_to_only(request, embedded, name, call, queue):
    function = request.getfixturevalue(name)
    sqs = client_of(function, "sqs", embedded.endpoint_url)
    with pytest.raises(ClientError, match="AccessDenied"):
        getattr(sqs, call)(QueueUrl=getattr(function, queue))


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
