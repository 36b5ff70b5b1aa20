"""Queues that run functions, as on AWS: batches, partial answers, redrive, permissions."""

import io
import json
import zipfile
from dataclasses import dataclass

import pytest
import yaml
from botocore.exceptions import ClientError
from processes import until

from lambda_function.cloud import make_client, stack_outputs
from lambda_function.emulator.event_sources import failed_ids
from lambda_function.emulator.invocation import Outcome

CODE = """
import json, os, uuid
import boto3

def handle(event, context):
    key = f"{context.aws_request_id}-{uuid.uuid4().hex}"
    boto3.client("s3").put_object(Bucket=os.environ["SEEN"], Key=key, Body=json.dumps(event))
    if any(record["body"] == "raise" for record in event["Records"]):
        raise ValueError("as asked")
    failed = [r["messageId"] for r in event["Records"] if r["body"] == "fail"]
    return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in failed]}
"""

TEMPLATE = """
Parameters: {Name: {Type: String}, BatchSize: {Type: Number}, Window: {Type: Number}}
Resources:
  Failures: {Type: AWS::SQS::Queue}
  Queue:
    Type: AWS::SQS::Queue
    Properties:
      VisibilityTimeout: 30
      SqsManagedSseEnabled: true
      RedrivePolicy: {deadLetterTargetArn: {"Fn::GetAtt": [Failures, Arn]}, maxReceiveCount: 2}
  Seen: {Type: AWS::S3::Bucket, Properties: {BucketName: {Ref: Name}}}
  Role:
    Type: AWS::IAM::Role
    Properties:
      AssumeRolePolicyDocument:
        Version: "2012-10-17"
        Statement:
          - {Effect: Allow, Principal: {Service: lambda.amazonaws.com}, Action: sts:AssumeRole}
      Policies:
        - PolicyName: p
          PolicyDocument:
            Version: "2012-10-17"
            Statement: [{Effect: Allow, Action: ["s3:*", "sqs:*"], Resource: "*"}]
  Function:
    Type: AWS::Lambda::Function
    Properties:
      Handler: consumer.handle
      Runtime: python3.13
      Timeout: 30
      Role: {"Fn::GetAtt": [Role, Arn]}
      Code: {S3Bucket: consumer-code, S3Key: code.zip}
      Environment: {Variables: {SEEN: {Ref: Seen}}}
  Mapping:
    Type: AWS::Lambda::EventSourceMapping
    Properties:
      EventSourceArn: {"Fn::GetAtt": [Queue, Arn]}
      FunctionName: {Ref: Function}
      BatchSize: {Ref: BatchSize}
      MaximumBatchingWindowInSeconds: {Ref: Window}
      ScalingConfig: {MaximumConcurrency: 2}
      FunctionResponseTypes: [ReportBatchItemFailures]
Outputs:
  Queue: {Value: {Ref: Queue}}
  Failures: {Value: {Ref: Failures}}
  Role: {Value: {Ref: Role}}
  Function: {Value: {Ref: Function}}
  Mapping: {Value: {Ref: Mapping}}
"""


@dataclass
class Consumer:
    """A stack whose function records the batches of its queue."""

    cloud: object
    name: str

    def __post_init__(self):
        self.s3, self.sqs = make_client(self.cloud, "s3"), make_client(self.cloud, "sqs")

    def create(self, template: dict, batch_size: int, window_s: int) -> None:
        cloudformation = make_client(self.cloud, "cloudformation")
        parameters = {"Name": self.name, "BatchSize": batch_size, "Window": window_s}
        cloudformation.create_stack(
            StackName=self.name,
            TemplateBody=json.dumps(template),
            Parameters=[
                {"ParameterKey": k, "ParameterValue": str(v)} for k, v in parameters.items()
            ],
            Capabilities=["CAPABILITY_IAM"],
        )
        self.outputs = stack_outputs(cloudformation, self.name)

    def map(self, batch_size: int = 10) -> None:
        """As a user does it, without the stack."""
        queue = {"QueueUrl": self.outputs["Queue"], "AttributeNames": ["QueueArn"]}
        make_client(self.cloud, "lambda").create_event_source_mapping(
            EventSourceArn=self.sqs.get_queue_attributes(**queue)["Attributes"]["QueueArn"],
            FunctionName=self.outputs["Function"],
            BatchSize=batch_size,
        )

    def send(self, *bodies: str) -> None:
        entries = [{"Id": f"{n}", "MessageBody": body} for n, body in enumerate(bodies)]
        for start in range(0, len(entries), 10):
            batch = entries[start : start + 10]
            self.sqs.send_message_batch(QueueUrl=self.outputs["Queue"], Entries=batch)

    def batches(self) -> list[list[dict]]:
        listed = self.s3.list_objects_v2(Bucket=self.name).get("Contents", [])
        read = (self.s3.get_object(Bucket=self.name, Key=o["Key"])["Body"].read() for o in listed)
        return [json.loads(body)["Records"] for body in read]

    def bodies(self) -> list[str]:
        return [record["body"] for batch in self.batches() for record in batch]

    def count(self, queue: str) -> int:
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        answer = self.sqs.get_queue_attributes(QueueUrl=self.outputs[queue], AttributeNames=names)
        return sum(map(int, answer["Attributes"].values()))

    def is_done(self) -> bool:
        return self.count("Queue") == 0


