"""All that touches moto's inside: what moto lacks to run the stack as AWS does.

Written against moto 5.2.5 (pinned); install() checks that what it replaces is there.

What is filled                                because moto
- Lambda: invoking a function                 would need Docker
- S3: events after the request, one for a     sends them inside the PUT, before the metadata is
  multipart upload, with AWS's fields         set, twice for multipart, no `sequencer`, with %2F
- keys with a new line in them                answers 404
- one request at a time                       checks a condition (If-Match) and then writes without
                                              a lock, and closes objects under their readers
- CloudFormation: bucket notifications and    drops them
  public access block; a function's
  architecture and log group; retries
- inline role policies stored as JSON text    stores what CloudFormation gives as a dict, and fails
- an error for all else that it would ignore  ignores unknown types and properties silently
"""

import functools
import io
import json
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote_plus

import moto.awslambda.models
import moto.cloudformation.parsing
import moto.iam.models
import moto.s3.models
import moto.s3.notifications
from moto.awslambda.exceptions import UnknownFunctionException
from moto.awslambda.models import LambdaFunction
from moto.cloudformation.exceptions import ValidationError
from moto.core.common_models import CloudFormationModel
from moto.iam.models import Role
from moto.logs.models import logs_backends
from moto.moto_server.utilities import RegexConverter
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.s3.models import FakeBucket, s3_backends
from moto.s3.notifications import S3NotificationEvent
from moto.sqs.models import sqs_backends
from moto.utilities.utils import get_partition

from lambda_function.lambda_runtime import FunctionConfig, LambdaService

ACCOUNT_ID = moto.core.DEFAULT_ACCOUNT_ID

# Resource types and properties that moto or this file acts on (or that have nothing to act on
# here: a description, who may invoke). All others are refused, so that a template that works here
# means the same on AWS. None: the property with all that is in it; else the parts or the value.
HONOURED: dict[str, dict[str, set[str] | None]] = {
    "AWS::IAM::Role": dict.fromkeys(
        ("AssumeRolePolicyDocument", "Description", "Path", "Policies", "RoleName")
    ),
    "AWS::Lambda::EventInvokeConfig": {
        "DestinationConfig": {"OnFailure"},
        "FunctionName": None,
        "MaximumEventAgeInSeconds": None,
        "MaximumRetryAttempts": None,
        "Qualifier": {"$LATEST"},
    },
    "AWS::Lambda::Function": {
        "Architectures": None,
        "Code": {"S3Bucket", "S3Key"},
        "Description": None,
        "Environment": {"Variables"},
        "FunctionName": None,
        "Handler": None,
        "LoggingConfig": {"LogGroup"},
        "MemorySize": None,
        "ReservedConcurrentExecutions": None,
        "Role": None,
        "Runtime": None,
        "Timeout": None,
    },
    "AWS::Lambda::Permission": dict.fromkeys(
        ("Action", "FunctionName", "Principal", "SourceAccount", "SourceArn")
    ),
    "AWS::Logs::LogGroup": dict.fromkeys(("LogGroupName", "RetentionInDays", "Tags")),
    "AWS::S3::Bucket": {
        "BucketEncryption": None,
        "BucketName": None,
        "NotificationConfiguration": {"LambdaConfigurations"},
        "PublicAccessBlockConfiguration": None,
        "Tags": None,
    },
    "AWS::SQS::Queue": dict.fromkeys(("MessageRetentionPeriod", "QueueName", "VisibilityTimeout")),
}


def replace(owner: object, name: str, make: Callable[[Callable], Callable]) -> None:
    """Put `make(original)` in the place of `owner.name`. A class method stays one."""
    original = getattr(owner, name)  # AttributeError: moto has changed; see the pinned version
    replacement = make(getattr(original, "__func__", original))
    is_class_method = isinstance(vars(owner).get(name), classmethod)
    setattr(owner, name, classmethod(replacement) if is_class_method else replacement)


