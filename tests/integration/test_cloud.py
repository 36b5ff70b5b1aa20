"""Which cloud the flags choose, and that the embedded one's clients never leave this machine."""

import json
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import boto3
import botocore.session
import pytest
from moto import mock_aws
from servers import recording_server

from lambda_function.cloud import (
    EMBEDDED_CREDENTIALS,
    Buckets,
    Cloud,
    add_cloud_arguments,
    cloud_of,
    find_buckets,
    make_client,
    stack_name,
)
from metrics.common.cli import UserError, script_parser

# --- flags --------------------------------------------------------------------------------------


def chosen(*flags: str) -> Cloud:
    parser = script_parser("")
    add_cloud_arguments(parser)
    return cloud_of(parser.parse_args(flags))


def test_without_flag_or_environment_the_cloud_is_embedded_with_the_default_stack():
    assert chosen() == Cloud("embedded", None, None, None, "image-pipeline", None, None)


SETTINGS = {
    "endpoint_url": ("--endpoint-url", "AWS_ENDPOINT_URL"),
    "region": ("--region", "AWS_REGION"),
    "input_bucket": ("--input-bucket", "INPUT_BUCKET"),
    "output_bucket": ("--output-bucket", "OUTPUT_BUCKET"),
}


@pytest.mark.parametrize("field", SETTINGS)
def test_a_flag_counts_over_the_environment_and_that_over_the_default(field, monkeypatch):
    flag, variable = SETTINGS[field]
    assert getattr(chosen(), field) is None
    monkeypatch.setenv(variable, "from-environment")
    assert getattr(chosen(), field) == "from-environment"
    assert getattr(chosen(flag, "from-flag"), field) == "from-flag"


def test_the_environment_never_chooses_aws(monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "work")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    assert chosen().name == "embedded"
    assert chosen("--cloud", "aws", "--profile", "p", "--stack", "my-stack") == Cloud(
        "aws", None, "eu-west-1", "p", "my-stack"
    )


@pytest.mark.parametrize("name", ["ab", "image-pipeline", "a1", "a" * 28])
def test_a_stack_name_that_buckets_can_begin_with_is_taken(name):
    assert stack_name(name) == name
    assert chosen("--stack", name).stack == name


@pytest.mark.parametrize("name", ["", "a", "1a", "-a", "a-", "A-b", "a_b", "a.b", "é1", "a" * 29])
def test_any_other_stack_name_exits_2_and_says_what_is_allowed(name, capsys):
    with pytest.raises(SystemExit) as caught:
        chosen(f"--stack={name}")
    assert caught.value.code == 2
    assert f"{name!r} is no stack name here: 2 to 28" in capsys.readouterr().err


# --- the embedded cloud's client ----------------------------------------------------------------


@pytest.mark.parametrize("endpoint", [None, ""])
def test_without_an_endpoint_one_line_says_how_to_start_an_embedded_cloud(endpoint):
    with pytest.raises(UserError, match="start lambda_function/embedded_cloud") as caught:
        make_client(Cloud(endpoint_url=endpoint), "s3")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "endpoint",
    [
        *(
            "https://s3.amazonaws.com",
            "http://192.0.2.1:5000",
            "http://10.0.0.1",
            "http://[2001:db8::1]",
        ),
        *("http://localhost:5000", "http://127.0.0.1.example.com", "http://0.0.0.0:5000"),
        *("http://127.0.0.1@192.0.2.1:80", "http://127.1:5000"),
    ],
)
def test_an_endpoint_off_this_machine_or_with_a_name_is_refused(endpoint):
    with pytest.raises(UserError, match="is not on this machine") as caught:
        make_client(Cloud(endpoint_url=endpoint), "s3")
    assert endpoint in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["embedded", "aws"])
@pytest.mark.parametrize(
    "endpoint",
    [
        *("127.0.0.1:5000", "http://", "ftp://127.0.0.1", "http://[::1", "http://127.0.0.1:port"),
        *("http://127.0.0.1:99999", "http://127.0.0.1:1/\n", "http://a b"),
    ],
)
def test_an_endpoint_that_is_no_url_is_refused_in_one_line(name, endpoint):
    with pytest.raises(UserError, match="is no endpoint URL such as") as caught:
        make_client(Cloud(name, endpoint, "us-east-1"), "s3")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "endpoint", ["http://127.0.0.1:5000", "http://127.8.9.1", "http://[::1]:80"]
)
def test_a_numeric_loopback_endpoint_is_taken(endpoint):
    assert make_client(Cloud(endpoint_url=endpoint), "s3").meta.endpoint_url == endpoint


@pytest.fixture
def recorder() -> Iterator[SimpleNamespace]:
    with recording_server() as server:
        yield server


