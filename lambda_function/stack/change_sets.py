"""The stack: created and changed through change sets, followed by its events.

Used by deploy.py on AWS, and by the embedded cloud for its own stack.

Vocabulary
    site        where a stack lives: its name, account, region, and the clients to reach them
    code bucket <stack>-code-<account>-<region>: holds the zip; made here, since the stack needs the
                zip before there is a stack
    change set  what CloudFormation would do, worked out before it does anything
"""

import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import yaml
from botocore.exceptions import ClientError, WaiterError

from lambda_function.cloud import Cloud, find_stack, make_client
from lambda_function.metrics_log import error_code, status_of
from lambda_function.stack.package import package_key
from metrics.common.cli import UserError
from metrics.common.progress import tqdm

TEMPLATE = Path(__file__).with_name("template.yaml")
PROJECT = "cloud-vs-onprem-images"  # value of the tag `project`; the template says the same
CHANGE_SET_TEXT = "made by lambda_function/deploy.py"
POLL_S = 1
LIMIT_S = 1800  # CloudFormation itself gives up sooner
PUBLIC_ACCESS_BLOCKS = (
    *("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets"),
)
EMPTY_STATES = ("ROLLBACK_COMPLETE", "REVIEW_IN_PROGRESS")  # such stacks have no resources


@dataclass(frozen=True)
class Site:
    stack: str
    account: str
    region: str
    s3: object
    cloudformation: object
    logs: object
    tagging: object

    def bucket(self, kind: str) -> str:
        """Name of the input, output or code bucket; the template names the first two alike."""
        return f"{self.stack}-{kind}-{self.account}-{self.region}"

    @property
    def tags(self) -> list[dict[str, str]]:
        return [{"Key": "project", "Value": PROJECT}, {"Key": "stack", "Value": self.stack}]


def find_site(cloud: Cloud) -> Site:
    services = ("s3", "cloudformation", "logs", "resourcegroupstaggingapi")
    clients = [make_client(cloud, service) for service in services]
    account = make_client(cloud, "sts").get_caller_identity()["Account"]
    return Site(cloud.stack, account, clients[0].meta.region_name, *clients)


# --- looking ------------------------------------------------------------------------------------


def own_stack(site: Site) -> dict | None:
    """The stack, None when there is none. Raises UserError when it is not this project's."""
    found = find_stack(site.cloudformation, site.stack)
    if found is None or _is_own(site, found):
        return found
    raise UserError(
        f"a stack {site.stack!r} is there that this project did not make (it has no tag "
        f"project={PROJECT}); nothing was touched; choose another name with --stack"
    )


def _is_own(site: Site, found: dict) -> bool:
    if found["StackStatus"] == "REVIEW_IN_PROGRESS":  # it gets its tags only with its resources
        answer = site.cloudformation.list_change_sets(StackName=site.stack)
        waiting = [s for s in answer["Summaries"] if s.get("StackName") == site.stack]
        return all(summary.get("Description") == CHANGE_SET_TEXT for summary in waiting)
    return {"Key": "project", "Value": PROJECT} in found.get("Tags", [])


def deployable_stack(site: Site) -> dict | None:
    """The stack as it can be changed. Raises UserError in a state that has to end first."""
    found = own_stack(site)
    state = found["StackStatus"] if found else ""
    if state.endswith("_IN_PROGRESS") and state not in EMPTY_STATES:
        raise UserError(f"stack {site.stack!r} is in state {state}; wait until that is over")
    if state in ("ROLLBACK_FAILED", "CREATE_FAILED", "DELETE_FAILED"):
        raise UserError(f"stack {site.stack!r} is in state {state}; run deploy.py delete first")
    if state == "UPDATE_ROLLBACK_FAILED":
        raise UserError(
            f"stack {site.stack!r} is in state {state}; run "
            f"`aws cloudformation continue-update-rollback --stack-name {site.stack}` first"
        )
    return found


@cache
def template() -> dict:
    """The template as data, in which `!Ref X` and the like are plain values."""

    class Loader(yaml.SafeLoader):
        pass

    def plain(loader: yaml.SafeLoader, _: str, node: yaml.Node) -> object:
        if isinstance(node, yaml.ScalarNode):
            return loader.construct_scalar(node)
        return loader.construct_sequence(node, deep=True)

    Loader.add_multi_constructor("!", plain)
    return Loader(TEMPLATE.read_text()).get_single_data()