@pytest.fixture
def consumer_of(embedded, request):
    s3, made = make_client(embedded, "s3"), []
    package = io.BytesIO()
    with zipfile.ZipFile(package, "w") as archive:
        archive.writestr("consumer.py", CODE)
    s3.create_bucket(Bucket="consumer-code")
    s3.put_object(Bucket="consumer-code", Key="code.zip", Body=package.getvalue())

    def make(batch_size: int = 10, window_s: int = 0, change=lambda template: None) -> Consumer:
        template = yaml.safe_load(TEMPLATE)
        change(template)
        consumer = Consumer(embedded, f"consumer-{abs(hash(request.node.name)) % 10**8}")
        consumer.create(template, batch_size, window_s)
        made.append(consumer)
        return consumer

    yield make
    for consumer in made:
        for entry in consumer.s3.list_objects_v2(Bucket=consumer.name).get("Contents", []):
            consumer.s3.delete_object(Bucket=consumer.name, Key=entry["Key"])
        make_client(embedded, "cloudformation").delete_stack(StackName=consumer.name)


def test_messages_of_a_window_come_as_one_batch_with_the_fields_of_aws(consumer_of):
    consumer = consumer_of(batch_size=100, window_s=2)
    consumer.send(*(f"{number}" for number in range(20)))
    until(consumer.is_done)
    (batch,) = consumer.batches()
    assert sorted(int(record["body"]) for record in batch) == list(range(20))
    record = batch[0]
    assert record["eventSource"] == "aws:sqs"
    assert record["attributes"]["ApproximateReceiveCount"] == "1"
    assert record["eventSourceARN"].startswith("arn:aws:sqs:us-east-1:")
    assert {"messageId", "receiptHandle", "md5OfBody", "awsRegion"} <= record.keys()


def test_a_batch_has_no_more_messages_than_the_mapping_says_and_each_once(consumer_of):
    consumer = consumer_of(batch_size=3)
    bodies = [f"{number}" for number in range(20)]
    consumer.send(*bodies)
    until(consumer.is_done)
    assert max(map(len, consumer.batches())) <= 3
    assert sorted(consumer.bodies()) == sorted(bodies)


def test_a_full_batch_does_not_wait_for_the_end_of_the_window(consumer_of):
    consumer = consumer_of(batch_size=5, window_s=300)
    consumer.send(*"abcde")
    until(consumer.is_done)
    assert sorted(consumer.bodies()) == list("abcde")


def test_a_batch_fits_into_an_invocation(consumer_of):
    consumer = consumer_of(batch_size=100, window_s=2)
    for number in range(7):
        consumer.send(f"{number}" + "x" * 1_000_000)
    until(consumer.is_done)
    assert max(map(len, consumer.batches())) < 7
    assert sorted(body[0] for body in consumer.bodies()) == list("0123456")


def test_only_what_failed_comes_again_and_then_goes_to_the_failure_queue(consumer_of):
    consumer = consumer_of()
    consumer.send("good", "fail", "fine")
    until(lambda: consumer.count("Failures") == 1)
    assert consumer.count("Queue") == 0
    assert sorted(consumer.bodies()) == ["fail", "fail", "fine", "good"]


