"""What makes the scripts alike, how files are written, and what run.json says."""

import argparse
import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from importlib import metadata
from pathlib import Path

import boto3
import hostile_corpus
import pytest
from boto3.exceptions import S3UploadFailedError
from botocore.exceptions import EndpointConnectionError, NoCredentialsError, NoRegionError

import compare_cloud_onprem_metrics
import master_pipeline
import upload_images_s3
from lambda_function import deploy, embedded_cloud
from metrics.analysis import run_record
from metrics.common import cli, flags, machine, paths
from metrics.common.cli import UserError, run_script
from metrics.common.paths import write_whole
from onprem_images import local_image_proc, sample_images

# --- exit codes and error lines -----------------------------------------------------------------


def ended_by(error: BaseException) -> int:
    def body(_: argparse.Namespace) -> int:
        raise error

    return run_script(body, argparse.Namespace())


def test_a_script_that_ends_well_has_its_own_exit_code_and_gets_its_arguments():
    assert run_script(lambda args: args.code, argparse.Namespace(code=0)) == 0
    assert run_script(lambda args: args.code, argparse.Namespace(code=1)) == 1


def test_an_interrupted_script_exits_130(capsys):
    assert ended_by(KeyboardInterrupt()) == 130
    assert capsys.readouterr() == ("", "interrupted\n")


