"""Least privilege in the embedded cloud: a function may do what the policy of its role says.

Who signs with the credentials of a role is held to the role's policy by moto's own evaluation of
IAM policies, at every request. All others are the user, who may do everything. Signatures are not
checked, and a bucket policy's condition on TLS is not either: nothing leaves this machine.
"""

import json
import re
import threading
from collections.abc import Callable

from moto.core.authorization import ActionAuthenticatorMixin
from moto.iam.access_control import IAMPolicy, IAMPolicyStatement, PermissionResult
from moto.iam.models import iam_backends
from moto.s3.models import FakeBucket, s3_backends
from moto.sts.models import AssumedRole, sts_backends

from lambda_function.emulator.moto_stacks import ACCOUNT_ID, replace

PARTITION = "aws"
SESSION_S = 12 * 3600  # moto does not let credentials expire
_one_session = threading.Lock()


def install() -> None:
    """Replace moto's parts, for the life of this process."""
    replace(ActionAuthenticatorMixin, "_authenticate_and_authorize_action", lambda _: _authorize)
    replace(FakeBucket, "get_permission", _without_tls)
    replace(IAMPolicyStatement, "_match", lambda _: staticmethod(_matches))


def credentials_of(role_arn: str, function_name: str) -> dict[str, str]:
    """The environment variables by which a function has its role's permissions."""
    wanted = (role_arn, function_name)
    with _one_session:
        session = next((s for s in _sessions() if (s.role_arn, s.session_name) == wanted), None)
        session = session or sts_backends[ACCOUNT_ID][PARTITION].assume_role(
            region_name="us-east-1",
            role_session_name=function_name,
            role_arn=role_arn,
            policy="",
            duration=SESSION_S,
            external_id="",
        )
    return {
        "AWS_ACCESS_KEY_ID": session.access_key_id,
        "AWS_SECRET_ACCESS_KEY": session.secret_access_key,
        "AWS_SESSION_TOKEN": session.session_token,
    }


def role_allows(role_arn: str, action: str, resource: str) -> bool:
    """Whether the inline policies of a role allow this; a role that is gone allows nothing."""
    roles = iam_backends[ACCOUNT_ID][PARTITION].roles.values()
    texts = [text for role in roles if role.arn == role_arn for text in role.policies.values()]
    results = {IAMPolicy(text).is_action_permitted(action, resource) for text in texts}
    return PermissionResult.PERMITTED in results and PermissionResult.DENIED not in results


def _matches(pattern: str, text: str) -> re.Match | None:
    """IAM's wildcards: `*` and `?` stand for any characters, and all others for themselves. In
    moto's matching, the pattern is a regular expression, in which a new line in a key is none."""
    wildcards = {"*": ".*", "?": "."}
    expression = "".join(wildcards.get(character) or re.escape(character) for character in pattern)
    return re.fullmatch(expression, text, re.DOTALL)


def _sessions() -> list[AssumedRole]:
    return sts_backends[ACCOUNT_ID][PARTITION].assumed_roles


def _role_of(response) -> str | None:
    """ARN of the role that signed a request; None when the user did."""
    key = response.headers.get("Authorization", "").partition("Credential=")[2].partition("/")[0]
    return next((s.role_arn for s in _sessions() if s.access_key_id == key), None)


def _authorize(response, iam_request_cls: type, resource: str = "*") -> None:
    if (role := _role_of(response)) is None:
        return
    request = iam_request_cls(
        account_id=response.current_account,
        method=response.method,
        path=response.raw_path,
        data=response.data,
        body=response.raw_body,
        headers=response.headers,
        action=response._get_action(),
    )
    request.check_action_permitted(resource)
    if response.method in ("GET", "HEAD") and _is_hidden(role, resource):
        request._raise_access_denied()


def _is_hidden(role: str, resource: str) -> bool:
    """Whether an object is not there, and the role may not know: S3 then says 403, and not 404."""
    bucket_arn, _, key = resource.partition("/")
    bucket = s3_backends[ACCOUNT_ID][PARTITION].buckets.get(bucket_arn.rpartition(":")[2])
    if not key or bucket is None or key in bucket.keys:
        return False
    return not role_allows(role, "s3:ListBucket", bucket_arn)


def _without_tls(original: Callable) -> Callable:
    """What a bucket's policy says of a request, but for statements about TLS."""

    def get_permission(bucket: FakeBucket, action: str, resource: str):
        if bucket.policy is None:
            return PermissionResult.NEUTRAL
        policy = json.loads(bucket.policy)
        policy["Statement"] = [
            statement
            for statement in policy["Statement"]
            if "aws:SecureTransport" not in json.dumps(statement.get("Condition", {}))
        ]
        return IAMPolicy(json.dumps(policy)).is_action_permitted(action, resource)

    return get_permission
