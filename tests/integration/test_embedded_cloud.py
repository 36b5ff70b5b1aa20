"""The embedded cloud as a whole: what a client sees, and that nothing of it stays."""

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import boto3
import pytest
import yaml
from botocore.exceptions import ClientError
from conftest import jpeg
from processes import LIMIT_S, alive, descendants, tcp_sockets, until
from rows import waited_rows

from lambda_function.cloud import Cloud, find_buckets, make_client, stack_outputs
from lambda_function.embedded_cloud import embedded_cloud
from lambda_function.metrics_log import (
    CSV_KEY,
    HEADER,
    RowId,
    read_object,
    rows_from_csv,
)
from metrics.common.paths import PROJECT

SCRIPT = PROJECT / "lambda_function" / "embedded_cloud.py"

# Keeps each event as an object under seen/ of the bucket named in the environment.
RECORDER = """
import boto3, json, os, uuid
s3 = boto3.client("s3")

def handle(event, context):
    if "fail" in event:
        raise ValueError("as asked")
    for record in event["Records"]:
        s3.head_object(Bucket=record["s3"]["bucket"]["name"], Key="x/exists")
        body = json.dumps(record)
        s3.put_object(Bucket=os.environ["SEEN"], Key=f"seen/{uuid.uuid4()}", Body=body)
    return "done"
"""


def events_in(s3, bucket) -> list[dict]:
    keys = s3.list_objects_v2(Bucket=bucket, Prefix="seen/").get("Contents", [])
    return [json.loads(read_object(s3, bucket, entry["Key"]).data) for entry in keys]


@pytest.fixture(scope="module")
def recorder(embedded) -> dict:
    """A stack of another template: a function that records the events of a bucket."""
    template = yaml.safe_load(
        """
        Parameters: {Code: {Type: String}, CodeKey: {Type: String}}
        Resources:
          Failures: {Type: AWS::SQS::Queue}
          Seen: {Type: AWS::S3::Bucket, Properties: {BucketName: recorder-seen}}
          Role:
            Type: AWS::IAM::Role
            Properties:
              AssumeRolePolicyDocument:
                Version: "2012-10-17"
                Statement:
                  - Effect: Allow
                    Principal: {Service: lambda.amazonaws.com}
                    Action: sts:AssumeRole
              Policies:
                - PolicyName: p
                  PolicyDocument:
                    Version: "2012-10-17"
                    Statement: [{Effect: Allow, Action: ["s3:*", "sqs:SendMessage"], Resource: "*"}]
          Function:
            Type: AWS::Lambda::Function
            Properties:
              Handler: recorder.handle
              Runtime: python3.13
              Timeout: 30
              Role: {"Fn::GetAtt": [Role, Arn]}
              Code: {S3Bucket: {Ref: Code}, S3Key: {Ref: CodeKey}}
              Environment: {Variables: {SEEN: {Ref: Seen}}}
          Retries:
            Type: AWS::Lambda::EventInvokeConfig
            Properties:
              FunctionName: {Ref: Function}
              Qualifier: $LATEST
              MaximumRetryAttempts: 1
              DestinationConfig: {OnFailure: {Destination: {"Fn::GetAtt": [Failures, Arn]}}}
          Pictures:
            Type: AWS::S3::Bucket
            Properties:
              BucketName: recorder-pictures
              PublicAccessBlockConfiguration: {BlockPublicAcls: true, BlockPublicPolicy: true,
                IgnorePublicAcls: true, RestrictPublicBuckets: true}
              NotificationConfiguration:
                LambdaConfigurations:
                  - Event: s3:ObjectCreated:*
                    Function: {"Fn::GetAtt": [Function, Arn]}
                    Filter:
                      S3Key:
                        Rules: [{Name: prefix, Value: x/}, {Name: suffix, Value: .jpg}]
        Outputs:
          Function: {Value: {Ref: Function}}
          Failures: {Value: {Ref: Failures}}
          Role: {Value: {Ref: Role}}
        """
    )
    s3, cloudformation = make_client(embedded, "s3"), make_client(embedded, "cloudformation")
    package = io.BytesIO()
    with zipfile.ZipFile(package, "w") as archive:
        archive.writestr("recorder.py", RECORDER)
    s3.create_bucket(Bucket="recorder-code")
    s3.put_object(Bucket="recorder-code", Key="code.zip", Body=package.getvalue())
    parameters = {"Code": "recorder-code", "CodeKey": "code.zip"}
    cloudformation.create_stack(
        StackName="recorder",
        TemplateBody=json.dumps(template),
        Parameters=[{"ParameterKey": k, "ParameterValue": v} for k, v in parameters.items()],
        Capabilities=["CAPABILITY_IAM"],
    )
    s3.put_object(Bucket="recorder-pictures", Key="x/exists", Body=b"")
    return stack_outputs(cloudformation, "recorder")