def test_sigterm_ends_a_script_like_ctrl_c():
    program = (
        "import os, signal, sys; from metrics.common.cli import run_script\n"
        "def body(args):\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    signal.pause()\n"
        "sys.exit(run_script(body, None))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=paths.PROJECT, capture_output=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"interrupted\n")


def test_a_user_error_is_one_line_and_exit_code_1(capsys):
    assert ended_by(UserError("no 'x'; do y")) == 1
    assert capsys.readouterr() == ("", "error: no 'x'; do y\n")


def test_a_file_that_cannot_be_read_is_named(tmp_path, capsys):
    path = tmp_path / "rows.csv"
    assert run_script(lambda _: len(path.read_bytes()), argparse.Namespace()) == 1
    assert capsys.readouterr() == ("", f"error: {path}: No such file or directory\n")


def test_a_file_that_cannot_be_replaced_is_named_itself_and_not_its_temporary(tmp_path, capsys):
    def body(_: argparse.Namespace) -> int:
        write_whole(tmp_path, b"a folder is in the way")
        return 0

    assert run_script(body, argparse.Namespace()) == 1
    assert capsys.readouterr().err == f"error: {tmp_path}: Is a directory\n"


def test_an_os_error_without_a_file_is_its_reason_alone(capsys):
    assert ended_by(ConnectionRefusedError(111, "Connection refused")) == 1
    assert ended_by(TimeoutError("timed out")) == 1
    assert capsys.readouterr().err == "error: Connection refused\nerror: timed out\n"


CLOUD_ERRORS = {
    "no AWS credentials found; run `aws configure`, or use --profile": NoCredentialsError(),
    "no AWS region is set; use --region or AWS_REGION": NoRegionError(),
    'Could not connect to the endpoint URL: "http://127.0.0.1:9/"; is it running? '
    "(an embedded cloud ends with Ctrl-C)": EndpointConnectionError(
        endpoint_url="http://127.0.0.1:9/"
    ),
    "Failed to upload a to b: it broke": S3UploadFailedError("Failed to upload a to b:\n it broke"),
}


@pytest.mark.parametrize("line", CLOUD_ERRORS)
def test_an_error_of_boto3_is_one_line(line, capsys):
    assert ended_by(CLOUD_ERRORS[line]) == 1
    assert capsys.readouterr() == ("", f"error: {line}\n")


def test_an_error_that_s3_answers_names_call_bucket_or_key_and_code(s3, capsys):
    calls = [
        lambda _: s3.get_object(Bucket="nowhere", Key="a"),
        lambda _: s3.get_object(Bucket="input-bucket", Key="my picture.jpg"),
        lambda _: s3.head_bucket(Bucket="nowhere"),
    ]
    assert [run_script(call, argparse.Namespace()) for call in calls] == [1, 1, 1]
    bucket, key, head = capsys.readouterr().err.splitlines()
    assert bucket.startswith("error: GetObject nowhere: NoSuchBucket: ")
    assert key.startswith("error: GetObject my picture.jpg: NoSuchKey: ")
    assert head.startswith("error: HeadBucket: 404: Not Found; check --stack")


NEXT_STEPS = {
    "ExpiredToken": "sign in again",
    "InvalidClientTokenId": "sign in again",
    "SignatureDoesNotMatch": "sign in again",
    "AccessDenied": "see the policy in lambda_function/README.md",
    "PermanentRedirect": "name it with --region",
    "NoSuchBucket": "check --stack",
}


@pytest.mark.parametrize("code", NEXT_STEPS)
def test_an_error_of_aws_that_a_user_meets_says_what_to_do_next(s3, code, capsys):
    error = s3.exceptions.ClientError({"Error": {"Code": code, "Message": "no"}}, "GetObject")
    assert ended_by(error) == 1
    line = capsys.readouterr().err
    assert line.startswith(f"error: GetObject: {code}: no; ")
    assert NEXT_STEPS[code] in line


def test_a_message_of_aws_of_several_lines_becomes_one(s3, capsys):
    error = s3.exceptions.ClientError(
        {"Error": {"Code": "ValidationError", "Message": "Stack:\n  a :b\n"}}, "CreateStack"
    )
    assert ended_by(error) == 1
    assert capsys.readouterr().err == "error: CreateStack: ValidationError: Stack: a :b\n"


def test_a_thread_that_the_system_refuses_is_one_line_that_says_where_the_limit_is(capsys):
    assert ended_by(RuntimeError("can't start new thread")) == 1
    assert "`ulimit -u`" in capsys.readouterr().err


def test_a_fault_of_the_program_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        ended_by(ZeroDivisionError())


# --- types of flags -----------------------------------------------------------------------------

FLAG_TYPES = {
    cli.positive_int: (
        {"1": 1, "32": 32},
        ["0", "-1", "1.5", "", "two", "1e3", "²", " 1"],
    ),
    cli.positive_seconds: (
        {"0.5": 0.5, "60": 60.0, "1e3": 1000.0},
        ["0", "-1", "nan", "inf", "1e999", "", "soon"],
    ),
    cli.positive_usd: (
        {"0.01": 0.01, "5": 5.0},
        ["0", "-1", "nan", "inf", "", "cheap"],
    ),
    cli.precision: (
        {"5%": 0.05, "5": 0.05, "0.5%": 0.005, "100%": 1.0},
        ["0%", "-5%", "nan%", "%", "", "wide"],
    ),
    cli.run_id: (
        {"a": "a", "20261123T225434Z-08a354": "20261123T225434Z-08a354", "A.b_c-9": "A.b_c-9"},
        ["", ".hidden", "-flag", "a/b", "a b", "a\n", "é", "../x", "x" * 65],
    ),
}


@pytest.mark.parametrize("flag_type", FLAG_TYPES, ids=lambda flag_type: flag_type.__name__)
def test_a_flag_takes_good_values_and_refuses_bad_ones_with_exit_code_2(flag_type, capsys):
    parser = argparse.ArgumentParser()
    parser.add_argument("--flag", type=flag_type)
    good, bad = FLAG_TYPES[flag_type]
    for text, value in good.items():
        assert parser.parse_args([f"--flag={text}"]).flag == value
    for text in bad:
        with pytest.raises(SystemExit) as caught:
            parser.parse_args([f"--flag={text}"])
        assert caught.value.code == 2
        assert f"argument --flag: {text!r} is no" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["101%", "500%", "500", "1e3%"])
