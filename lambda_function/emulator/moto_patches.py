"""moto as a server that runs functions: what touches its inside, but for CloudFormation
(moto_stacks.py) and permissions (moto_roles.py).

Written against moto 5.2.5 (pinned); install() checks that what it replaces is there.

What is filled                                because moto
- Lambda: invoking a function                 would need Docker
- queues that run functions                   sends each message at once, while it is put
- S3: events after the request, one for a     sends them inside the PUT, before the metadata is
  multipart upload, with AWS's fields         set, twice for multipart, no `sequencer`, with %2F
- keys with a new line in them                answers 404
- its folder is listed once                   does that for each request
- If-Match when a multipart upload ends       ignores it
- one request at a time                       checks a condition (If-Match) and then writes without
                                              a lock, and closes objects under their readers
"""

import io
import json
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import quote_plus

import moto.awslambda.models
import moto.backends
import moto.s3.models
import moto.s3.notifications
from moto.awslambda.exceptions import UnknownFunctionException
from moto.awslambda.models import EventSourceMapping, LambdaBackend, LambdaFunction
from moto.logs.models import logs_backends
from moto.moto_server.utilities import RegexConverter
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.s3.exceptions import MissingKey, PreconditionFailed
from moto.s3.models import FakeBucket
from moto.s3.notifications import S3NotificationEvent
from moto.s3.responses import S3Response
from moto.sqs.models import Message, Queue, sqs_backends

from lambda_function.emulator import moto_roles, moto_stacks
from lambda_function.emulator.event_sources import EventSources
from lambda_function.emulator.faults import Mishap
from lambda_function.emulator.invocation import FunctionConfig, Invocation, Outcome
from lambda_function.emulator.lambda_service import LambdaService
from lambda_function.emulator.moto_roles import credentials_of, role_allows
from lambda_function.emulator.moto_stacks import ACCOUNT_ID, replace
from lambda_function.emulator.xml_error import refuse

LOG_ACTIONS = ("logs:CreateLogStream", "logs:PutLogEvents")