# --- what a client sees --------------------------------------------------------------------------


def test_a_put_leads_to_an_output_and_a_row(embedded):
    s3, buckets = make_client(embedded, "s3"), find_buckets(embedded)
    metadata = {"run-id": "embedded-1", "round": "1"}
    key = "sub/a b+c%20ü.jpg"
    s3.put_object(Bucket=buckets.input, Key=f"input/{key}", Body=jpeg(), Metadata=metadata)
    expected = RowId("embedded-1", 1, key)
    (row,) = waited_rows(s3, buckets.output, {expected}, LIMIT_S)
    assert (row.status, row.environment, row.memory_mb) == ("ok", "embedded", 1769)
    assert read_object(s3, buckets.output, f"processed/{key}")


def test_an_event_has_the_fields_that_aws_sends(embedded, recorder):
    s3 = make_client(embedded, "s3")
    s3.put_object(Bucket="recorder-pictures", Key="x/y z+1/ü.jpg", Body=b"12345")
    (event,) = until(lambda: events_in(s3, "recorder-seen"))
    assert event["eventName"] == "ObjectCreated:Put"
    assert event["eventSource"] == "aws:s3"
    assert event["s3"]["bucket"]["arn"] == "arn:aws:s3:::recorder-pictures"
    described = event["s3"]["object"]
    assert described["key"] == "x/y+z%2B1/%C3%BC.jpg"  # form-encoded, with the slashes as they are
    assert described["size"] == 5
    assert re.fullmatch("[0-9A-F]{16,}", described["sequencer"])
    assert {"userIdentity", "requestParameters", "responseElements"} <= set(event)


def test_a_multipart_upload_is_one_event(embedded, recorder):
    s3 = make_client(embedded, "s3")
    before = len(events_in(s3, "recorder-seen"))
    where = {"Bucket": "recorder-pictures", "Key": "x/large.jpg"}
    upload = s3.create_multipart_upload(**where)["UploadId"]
    part = s3.upload_part(**where, UploadId=upload, PartNumber=1, Body=b"x" * 100)
    s3.complete_multipart_upload(
        **where,
        UploadId=upload,
        MultipartUpload={"Parts": [{"ETag": part["ETag"], "PartNumber": 1}]},
    )
    for number in range(5):  # two environments: a second event would be through before these
        s3.put_object(Bucket="recorder-pictures", Key=f"x/after-{number}.jpg", Body=b"")
    until(lambda: len(events_in(s3, "recorder-seen")) >= before + 6)
    of_large = [e for e in events_in(s3, "recorder-seen") if "large" in e["s3"]["object"]["key"]]
    kinds = [event["eventName"] for event in of_large]
    assert kinds == ["ObjectCreated:CompleteMultipartUpload"]


def test_keys_outside_the_filter_are_no_events(embedded, recorder):
    s3 = make_client(embedded, "s3")
    before = len(events_in(s3, "recorder-seen"))
    for key in ("y/a.jpg", "x/a.png", "x/inside.jpg"):
        s3.put_object(Bucket="recorder-pictures", Key=key, Body=b"")
    until(lambda: len(events_in(s3, "recorder-seen")) > before)
    assert len(events_in(s3, "recorder-seen")) == before + 1


def test_a_function_can_be_called_directly(embedded, recorder):
    client = make_client(embedded, "lambda")
    answer = client.invoke(FunctionName=recorder["Function"], Payload=b'{"Records": []}')
    assert json.loads(answer["Payload"].read()) == "done"
    failed = client.invoke(FunctionName=recorder["Function"], Payload=b'{"fail": 1}')
    assert failed["FunctionError"] == "Unhandled"
    assert json.loads(failed["Payload"].read())["errorMessage"] == "as asked"


def test_the_older_asynchronous_call_works_and_blocks_nobody(embedded, recorder):
    client = make_client(embedded, "lambda")
    answer = client.invoke_async(FunctionName=recorder["Function"], InvokeArgs=b'{"Records": []}')
    assert answer["Status"] == 202


