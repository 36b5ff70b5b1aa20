"""Which cloud: the flags that every script shares, and the one place where its clients are made."""

import argparse
import contextlib
import ipaddress
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from metrics.common.cli import CLOUD, RARE, ScriptParser, UserError, some_text

if TYPE_CHECKING:
    from botocore.config import Config
    from botocore.loaders import Loader
    from botocore.session import Session

DEFAULT_STACK = "image-pipeline"
EMBEDDED_REGION = "us-east-1"
EMBEDDED_CREDENTIALS = dict.fromkeys(  # they open nothing but the embedded cloud
    ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"), "EMBEDDED"
)
POOL_CONNECTIONS = 32


@dataclass(frozen=True)
class Cloud:
    """A choice of cloud; see add_cloud_arguments for what the fields mean."""

    name: str = "embedded"
    endpoint_url: str | None = None
    region: str | None = None
    profile: str | None = None
    stack: str = DEFAULT_STACK
    input_bucket: str | None = None
    output_bucket: str | None = None


@dataclass(frozen=True)
class Buckets:
    input: str
    output: str


def add_cloud_arguments(parser: ScriptParser, named_buckets: bool = True) -> None:
    """The flags; without those that name buckets for what works on the stack as a whole."""
    cloud, rare = parser.group(CLOUD), parser.group(RARE)
    cloud.add_argument(
        "--cloud",
        choices=["embedded", "aws"],
        default="embedded",
        metavar="embedded|aws",
        help="emulated here, or AWS itself",
    )
    for group, name, value, text in (
        (cloud, "--region", "NAME", "AWS region (env AWS_REGION)"),
        (cloud, "--profile", "NAME", "AWS profile (env AWS_PROFILE)"),
        (rare, "--endpoint-url", "URL", "of a cloud that is running (env AWS_ENDPOINT_URL)"),
    ):
        group.add_argument(name, type=some_text, metavar=value, help=text)
    add_stack_argument(parser)
    if named_buckets:
        for which in ("input", "output"):
            rare.add_argument(
                f"--{which}-bucket",
                type=some_text,
                metavar="NAME",
                help=f"instead of the stack's (env {which.upper()}_BUCKET)",
            )


def add_stack_argument(parser: ScriptParser) -> None:
    parser.group(RARE).add_argument(
        "--stack",
        type=stack_name,
        default=DEFAULT_STACK,
        metavar="NAME",
        help="CloudFormation stack",
    )


def stack_name(text: str) -> str:
    """A stack name that bucket names can begin with: see the BucketName lines of the template."""
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,26}[a-z0-9]", text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no stack name here: 2 to 28 lower-case letters, digits or '-', "
            "beginning with a letter"
        )
    return text


def cloud_of(args: argparse.Namespace) -> Cloud:
    """The chosen cloud: a flag counts over its environment variable, and one that is empty is not
    set."""
    return Cloud(
        name=args.cloud,
        endpoint_url=args.endpoint_url or os.environ.get("AWS_ENDPOINT_URL") or None,
        region=args.region or os.environ.get("AWS_REGION") or None,
        profile=args.profile,
        stack=args.stack,
        input_bucket=getattr(args, "input_bucket", None) or os.environ.get("INPUT_BUCKET") or None,
        output_bucket=getattr(args, "output_bucket", None)
        or os.environ.get("OUTPUT_BUCKET")
        or None,
    )


def make_client(cloud: Cloud, service: str):
    """A boto3 client. The embedded cloud's knows nothing of the user's AWS configuration."""
    from botocore.config import Config  # a tenth of a second, which --help does not need

    config = Config(
        retries={"mode": "standard", "max_attempts": 5}, max_pool_connections=POOL_CONNECTIONS
    )
    if cloud.endpoint_url:
        _check_endpoint(cloud.endpoint_url)
        # Other S3 servers: no bucket in the host name, no checksum trailer unless a call needs it.
        config = config.merge(
            Config(
                s3={"addressing_style": "path"},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                proxies={} if _is_this_machine(cloud.endpoint_url) else None,
            )
        )
    if cloud.name == "aws":
        return _aws_client(cloud, service, config)
    return _embedded_client(cloud.endpoint_url, service, config)


