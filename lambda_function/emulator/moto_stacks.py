"""CloudFormation as AWS does it, where moto's differs: what this project's stack needs of it.

Written against moto 5.2.5 (pinned); install() checks that what it replaces is there.

What is filled                                because moto
- a bucket's notifications, public access     drops them
  block, life-cycle rules and policy; a
  function's architecture, log group, tags;
  retries; updates of a log group's retention
  and of a role's policies
- updates of a queue's settings              takes two of them
- the Arn of a log group ends in `:*`         gives it without
- inline role policies stored as JSON text    stores what CloudFormation gives as a dict, and fails
- change sets: changed parameters among the   leaves these out
  changes; outputs, parameters and tags
  after they ran
- a failed change set: an event that names    raises from the call, and leaves what was made
  the resource and the reason, rolled back
- a function without its zip fails            takes the function as made
- a bucket that is not empty fails to be      says DELETE_COMPLETE, and leaves it
  deleted, and the stack with it
- an error for all else that it would ignore  ignores unknown types and properties silently
"""

import functools
import inspect
import json
from collections.abc import Callable
from pathlib import Path

import moto.awslambda.models
import moto.cloudformation.parsing
import moto.core
from moto.awslambda.models import LambdaFunction
from moto.cloudformation.exceptions import ValidationError
from moto.cloudformation.models import (
    Change,
    ChangeSet,
    CloudFormationBackend,
    Event,
    Stack,
    cloudformation_backends,
)
from moto.cloudformation.parsing import OutputMap
from moto.core.common_models import CloudFormationModel
from moto.iam.models import Role
from moto.logs.models import LogGroup
from moto.s3.models import FakeBucket, S3Backend, s3_backends
from moto.sqs.models import Queue
from moto.utilities.utils import get_partition

ACCOUNT_ID = moto.core.DEFAULT_ACCOUNT_ID

# Resource types and properties that moto or this file acts on (or that have nothing to act on
# here: a description, who may invoke). All others are refused, so that a template that works here
# means the same on AWS. None: the property with all that is in it; else the parts or the value.
HONOURED: dict[str, dict[str, set[str] | None]] = {
    "AWS::IAM::Role": dict.fromkeys(
        ("AssumeRolePolicyDocument", "Description", "Path", "Policies", "RoleName", "Tags")
    ),
    "AWS::Lambda::EventInvokeConfig": {
        "DestinationConfig": {"OnFailure"},
        "FunctionName": None,
        "MaximumEventAgeInSeconds": None,
        "MaximumRetryAttempts": None,
        "Qualifier": {"$LATEST"},
    },
    "AWS::Lambda::EventSourceMapping": {
        "BatchSize": None,
        "EventSourceArn": None,
        "FunctionName": None,
        "FunctionResponseTypes": None,
        "MaximumBatchingWindowInSeconds": None,
        "ScalingConfig": {"MaximumConcurrency"},
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
        "Tags": None,
        "Timeout": None,
    },
    "AWS::Lambda::Permission": dict.fromkeys(
        ("Action", "FunctionName", "Principal", "SourceAccount", "SourceArn")
    ),
    "AWS::Logs::LogGroup": dict.fromkeys(("LogGroupName", "RetentionInDays", "Tags")),
    "AWS::S3::Bucket": {
        "BucketEncryption": None,
        "BucketName": None,
        "LifecycleConfiguration": {"Rules"},
        "NotificationConfiguration": {"LambdaConfigurations"},
        "PublicAccessBlockConfiguration": None,
        "Tags": None,
    },
    "AWS::S3::BucketPolicy": dict.fromkeys(("Bucket", "PolicyDocument")),
    "AWS::SQS::Queue": {
        "MessageRetentionPeriod": None,
        "QueueName": None,
        "RedrivePolicy": {"deadLetterTargetArn", "maxReceiveCount"},
        "SqsManagedSseEnabled": None,
        "Tags": None,
        "VisibilityTimeout": None,
    },
}

# Parts of a life-cycle rule that are called the same in a template and in the S3 API.
SAME_IN_RULES = ("NoncurrentVersionExpiration", "AbortIncompleteMultipartUpload")
HONOURED_IN_RULES = {"Id", "Status", "Prefix", "ExpirationInDays", *SAME_IN_RULES}


