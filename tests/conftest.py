"""Fixtures that stack: credentials -> moto's S3; an embedded cloud; a checkout to run."""

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import hypothesis
import pytest
from moto import mock_aws
from PIL import Image
from processes import LIMIT_S

from lambda_function.cloud import Buckets, Cloud
from lambda_function.embedded_cloud import embedded_cloud
from metrics.common.paths import PROJECT

NOT_CODE = (
    *(".*", "__pycache__", "*.csv", "*.json", "report.html", "charts", "cloud_outputs"),
    *("output_local", "images_to_upload"),
)

hypothesis.settings.register_profile("no deadline", deadline=None)  # a busy machine is no error
hypothesis.settings.load_profile("no deadline")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--all",
        action="store_true",
        help="also the slow tests: campaigns, sweeps, other emulators, the page in a browser",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the slow ones out, unless --all is given or one is named by itself."""
    if config.getoption("--all") or any("::" in arg for arg in config.args):
        return

    def is_slow(item: pytest.Item) -> bool:
        return item.get_closest_marker("slow") is not None or "browser" in item.fixturenames

    slow = list(filter(is_slow, items))
    items[:] = [item for item in items if not is_slow(item)]
    config.hook.pytest_deselected(items=slow)


@pytest.fixture(autouse=True)
def _aws_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test depends on, or reaches, the AWS configuration of who runs it."""
    for name in list(os.environ):
        if name.startswith("AWS_") or name in ("INPUT_BUCKET", "OUTPUT_BUCKET"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)


@pytest.fixture
def s3(_aws_environment: None) -> Iterator:
    """An S3 client of moto's, in this process, with an input and an output bucket."""
    with mock_aws():
        client = boto3.client("s3")
        client.create_bucket(Bucket="input-bucket")
        client.create_bucket(Bucket="output-bucket")
        yield client


@pytest.fixture
def buckets() -> Buckets:
    return Buckets("input-bucket", "output-bucket")


@pytest.fixture(scope="session")
def embedded() -> Iterator[Cloud]:
    """One embedded cloud for all tests that need no other; they share its buckets."""
    with embedded_cloud(concurrency=2) as cloud:
        yield cloud


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the project's code without results and pictures, to run as a user does."""
    return copy_project(tmp_path / "project")


@pytest.fixture
def run_script_in(checkout: Path) -> Callable[..., subprocess.CompletedProcess]:
    """Run `script` of the checkout as a subprocess, by default from the checkout."""

    def run(script: str, *arguments: str, cwd: Path | None = None, **environment: str):
        return subprocess.run(
            [sys.executable, str(checkout / script), *arguments],
            cwd=cwd or checkout,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )

    return run


def copy_project(target: Path) -> Path:
    shutil.copytree(PROJECT, target, ignore=shutil.ignore_patterns(*NOT_CODE))
    (target / "images_to_upload").mkdir()
    return target


def jpeg(width: int = 64, height: int = 48, colour: str = "teal", **options: object) -> bytes:
    """A small JPEG picture with an edge in it, so that its orientation can be seen."""
    picture = Image.new("RGB", (width, height), colour)
    picture.paste("white", (0, 0, width // 2, height // 3))
    output = io.BytesIO()
    picture.save(output, "JPEG", **options)
    return output.getvalue()


def registry_is_silent(pip_errors: str) -> bool:
    """Whether pip failed since the package registry does not answer, and for nothing else."""
    signs = ("connection broken", "Connection refused", "timed out", "Max retries exceeded")
    return any(sign in pip_errors for sign in signs)