def test_an_interval_too_wide_to_answer_anything_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match=r"answers nothing: .* use 100% at most"):
        cli.precision(text)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--precision", "-5%"], "argument --precision: '-5%' is not a number of percent above 0"),
        (["--max-cost", "-inf"], "argument --max-cost: '-inf' is not a number of USD above 0"),
        (["--rounds", "-1"], "argument --rounds: '-1' is not a whole number above 0"),
        (["--run-id", "-flag"], "argument --run-id: '-flag' is no run id"),
        (["--run-id", ""], "argument --run-id: '' is no run id"),
        (["--images", ""], "argument --images: '' is empty; give a value, or leave the flag out"),
        (["--bundle="], "argument --bundle: '' is empty"),
        (["--profile", ""], "argument --profile: '' is empty"),
        (["--stack", ""], "argument --stack: '' is no stack name here"),
        (["--scale", ""], "argument --scale: '' is not a whole number above 0"),
        (["--images", "--dry-run"], "argument --images: expected one argument"),
    ],
)
def test_a_value_that_cannot_be_is_called_so_in_one_line(words, message, capsys):
    with pytest.raises(SystemExit) as caught:
        master_pipeline.main(words)
    assert caught.value.code == 2
    usage, line = capsys.readouterr().err.splitlines()
    assert usage.endswith("[flags]")
    assert message in line


def test_help_is_the_docstring_as_written_and_shows_defaults_that_are_values():
    parser = cli.script_parser("Do it.\n\n    python it.py\n")
    parser.add_argument("--port", type=int, default=0, help="the port")
    parser.add_argument("--name", default=None, help="default: a new one")
    parser.add_argument("--dry-run", action="store_true", help="print only")
    parser.add_argument("--sizes", default=(), help="which sizes")
    parser.add_argument("--folder", type=Path, default=paths.RESULTS, help="a folder")
    parser.add_argument("--csv", type=Path, default=paths.CLOUD_CSV, help="a file")
    text = parser.format_help()
    assert "Do it.\n\n    python it.py\n" in text
    assert "the port (default: 0)\n" in text
    assert "default: a new one\n" in text
    assert "print only\n" in text
    assert "which sizes\n" in text
    assert "a folder (default: metrics/)\n" in text  # the same wherever the checkout lies
    assert "a file (default: metrics/lambda_metrics.csv)\n" in text


# --- every script, as a user asks it for help ---------------------------------------------------

CLOUD_HELP = [
    *("(default: embedded)", "(default: image-pipeline)", "(env AWS_ENDPOINT_URL)"),
    *("(env AWS_REGION)", "(env AWS_PROFILE)", "(env INPUT_BUCKET)", "(env OUTPUT_BUCKET)"),
]
CPUS = f"(default: {machine.available_cpus()})"
HELP = {
    "master_pipeline.py": [
        *(
            CPUS,
            "images_to_upload/)",
            "default: a new one",
            "default: 200 (on AWS 500), and 1 a picture",
        ),
        *CLOUD_HELP,
    ],
    "upload_images_s3.py": ["images_to_upload/)", "(default: 8)", "or a new one", *CLOUD_HELP],
    "compare_cloud_onprem_metrics.py": [
        *("local_metrics.csv)", "lambda_metrics.csv)", "default: the only one", *CLOUD_HELP),
    ],
    "onprem_images/sample_images.py": ["images_to_upload/)"],
    "tests/hostile_corpus.py": [],
    "onprem_images/local_image_proc.py": [CPUS, "images_to_upload/)", "default: a new one"],
    "lambda_function/embedded_cloud.py": [
        *(CPUS, "(default: 0)", "(default: image-pipeline)", "default: awslambdaric)"),
    ],
}


@pytest.mark.parametrize("name", HELP)
def test_help_of_a_script_shows_its_defaults_and_works_from_anywhere(run_script_in, tmp_path, name):
    done = run_script_in(name, "--help", cwd=tmp_path, COLUMNS="200")
    assert (done.returncode, done.stderr) == (0, "")
    text = " ".join(done.stdout.split())
    assert [default for default in HELP[name] if default not in text] == []
    assert "default: None" not in text
    assert f"python {name}" in text  # a command to try
    assert "default: ()" not in text
    assert str(paths.PROJECT) not in text
    assert str(tmp_path) not in text
    assert list(tmp_path.iterdir()) == [tmp_path / "project"]