def replace(owner: object, name: str, make: Callable[[Callable], Callable]) -> None:
    """Put `make(original)` in the place of `owner.name`. A class method stays one."""
    original = getattr(owner, name)  # AttributeError: moto has changed; see the pinned version
    replacement = make(getattr(original, "__func__", original))
    is_class_method = isinstance(inspect.getattr_static(owner, name), classmethod)
    setattr(owner, name, classmethod(replacement) if is_class_method else replacement)


def install() -> None:
    """Replace moto's parts, for the life of this process."""
    parsing = moto.cloudformation.parsing
    replace(parsing.ResourceMap, "load", _checking(lambda resources: resources._template))
    replace(parsing.ResourceMap, "update", _checking(lambda _, template, *args: template))
    replace(parsing, "parse_and_create_resource", _with_events("CREATE"))
    replace(parsing, "parse_and_update_resource", _with_events("UPDATE"))
    replace(ChangeSet, "diff", lambda _: _changes)
    replace(CloudFormationBackend, "execute_change_set", _executed_as_on_aws)
    replace(CloudFormationBackend, "delete_stack", _deleted_as_on_aws)
    for owner, change in (
        (FakeBucket, _set_bucket_properties),
        (LambdaFunction, _set_function_properties),
        (Role, _set_role_properties),
    ):
        replace(owner, "create_from_cloudformation_json", _then_on_create(change))
        replace(owner, "update_from_cloudformation_json", _then_on_update(change))
    replace(Queue, "update_from_cloudformation_json", _then_on_update(_set_queue_properties))
    replace(LambdaFunction, "create_from_cloudformation_json", _if_code_is_there)
    replace(LambdaFunction, "update_from_cloudformation_json", _if_code_is_there)
    replace(FakeBucket, "delete_from_cloudformation_json", _unless_full)
    replace(LogGroup, "update_from_cloudformation_json", lambda _: _update_log_group)
    replace(LogGroup, "get_cfn_attribute", _with_streams)
    replace(Role, "put_policy", _with_policy_as_text)
    for cached in (parsing.get_model_list, parsing.get_model_map, parsing.get_name_type_map):
        cached.cache_clear()  # so that the resource classes below are found


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
        if name == "LifecycleConfiguration":
            found = set().union(*value["Rules"])
            ignored += [f"{name}: {part}" for part in sorted(found - HONOURED_IN_RULES)]
    return ignored


def _then_on_create(change: Callable) -> Callable[[Callable], Callable]:
    """Create as moto does, then `change(resource, properties)`."""

    def wrap(original: Callable) -> Callable:
        def create(cls, resource_name, cloudformation_json, account_id, region_name, **kwargs):
            resource = original(
                cls, resource_name, cloudformation_json, account_id, region_name, **kwargs
            )
            change(resource, cloudformation_json.get("Properties", {}))
            return resource

        return create

    return wrap


def _then_on_update(change: Callable) -> Callable[[Callable], Callable]:
    def wrap(original: Callable) -> Callable:
        def update(cls, *, cloudformation_json, **kwargs):
            resource = original(cls, cloudformation_json=cloudformation_json, **kwargs)
            change(resource, cloudformation_json.get("Properties", {}))
            return resource

        return update

    return wrap


def _set_bucket_properties(bucket: FakeBucket, properties: dict) -> None:
    backend = s3_backends[ACCOUNT_ID][get_partition(bucket.region_name)]
    if block := properties.get("PublicAccessBlockConfiguration"):
        backend.put_public_access_block(bucket.name, block)
    if lifecycle := properties.get("LifecycleConfiguration"):
        backend.put_bucket_lifecycle(bucket.name, [_lifecycle_rule(r) for r in lifecycle["Rules"]])
    if notifications := properties.get("NotificationConfiguration"):
        backend.put_bucket_notification_configuration(
            bucket.name, _notification_request(notifications)
        )


def _lifecycle_rule(rule: dict) -> dict:
    """A template's life-cycle rule in the words of the S3 API."""
    converted = {"ID": rule["Id"], "Status": rule["Status"], "Prefix": rule.get("Prefix", "")}
    if "ExpirationInDays" in rule:
        converted["Expiration"] = {"Days": rule["ExpirationInDays"]}
    return converted | {name: rule[name] for name in SAME_IN_RULES if name in rule}


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


