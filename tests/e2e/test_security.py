"""What must not get out: requests to other hosts, credentials, files of a run under way."""

import json
import os
import re
import signal
import stat
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import matplotlib as mpl
import pytest
from botocore.exceptions import EndpointConnectionError
from conftest import copy_project, jpeg
from processes import LIMIT_S, TcpSocket, descendants, tcp_sockets, until
from servers import recording_server

import upload_images_s3
from lambda_function.cloud import Cloud, find_buckets, find_function, make_client
from metrics.analysis.run_record import recorded_command
from metrics.common.cli import cloud_problem, without_credentials
from metrics.common.paths import PROJECT, whole_file
from metrics.run.cleaning import list_keys

# --- nothing leaves this machine ------------------------------------------------------------------

UNSHARE = ("unshare", "--map-root-user", "--net")
LOOPBACK_ONLY = str(PROJECT / "tests" / "loopback_only.py")
# Refuses, and writes down, what would leave this machine or ask for a name. Workers of the function
# run without it (python -I -S): of those, the sockets are looked at.
GUARD = """
import ipaddress, os, sys

NAMES = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr")
ADDRESSES = ("socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg")

def is_here(host):
    try:
        return host is None or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

def guard(event, arguments):
    if event in ADDRESSES and isinstance(arguments[1], tuple):
        refused = not is_here(arguments[1][0])
    else:
        refused = event in NAMES and (event.endswith("addr") or not is_here(arguments[0]))
    if refused:
        with open(os.environ["GUARD_REPORT"], "a") as file:
            print(event, *arguments, file=file)
        raise PermissionError(f"{event} {arguments}")

sys.addaudithook(guard)
"""


LOOK_EVERY_S = 0.05  # a look takes 10 ms of processor time


class NetworkNamespace:
    """Nothing but this machine can be reached, and what is tried is counted by the kernel."""

    name = "network namespace"

    def __init__(self, folder: Path):
        self.report = folder / "sent.json"
        self.prefix = (*UNSHARE, sys.executable, LOOPBACK_ONLY, str(self.report))
        self.environment = {}

    def attempts(self) -> dict[str, int]:
        return {name: count for name, count in json.loads(self.report.read_text()).items() if count}


class GuardedSockets:
    """Every Python process refuses and reports what would leave this machine."""

    name = "guarded sockets"

    def __init__(self, folder: Path):
        self.report, self.prefix = folder / "attempts", ()
        (folder / "guard").mkdir()
        (folder / "guard" / "sitecustomize.py").write_text(GUARD)
        path = os.pathsep.join([str(folder / "guard"), os.environ.get("PYTHONPATH", "")])
        self.environment = {"PYTHONPATH": path, "GUARD_REPORT": str(self.report)}

    def attempts(self) -> list[str]:
        return self.report.read_text().splitlines() if self.report.exists() else []


def ways() -> list:
    """Both, where the kernel lets us have a network of our own; the names of the tests tell."""
    try:
        command = [*UNSHARE, sys.executable, LOOPBACK_ONLY, os.devnull, "true"]
        has_namespace = subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        has_namespace = False
    if has_namespace:
        return [NetworkNamespace, GuardedSockets]
    GuardedSockets.name = "guarded sockets (no network namespace to be had here)"
    return [GuardedSockets]


every_way = pytest.mark.parametrize("way", ways(), ids=lambda way: way.name)