class MotoCloud:
    """moto as one WSGI application in which S3 events run functions."""

    def __init__(self, credentials: dict[str, str]):
        self.lambda_service: LambdaService | None = None  # set once the endpoint is known
        self._credentials = tuple(credentials.items())
        self._app = DomainDispatcherApplication(create_backend_app)
        self._one_request = threading.RLock()
        self._events: list[tuple[LambdaFunction, dict]] = []  # of the request under way

    def __call__(self, environ: dict, start_response: Callable) -> list[bytes]:
        """One request. All but invocations take turns: an invocation calls back while it runs."""
        if environ.get("CONTENT_LENGTH"):  # read it before the turn: a slow client blocks nobody
            body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
            environ["wsgi.input"] = io.BytesIO(body)
        path = environ.get("PATH_INFO", "").rstrip("/")
        if path.endswith("/invoke-async"):  # the older call, which knows no other kind
            environ["HTTP_X_AMZ_INVOCATION_TYPE"] = "Event"
        if path.endswith("/invocations"):
            return self._app(environ, start_response)
        statuses = []

        def start(status: str, *arguments) -> Callable:
            statuses.append(int(status.split()[0]))
            return start_response(status, *arguments)

        with self._one_request:
            self._events = []
            response = self._app(environ, start)
            answer = list(response)
            if hasattr(response, "close"):
                response.close()
            events = self._events if statuses[-1] < 400 else []
        for function, event in events:
            body = json.dumps({"Records": [event]}).encode()
            self.lambda_service.invoke_async(self._config(function), body)
        return [b"".join(answer)]

    def install(self) -> None:
        """Replace moto's parts, for the life of this process."""
        replace(moto.s3.notifications, "send_event", lambda _: self._send_event)
        replace(LambdaFunction, "invoke", lambda _: self._invoke_of())
        replace(RegexConverter, "__init__", _with_new_lines)
        parsing = moto.cloudformation.parsing
        replace(parsing.ResourceMap, "load", _checking(lambda resources: resources._template))
        replace(parsing.ResourceMap, "update", _checking(lambda _, template: template))
        replace(FakeBucket, "create_from_cloudformation_json", _with_bucket_properties)
        replace(
            LambdaFunction, "create_from_cloudformation_json", _with_function_properties_on_create
        )
        replace(
            LambdaFunction, "update_from_cloudformation_json", _with_function_properties_on_update
        )
        replace(Role, "put_policy", _with_policy_as_text)
        for cached in (parsing.get_model_list, parsing.get_model_map, parsing.get_name_type_map):
            cached.cache_clear()  # so that EventInvokeConfig below is found

    # --- Lambda -------------------------------------------------------------------------------

    def _invoke_of(self) -> Callable:
        cloud = self

        def invoke(function: LambdaFunction, body, request_headers, response_headers):
            kind = request_headers.get("X-Amz-Invocation-Type", "RequestResponse")
            event = body.encode() if isinstance(body, str) else body or b"{}"
            config = cloud._config(function)
            if kind == "DryRun":
                return b""
            if kind == "Event":
                cloud.lambda_service.invoke_async(config, event)
                return b""
            outcome = cloud.lambda_service.invoke(config, event)
            if outcome.error:
                response_headers["X-Amz-Function-Error"] = outcome.error
            return outcome.payload

        return invoke

    def _config(self, function: LambdaFunction) -> FunctionConfig:
        retries = function.event_invoke_config[-1].config if function.event_invoke_config else {}
        on_failure = retries.get("DestinationConfig", {}).get("OnFailure", {})
        reserved = function.reserved_concurrency
        return FunctionConfig(
            name=function.function_name,
            arn=function.function_arn,
            region=function.region,
            handler=function.handler,
            runtime=function.run_time,
            memory_mb=int(function.memory_size),
            timeout_s=float(function.timeout),
            variables=tuple(sorted(function.environment_vars.items())),
            credentials=self._credentials,
            log_group=function.logs_group_name,
            reserved_concurrency=None if reserved is None else int(reserved),
            max_retries=int(retries.get("MaximumRetryAttempts", 2)),
            max_event_age_s=float(retries.get("MaximumEventAgeInSeconds", 6 * 3600)),
            failure_queue_arn=on_failure.get("Destination", ""),
            code_sha256=function.code_sha_256,
            code=function.code_bytes,
        )

    def write_log(self, region: str, group: str, stream: str, messages: list[str]) -> None:
        """Append to a log stream, made when it is not there."""
        backend = logs_backends[ACCOUNT_ID][region]
        now_ms = int(time.time() * 1000)
        with self._one_request:
            backend.ensure_log_group(group)
            backend.ensure_log_stream(group, stream)
            events = [{"timestamp": now_ms, "message": message} for message in messages]
            backend.put_log_events(group, stream, events)

    def send_failure(self, queue_arn: str, record: dict) -> None:
        """Put a record into the queue that a function names as its destination on failure."""
        region, queue = queue_arn.split(":")[3], queue_arn.split(":")[5]
        with self._one_request:
            sqs_backends[ACCOUNT_ID][region].send_message(queue, json.dumps(record))

    # --- S3 events ----------------------------------------------------------------------------

    def _send_event(self, account_id: str, event_name: str, bucket: FakeBucket, key) -> None:
        """Note the event; it is sent when the request is over. Targets other than functions are
        refused in templates, see HONOURED."""
        name = event_name.value if isinstance(event_name, S3NotificationEvent) else event_name
        if name.endswith(":CompleteMultipartUpload"):  # moto has just told of it as a Put, too
            self._events.clear()
        configuration = bucket.notification_configuration
        for notification in configuration.cloud_function if configuration else []:
            if notification.matches(name, key.name):
                backend = moto.awslambda.models.lambda_backends[account_id][bucket.region_name]
                try:
                    function = backend.get_function(notification.arn)
                except UnknownFunctionException:
                    continue  # deleted meanwhile: on AWS, too, the event then leads nowhere
                self._events.append((function, s3_event(name, notification.id, bucket, key)))