def test_help_of_the_orchestrator_fits_a_screen_in_groups_by_purpose(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.argv", ["master_pipeline.py"])
    with pytest.raises(SystemExit):
        master_pipeline.main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "usage: master_pipeline.py [flags]"
    assert len(lines) <= 60
    assert max(map(len, lines)) <= 80
    titles = [line.removesuffix(":") for line in lines if re.fullmatch(r"\w[^.]*:", line)]
    assert titles == [title for title in cli.GROUPS if title != cli.FUNCTION]


def test_each_flag_is_defined_once():
    """What several scripts have is in flags.py, or where its default is."""
    rooms = ("lambda_function", "metrics", "onprem_images")
    sources = [*paths.PROJECT.glob("*.py")]
    sources += [path for room in rooms for path in (paths.PROJECT / room).rglob("*.py")]
    own = r"add_argument\(\s*\"(--[a-z-]+)\""
    found = [flag for path in sources for flag in re.findall(own, path.read_text())]
    assert len(found) > 20
    assert sorted(found) == sorted(set(found))
    assert not set(found) & flags._SHARED.keys()


@pytest.mark.parametrize("name", [*HELP, "lambda_function/deploy.py"])
def test_a_script_finds_its_modules_through_a_link_though_python_adds_no_folder_to_the_path(
    checkout, tmp_path, name
):
    link = tmp_path / "link"
    link.symlink_to(checkout / name)
    command = [sys.executable, "-P", str(link), "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", HELP)
def test_an_unknown_flag_exits_2_and_is_named(run_script_in, name):
    done = run_script_in(name, "--colour")
    assert done.returncode == 2
    assert "unrecognized arguments: --colour" in done.stderr
    assert "Traceback" not in done.stderr


MISTYPED = [
    (master_pipeline.main, "--round 4", "--round; did you mean --rounds?"),
    (master_pipeline.main, "--bundel=x.zip", "--bundel=x.zip; did you mean --bundle?"),
    (master_pipeline.main, "--run_id x", "--run_id; did you mean --run-id?"),
    (master_pipeline.main, "--Images x", "--Images; did you mean --images?"),
    (master_pipeline.main, "-rounds 4", "-rounds 4; did you mean --rounds?"),
    (master_pipeline.main, "--conc 4", "--conc; did you mean --concurrency?"),
    (
        master_pipeline.main,
        "--max 4",
        "--max; did you mean --max-cost or --max-rounds or --max-time?",
    ),
    (master_pipeline.main, "--dry-run photos", "photos"),
    (upload_images_s3.main, "--worker 4", "--worker; did you mean --workers?"),
    (compare_cloud_onprem_metrics.main, "--time-out 4", "--time-out; did you mean --timeout?"),
    (local_image_proc.main, "--rouns 4", "--rouns; did you mean --rounds?"),
    (sample_images.main, "--image x", "--image; did you mean --images?"),
    (embedded_cloud.main, "--concurency 2", "--concurency; did you mean --concurrency?"),
    (embedded_cloud.main, "--until-stdin", "--until-stdin"),  # not for users
    (hostile_corpus.main, "--hlep", "--hlep; did you mean --help?"),
    (deploy.main, "create --memry 512", "--memry; did you mean --memory?"),
    (deploy.main, "update --dryrun", "--dryrun; did you mean --dry-run?"),
    (deploy.main, "status --regoin x", "--regoin; did you mean --region?"),
    (deploy.main, "delete --forse", "--forse; did you mean --force?"),
    (deploy.main, "--forse delete", "--forse; did you mean --force?"),
    (deploy.main, "--force", "--force; flags stand after the command"),
]


@pytest.mark.parametrize(
    ("main", "words", "told"), MISTYPED, ids=lambda part: part if isinstance(part, str) else ""
)
def test_a_mistyped_flag_exits_2_and_says_the_nearest_one(main, words, told, capsys):
    with pytest.raises(SystemExit) as caught:
        main(words.split())
    assert caught.value.code == 2
    assert capsys.readouterr().err.endswith(f": error: unrecognized arguments: {told}\n")


# --- files --------------------------------------------------------------------------------------


def test_a_file_is_replaced_whole_and_its_folder_made(tmp_path):
    path = tmp_path / "new" / "folder" / "rows.csv"
    write_whole(path, b"old, and longer")
    with path.open("rb") as reader:
        write_whole(path, b"new")
        assert reader.read() == b"old, and longer"  # who reads meanwhile has all of the old
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_file_and_no_temporary(tmp_path):
    path = tmp_path / "rows.csv"
    write_whole(path, b"old")
    with pytest.raises(TypeError):
        write_whole(path, "not bytes")
    assert path.read_bytes() == b"old"
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(IsADirectoryError):
        write_whole(folder, b"new")
    assert sorted(tmp_path.iterdir()) == [folder, path]


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_permissions_follow_the_umask_which_stays_as_it_was(tmp_path, umask):
    path = tmp_path / "rows.csv"
    before = os.umask(umask)
    try:
        write_whole(path, b"")
    finally:
        after = os.umask(before)
    assert after == umask
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def test_a_path_is_shown_as_a_user_types_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert paths.shown(tmp_path / "a" / "b.csv") == "a/b.csv"
    assert paths.shown(tmp_path.parent / "b.csv") == str(tmp_path.parent / "b.csv")
    assert paths.shown(Path("a/b.csv")) == "a/b.csv"


# --- machine ------------------------------------------------------------------------------------


def python_in(folder: Path, program: str) -> str:
    command = [sys.executable, "-c", program]
    return subprocess.run(
        command, cwd=folder, check=True, capture_output=True, text=True, timeout=60
    ).stdout.strip()


def test_only_processors_that_this_process_may_use_count():
    program = (
        "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]);"
        "from metrics.common.machine import available_cpus; print(available_cpus())"
    )
    assert python_in(paths.PROJECT, program) == "1"
    assert machine.available_cpus() <= len(os.sched_getaffinity(0))


@pytest.fixture
def cgroups(tmp_path, monkeypatch) -> Callable[..., None]:
    """Writes files of cgroups, and what this process, on 8 processors, is told of its own."""
    told = {"/proc/self/cgroup": ""}
    read = machine._read
    monkeypatch.setattr(machine, "CGROUPS", tmp_path)
    monkeypatch.setattr(
        machine, "_read", lambda path: told[str(path)] if str(path) in told else read(path)
    )
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)

    def write(own: str, contents: dict[str, str]) -> None:
        told["/proc/self/cgroup"] = own
        for name, content in contents.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(content)

    return write