def parameters_for(found: dict | None, chosen: dict[str, str]) -> dict[str, str]:
    """All but the package's: `chosen`, else as the stack has them, else the template's defaults."""
    known = template()["Parameters"]
    defaults = {name: str(p["Default"]) for name, p in known.items() if "Default" in p}
    return defaults | present_parameters(found) | chosen


def present_parameters(found: dict | None) -> dict[str, str]:
    """Of a stack that has resources; without such that this template does not know any more."""
    if found is None or found["StackStatus"] in EMPTY_STATES:
        return {}
    known = template()["Parameters"]
    return {
        p["ParameterKey"]: p["ParameterValue"]
        for p in found.get("Parameters", [])
        if p["ParameterKey"] in known
    }


# --- changing -----------------------------------------------------------------------------------


def deploy(
    site: Site,
    found: dict | None,
    package: bytes,
    parameters: dict[str, str],
    confirm: Callable[[dict], bool],
) -> bool:
    """Create the stack, or change the one that was `found` to be deployable, once
    `confirm(change set)` agrees; whether it did. Where there is nothing to change, nobody is asked.
    """
    if found and found["StackStatus"] in EMPTY_STATES:
        print(f"removing an empty stack in state {found['StackStatus']} first", file=sys.stderr)
        delete_stack(site, found["StackId"], 0)
        found = None
    parameters = parameters | code_parameters(site, package)
    change_set = create_change_set(site, "UPDATE" if found else "CREATE", parameters)
    if change_set is None:
        return True
    ready = False
    try:
        if confirm(change_set):
            put_package(site, package, parameters["CodeKey"])
            ready = True
    finally:  # interrupted at the question, too
        if not ready:
            discard(site, change_set, new_stack=found is None)
    if ready:
        execute(site, change_set)
        delete_old_packages(site, parameters["CodeKey"])
    return ready


def code_parameters(site: Site, package: bytes) -> dict[str, str]:
    return {"CodeBucket": site.bucket("code"), "CodeKey": package_key(package)}