def s3_event(event_name: str, configuration_id: str, bucket: FakeBucket, key) -> dict:
    """https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html"""
    facts = {
        # Form-encoded as S3 does it: a space is `+`, and `/` stays.
        "key": quote_plus(key.name, safe="/"),
        "size": key.size,
        "eTag": key.etag.strip('"'),
        "sequencer": f"{time.time_ns():018X}",
    }
    if bucket.is_versioned:
        facts["versionId"] = key.version_id
    return {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": bucket.region_name,
        "eventTime": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "eventName": event_name.removeprefix("s3:"),
        "userIdentity": {"principalId": "EMBEDDED"},
        "requestParameters": {"sourceIPAddress": "127.0.0.1"},
        "responseElements": {
            "x-amz-request-id": uuid.uuid4().hex[:16].upper(),
            "x-amz-id-2": uuid.uuid4().hex,
        },
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": configuration_id,
            "bucket": {
                "name": bucket.name,
                "ownerIdentity": {"principalId": "EMBEDDED"},
                "arn": bucket.arn,
            },
            "object": facts,
        },
    }


def _with_new_lines(original: Callable) -> Callable:
    def convert(converter: RegexConverter, url_map: object, pattern: str) -> None:
        original(converter, url_map, f"(?s:{pattern})")  # so that `.` matches all that a key holds

    return convert


# --- CloudFormation -----------------------------------------------------------------------------


def _checking(template_of: Callable[..., dict]) -> Callable[[Callable], Callable]:
    """Refuse, before anything is made, a template with parts that would be ignored."""

    def wrap(original: Callable) -> Callable:
        @functools.wraps(original)
        def checked(resources, *args, **kwargs):
            for name, resource in (
                (template_of(resources, *args) or {}).get("Resources", {}).items()
            ):
                if ignored := _ignored(resource):
                    raise ValidationError(
                        message=f"{name} ({resource['Type']}): the embedded cloud does not "
                        f"honour {', '.join(ignored)}; see HONOURED in {Path(__file__).name}"
                    )
            return original(resources, *args, **kwargs)

        return checked

    return wrap


def _ignored(resource: dict) -> list[str]:
    """What of a template's resource nobody would act on."""
    if (honoured := HONOURED.get(resource["Type"])) is None:
        return ["this type"]
    ignored = []
    for name, value in (resource.get("Properties") or {}).items():
        parts = set(value) if isinstance(value, dict) else {value} if isinstance(value, str) else ()
        if name not in honoured:
            ignored.append(name)
        elif honoured[name] is not None:
            ignored += [f"{name}: {part}" for part in sorted(set(parts) - honoured[name])]
    return ignored