V1 = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
# What /proc/self/cgroup says, files below /sys/fs/cgroup, and the quota in processors.
QUOTAS = {
    "a container with half a processor": ("0::/\n", {"cpu.max": "50000 100000\n"}, 0.5),
    "no limit": ("0::/\n", {"cpu.max": "max 100000\n"}, None),
    "two processors and a half": ("0::/\n", {"cpu.max": "250000 100000\n"}, 2.5),
    "more than there are": ("0::/\n", {"cpu.max": "1600000 100000\n"}, 16),
    "another period": ("0::/\n", {"cpu.max": "60000 20000\n"}, 3),
    "the whole machine, whose root has no such file": ("0::/\n", {}, None),
    "a service": (
        "0::/system.slice/job.service\n",
        {"system.slice/cpu.max": "max 100000", "system.slice/job.service/cpu.max": "200000 100000"},
        2,
    ),
    "a cgroup above allows less": (
        "0::/a/b\n",
        {"a/cpu.max": "100000 100000\n", "a/b/cpu.max": "400000 100000\n"},
        1,
    ),
    "a cgroup beside it does not count": ("0::/a\n", {"b/cpu.max": "50000 100000\n"}, None),
    "a path on the host": ("0::/docker/8f\n", {"cpu.max": "150000 100000\n"}, 1.5),
    "a path above what is seen": ("0::/../other\n", {"cpu.max": "150000 100000\n"}, 1.5),
    "no /proc": ("", {"cpu.max": "150000 100000\n"}, 1.5),
    "v1": (
        "2:cpu,cpuacct:/\n1:name=systemd:/\n",
        {f"cpu,cpuacct/{V1[0]}": "50000\n", f"cpu,cpuacct/{V1[1]}": "100000\n"},
        0.5,
    ),
    "v1 without a limit": ("2:cpu:/\n", {f"cpu/{V1[0]}": "-1\n", f"cpu/{V1[1]}": "100000\n"}, None),
    "v1, a path on the host": (
        "4:memory:/docker/8f\n2:cpuacct,cpu:/docker/8f\n",
        {f"cpu/{V1[0]}": "300000\n", f"cpu/{V1[1]}": "100000\n"},
        3,
    ),
    "v1, the one above allows less": (
        "2:cpu:/a/b\n0::/a/b\n",
        {
            f"cpu/a/{V1[0]}": "100000\n",
            f"cpu/a/{V1[1]}": "50000\n",
            f"cpu/a/b/{V1[0]}": "-1\n",
            f"cpu/a/b/{V1[1]}": "100000\n",
            "unified/a/b/cgroup.procs": "1\n",
        },
        2,
    ),
}