def create_change_set(site: Site, kind: str, parameters: dict[str, str]) -> dict | None:
    """The description of a new change set; None when there is nothing to change."""
    made = site.cloudformation.create_change_set(
        StackName=site.stack,
        ChangeSetName=f"deploy-{datetime.now(UTC):%Y%m%d-%H%M%S-%f}",
        ChangeSetType=kind,
        Description=CHANGE_SET_TEXT,
        TemplateBody=TEMPLATE.read_text(),
        Parameters=[
            {"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()
        ],
        Capabilities=["CAPABILITY_IAM"],
        Tags=site.tags,
    )
    where = {"ChangeSetName": made["Id"], "StackName": made["StackId"]}
    try:
        site.cloudformation.get_waiter("change_set_create_complete").wait(
            **where, WaiterConfig={"Delay": POLL_S, "MaxAttempts": LIMIT_S // POLL_S}
        )
    except WaiterError as error:
        reason = error.last_response.get("StatusReason", str(error))
        discard(site, made | {"ChangeSetId": made["Id"]}, new_stack=kind == "CREATE")
        if "didn't contain changes" in reason or "No updates are to be performed" in reason:
            return None
        raise UserError(f"the change set of stack {site.stack!r} failed: {reason}") from error
    return site.cloudformation.describe_change_set(**where)


def discard(site: Site, change_set: dict, new_stack: bool) -> None:
    """Delete a change set, and the empty stack that CloudFormation made for it."""
    site.cloudformation.delete_change_set(
        ChangeSetName=change_set["ChangeSetId"], StackName=change_set["StackId"]
    )
    if new_stack:
        site.cloudformation.delete_stack(StackName=change_set["StackId"])


def execute(site: Site, change_set: dict) -> None:
    """Carry out a change set and wait for the end. Raises UserError when it fails."""
    seen = {event["EventId"] for event in stack_events(site, change_set["StackId"])}
    site.cloudformation.execute_change_set(
        ChangeSetName=change_set["ChangeSetId"], StackName=change_set["StackId"]
    )
    state = follow(site, change_set["StackId"], seen, len(change_set["Changes"]), "deploy")
    if state not in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
        raise UserError(
            f"{first_failure(site, change_set['StackId'], seen)}; the stack is in state {state}; "
            "mend that and run the same command again"
        )


def delete_stack(site: Site, stack_id: str, resources: int) -> None:
    seen = {event["EventId"] for event in stack_events(site, stack_id)}
    site.cloudformation.delete_stack(StackName=stack_id)
    if (state := follow(site, stack_id, seen, resources, "delete")) != "DELETE_COMPLETE":
        raise UserError(
            f"{first_failure(site, stack_id, seen)}; the stack is in state {state}; "
            "run deploy.py delete again"
        )


def follow(site: Site, stack_id: str, seen: set[str], resources: int, doing: str) -> str:
    """The state in which the stack comes to rest, after events that are not in `seen`."""
    end = time.monotonic() + LIMIT_S
    counted: set[str] = set()
    with tqdm(total=resources, desc=doing, unit="resource", disable=None) as bar:
        while time.monotonic() < end:
            for event in new_events(site, stack_id, seen | counted):
                counted.add(event["EventId"])
                state = event["ResourceStatus"]
                at_rest = state.endswith(("_COMPLETE", "_FAILED"))
                if event.get("PhysicalResourceId") == stack_id:
                    if at_rest:
                        return state
                else:
                    bar.set_postfix_str(f"{event['LogicalResourceId']} {state}", refresh=False)
                    bar.update(at_rest)
            time.sleep(POLL_S)
    raise UserError(
        f"stack {site.stack!r} is still changing after {LIMIT_S} s; see deploy.py status"
    )


def new_events(site: Site, stack_id: str, seen: set[str]) -> list[dict]:
    """Oldest first."""
    return [e for e in reversed(stack_events(site, stack_id)) if e["EventId"] not in seen]


def stack_events(site: Site, stack_id: str) -> list[dict]:
    pages = site.cloudformation.get_paginator("describe_stack_events").paginate(StackName=stack_id)
    return [event for page in pages for event in page["StackEvents"]]


def first_failure(site: Site, stack_id: str, seen: set[str]) -> str:
    """What failed first, and why; what else failed was often only cancelled for that."""
    for event in new_events(site, stack_id, seen):
        if event["ResourceStatus"].endswith("_FAILED"):
            name, kind = event["LogicalResourceId"], event["ResourceType"]
            reason = " ".join(event.get("ResourceStatusReason", "no reason given").split())
            return f"{name} ({kind}) failed: {reason}"
    return f"stack {site.stack!r} failed without saying why"


# --- the code bucket ----------------------------------------------------------------------------


def put_package(site: Site, package: bytes, key: str) -> None:
    """Put the zip into the code bucket, which is made when it is not there."""
    bucket = site.bucket("code")
    if not bucket_exists(site.s3, bucket):
        where = {"LocationConstraint": site.region}
        site.s3.create_bucket(
            Bucket=bucket,
            # S3 takes every region by name but its first.
            **({} if site.region == "us-east-1" else {"CreateBucketConfiguration": where}),
        )
    elif not is_own_bucket(site, bucket) and site.s3.list_objects_v2(Bucket=bucket)["KeyCount"]:
        raise UserError(
            f"s3://{bucket} is there, with objects and without this project's tags; move them away "
            "and delete it, or use another --stack"
        )
    # Every time, should the bucket have been made by a run that was interrupted here.
    owner = {"Bucket": bucket, "ExpectedBucketOwner": site.account}
    site.s3.put_bucket_tagging(**owner, Tagging={"TagSet": site.tags})
    site.s3.put_public_access_block(
        **owner, PublicAccessBlockConfiguration=dict.fromkeys(PUBLIC_ACCESS_BLOCKS, True)
    )
    site.s3.put_object(**owner, Key=key, Body=package, ContentType="application/zip")


def delete_old_packages(site: Site, key: str) -> None:
    """Only once the stack has changed: until then it may go back to the one before."""
    listed = site.s3.list_objects_v2(Bucket=site.bucket("code")).get("Contents", [])
    for entry in listed:
        if entry["Key"] != key and is_package(entry["Key"]):
            site.s3.delete_object(Bucket=site.bucket("code"), Key=entry["Key"])


def is_package(key: str) -> bool:
    """Whether `key` is one that package_key gives."""
    return re.fullmatch(r"[0-9a-f]{64}\.zip", key) is not None


def bucket_exists(s3, bucket: str) -> bool:
    try:
        s3.head_bucket(Bucket=bucket)
    except ClientError as error:
        if status_of(error) == 404:
            return False
        raise
    return True


def is_own_bucket(site: Site, bucket: str) -> bool:
    """Whether a bucket bears the tags of this project and stack."""
    try:
        tags = site.s3.get_bucket_tagging(Bucket=bucket)["TagSet"]
    except ClientError as error:
        if error_code(error) in ("NoSuchTagSet", "NoSuchBucket"):
            return False
        raise
    return all(tag in tags for tag in site.tags)