class MotoCloud:
    """moto as one WSGI application in which S3 events run functions."""

    def __init__(self, mishap_of: Callable[[str], Mishap] | None = None):
        self.lambda_service: LambdaService | None = None  # set once the endpoint is known
        self._app = DomainDispatcherApplication(create_backend_app)
        self._one_request = threading.RLock()
        self._sources = EventSources(self._one_request, self._run, mishap_of)
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
        try:
            started, answer = self._carry_out(environ)
        except OSError as error:  # such as a full disk: the client's message should say so
            reason = f"the embedded cloud: {error.strerror or error}"
            status = "500 Internal Server Error"
            return refuse(environ, start_response, status, "InternalError", reason)
        start_response(*started)
        return answer

    def _carry_out(self, environ: dict) -> tuple[tuple, list[bytes]]:
        """What to start the response with, and its body, once the events of it are on their way."""
        started = []
        with self._one_request:
            self._events = []
            response = self._app(environ, lambda *arguments: started.append(arguments))
            answer = list(response)
            if hasattr(response, "close"):
                response.close()
            is_done = int(started[-1][0].split()[0]) < 400
            events = self._events if is_done else []
        for function, event in events:
            body = json.dumps({"Records": [event]}).encode()
            self.lambda_service.invoke_async(self._config(function), body)
        return started[-1], [b"".join(answer)]

    def install(self) -> None:
        """Replace moto's parts, for the life of this process."""
        replace(moto.s3.notifications, "send_event", lambda _: self._send_event)
        replace(LambdaFunction, "invoke", lambda _: self._invoke_of())
        replace(RegexConverter, "__init__", _with_new_lines)
        replace(moto.backends, "list_of_moto_modules", _once)
        replace(S3Response, "_key_response_post", if_it_matches)
        replace(Queue, "add_message", self._added_only)
        replace(LambdaBackend, "create_event_source_mapping", self._started)
        replace(LambdaBackend, "delete_event_source_mapping", self._ended)
        moto_stacks.install()
        moto_roles.install()

    def stop(self) -> None:
        """End all functions at once, and start none any more."""
        self._sources.stop()
        self.lambda_service.stop()

    # --- Lambda -------------------------------------------------------------------------------

    def _run(
        self,
        function: LambdaFunction,
        event: bytes,
        on_end: Callable[[Invocation | None, Outcome], None],
    ) -> None:
        self.lambda_service.submit(self._config(function), event, on_end)

    def _added_only(self, original: Callable) -> Callable:
        """Put a message into a queue, and leave it to the pollers."""

        def add_message(queue: Queue, message: Message) -> None:
            queue.lambda_event_source_mappings = {}
            original(queue, message)
            self._sources.added_to(queue)

        return add_message

    def _started(self, original: Callable) -> Callable:
        def create(backend: LambdaBackend, spec: dict) -> EventSourceMapping:
            mapping = original(backend, spec)
            try:
                self._sources.start(mapping)
            except Exception:
                backend.delete_event_source_mapping(mapping.uuid)
                raise
            return mapping

        return create

    def _ended(self, original: Callable) -> Callable:
        def delete(backend: LambdaBackend, uuid: str) -> EventSourceMapping | None:
            self._sources.end(uuid)
            return original(backend, uuid)

        return delete

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
            role_arn=function.role,
            credentials=tuple(credentials_of(function.role, function.function_name).items()),
            log_group=function.logs_group_name,
            reserved_concurrency=None if reserved is None else int(reserved),
            max_retries=int(retries.get("MaximumRetryAttempts", 2)),
            max_event_age_s=float(retries.get("MaximumEventAgeInSeconds", 6 * 3600)),
            failure_queue_arn=on_failure.get("Destination", ""),
            code_sha256=function.code_sha_256,
            code=function.code_bytes,
        )

    def write_log(self, config: FunctionConfig, stream: str, messages: list[str]) -> None:
        """Append to a log stream, made when it is not there, with the permission of the role:
        without it there is no log, and the function runs all the same."""
        backend, group = logs_backends[ACCOUNT_ID][config.region], config.log_group
        now_ms = int(time.time() * 1000)
        arn = f"arn:aws:logs:{config.region}:{ACCOUNT_ID}:log-group:{group}:log-stream:{stream}"
        with self._one_request:
            if not all(role_allows(config.role_arn, action, arn) for action in LOG_ACTIONS):
                return
            backend.ensure_log_group(group)
            backend.ensure_log_stream(group, stream)
            events = [{"timestamp": now_ms, "message": message} for message in messages]
            backend.put_log_events(group, stream, events)

    def send_failure(self, config: FunctionConfig, record: dict) -> None:
        """Put a record into the queue that a function names as its destination on failure, with
        the permission of its role: without it the record is lost, as on AWS."""
        *_, region, _, queue = config.failure_queue_arn.split(":")
        with self._one_request:
            if not role_allows(config.role_arn, "sqs:SendMessage", config.failure_queue_arn):
                return
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


def if_it_matches(original: Callable) -> Callable:
    def post(response: S3Response, request, body, bucket_name: str, query: dict, key_name: str):
        if (etag := response.headers.get("If-Match")) and "uploadId" in query:
            there = response.backend.get_object(bucket_name, key_name)
            if there is None:
                raise MissingKey
            if etag.strip('"') != there.etag.strip('"'):
                raise PreconditionFailed("If-Match")
        return original(response, request, body, bucket_name, query, key_name)

    return post


def _once(original: Callable) -> Callable:
    modules = list(original())  # moto lists its folder anew for each request
    return lambda: modules


def _with_new_lines(original: Callable) -> Callable:
    def convert(converter: RegexConverter, url_map: object, pattern: str) -> None:
        original(converter, url_map, f"(?s:{pattern})")  # so that `.` matches all that a key holds

    return convert