@pytest.mark.parametrize(("own", "files", "quota"), QUOTAS.values(), ids=QUOTAS)
def test_processors_available_follow_the_quota_rounded_down_and_one_at_least(
    cgroups, own, files, quota
):
    cgroups(own, files)
    assert machine.cpu_quota() == quota
    assert machine.available_cpus() == max(1, int(min(quota or 8, 8)))
    assert machine.describe()["cpu_quota"] == quota


def test_the_defaults_of_workers_and_concurrency_follow_the_quota(cgroups, capsys):
    cgroups("0::/\n", {"cpu.max": "350000 100000\n"})
    for module, count in ((master_pipeline, 2), (local_image_proc, 1), (embedded_cloud, 1)):
        with pytest.raises(SystemExit):
            module.main(["--help"])
        assert " ".join(capsys.readouterr().out.split()).count("(default: 3)") == count


def test_what_a_quota_took_is_counted_in_the_own_cgroup_and_those_above(cgroups):
    files = {
        "a/cpu.stat": "usage_usec 9\nthrottled_usec 1500\n",
        "b/cpu.stat": "throttled_usec 9\n",
    }
    cgroups("0::/a/b\n", files | {"a/b/cpu.stat": "nr_periods 3\nthrottled_usec 500\n"})
    assert machine.CpuCounters.now().quota_throttled_ms == 2.0
    cgroups("2:cpu:/\n", {"cpu/cpu.stat": "nr_throttled 1\nthrottled_time 3000000\n"})
    assert machine.CpuCounters.now().quota_throttled_ms == 3.0


def test_run_ids_differ_are_valid_and_begin_with_their_time():
    ids = [machine.new_run_id() for _ in range(100)]
    assert len(set(ids)) == 100
    assert [cli.run_id(text) for text in ids] == ids
    for text in ids:
        datetime.strptime(text.partition("-")[0], "%Y%m%dT%H%M%S%z")


def test_memory_is_what_the_system_says():
    total_kb = int(re.search(r"MemTotal: +(\d+) kB", Path("/proc/meminfo").read_text())[1])
    assert machine.memory_mb() == total_kb // 1024


def test_the_description_is_json_with_the_versions_in_use():
    described = json.loads(json.dumps(machine.describe()))
    assert described["python"] == ".".join(map(str, sys.version_info[:3]))
    assert described["packages"]["boto3"] == boto3.__version__
    assert described["packages"]["Pillow"] == metadata.version("Pillow")
    assert described["cpu"]
    assert described["cpus"] == machine.available_cpus()


COMMIT = "from metrics.common.machine import describe; print(describe()['git_commit'])"


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@t.example")
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def committed(folder: Path) -> str:
    """The commit of all that is in a folder, which becomes a repository."""
    git(folder, "init")
    git(folder, "add", ".")
    git(folder, "commit", "--allow-empty", "-m", "first")
    return git(folder, "rev-parse", "HEAD").strip()


def test_the_commit_is_that_of_the_checkout_says_dirty_and_is_none_outside_git(checkout):
    assert python_in(checkout, COMMIT) == "None"
    commit = committed(checkout)
    git(checkout, "tag", "-a", "v1", "-m", "a release is still named by its commit")
    assert python_in(checkout, COMMIT) == commit
    (checkout / "master_pipeline.py").write_text("changed")
    assert python_in(checkout, COMMIT) == f"{commit}-dirty"


