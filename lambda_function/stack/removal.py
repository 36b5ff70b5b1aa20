"""Removing a stack and all that belongs to it, and showing that nothing is left.

Only buckets that bear the tags of this project and stack are emptied, of all versions and delete
markers. What lies in them outside of the prefixes that this project uses is somebody else's: then
nothing is deleted at all, unless that is asked for.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from lambda_function.metrics_log import INPUT_PREFIX, PROCESSED_PREFIX
from lambda_function.stack.change_sets import (
    Site,
    bucket_exists,
    delete_stack,
    is_own_bucket,
    is_package,
)
from metrics.common.cli import UserError

OWN_PREFIXES = {
    "input": (INPUT_PREFIX,),
    "output": (PROCESSED_PREFIX, "metrics/"),
    "code": ("",),  # but see is_package
}
NEVER_MADE_OR_GONE = ("CREATE_FAILED", "CREATE_IN_PROGRESS", "DELETE_COMPLETE")
LEFTOVER_LIMIT_S = 120  # the tagging service may tell of what is gone for a while
LEFTOVER_POLL_S = 2
DELETE_BATCH = 1000  # the most that one DeleteObjects takes


@dataclass(frozen=True)
class Content:
    """What one of the stack's buckets holds, versions and delete markers counted one by one."""

    bucket: str
    objects: int
    foreign: list[str]


def contents(site: Site, stack: dict | None) -> list[Content]:
    """Of the buckets that are the stack's own: among its resources, or bearing its tags."""
    in_stack = buckets_of_stack(site, stack) if stack else set()
    found = []
    for kind, prefixes in OWN_PREFIXES.items():
        bucket = site.bucket(kind)
        if bucket in in_stack or is_own_bucket(site, bucket):
            keys = [version["Key"] for version in versions(site.s3, bucket)]
            foreign = [key for key in keys if not key.startswith(prefixes)]
            if kind == "code":
                foreign = [key for key in keys if not is_package(key)]
            found.append(Content(bucket, len(keys), foreign))
    return found


def buckets_of_stack(site: Site, stack: dict) -> set[str]:
    """Without one that the stack could not make, since somebody else has one of that name."""
    return {
        resource["PhysicalResourceId"]
        for resource in resources_of(site, stack)
        if resource["ResourceType"] == "AWS::S3::Bucket"
        and resource["ResourceStatus"] not in NEVER_MADE_OR_GONE
        and bucket_exists(site.s3, resource["PhysicalResourceId"])
    }


def resources_of(site: Site, stack: dict) -> list[dict]:
    paginator = site.cloudformation.get_paginator("list_stack_resources")
    pages = paginator.paginate(StackName=stack["StackId"])
    return [resource for page in pages for resource in page["StackResourceSummaries"]]


def check_nothing_foreign(found: list[Content]) -> None:
    for content in found:
        if content.foreign:
            raise UserError(
                f"{len(content.foreign)} objects in s3://{content.bucket} are not of this project, "
                f"the first is {content.foreign[0]!r}; nothing was deleted; move them away, "
                "or delete them as well with --force"
            )


def versions(s3, bucket: str) -> Iterator[dict[str, str]]:
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
        for entry in (*page.get("Versions", []), *page.get("DeleteMarkers", [])):
            yield {"Key": entry["Key"], "VersionId": entry["VersionId"]}


def empty_bucket(s3, bucket: str) -> None:
    found = list(versions(s3, bucket))
    for start in range(0, len(found), DELETE_BATCH):
        batch = {"Objects": found[start : start + DELETE_BATCH], "Quiet": True}
        if errors := s3.delete_objects(Bucket=bucket, Delete=batch).get("Errors"):
            key, code = errors[0]["Key"], errors[0]["Code"]
            raise UserError(f"s3://{bucket}/{key} could not be deleted: {code}")


def check_deletable(site: Site, stack: dict | None) -> None:
    """Raise UserError for a stack that CloudFormation would not delete: before it is emptied."""
    if stack is None:
        return
    if stack.get("EnableTerminationProtection"):
        raise UserError(
            f"stack {site.stack!r} is protected against deletion; nothing was deleted; end that "
            "with `aws cloudformation update-termination-protection`"
        )
    state = stack["StackStatus"]
    if state.endswith("_IN_PROGRESS") and state != "REVIEW_IN_PROGRESS":
        raise UserError(
            f"stack {site.stack!r} is {state}; nothing was deleted; wait, and try again"
        )


def remove(site: Site, stack: dict | None, found: list[Content]) -> None:
    """Empty the buckets, and delete the stack and the code bucket."""
    for content in found:
        empty_bucket(site.s3, content.bucket)
    if stack:
        delete_stack(site, stack["StackId"], len(resources_of(site, stack)))
    if is_own_bucket(site, site.bucket("code")):
        site.s3.delete_bucket(Bucket=site.bucket("code"))


def wait_until_nothing_is_left(site: Site) -> list[str]:
    """What is left in the end, which should be nothing."""
    end = time.monotonic() + LEFTOVER_LIMIT_S
    while (left := leftovers(site)) and time.monotonic() < end:
        time.sleep(LEFTOVER_POLL_S)
    return left


def leftovers(site: Site) -> list[str]:
    """What bears the tags of the stack, or one of its names."""
    filters = [{"Key": tag["Key"], "Values": [tag["Value"]]} for tag in site.tags]
    pages = site.tagging.get_paginator("get_resources").paginate(TagFilters=filters)
    tagged = [r["ResourceARN"] for page in pages for r in page["ResourceTagMappingList"]]
    names = [site.bucket(kind) for kind in OWN_PREFIXES]
    named = [f"arn:aws:s3:::{name}" for name in names if bucket_exists(site.s3, name)]
    group = f"/aws/lambda/{site.stack}"
    found = site.logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"]
    there = {one["logGroupName"] for one in found}
    named += [f"log group {name}" for name in (group, f"{group}-metrics-writer") if name in there]
    return sorted({*tagged, *named})