def _set_function_properties(function: LambdaFunction, properties: dict) -> None:
    function.architectures = properties.get("Architectures", ["x86_64"])
    function.reserved_concurrency = properties.get("ReservedConcurrentExecutions")
    function.tags = {tag["Key"]: tag["Value"] for tag in properties.get("Tags", [])}
    group = properties.get("LoggingConfig", {}).get("LogGroup")
    function.logs_group_name = group or f"/aws/lambda/{function.function_name}"


def _if_code_is_there(original: Callable) -> Callable:
    def act(cls, *arguments, **kwargs):
        template = kwargs.get("cloudformation_json") or arguments[1]
        code = template["Properties"]["Code"]
        buckets = s3_backends[ACCOUNT_ID]["aws"].buckets
        if code["S3Bucket"] not in buckets or code["S3Key"] not in buckets[code["S3Bucket"]].keys:
            raise ValidationError(
                message="Error occurred while GetObject. S3 Error Code: NoSuchKey"
            )
        return original(cls, *arguments, **kwargs)

    return act


def _set_queue_properties(queue: Queue, properties: dict) -> None:
    queue._set_attributes({k: v for k, v in properties.items() if k not in ("QueueName", "Tags")})


def _set_role_properties(role: Role, properties: dict) -> None:
    role.policies.clear()
    for policy in properties.get("Policies", []):
        role.put_policy(policy["PolicyName"], policy["PolicyDocument"])


def _update_log_group(cls, *, original_resource, cloudformation_json, **_) -> LogGroup:
    original_resource.set_retention_policy(cloudformation_json["Properties"]["RetentionInDays"])
    return original_resource


def _with_streams(original: Callable) -> Callable:
    def get(group: LogGroup, name: str) -> str:
        return original(group, name) + (":*" if name == "Arn" else "")

    return get


def _unless_full(original: Callable) -> Callable:
    def delete(cls, resource_name, cloudformation_json, account_id, region_name):
        backend = s3_backends[account_id][get_partition(region_name)]
        if resource_name in backend.buckets and backend.buckets[resource_name].keys:
            raise ValidationError(
                message=f"The bucket {resource_name} you tried to delete is not empty"
            )
        original(cls, resource_name, cloudformation_json, account_id, region_name)

    return delete


def _with_policy_as_text(original: Callable) -> Callable:
    def put_policy(role: Role, policy_name: str, policy_json) -> None:
        text = policy_json if isinstance(policy_json, str) else json.dumps(policy_json, default=str)
        original(role, policy_name, text)

    return put_policy


# --- stacks that are made, changed and deleted --------------------------------------------------


def _changes(change_set: ChangeSet) -> list[Change]:
    """What a change set would do, changed parameters included."""
    resources, template = change_set.stack.resource_map, change_set.template_dict
    by_action = resources.build_resource_diff(template, change_set.parameters)
    types = resources._resource_json_map | template["Resources"]
    return [
        Change(action, name, types[name]["Type"])
        for action, names in by_action.items()
        for name in names
    ]


def _with_events(doing: str) -> Callable[[Callable], Callable]:
    """An event for each resource that is made or changed, or fails to be: with the reason."""

    def wrap(original: Callable) -> Callable:
        def act(logical_id, resource_json, resources_map, account_id, region_name):
            arguments = (logical_id, resource_json, resources_map, account_id, region_name)
            stacks = cloudformation_backends[account_id][region_name].stacks
            stack, kind = stacks[resources_map.stack_id], resource_json["Type"]
            try:
                resource = original(*arguments)
            except Exception as error:
                reason = getattr(error, "message", str(error))
                _add_event(stack, logical_id, "", kind, f"{doing}_FAILED", reason)
                raise
            if resource is not None:
                physical_id = getattr(resource, "physical_resource_id", "")
                _add_event(stack, logical_id, physical_id, kind, f"{doing}_COMPLETE", None)
            return resource

        return act

    return wrap


def _add_event(
    stack: Stack, logical_id: str, physical_id: str, kind: str, status: str, reason: str | None
) -> None:
    event = Event(stack.stack_id, stack.name, logical_id, physical_id, kind, status, reason, None)
    stack.events.append(event)