@pytest.fixture
def other_server() -> Iterator[SimpleNamespace]:
    """Where nothing may arrive."""
    with recording_server() as server:
        yield server


def ask(client) -> None:
    client.head_object(Bucket="pictures", Key="a b.jpg")


def assert_only_throwaway_keys(headers: dict[str, str]) -> None:
    credential = f"Credential={EMBEDDED_CREDENTIALS['AWS_ACCESS_KEY_ID']}/"
    assert credential in headers["Authorization"]
    assert headers["X-Amz-Security-Token"] == EMBEDDED_CREDENTIALS["AWS_SESSION_TOKEN"]
    assert "REAL" not in json.dumps(headers)


AWS_VARIABLES = [  # all that botocore reads settings from
    variable
    for _, names, *_ in botocore.session.Session.SESSION_VARIABLES.values()
    for variable in ([names] if isinstance(names, str) else names or [])
] + ["REQUESTS_CA_BUNDLE"]  # the last one
HOSTILE_ENVIRONMENTS = {
    "keys": {
        "AWS_ACCESS_KEY_ID": "AKIAREALREALREALREAL",
        "AWS_SECRET_ACCESS_KEY": "REAL",
        "AWS_SESSION_TOKEN": "REAL",
    },
    "a profile that does not exist": {"AWS_PROFILE": "REAL", "AWS_DEFAULT_PROFILE": "REAL"},
    "another region": {"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-REAL-1"},
    "endpoints": {"AWS_ENDPOINT_URL": "{other}", "AWS_ENDPOINT_URL_S3": "{other}"},
    "proxies": {
        **dict.fromkeys(("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"), "{other}"),
        **dict.fromkeys(("NO_PROXY", "no_proxy"), ""),
    },
    "values that botocore refuses": dict.fromkeys(
        (
            *("AWS_DEFAULTS_MODE", "AWS_RETRY_MODE", "AWS_MAX_ATTEMPTS", "AWS_CA_BUNDLE"),
            *("AWS_STS_REGIONAL_ENDPOINTS", "AWS_S3_US_EAST_1_REGIONAL_ENDPOINT"),
            *("AWS_ACCOUNT_ID_ENDPOINT_MODE", "AWS_REQUEST_MIN_COMPRESSION_SIZE_BYTES"),
            *("AWS_S3_DISABLE_EXPRESS_SESSION_AUTH", "AWS_REQUEST_CHECKSUM_CALCULATION"),
            *("AWS_DATA_PATH", "AWS_METADATA_SERVICE_TIMEOUT", "AWS_S3_USE_ARN_REGION"),
        ),
        "REAL",
    ),
    "other hosts": {"AWS_USE_FIPS_ENDPOINT": "true", "AWS_USE_DUALSTACK_ENDPOINT": "true"},
    "nonsense": dict.fromkeys(AWS_VARIABLES, "nonsense"),
    "nothing": dict.fromkeys(AWS_VARIABLES, ""),
}


@pytest.mark.parametrize("variables", HOSTILE_ENVIRONMENTS.values(), ids=HOSTILE_ENVIRONMENTS)
def test_no_setting_of_the_environment_reaches_an_embedded_client(
    recorder, other_server, monkeypatch, variables
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(other=other_server.url))
    ask(make_client(Cloud(endpoint_url=recorder.url), "s3"))
    ((method, path, headers),) = recorder.requests
    assert (method, path) == ("HEAD", "/pictures/a%20b.jpg")
    assert_only_throwaway_keys(headers)
    assert "/us-east-1/s3/" in headers["Authorization"]
    assert other_server.requests == []


FILES = {
    "settings": (
        "[default]\nregion = eu-west-1\nendpoint_url = {other}\nservices = s\n"
        "[services s]\ns3 =\n  endpoint_url = {other}\n",
        "[default]\naws_access_key_id = REAL\naws_secret_access_key = REAL\n",
    ),
    "nonsense": ("[default\nregion", "[default\naws_access_key_id"),
}


@pytest.mark.parametrize(("config", "credentials"), FILES.values(), ids=FILES)
def test_no_file_of_the_users_aws_configuration_reaches_an_embedded_client(
    recorder, other_server, monkeypatch, tmp_path, config, credentials
):
    (tmp_path / "config").write_text(config.format(other=other_server.url))
    (tmp_path / "credentials").write_text(credentials)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    ask(make_client(Cloud(endpoint_url=recorder.url), "s3"))
    ((_, _, headers),) = recorder.requests
    assert_only_throwaway_keys(headers)
    assert "/us-east-1/s3/" in headers["Authorization"]
    assert other_server.requests == []