def test_a_put_that_is_refused_is_no_event(embedded, recorder):
    s3 = make_client(embedded, "s3")
    before = len(events_in(s3, "recorder-seen"))
    with pytest.raises(ClientError):
        s3.put_object(Bucket="recorder-pictures", Key="x/no.jpg", Body=b"", Tagging="aws:bad=1")
    s3.put_object(Bucket="recorder-pictures", Key="x/yes.jpg", Body=b"")
    until(lambda: len(events_in(s3, "recorder-seen")) > before)
    keys = {event["s3"]["object"]["key"] for event in events_in(s3, "recorder-seen")}
    assert "x/yes.jpg" in keys
    assert "x/no.jpg" not in keys


def test_an_event_that_keeps_failing_ends_in_the_failure_queue(embedded, recorder):
    make_client(embedded, "lambda").invoke(
        FunctionName=recorder["Function"], InvocationType="Event", Payload=b'{"fail": 1}'
    )
    sqs = make_client(embedded, "sqs")
    messages = until(lambda: sqs.receive_message(QueueUrl=recorder["Failures"]).get("Messages"))
    failure = json.loads(messages[0]["Body"])
    assert failure["requestPayload"] == {"fail": 1}
    assert failure["requestContext"]["approximateInvokeCount"] == 2  # one retry in this template


def test_each_invocation_leaves_a_report_in_the_log_group_of_the_function(embedded):
    s3, buckets = make_client(embedded, "s3"), find_buckets(embedded)
    metadata = {"run-id": "embedded-2", "round": "1"}
    s3.put_object(Bucket=buckets.input, Key="input/log.jpg", Body=jpeg(), Metadata=metadata)
    waited_rows(s3, buckets.output, {RowId("embedded-2", 1, "log.jpg")}, LIMIT_S)
    logs = make_client(embedded, "logs")
    group = stack_outputs(make_client(embedded, "cloudformation"), embedded.stack)["LogGroupName"]
    events = until(
        lambda: logs.filter_log_events(logGroupName=group, filterPattern="REPORT")["events"]
    )
    assert any("Billed Duration" in event["message"] for event in events)


def test_properties_that_moto_drops_are_set(embedded, recorder):
    s3 = make_client(embedded, "s3")
    for bucket in (*vars(find_buckets(embedded)).values(), "recorder-pictures"):
        block = s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
        assert all(block.values())
    iam = make_client(embedded, "iam")
    assert iam.get_role_policy(RoleName=recorder["Role"], PolicyName="p")["PolicyDocument"]


@pytest.mark.parametrize(
    ("resource", "named"),
    [
        ({"Type": "AWS::SNS::Topic"}, "this type"),
        (
            {
                "Type": "AWS::Lambda::EventInvokeConfig",
                "Properties": {"DestinationConfig": {"OnSuccess": {"Destination": "arn"}}},
            },
            "OnSuccess",
        ),
        (
            {"Type": "AWS::Lambda::EventInvokeConfig", "Properties": {"Qualifier": "prod"}},
            "Qualifier: prod",
        ),
        (
            {
                "Type": "AWS::Lambda::Function",
                "Properties": {"LoggingConfig": {"LogFormat": "JSON"}},
            },
            "LogFormat",
        ),
        ({"Type": "AWS::Serverless::Function", "Properties": {"Handler": "x"}}, "type"),
        (
            {"Type": "AWS::S3::Bucket", "Properties": {"AccelerateConfiguration": {}}},
            "AccelerateConfiguration",
        ),
        (
            {
                "Type": "AWS::S3::Bucket",
                "Properties": {"NotificationConfiguration": {"TopicConfigurations": []}},
            },
            "TopicConfigurations",
        ),
        (
            {
                "Type": "AWS::S3::Bucket",
                "Properties": {"LifecycleConfiguration": {"Rules": [{"TagFilters": []}]}},
            },
            "LifecycleConfiguration: TagFilters",
        ),
    ],
)
def test_what_would_be_ignored_is_refused(embedded, resource, named):
    template = json.dumps({"Resources": {"Odd": resource}})
    with pytest.raises(ClientError, match=named):
        make_client(embedded, "cloudformation").create_stack(StackName="odd", TemplateBody=template)


