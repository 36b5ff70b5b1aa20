"""What goes wrong on this machine is one line that names the file, or a row with an error."""

import ctypes
import os
import resource
import subprocess
import sys
from collections.abc import Callable

import pytest
from conftest import jpeg
from PIL import Image
from processes import LIMIT_S

from metrics.analysis.rows import read_rows

PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2
LOCAL, UPLOAD, PIPELINE, COMPARE = (
    "onprem_images/local_image_proc.py",
    "upload_images_s3.py",
    "master_pipeline.py",
    "compare_cloud_onprem_metrics.py",
)


def as_nobody_special() -> None:
    """For a new process: permissions count for root, too."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
            assert libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0


def with_files_up_to(size: int) -> Callable[[], None]:
    """For a new process: no file becomes larger, as on a disk that is nearly full."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.fixture
def run_with(checkout):
    """Run a script as a process that `prepare` has been called in first."""

    def run(prepare: Callable[[], None], script: str, *arguments: str):
        return subprocess.run(
            [sys.executable, script, *arguments],
            cwd=checkout,
            preexec_fn=prepare,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )

    return run


@pytest.fixture
def picture(checkout):
    path = checkout / "images_to_upload" / "a.jpg"
    Image.effect_noise((900, 700), 80).save(path)
    return path


def failed_in_one_line(done: subprocess.CompletedProcess) -> str:
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return line


def test_a_full_disk_is_named_with_the_output_that_it_did_not_take(checkout, picture, run_with):
    line = failed_in_one_line(run_with(with_files_up_to(20_000), LOCAL))
    assert line.endswith("onprem_images/output_local/a.jpg: File too large")
    assert not list(checkout.rglob("*.part"))
    assert not (checkout / "onprem_images/metrics/local_metrics.csv").exists()


def test_an_embedded_cloud_that_has_no_room_says_so(picture, run_with):
    done = run_with(with_files_up_to(1_000_000), PIPELINE)
    assert done.returncode == 1
    assert "the embedded cloud: File too large" in done.stderr
    assert "Traceback" not in done.stderr


def test_results_that_find_no_room_are_named_and_not_written_in_part(
    checkout, picture, run_script_in, run_with
):
    assert run_script_in(PIPELINE, "--self-check").returncode == 0
    before = (checkout / "metrics/report.html").read_bytes()
    for size in (6_000, 50_000):
        line = failed_in_one_line(run_with(with_files_up_to(size), COMPARE, "--self-check"))
        assert line.endswith(": File too large")
        assert str(checkout / "metrics") in line
        assert (checkout / "metrics/report.html").read_bytes() == before
    assert not list(checkout.rglob("*.part"))


@pytest.mark.parametrize("options", ["ro", "size=4k"])
def test_shared_memory_that_cannot_be_written_is_named(checkout, picture, options):
    own_mounts = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    spoil = f"mount -t tmpfs -o {options} none /dev/shm"
    if subprocess.run([*own_mounts, spoil], capture_output=True).returncode:
        pytest.skip("no mounts of its own for a process here")
    fill = "head -c 4096 /dev/zero >/dev/shm/x; " if options.startswith("size") else ""
    run = f'{spoil} && {{ {fill} exec "$@"; }}'
    command = [*own_mounts, run, "sh", sys.executable, LOCAL]
    done = subprocess.run(
        command,
        cwd=checkout,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert "see that /dev/shm is there" in failed_in_one_line(done)


@pytest.mark.parametrize("folder", ["onprem_images/output_local", "onprem_images/metrics"])
def test_a_folder_that_may_not_be_written_is_named_with_the_file(
    checkout, picture, run_with, folder
):
    (checkout / folder).mkdir(parents=True, exist_ok=True)
    (checkout / folder).chmod(0o555)
    line = failed_in_one_line(run_with(as_nobody_special, LOCAL))
    assert str(checkout / folder) in line
    assert line.endswith(": Permission denied")


def test_a_picture_that_may_not_be_read_is_an_error_row_and_an_upload_that_fails(
    checkout, picture, run_with, embedded
):
    secret = picture.with_name("secret.jpg")
    secret.write_bytes(jpeg())
    secret.chmod(0)
    assert run_with(as_nobody_special, LOCAL).returncode == 0
    rows = read_rows(checkout / "onprem_images/metrics/local_metrics.csv", "on_prem")
    errors = dict(zip(rows["image_key"], rows["error"], strict=True))
    assert errors == {"a.jpg": "", "secret.jpg": "PermissionError: Permission denied"}
    done = run_with(as_nobody_special, UPLOAD, "--endpoint-url", embedded.endpoint_url)
    assert done.returncode == 1
    assert "error: 'secret.jpg': Permission denied\n" in done.stderr
    assert "error: 1 of 2 pictures were not uploaded; see above\n" in done.stderr


def test_a_folder_that_may_not_be_read_is_refused_before_anything_starts(picture, run_with):
    closed = picture.with_name("closed")
    closed.mkdir()
    closed.chmod(0)
    line = failed_in_one_line(run_with(as_nobody_special, PIPELINE))
    assert "closed' cannot be read: Permission denied" in line