def test_a_batch_whose_function_raises_comes_again_as_a_whole(consumer_of):
    consumer = consumer_of(window_s=1)
    consumer.send("good", "raise")
    until(lambda: consumer.count("Failures") >= 1)
    until(consumer.is_done)
    assert consumer.bodies().count("raise") == 2
    assert consumer.bodies().count("good") >= 1


def unmapped(template: dict) -> None:
    del template["Resources"]["Mapping"], template["Outputs"]["Mapping"]


def test_a_role_that_may_not_receive_gets_no_mapping(consumer_of):
    def only_s3(template: dict) -> None:
        unmapped(template)
        (policy,) = template["Resources"]["Role"]["Properties"]["Policies"]
        policy["PolicyDocument"]["Statement"][0]["Action"] = "s3:*"

    with pytest.raises(ClientError, match="permissions to call ReceiveMessage on SQS"):
        consumer_of(change=only_s3).map()


@pytest.mark.parametrize("action", ["ReceiveMessage", "DeleteMessage", "GetQueueAttributes"])
def test_a_permission_that_is_taken_away_ends_the_delivery(embedded, consumer_of, action):
    consumer = consumer_of()
    iam = make_client(embedded, "iam")
    where = {"RoleName": consumer.outputs["Role"], "PolicyName": "p"}
    allowed = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    denied = {"Effect": "Deny", "Action": f"sqs:{action}", "Resource": "*"}
    for statements, is_delivered in (([allowed, denied], False), ([allowed], True)):
        policy = {"Version": "2012-10-17", "Statement": statements}
        iam.put_role_policy(**where, PolicyDocument=json.dumps(policy))
        if is_delivered:
            until(consumer.is_done)
        else:
            consumer.send("waits")
            assert consumer.bodies() == []
    assert consumer.bodies() == ["waits"]


def test_a_queue_that_hides_messages_for_less_than_the_time_out_gets_no_mapping(consumer_of):
    def shorter(template: dict) -> None:
        unmapped(template)
        template["Resources"]["Queue"]["Properties"]["VisibilityTimeout"] = 20

    with pytest.raises(ClientError, match="20 seconds is less than Function timeout: 30"):
        consumer_of(change=shorter).map()


def test_a_large_batch_needs_a_window(consumer_of):
    with pytest.raises(ClientError, match="greater than 0 if maximum batch size"):
        consumer_of(change=unmapped).map(batch_size=11)


def test_a_property_that_would_be_ignored_is_refused(consumer_of):
    def filtering(template: dict) -> None:
        template["Resources"]["Mapping"]["Properties"]["FilterCriteria"] = {"Filters": []}

    with pytest.raises(ClientError, match="does not honour FilterCriteria"):
        consumer_of(change=filtering)


def test_a_mapping_that_is_deleted_delivers_nothing_any_more(embedded, consumer_of):
    consumer = consumer_of()
    client = make_client(embedded, "lambda")
    client.delete_event_source_mapping(UUID=consumer.outputs["Mapping"])
    consumer.send("waits")
    assert consumer.count("Queue") == 1
    assert consumer.bodies() == []


@pytest.mark.parametrize(
    ("outcome", "failed"),
    [
        (Outcome(b"null"), ""),
        (Outcome(b'{"batchItemFailures": []}'), ""),
        (Outcome(b'{"batchItemFailures": null}'), ""),
        (Outcome(b'{"batchItemFailures": [{"itemIdentifier": "a"}]}'), "a"),
        (Outcome(b'{"batchItemFailures": [{"itemIdentifier": "x"}]}'), "ab"),
        (Outcome(b'{"batchItemFailures": [{}]}'), "ab"),
        (Outcome(b'{"batchItemFailures": [{"itemIdentifier": ""}]}'), "ab"),
        (Outcome(b"[1]"), "ab"),
        (Outcome(b"{}", "Unhandled"), "ab"),
    ],
)
def test_an_answer_that_makes_no_sense_fails_the_whole_batch(outcome, failed):
    assert failed_ids(outcome, ["a", "b"], is_partial=True) == set(failed)


def test_without_partial_answers_only_an_error_fails_a_batch():
    answer = b'{"batchItemFailures": [{"itemIdentifier": "a"}]}'
    assert failed_ids(Outcome(answer), ["a", "b"], is_partial=False) == set()
    assert failed_ids(Outcome(answer, "Unhandled"), ["a", "b"], is_partial=False) == {"a", "b"}