def run_watched(way, command: list[str], cwd: Path) -> tuple[int, str, set[TcpSocket]]:
    """Exit code, output, and the sockets that were seen."""
    seen: set[TcpSocket] = set()
    with (cwd / "output.txt").open("w+") as output:
        process = subprocess.Popen(
            [*way.prefix, *command],
            cwd=cwd,
            env={**os.environ, **way.environment},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        while process.poll() is None:
            seen |= tcp_sockets(descendants(process.pid))
            threading.Event().wait(LOOK_EVERY_S)
        output.seek(0)
        return process.returncode, output.read(), seen


@pytest.mark.slow
@every_way
def test_a_whole_run_contacts_no_other_host_asks_for_no_name_and_listens_here_only(
    way, checkout, tmp_path
):
    way = way(tmp_path)
    (checkout / "images_to_upload" / "a.jpg").write_bytes(jpeg())
    (checkout / "images_to_upload" / "notes.txt").write_text("no picture")
    code, output, sockets = run_watched(way, [sys.executable, "master_pipeline.py"], checkout)
    assert code == 0, output
    assert "completeness 100.0%" in output
    assert not way.attempts()
    assert {socket.local for socket in sockets if socket.is_listening} == {"127.0.0.1"}
    assert {socket.remote for socket in sockets if not socket.is_listening} <= {"127.0.0.1"}


CONTACTS = {
    "a connection": "socket.create_connection(('192.0.2.1', 80), 1)",
    "a connection by IPv6": "socket.create_connection(('2001:db8::1', 80), 1)",
    "a datagram": "socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 9))",
    "a name": "socket.getaddrinfo('name.example', 80)",
}


@every_way
@pytest.mark.parametrize("contact", CONTACTS.values(), ids=CONTACTS)
def test_a_contact_with_another_host_would_be_seen(way, contact, tmp_path):
    way = way(tmp_path)
    program = f"import contextlib, socket\nwith contextlib.suppress(OSError):\n    {contact}"
    run_watched(way, [sys.executable, "-c", program], tmp_path)
    assert way.attempts()


# --- a run among secrets --------------------------------------------------------------------------

SECRETS = {
    "AWS_ACCESS_KEY_ID": "AKIAQ7SECRETKEYID001",
    "AWS_SECRET_ACCESS_KEY": "Q7secretKey002",
    "AWS_SESSION_TOKEN": "Q7sessionToken003",
    "AWS_SECURITY_TOKEN": "Q7securityToken004",
    "AWS_PROFILE": "Q7profile005",
}
USER, PASSWORD = "Q7user006", "Q7password007"  # of the endpoint
PROXY_USER, PROXY_PASSWORD = "Q7proxyUser008", "Q7proxyPassword009"
WORDS = (*SECRETS.values(), USER, PASSWORD, PROXY_USER, PROXY_PASSWORD)
PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
RUN_UMASK = 0o027


def with_user(url: str, user: str, password: str) -> str:
    return url.replace("://", f"://{user}:{password}@")


def secret_environment(folder: Path, proxy_url: str) -> dict[str, str]:
    proxy = with_user(proxy_url, PROXY_USER, PROXY_PASSWORD)
    names = [name for upper in PROXY_VARIABLES for name in (upper, upper.lower())]
    ours = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
    return {
        **ours,
        **SECRETS,
        **dict.fromkeys(names, proxy),
        "NO_PROXY": "",
        "no_proxy": "",
        "HOME": str(folder / "home-of-q7"),
        "MPLCONFIGDIR": mpl.get_cachedir(),  # fonts are listed once for all runs
    }


@pytest.fixture(scope="module")
def proxy() -> Iterator[SimpleNamespace]:
    """Where nothing may arrive."""
    with recording_server() as server:
        yield server


@pytest.fixture(scope="module")
def among_secrets(tmp_path_factory: pytest.TempPathFactory, proxy) -> Iterator[SimpleNamespace]:
    """An embedded cloud, and a run on it with a bundle, with secrets wherever there can be some;
    no umask hides what the cloud leaves open."""
    folder = tmp_path_factory.mktemp("secrets")
    environment = secret_environment(folder, proxy.url)
    pictures = folder / "home-of-q7" / "my pictures"
    pictures.mkdir(parents=True)
    (pictures / "a.jpg").write_bytes(jpeg())
    (pictures / "notes.txt").write_text("no picture")
    temporary = folder / "tmp"
    temporary.mkdir()
    checkout = copy_project(folder / "project")
    with (folder / "cloud.out").open("wb") as out, (folder / "cloud.err").open("wb") as err:
        process = subprocess.Popen(
            [sys.executable, str(checkout / "lambda_function" / "embedded_cloud.py")],
            env={**environment, "TMPDIR": str(temporary)},
            stdout=out,
            stderr=err,
            umask=0,
        )
    try:
        line = until(lambda: re.search("URL=(.*)\n", (folder / "cloud.out").read_text()))
        url, bundle = line[1], folder / "home-of-q7" / "run.zip"
        command = ["master_pipeline.py", "--endpoint-url", with_user(url, USER, PASSWORD)]
        command += ["--images", str(pictures), f"--bundle={bundle}"]
        done = subprocess.run(
            [sys.executable, *command],
            cwd=checkout,
            env=environment,
            capture_output=True,
            text=True,
            umask=RUN_UMASK,
        )
        assert done.returncode == 0, done.stderr
        yield SimpleNamespace(
            folder=folder,
            checkout=checkout,
            temporary=temporary,
            done=done,
            cloud=Cloud("embedded", url),
            process=process,
            bundle=bundle,
        )
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(LIMIT_S)


Texts = Iterator[tuple[str, bytes]]  # where, and what stands there


def printed(run: SimpleNamespace) -> Texts:
    yield "stdout", run.done.stdout.encode()
    yield "stderr", run.done.stderr.encode()
    yield "stdout of the cloud", (run.folder / "cloud.out").read_bytes()
    yield "stderr of the cloud", (run.folder / "cloud.err").read_bytes()


def written(run: SimpleNamespace) -> Texts:
    """All files of the run, but for these tests. In the cloud's temporary folder, packages are
    links, which are not followed."""
    for folder in (run.checkout, run.temporary, run.bundle.parent):
        for top, folders, names in os.walk(folder):
            folders[:] = [name for name in folders if name != "tests"]
            yield from ((f"{top}/{name}", Path(top, name).read_bytes()) for name in names)


def bundled(run: SimpleNamespace) -> Texts:
    with zipfile.ZipFile(run.bundle) as archive:
        yield from ((f"{name} in the bundle", archive.read(name)) for name in archive.namelist())


def stored(run: SimpleNamespace) -> Texts:
    s3, buckets = make_client(run.cloud, "s3"), find_buckets(run.cloud)
    for bucket in (buckets.input, buckets.output):
        for key in list_keys(s3, bucket, ""):
            answer = s3.get_object(Bucket=bucket, Key=key)
            yield (
                f"s3://{bucket}/{key}",
                answer["Body"].read() + json.dumps(answer["Metadata"]).encode(),
            )


def logged(run: SimpleNamespace) -> Texts:
    group = find_function(run.cloud)["LogGroupName"]
    pages = make_client(run.cloud, "logs").get_paginator("filter_log_events")
    for page in pages.paginate(logGroupName=group):
        yield from (("log group", event["message"].encode()) for event in page["events"])


RECORDED = '"command_line": "master_pipeline.py --endpoint-url '
PLACES: dict[str, tuple[Callable, str]] = {  # with a text that must be there: it was looked at
    "printed": (printed, "AWS_ENDPOINT_URL=http://127.0.0.1:"),
    "written": (written, RECORDED),
    "bundled": (bundled, RECORDED),
    "stored": (stored, '"image_key": "notes.txt"'),
    "logged": (logged, "REPORT RequestId"),
}


@pytest.mark.parametrize("place", PLACES)
def test_no_credential_is_in_anything_that_a_run_leaves(among_secrets, place):
    find_texts, known = PLACES[place]
    texts = list(find_texts(among_secrets))
    assert any(known.encode() in text for _, text in texts)
    leaks = [(where, word) for where, text in texts for word in WORDS if word.encode() in text]
    assert leaks == []


def test_the_function_s_processes_are_given_no_credential_of_the_user(among_secrets):
    workers = descendants(among_secrets.process.pid) - {among_secrets.process.pid}
    environments = [Path(f"/proc/{pid}/environ").read_bytes() for pid in workers]
    assert any(b"AWS_LAMBDA_RUNTIME_API" in environment for environment in environments)
    assert not [w for w in WORDS for environment in environments if w.encode() in environment]


def test_no_proxy_of_the_environment_is_asked_for_what_is_on_this_machine(among_secrets, proxy):
    assert among_secrets.done.returncode == 0
    assert proxy.connections == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_client_for_another_cloud_on_this_machine_asks_no_proxy(proxy, monkeypatch, host):
    for name in PROXY_VARIABLES:
        monkeypatch.setenv(name, proxy.url)
    with recording_server() as server:
        url = server.url.replace("127.0.0.1", host)
        make_client(Cloud("aws", url, "us-east-1"), "s3").head_object(Bucket="b", Key="k")
        assert len(server.requests) == 1
    assert proxy.connections == []


def test_a_bundle_tells_no_one_where_the_home_folder_is(among_secrets):
    home = str(among_secrets.bundle.parent).encode()
    assert [where for where, text in bundled(among_secrets) if home in text] == []
    record = json.loads((among_secrets.checkout / "metrics" / "run.json").read_text())
    port = among_secrets.cloud.endpoint_url.rpartition(":")[2]
    assert record["command_line"] == (
        f"master_pipeline.py --endpoint-url 'http://***@127.0.0.1:{port}' "
        "--images '~/my pictures' --bundle=~/run.zip"
    )


def test_temporary_folders_are_private_whatever_the_umask(among_secrets):
    (folder,) = among_secrets.temporary.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert folder.stat().st_uid == os.getuid()


def test_a_file_is_private_until_it_is_whole(tmp_path):
    with whole_file(tmp_path / "rows.csv") as file:
        (part,) = tmp_path.iterdir()
        assert stat.S_IMODE(part.stat().st_mode) == 0o600
        file.write(b"row")


def test_all_results_follow_the_umask_of_who_runs_it(among_secrets):
    checkout = among_secrets.checkout
    results = [
        *(checkout / "metrics").glob("*.csv"),
        *(checkout / "metrics").glob("*.json"),
        *(checkout / "metrics").glob("*.html"),
        *(checkout / "metrics" / "charts").iterdir(),
        *(checkout / "metrics" / "cloud_outputs").iterdir(),
        *(checkout / "onprem_images" / "metrics").iterdir(),
        *(checkout / "onprem_images" / "output_local").iterdir(),
        among_secrets.bundle,
    ]
    assert len(results) > 20
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in results}
    assert {name: oct(mode) for name, mode in modes.items() if mode != 0o666 & ~RUN_UMASK} == {}