def _check_endpoint(url: str) -> None:
    """Raise UserError for what boto3 would refuse with a traceback, or misunderstand."""
    from botocore.utils import is_valid_uri

    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.port != 0 and is_valid_uri(url)
    except ValueError:  # a port or an IPv6 address that is none
        valid = False
    if not valid:
        *credentials, address = url.rpartition("@")
        shown = f"***@{address}" if any(credentials) else url
        raise UserError(f"{shown!r} is no endpoint URL such as http://127.0.0.1:5000")


def _aws_client(cloud: Cloud, service: str, config: "Config"):
    """Of what boto3 resolves. Raises UserError for settings and credentials that are of no use,
    credentials that are renewed later included."""
    import boto3
    import botocore.session

    for name in [
        name for name, value in os.environ.items() if name.startswith("AWS_") and not value
    ]:
        del os.environ[name]  # botocore would take it for a value
    core = botocore.session.Session(profile=cloud.profile)
    with _settings_named(core, "settings"):
        _check_files(core)
        core.get_scoped_config()
    with _settings_named(core, "credentials"):
        if credentials := core.get_credentials():
            credentials.get_frozen_credentials = partial(
                _checked_credentials, core, credentials.get_frozen_credentials
            )
            credentials.get_frozen_credentials()
    with _settings_named(core, "settings"):
        session = boto3.session.Session(botocore_session=core, region_name=cloud.region)
        return session.client(service, endpoint_url=cloud.endpoint_url, config=config)


@contextlib.contextmanager
def _settings_named(core: "Session", what: str) -> Iterator[None]:
    """Any error becomes a UserError that names profile and file: botocore passes on whatever comes
    of a file or of a program's output, such as a JSONDecodeError, without a word where it is from.
    """
    from botocore.exceptions import BotoCoreError, InvalidRegionError, NoRegionError

    try:
        yield
    except (InvalidRegionError, NoRegionError, UserError):  # whose messages say all
        raise
    except Exception as error:
        file = core.get_config_variable("config_file")
        reason = (
            str(error) if isinstance(error, BotoCoreError) else f"{type(error).__name__}: {error}"
        )
        raise UserError(
            f"AWS {what} of profile {core.profile or 'default'!r} (see {file}) cannot be used: "
            + " ".join(reason.split())
        ) from error


def _check_files(core: "Session") -> None:
    """Raise OSError for a file of settings that cannot be read: botocore would go on without it."""
    for setting, variable in (
        ("config_file", "AWS_CONFIG_FILE"),
        ("credentials_file", "AWS_SHARED_CREDENTIALS_FILE"),
    ):
        path = os.path.expanduser(core.get_config_variable(setting))
        if variable in os.environ or os.path.lexists(path):
            open(path, "rb").close()


def _checked_credentials(core: "Session", credentials_now: Callable):
    with _settings_named(core, "credentials"):
        found = credentials_now()
        if not (isinstance(found.access_key, str) and isinstance(found.secret_key, str)):
            raise TypeError("a key is no text")
        return found


