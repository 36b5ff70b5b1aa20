"""The way to AWS against an emulator by other people: the same commands, template, zip and scripts.

MiniStack is installed into an environment of its own, and listens on this machine only.
"""

import json
import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import jpeg, registry_is_silent
from processes import LIMIT_S, until

from lambda_function.cloud import Cloud, find_stack, make_client
from lambda_function.stack.change_sets import find_site
from lambda_function.stack.removal import leftovers

pytestmark = pytest.mark.slow

MINISTACK = "ministack==1.5.33"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_REGION": "us-east-1",
}


@pytest.fixture(scope="module")
def ministack(tmp_path_factory) -> Iterator[str]:
    """Endpoint of a MiniStack; the tests are skipped where it cannot be installed."""
    folder = tmp_path_factory.mktemp("ministack")
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    install = [folder / "venv/bin/pip", "install", "--quiet", MINISTACK, "boto3"]  # its Lambda's
    done = subprocess.run(install, capture_output=True, text=True, timeout=LIMIT_S)
    if done.returncode and registry_is_silent(done.stderr):
        pytest.skip("MiniStack is absent: the package registry does not answer")
    assert done.returncode == 0, done.stderr
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "BIND_HOST": "127.0.0.1",
        "MINISTACK_HOST": "127.0.0.1",
        "GATEWAY_PORT": port,
        "IOT_MTLS_ENABLED": "0",  # which would listen on a port of its own
    }
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [folder / "venv/bin/ministack"], env=environment, cwd=folder, stdout=log, stderr=log
        )
    try:
        until(lambda: server.poll() is not None or answers(int(port)))
        assert server.poll() is None, (folder / "log").read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def answers(port: int) -> bool:
    try:
        url = f"http://127.0.0.1:{port}/_ministack/health"
        with urllib.request.urlopen(url, timeout=5) as got:  # nosec B310 # always http
            return bool(json.load(got))
    except OSError:
        return False


def test_create_run_update_and_delete_work_against_ministack_with_the_commands_for_aws(
    ministack, checkout, run_script_in, monkeypatch
):
    for number in range(3):
        picture = Path(checkout / "images_to_upload" / f"{number}.jpg")
        picture.write_bytes(jpeg(900 + number, 700))
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    cloud = Cloud("aws", ministack, "us-east-1")

    def run(script: str, *arguments: str) -> str:
        done = run_script_in(
            script, *arguments, "--cloud", "aws", **CREDENTIALS, AWS_ENDPOINT_URL=ministack
        )
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        return done.stdout

    deploy = "lambda_function/deploy.py"
    run(deploy, "create", "--dry-run")
    assert find_stack(make_client(cloud, "cloudformation"), cloud.stack) is None
    assert make_client(cloud, "s3").list_buckets()["Buckets"] == []

    assert "the smoke test's row was there" in run(deploy, "create", "--yes")
    assert "3 identical" in run("master_pipeline.py")
    assert "MemorySize = 3008 (now 1769)" in run(deploy, "update", "--memory", "3008", "--yes")
    assert "MemorySize = 3008\n" in run(deploy, "status")

    bucket = find_site(cloud).bucket("input")
    assert f"bucket {bucket}: 3 object versions" in run(deploy, "delete", "--dry-run")
    assert "nothing is left" in run(deploy, "delete", "--yes")
    assert leftovers(find_site(cloud)) == []
    assert make_client(cloud, "s3").list_buckets()["Buckets"] == []
    assert make_client(cloud, "lambda").list_functions()["Functions"] == []
    assert make_client(cloud, "iam").list_roles()["Roles"] == []