def _with_bucket_properties(original: Callable) -> Callable:
    def create(cls, resource_name, cloudformation_json, account_id, region_name, **kwargs):
        bucket = original(
            cls, resource_name, cloudformation_json, account_id, region_name, **kwargs
        )
        properties = cloudformation_json.get("Properties", {})
        backend = s3_backends[account_id][get_partition(region_name)]
        if block := properties.get("PublicAccessBlockConfiguration"):
            backend.put_public_access_block(bucket.name, block)
        if notifications := properties.get("NotificationConfiguration"):
            backend.put_bucket_notification_configuration(
                bucket.name, _notification_request(notifications)
            )
        return bucket

    return create


def _notification_request(notifications: dict) -> dict:
    """A template's NotificationConfiguration in the words of the S3 API."""
    return {
        "CloudFunctionConfiguration": [
            {
                "CloudFunction": entry["Function"],
                "Event": [entry["Event"]],
                "Filter": {
                    "S3Key": {
                        "FilterRule": entry.get("Filter", {}).get("S3Key", {}).get("Rules", [])
                    }
                },
            }
            for entry in notifications.get("LambdaConfigurations", [])
        ]
    }


def _with_function_properties_on_create(original: Callable) -> Callable:
    def create(cls, resource_name, cloudformation_json, account_id, region_name, **kwargs):
        function = original(
            cls, resource_name, cloudformation_json, account_id, region_name, **kwargs
        )
        return _set_function_properties(function, cloudformation_json["Properties"])

    return create


def _with_function_properties_on_update(original: Callable) -> Callable:
    def update(cls, *, cloudformation_json, **kwargs):
        function = original(cls, cloudformation_json=cloudformation_json, **kwargs)
        return _set_function_properties(function, cloudformation_json["Properties"])

    return update


def _set_function_properties(function: LambdaFunction, properties: dict) -> LambdaFunction:
    function.architectures = properties.get("Architectures", ["x86_64"])
    function.reserved_concurrency = properties.get("ReservedConcurrentExecutions")
    group = properties.get("LoggingConfig", {}).get("LogGroup")
    function.logs_group_name = group or f"/aws/lambda/{function.function_name}"
    return function


def _with_policy_as_text(original: Callable) -> Callable:
    def put_policy(role: Role, policy_name: str, policy_json) -> None:
        text = policy_json if isinstance(policy_json, str) else json.dumps(policy_json, default=str)
        original(role, policy_name, text)

    return put_policy


class EventInvokeConfig(CloudFormationModel):
    """AWS::Lambda::EventInvokeConfig: the retries and destinations of asynchronous events."""

    def __init__(self, function: LambdaFunction, config: dict):
        self._function = function
        function.event_invoke_config = [
            moto.awslambda.models.EventInvokeConfig(
                function.function_arn, function.last_modified, config
            )
        ]

    @property
    def physical_resource_id(self) -> str:
        return f"{self._function.function_name}|$LATEST"

    @staticmethod
    def cloudformation_name_type() -> str:
        return ""

    @staticmethod
    def cloudformation_type() -> str:
        return "AWS::Lambda::EventInvokeConfig"

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name, cloudformation_json, account_id, region_name, **_
    ) -> "EventInvokeConfig":
        config = dict(cloudformation_json["Properties"])
        backend = moto.awslambda.models.lambda_backends[account_id][region_name]
        function = backend.get_function(config.pop("FunctionName"))
        config.pop("Qualifier")
        numbers = {k: int(v) for k, v in config.items() if k.startswith("Maximum")}
        return cls(function, config | numbers)

    @classmethod
    def update_from_cloudformation_json(
        cls, original_resource, new_resource_name, cloudformation_json, account_id, region_name
    ) -> "EventInvokeConfig":
        return cls.create_from_cloudformation_json(
            new_resource_name, cloudformation_json, account_id, region_name
        )

    def delete(self, account_id: str, region_name: str) -> None:
        self._function.event_invoke_config = []