def _embedded_client(endpoint_url: str | None, service: str, config: "Config"):
    if not endpoint_url:
        raise UserError(
            "no embedded cloud is running for this script: start lambda_function/embedded_cloud.py "
            "and set AWS_ENDPOINT_URL to the line it prints, or use --cloud aws"
        )
    if not _is_loopback(urlsplit(endpoint_url).hostname):
        raise UserError(
            f"{endpoint_url} is not on this machine (a numeric loopback address such as "
            "127.0.0.1); for any other endpoint use --cloud aws"
        )
    import boto3
    import botocore.session
    from botocore.config import Config

    # Nothing of the user's AWS configuration counts: no variable, no profile and no file.
    defaults = {
        name: (None, None, default, read_as)
        for name, (_, _, default, read_as) in botocore.session.Session.SESSION_VARIABLES.items()
    }
    no_files = dict.fromkeys(("config_file", "credentials_file"), (None, None, os.devnull, None))
    core = botocore.session.Session(session_vars=defaults | no_files)
    core.get_component("config_store").set_config_variable("s3", {})  # has variables of its own
    core.register_component("data_loader", _service_models())
    client = boto3.session.Session(botocore_session=core).client(
        service,
        endpoint_url=endpoint_url,
        region_name=EMBEDDED_REGION,
        verify=True,  # whatever REQUESTS_CA_BUNDLE says
        aws_access_key_id=EMBEDDED_CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=EMBEDDED_CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        aws_session_token=EMBEDDED_CREDENTIALS["AWS_SESSION_TOKEN"],
        config=config.merge(Config(use_fips_endpoint=False, use_dualstack_endpoint=False)),
    )
    client.meta.events.register("before-send", _refuse_other_hosts)
    return client


@cache
def _service_models() -> "Loader":
    """Read once for all clients: they are a tenth of a second each."""
    from botocore.loaders import create_loader

    return create_loader()


def _refuse_other_hosts(request, **_: object) -> None:
    """The last guard: whatever configuration led there, nothing is sent off this machine."""
    if not _is_loopback(urlsplit(request.url).hostname):
        raise UserError(f"refused to send a request of the embedded cloud to {request.url}")


def _is_loopback(host: str | None) -> bool:
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def _is_this_machine(url: str) -> bool:
    """Then no proxy of the environment is meant, whatever NO_PROXY says."""
    host = urlsplit(url).hostname
    return host == "localhost" or _is_loopback(host)


def find_stack(cloudformation, stack: str) -> dict | None:
    """The description of a stack; None when there is none of that name."""
    from botocore.exceptions import ClientError

    try:
        (found,) = cloudformation.describe_stacks(StackName=stack)["Stacks"]
    except ClientError as error:
        if error.response["Error"]["Code"] == "ValidationError":
            return None
        raise
    return found


def stack_outputs(cloudformation, stack: str) -> dict[str, str]:
    """Outputs of a stack by key. Raises UserError when there is no such stack."""
    if (found := find_stack(cloudformation, stack)) is None:
        raise UserError(
            f"stack {stack!r} not found; deploy it with lambda_function/deploy.py create, "
            "or name the buckets with --input-bucket and --output-bucket"
        )
    return {output["OutputKey"]: output["OutputValue"] for output in found.get("Outputs", [])}


def find_function(cloud: Cloud) -> dict[str, str]:
    """The stack's outputs about the function: FunctionName, LogGroupName, FailureQueueUrl. Empty
    when both buckets were named and there is no stack of that name to ask."""
    try:
        return stack_outputs(make_client(cloud, "cloudformation"), cloud.stack)
    except UserError:
        if cloud.input_bucket and cloud.output_bucket:
            return {}
        raise


def find_buckets(cloud: Cloud) -> Buckets:
    """The buckets that were named, or else the stack's. Equal ones are refused: what the function
    writes would come back to it as new input."""
    names = {"InputBucket": cloud.input_bucket, "OutputBucket": cloud.output_bucket}
    if not all(names.values()):
        outputs = stack_outputs(make_client(cloud, "cloudformation"), cloud.stack)
        if missing := [key for key, name in names.items() if not name and key not in outputs]:
            raise UserError(f"stack {cloud.stack!r} has no output {missing[0]}")
        names = {key: name or outputs[key] for key, name in names.items()}
    if names["InputBucket"] == names["OutputBucket"]:
        raise UserError(
            f"input and output bucket are both {names['InputBucket']!r}; they must differ"
        )
    return Buckets(names["InputBucket"], names["OutputBucket"])