def test_reading_while_overwriting_never_fails(embedded):
    """moto alone answers some of these with a 500."""
    s3 = make_client(embedded, "s3")
    s3.create_bucket(Bucket="overwritten")
    s3.put_object(Bucket="overwritten", Key="k", Body=b"0" * 50_000)
    done = threading.Event()
    problems = []

    def read() -> None:
        raw = boto3.session.Session().client(
            "s3",
            endpoint_url=embedded.endpoint_url,
            config=boto3.session.Config(retries={"total_max_attempts": 1}),
        )
        while not done.is_set():
            try:
                body = raw.get_object(Bucket="overwritten", Key="k")["Body"].read()
                assert len(set(body)) == 1
                assert len(body) == 50_000
            except Exception as error:
                problems.append(error)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for number in range(60):
        s3.put_object(Bucket="overwritten", Key="k", Body=b"%d" % (number % 10) * 50_000)
    done.set()
    for reader in readers:
        reader.join()
    assert problems == []


# --- beginning and end ---------------------------------------------------------------------------


def start(tmp_path: Path, *arguments: str) -> tuple[subprocess.Popen, Cloud]:
    """The script, run alone with its temporary files in `tmp_path`, and ready."""
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    name, _, url = process.stdout.readline().strip().partition("=")
    assert name == "AWS_ENDPOINT_URL"
    return process, Cloud("embedded", url)


def process_one(cloud: Cloud) -> None:
    s3, buckets = make_client(cloud, "s3"), find_buckets(cloud)
    metadata = {"run-id": "r", "round": "1"}
    s3.put_object(Bucket=buckets.input, Key="input/a.jpg", Body=jpeg(), Metadata=metadata)
    waited_rows(s3, buckets.output, {RowId("r", 1, "a.jpg")}, LIMIT_S)


@pytest.mark.slow
def test_two_signals_in_any_distance_end_the_service():
    """A handler that sets an Event waits for ever when it interrupts the end of that one's wait."""
    program = (
        "import os, signal\n"
        "from lambda_function.embedded_cloud import end_of_service\n"
        "for distance in range(0, 6000, 20):\n"
        "    wait = end_of_service(until_stdin_closes=False)\n"
        "    if (sender := os.fork()) == 0:\n"
        "        sum(range(50_000))  # the parent waits by then\n"
        "        os.kill(os.getppid(), signal.SIGINT)\n"
        "        for _ in range(distance): pass\n"
        "        os.kill(os.getppid(), signal.SIGTERM)\n"
        "        os._exit(0)\n"
        "    wait()\n"
        "    os.waitpid(sender, 0)\n"
        "print('ended')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "ended\n", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_run_alone_it_serves_until_it_is_told_to_stop_and_leaves_nothing(tmp_path, number):
    process, cloud = start(tmp_path)
    process_one(cloud)
    family = descendants(process.pid)
    assert len(family) >= 2  # the function's environment is among them
    process.send_signal(number)
    _, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0
    assert "Traceback" not in errors
    assert not [pid for pid in family if alive(pid)]
    assert list(tmp_path.iterdir()) == []


def test_it_ends_when_the_process_that_started_it_is_killed(tmp_path):
    program = (
        "import sys\n"
        "from lambda_function.embedded_cloud import embedded_cloud\n"
        "with embedded_cloud(1) as cloud:\n"
        "    print(cloud.endpoint_url, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=PROJECT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    process_one(Cloud("embedded", parent.stdout.readline().strip()))
    family = descendants(parent.pid)
    assert len(family) >= 3
    parent.kill()
    parent.communicate()
    until(lambda: not [pid for pid in family if alive(pid)])
    assert list(tmp_path.iterdir()) == []


def test_it_listens_on_this_machine_only(tmp_path):
    process, cloud = start(tmp_path)
    try:
        process_one(cloud)
        sockets = tcp_sockets(descendants(process.pid))
        assert {socket.local for socket in sockets if socket.is_listening} == {"127.0.0.1"}
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=LIMIT_S)


def test_no_setting_for_moto_that_the_environment_holds_changes_it(monkeypatch):
    for name, value in (("MOTO_ACCOUNT_ID", "999999999999"), ("INITIAL_NO_AUTH_ACTION_COUNT", "9")):
        monkeypatch.setenv(name, value)
    with embedded_cloud(1) as cloud:
        assert "123456789012" in find_buckets(cloud).input


def test_a_port_that_is_taken_is_one_line_and_exit_1(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, str(SCRIPT), "--port", port]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"error: cannot listen on port {port}" in done.stderr


def test_the_stand_in_client_gives_the_same_rows(tmp_path):
    with embedded_cloud(1, runtime_client="standard_library") as cloud:
        process_one(cloud)
        s3, bucket = make_client(cloud, "s3"), find_buckets(cloud).output
        (row,) = rows_from_csv(read_object(s3, bucket, CSV_KEY).data.decode().removeprefix(HEADER))
        assert (row.image_key, row.status) == ("a.jpg", "ok")