# --- errors about endpoints -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        *(f"http://{USER}:{PASSWORD}@192.0.2.1:5000", f"HTTPS://{USER}:{PASSWORD}@s3.example.com"),
        *(f"http://{USER}:{PASSWORD}/x@127.0.0.1", f"{USER}:{PASSWORD}@127.0.0.1:5000"),
        *(f"http://{USER}:{PASSWORD}@127.0.0.1:x", f"http://{USER}:{PASSWORD} '\"@127.0.0.1"),
        f"ftp://{USER}:{PASSWORD}@127.0.0.1",
    ],
)
def test_an_error_about_an_endpoint_shows_no_password_of_its_url(
    tmp_path, capsys, monkeypatch, url
):
    monkeypatch.setattr("metrics.common.run_lock.RUN_LOCK", tmp_path.with_suffix(".lock"))
    (tmp_path / "a.jpg").write_bytes(jpeg())
    flags = ["--images", str(tmp_path), "--endpoint-url", url]
    assert upload_images_s3.main(flags) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert "***@" in printed
    assert USER not in printed
    assert PASSWORD not in printed


def test_an_error_of_boto3_shows_no_password_of_a_url():
    error = EndpointConnectionError(endpoint_url=f"http://{USER}:{PASSWORD}@127.0.0.1:9/b?list")
    assert cloud_problem(error).startswith(
        'Could not connect to the endpoint URL: "http://***@127.0.0.1:9/b?list"'
    )