def test_a_request_that_was_led_to_another_host_is_not_sent(recorder, other_server):
    elsewhere = other_server.url.replace("127.0.0.1", "localhost")
    client = make_client(Cloud(endpoint_url=recorder.url), "s3")

    def lead_away(request, **_: object) -> None:
        request.url = f"{elsewhere}/pictures/a"

    client.meta.events.register("before-sign.s3", lead_away)
    with pytest.raises(UserError, match=r"refused to send a request .* to http://localhost"):
        ask(client)
    assert recorder.requests == other_server.requests == []


def test_the_aws_cloud_uses_the_keys_and_the_region_of_the_environment(recorder, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "MINE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "mine")
    ask(make_client(Cloud("aws", recorder.url, "eu-west-1"), "s3"))
    ((_, path, headers),) = recorder.requests
    assert path == "/pictures/a%20b.jpg"
    assert "Credential=MINE/" in headers["Authorization"]
    assert "/eu-west-1/s3/" in headers["Authorization"]


@pytest.fixture
def settings(monkeypatch, tmp_path) -> Callable[..., Path]:
    """Writes a file of AWS settings that holds nothing else than what it is given."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")

    def write(*lines: str, name: str = ".aws/config", profile: str = "default") -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join([f"[{profile}]", "region = eu-west-1", *lines, ""]))
        return path

    return write


KEYS = ("aws_access_key_id = MINE", "aws_secret_access_key = mine")


@pytest.mark.parametrize("variable", ["AWS_REGION", *AWS_VARIABLES[:-1]])
def test_a_variable_that_is_empty_is_one_that_is_not_set(recorder, monkeypatch, settings, variable):
    settings(*KEYS)
    monkeypatch.setenv(variable, "")
    ask(make_client(chosen("--cloud", "aws", "--endpoint-url", recorder.url), "s3"))
    ((_, _, headers),) = recorder.requests
    assert "Credential=MINE/" in headers["Authorization"]
    assert "/eu-west-1/s3/" in headers["Authorization"]


@pytest.mark.parametrize(
    "variable", ["AWS_REGION", "AWS_ENDPOINT_URL", "INPUT_BUCKET", "OUTPUT_BUCKET"]
)
def test_a_variable_of_the_projects_flags_that_is_empty_is_not_set(monkeypatch, variable):
    monkeypatch.setenv(variable, "")
    assert chosen() == Cloud()


# Lines of a profile, and what is said of them.
USELESS_CREDENTIALS = {
    "no JSON": ("credential_process = echo hello", "JSONDecodeError"),
    "no output": ("credential_process = true", "JSONDecodeError"),
    "another JSON": ("credential_process = echo '[1]'", "AttributeError"),
    "no UTF-8": (r"credential_process = printf '\377'", "UnicodeDecodeError"),
    "no keys": ("credential_process = echo '{\"Version\": 1}'", "'AccessKeyId'"),
    "keys that are no text": (
        'credential_process = echo \'{"Version": 1, "AccessKeyId": null, "SecretAccessKey": 5}\'',
        "a key is no text",
    ),
    "a date that is none": (
        'credential_process = echo \'{"Version": 1, "AccessKeyId": "a", "SecretAccessKey": "b", '
        '"Expiration": "soon"}\'',
        "soon",
    ),
    "it fails": ("credential_process = sh -c 'echo no luck >&2; exit 3'", "no luck"),
    "it is not there": ("credential_process = /nowhere/tool", "'/nowhere/tool'"),
    "a quote too few": ("credential_process = echo 'x", "No closing quotation"),
    "a source that is not there": ("role_arn = arn:aws:iam::1:role/x\nsource_profile = z", '"z"'),
    "no sign-in": (
        "sso_start_url = https://x.awsapps.com/start\nsso_region = us-east-1\n"
        "sso_account_id = 1\nsso_role_name = r",
        "SSO Token",
    ),
}


@pytest.mark.parametrize(("lines", "reason"), USELESS_CREDENTIALS.values(), ids=USELESS_CREDENTIALS)
def test_useless_credentials_are_one_line_with_profile_file_and_reason(
    settings, monkeypatch, lines, reason
):
    file = settings(lines, name="mine", profile="profile work")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(file))
    with pytest.raises(UserError) as caught:
        make_client(Cloud("aws", profile="work"), "s3")
    message = str(caught.value)
    assert message.startswith(f"AWS credentials of profile 'work' (see {file}) cannot be used: ")
    assert reason in message
    assert "\n" not in message


def test_credentials_that_cannot_be_renewed_during_a_run_are_named_as_well(settings, tmp_path):
    answer, soon = tmp_path / "answer", datetime.now(UTC) + timedelta(minutes=1)
    keys = {
        "Version": 1,
        "AccessKeyId": "a",
        "SecretAccessKey": "b",
        "Expiration": f"{soon:%FT%TZ}",
    }
    answer.write_text(json.dumps(keys))
    settings(f"credential_process = cat {answer}")
    client = make_client(Cloud("aws", "http://127.0.0.1:9"), "s3")
    answer.write_text("signed out")
    with pytest.raises(UserError, match=r"AWS credentials of profile 'default' .* JSONDecodeError"):
        ask(client)


USELESS_SETTINGS = {
    "no file": (None, "FileNotFoundError"),
    "no settings": ("[default\nregion", "Unable to parse config file"),
    "a folder": ("", "IsADirectoryError"),
}


@pytest.mark.parametrize("variable", ["AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"])
@pytest.mark.parametrize(("content", "reason"), USELESS_SETTINGS.values(), ids=USELESS_SETTINGS)
def test_a_file_of_aws_settings_that_is_of_no_use_is_named(
    settings, monkeypatch, tmp_path, variable, content, reason
):
    settings(*KEYS)
    file = tmp_path / "mine"
    if content:
        file.write_text(content)
    elif content == "":
        file.mkdir()
    monkeypatch.setenv(variable, str(file))
    with pytest.raises(UserError) as caught:
        make_client(Cloud("aws", region="us-east-1"), "s3")
    assert str(file) in str(caught.value)
    assert reason in str(caught.value)


def test_an_endpoint_of_a_profile_that_is_no_url_is_named_with_it(settings):
    settings(*KEYS, "endpoint_url = nonsense")
    with pytest.raises(UserError, match=r"profile 'default' \(see .* Invalid endpoint: nonsense"):
        make_client(Cloud("aws"), "s3")


def test_a_profile_that_does_not_exist_is_named_with_the_file_that_lacks_it(settings):
    settings(*KEYS)
    with pytest.raises(
        UserError, match=r"profile 'nope' \(see ~/.aws/config\).* \(nope\) could not"
    ):
        make_client(Cloud("aws", profile="nope"), "s3")


# --- buckets ------------------------------------------------------------------------------------

BUCKETS_OF_STACK = {"InputBucket": "photos-in", "OutputBucket": "photos-out"}


@pytest.fixture
def create_stack(_aws_environment: None) -> Iterator:
    """Create a stack of moto's with the given outputs."""

    def create(name: str, outputs: dict[str, str]) -> None:
        template = {
            "Resources": {"Topic": {"Type": "AWS::SNS::Topic"}},
            "Outputs": {key: {"Value": value} for key, value in outputs.items()},
        }
        boto3.client("cloudformation").create_stack(
            StackName=name, TemplateBody=json.dumps(template)
        )

    with mock_aws():
        yield create


def aws(**fields: object) -> Cloud:
    return Cloud("aws", region="us-east-1", **fields)


def test_buckets_are_the_outputs_of_the_chosen_stack(create_stack):
    create_stack("image-pipeline", BUCKETS_OF_STACK)
    create_stack("mine", {"InputBucket": "my-in", "OutputBucket": "my-out", "Other": "x"})
    assert find_buckets(aws()) == Buckets("photos-in", "photos-out")
    assert find_buckets(aws(stack="mine")) == Buckets("my-in", "my-out")


def test_a_named_bucket_counts_over_the_stack(create_stack):
    create_stack("image-pipeline", BUCKETS_OF_STACK)
    assert find_buckets(aws(input_bucket="mine")) == Buckets("mine", "photos-out")
    assert find_buckets(aws(output_bucket="mine")) == Buckets("photos-in", "mine")


def test_with_both_buckets_named_no_stack_is_asked_for():
    cloud = Cloud(input_bucket="a", output_bucket="b")  # and no endpoint to ask at
    assert find_buckets(cloud) == Buckets("a", "b")


@pytest.mark.parametrize(
    "names",
    [
        {"input_bucket": "photos-out"},
        {"output_bucket": "photos-in"},
        {"input_bucket": "x", "output_bucket": "x"},
    ],
)
def test_equal_buckets_are_refused_by_name(create_stack, names):
    create_stack("image-pipeline", BUCKETS_OF_STACK)
    both = next(iter(names.values()))
    with pytest.raises(UserError, match=f"input and output bucket are both '{both}'"):
        find_buckets(aws(**names))


def test_a_stack_that_does_not_exist_is_one_line_with_the_next_step(create_stack):
    with pytest.raises(UserError, match="stack 'nowhere' not found; deploy ") as caught:
        find_buckets(aws(stack="nowhere"))
    assert "--input-bucket and --output-bucket" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_stack_of_something_else_is_refused_by_the_output_it_lacks(create_stack):
    create_stack("image-pipeline", {"InputBucket": "photos-in"})
    with pytest.raises(UserError, match="stack 'image-pipeline' has no output OutputBucket"):
        find_buckets(aws())
    assert find_buckets(aws(output_bucket="mine")) == Buckets("photos-in", "mine")