def _executed_as_on_aws(_: Callable) -> Callable:
    """Execute a change set; a failure is told by the stack's events and state, and undone."""

    def execute(
        backend: CloudFormationBackend, change_set_name: str, stack_name: str | None = None
    ) -> None:
        change_set = backend.describe_change_set(change_set_name)
        stack, kind = change_set.stack, change_set.change_set_type
        before = (stack.template_dict, stack.parameters)
        stack._add_stack_event(f"{kind}_IN_PROGRESS", "User Initiated")
        stack.tags = change_set.tags or stack.tags
        try:
            change_set.apply()
        except Exception:  # whatever moto raises: on AWS the call has succeeded by then
            change_set.execution_status = "EXECUTE_FAILED"
            _roll_back(stack, kind, *before)
            return
        change_set.execution_status = "EXECUTE_COMPLETE"
        stack.template, stack.parameters = change_set.template, change_set.parameters
        stack._parse_template()
        stack.description = stack.template_dict.get("Description")
        stack.output_map = stack._create_output_map()
        stack.status = f"{kind}_COMPLETE"
        stack._add_stack_event(stack.status)

    return execute


def _roll_back(stack: Stack, kind: str, template: dict, parameters: dict) -> None:
    state = "ROLLBACK" if kind == "CREATE" else "UPDATE_ROLLBACK"
    stack._add_stack_event(f"{state}_IN_PROGRESS")
    try:
        if kind == "CREATE":
            stack.resource_map.delete()
            stack.resource_map._resource_json_map = {}
        else:
            stack.resource_map.update(template, parameters)
        stack.status = f"{state}_COMPLETE"
    except Exception:  # what failed has an event
        stack.status = f"{state}_FAILED"
    stack._add_stack_event(stack.status)


def _deleted_as_on_aws(original: Callable) -> Callable:
    """Delete a stack; one whose resources do not go stays, and its events say why."""

    def delete(backend: CloudFormationBackend, name_or_stack_id: str) -> None:
        found = [s for s in backend.stacks.values() if name_or_stack_id in (s.name, s.stack_id)]
        for change_set_id, change_set in list(backend.change_sets.items()):
            if change_set.stack in found:
                del backend.change_sets[change_set_id]
        try:
            original(backend, name_or_stack_id)
        except Exception as error:
            (stack,) = found
            backend.stacks[stack.stack_id] = stack
            left = stack.resource_map._parsed_resources.keys()
            stack.resource_map._resource_json_map = {
                name: resource
                for name, resource in stack.template_dict["Resources"].items()
                if name in left
            }
            stack.output_map = OutputMap(stack.resource_map, {}, stack.stack_id)
            stack.status = "DELETE_FAILED"
            stack._add_stack_event(stack.status, getattr(error, "message", str(error)))

    return delete


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


class BucketPolicy(CloudFormationModel):
    """AWS::S3::BucketPolicy. Kept, but a condition on TLS is not enforced: see moto_roles.py."""

    def __init__(self, bucket: str, document: dict, backend: S3Backend):
        self.physical_resource_id = bucket
        backend.put_bucket_policy(bucket, json.dumps(document, default=str).encode())

    @staticmethod
    def cloudformation_name_type() -> str:
        return ""

    @staticmethod
    def cloudformation_type() -> str:
        return "AWS::S3::BucketPolicy"

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name, cloudformation_json, account_id, region_name, **_
    ) -> "BucketPolicy":
        properties = cloudformation_json["Properties"]
        backend = s3_backends[account_id][get_partition(region_name)]
        return cls(properties["Bucket"], properties["PolicyDocument"], backend)

    @classmethod
    def update_from_cloudformation_json(
        cls, original_resource, new_resource_name, cloudformation_json, account_id, region_name
    ) -> "BucketPolicy":
        return cls.create_from_cloudformation_json(
            new_resource_name, cloudformation_json, account_id, region_name
        )

    def delete(self, account_id: str, region_name: str) -> None:
        backend = s3_backends[account_id][get_partition(region_name)]
        if self.physical_resource_id in backend.buckets:
            backend.delete_bucket_policy(self.physical_resource_id)