@pytest.mark.parametrize(
    "text", ["s3://bucket/input/me@home.jpg", "me@home.jpg: no http", "http://127.0.0.1:9/a%40b"]
)
def test_what_is_no_credential_stays(text):
    assert without_credentials(text) == text


COMMANDS = {
    "m --images /home/ann/photos": "m --images ~/photos",
    "m --images /home/ann": "m --images ~",
    "m --images=/home/ann/photos": "m --images=~/photos",
    "m --images /home/anna/photos /mnt/home/ann/x": "m --images /home/anna/photos /mnt/home/ann/x",
    "m '/home/ann/my photos'": "m '~/my photos'",
    "m --endpoint-url=http://u:p@h:1": "m '--endpoint-url=http://***@h:1'",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_recorded_with_the_home_folder_as_a_tilde(monkeypatch, command):
    import shlex

    monkeypatch.setenv("HOME", "/home/ann")
    assert recorded_command(shlex.split(command)) == COMMANDS[command]


# --- the audit of packages ------------------------------------------------------------------------

SOUND = {"name": "sound", "version": "1", "vulns": []}
FAULTY = {"name": "bad", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}]}
UNKNOWN = {"name": "new", "skip_reason": "not found"}
AUDITS = {
    "none": ([SOUND], 0, "0 of 1 audited packages have known faults"),
    "a fault": ([SOUND, FAULTY], 1, "bad 2: CVE-1, mended in: 3\n"),
    "unknown": ([UNKNOWN], 0, "nothing was audited: its index does not know 1 of 1"),
    "unknown and a fault": ([UNKNOWN, FAULTY], 1, "bad 2: CVE-1"),
    "one unknown": ([UNKNOWN, SOUND], 0, "its index does not know 1 of 2 packages"),
    "no answer": (None, 0, "nothing was audited: cannot connect"),
}


@pytest.mark.parametrize("case", AUDITS)
def test_an_audit_fails_for_a_known_fault_and_says_what_it_could_not_ask(tmp_path, case):
    packages, code, said = AUDITS[case]
    report, log = tmp_path / "audit.json", tmp_path / "audit.log"
    report.write_text("" if packages is None else json.dumps({"dependencies": packages}))
    log.write_text("Traceback\ncannot connect\n")
    command = [sys.executable, PROJECT / ".ci" / "audit.py", report, log]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == code
    assert said in done.stdout