def test_the_commit_is_not_that_of_a_repository_around_the_checkout(checkout):
    """Such as one that somebody unpacked the project's archive in, or whose files it belongs to."""
    committed(checkout.parent)
    assert python_in(checkout, COMMIT) == "None"


def test_the_commit_is_not_that_of_the_repository_whose_hook_runs(checkout, tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    committed(other)

    def commit_in_a_hook(folder: Path) -> str:
        with monkeypatch.context() as hook:
            for name in ("GIT_DIR", "GIT_COMMON_DIR"):
                hook.setenv(name, str(other / ".git"))
            hook.setenv("GIT_WORK_TREE", str(other))
            hook.setenv("GIT_INDEX_FILE", str(other / ".git" / "index"))
            hook.setenv("GIT_OBJECT_DIRECTORY", str(other / ".git" / "objects"))
            hook.setenv("GIT_CEILING_DIRECTORIES", "")
            return python_in(folder, COMMIT)

    assert commit_in_a_hook(checkout) == "None"
    commit, worktree = committed(checkout), tmp_path / "worktree"
    git(checkout, "worktree", "add", str(worktree))
    assert [commit_in_a_hook(folder) for folder in (checkout, worktree)] == [commit, commit]


# --- run.json -----------------------------------------------------------------------------------


@pytest.fixture
def run_json(tmp_path, monkeypatch) -> Path:
    path = tmp_path / "run.json"
    monkeypatch.setattr(run_record, "RUN_JSON", path)
    return path


def new_record() -> run_record.RunRecord:
    data_set = {"pictures": 2, "bytes": 15, "fingerprint": "f"}
    return run_record.RunRecord("run-1", "master_pipeline.py --x", "aws", data_set)


def test_a_record_is_there_from_the_start_and_goes_on_when_the_run_is_resumed(run_json):
    with new_record().step("clean"):
        run_json.unlink()
    first = json.loads(run_json.read_text())
    assert (first["resumed_at"], first["exit_code"]) == ([], None)
    again = run_record.RunRecord("run-1", "master_pipeline.py --resume", "aws", {}, first)
    assert again.begun.isoformat(timespec="milliseconds") == first["steps"][0]["start"]
    resumed = json.loads(run_json.read_text())
    assert resumed["steps"] == first["steps"]
    assert len(resumed["resumed_at"]) == 1
    assert run_record.is_record(resumed)


def test_the_record_says_what_ran_on_what_and_when(run_json, capsys):
    record = new_record()
    for name in ("clean", "on-prem"):
        with record.step(name):
            pass
    content = json.loads(run_json.read_text())
    assert (content["run_id"], content["cloud"]) == ("run-1", "aws")
    assert content["command_line"] == "master_pipeline.py --x"
    assert (content["data_set"]["pictures"], content["data_set"]["bytes"]) == (2, 15)
    assert content["exit_code"] is None
    record.conclude(1)
    assert json.loads(run_json.read_text())["exit_code"] == 1
    assert content["environment"]["cpus"] == machine.available_cpus()
    assert [(s["step"], s["status"]) for s in content["steps"]] == [
        ("clean", "done"),
        ("on-prem", "done"),
    ]
    for step in content["steps"]:
        assert datetime.fromisoformat(step["start"]) <= datetime.fromisoformat(step["end"])
    assert re.fullmatch(r"clean: \d+\.\d s\non-prem: \d+\.\d s\n", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("error", "status"), [(UserError("x"), "failed"), (KeyboardInterrupt(), "interrupted")]
)
def test_a_step_that_fails_is_on_record_before_the_error_goes_on(run_json, error, status):
    record = new_record()
    with record.step("clean"):
        pass
    with pytest.raises(type(error)), record.step("wait"):
        raise error
    steps = json.loads(run_json.read_text())["steps"]
    assert [(s["step"], s["status"]) for s in steps] == [("clean", "done"), ("wait", status)]
    assert steps[1]["end"]
