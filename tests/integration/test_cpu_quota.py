"""A function has the share of a processor that its memory gives: both mechanisms, and rows."""

import io
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from processes import LIMIT_S, children, until
from rows import waited_rows
from test_lambda_service import Cloud

from lambda_function.cloud import find_buckets, make_client
from lambda_function.deploy import package_for, parameters_of_this_machine
from lambda_function.embedded_cloud import embedded_cloud
from lambda_function.emulator import cpu_quota
from lambda_function.emulator.cpu_quota import (
    FULL_VCPU_MB,
    PERIOD_S,
    Budget,
    Cgroup,
    Meter,
    WholeProcessor,
    cgroup_parent,
    share_of,
)
from lambda_function.metrics_log import RowId
from lambda_function.stack.change_sets import deploy, find_site, own_stack, parameters_for
from metrics.common import machine
from metrics.common.paths import PROJECT

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="macOS has no mechanism")
WINDOW_S = 50 * PERIOD_S  # a quota more or less at its ends is 2%
BURN = "import sys; print(flush=True)\nwhile True: pass"


@pytest.fixture
def busy() -> Iterator[subprocess.Popen]:
    """A process that takes all that it gets of one processor."""
    process = subprocess.Popen([sys.executable, "-c", BURN], stdout=subprocess.PIPE)
    process.stdout.readline()
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.fixture(params=["cgroup", "meter"])
def mechanism(request) -> Callable[[subprocess.Popen, float], WholeProcessor]:
    if request.param == "meter":
        return Meter

    def cgroup(process: subprocess.Popen, quota_s: float) -> Cgroup:
        try:
            return Cgroup(process, quota_s, cgroup_parent())
        except OSError as error:
            pytest.skip(f"this machine allows no cgroup with a quota: {error}")

    return cgroup


def used_s(process: subprocess.Popen) -> float:
    """Processor time so far."""
    return time.clock_gettime((~process.pid << 3) | 2)


def waited_s(process: subprocess.Popen) -> float:
    """Time so far in which it could have run, and others had the processors."""
    return int(Path(f"/proc/{process.pid}/schedstat").read_text().split()[1]) / 1e9


def state(process: subprocess.Popen) -> str:
    """Such as R, S, T (stopped) or Z."""
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]


def windows(process: subprocess.Popen, count: int) -> np.ndarray:
    """Wall time, processor time, and time it waited for others, of each window."""
    looks = []
    for _ in range(count + 1):
        looks.append((time.monotonic(), used_s(process), waited_s(process)))
        if len(looks) <= count:
            threading.Event().wait(WINDOW_S)  # what is measured: nothing else happens here
    return np.diff(np.array(looks), axis=0)


# --- the share ----------------------------------------------------------------------------------


@on_linux
@pytest.mark.parametrize("memory_mb", [256, 512, 1024])
def test_a_busy_process_has_its_share_within_5_percent(busy, mechanism, memory_mb):
    share = memory_mb / FULL_VCPU_MB
    limit = mechanism(busy, PERIOD_S * share)
    with limit.enforced():
        wall, used, waited = windows(busy, 4)[1:].T  # in the first, a meter starts
    busy.kill()
    busy.wait()
    limit.close()
    # Others on the machine can only take from it, which is no fault of what is enforced.
    assert used.sum() / wall.sum() < 1.05 * share
    assert ((used + waited) / wall).max() > 0.95 * share


@on_linux
def test_with_the_default_memory_a_process_has_all_that_the_machine_gives(busy):
    before = children(busy.pid)
    limit = share_of(busy, FULL_VCPU_MB)
    assert type(limit) is WholeProcessor
    with limit.enforced():
        wall, used, waited = windows(busy, 3).T
    assert children(busy.pid) == before
    assert 0.95 < ((used + waited) / wall).max() < 1.05


@on_linux
def test_nothing_is_enforced_and_nothing_looked_at_while_a_process_is_idle(busy):
    meter = Meter(busy, 0.1 * PERIOD_S)
    with meter.enforced():
        until(lambda: state(busy) == "T")
    idle_since_s = used_s(busy)
    until(lambda: used_s(busy) > idle_since_s + 0.1)  # by now the meter has heard of it
    sequential = used_s(meter._meter)
    (wall,), (used,), (waited,) = windows(busy, 1).T
    assert (used + waited) / wall > 0.9
    assert used_s(meter._meter) == sequential
    busy.kill()
    meter.close()


# --- the meter ----------------------------------------------------------------------------------


def test_what_is_used_beyond_the_quota_is_taken_off_the_next_periods():
    budget = Budget(0.004, now_s=10, used_s=1)
    budget.look(10.01, 1.006)  # 2 ms too much
    assert budget.left_s == pytest.approx(-0.002)
    budget.look(10.02, 1.006)
    assert budget.left_s == pytest.approx(0.002)
    budget.look(10.03, 1.016)
    budget.look(10.06, 1.016)  # two periods later: 8 ms owed, 8 ms paid
    assert budget.left_s == pytest.approx(0)
    assert budget.period_end_s == pytest.approx(10.08)


def test_what_is_left_of_a_quota_is_lost():
    budget = Budget(0.004, now_s=10, used_s=1)
    budget.look(10.5, 1.001)
    assert budget.left_s == 0.004
    assert budget.period_end_s == pytest.approx(10.52)


@pytest.mark.parametrize("share", [0.07, 0.29, 0.58, 0.85])
def test_a_meter_that_is_late_keeps_the_share_all_the_same(share):
    late, quota_s = random.Random(1), share * PERIOD_S
    budget, now_s, used = Budget(quota_s, 0, 0), 0.0, 0.0
    while now_s < 10:
        runs = budget.left_s > 0
        step_s = budget.left_s if runs else budget.period_end_s - now_s
        step_s = max(step_s, 0) + late.uniform(0, 0.002)
        now_s, used = now_s + step_s, used + step_s * runs
        budget.look(now_s, used)
    assert used / now_s == pytest.approx(share, rel=0.02)


@on_linux
def test_a_new_event_brings_no_new_quota(busy):
    meter = Meter(busy, 0.1 * PERIOD_S)
    with meter.enforced():
        until(lambda: state(busy) == "T")  # until here the meter started
    start_s, start_used_s = time.monotonic(), used_s(busy)
    for _ in range(400):
        with meter.enforced():  # a quota in each were 40%
            threading.Event().wait(0.005)
    assert used_s(busy) - start_used_s < 0.2 * (time.monotonic() - start_s)
    busy.kill()
    meter.close()


@on_linux
def test_a_stopped_process_can_be_killed_and_its_meter_ends(busy):
    meter = Meter(busy, 0.05 * PERIOD_S)
    with meter.enforced():
        until(lambda: state(busy) == "T")
        busy.kill()
        assert busy.wait(LIMIT_S) == -9
        assert meter._meter.wait(LIMIT_S) == 0
    meter.close()


@on_linux
def test_a_meter_ends_with_an_idle_process(busy):
    meter = Meter(busy, 0.05 * PERIOD_S)
    busy.kill()
    assert meter._meter.wait(LIMIT_S) == 0
    meter.close()


@on_linux
def test_a_process_is_not_left_stopped_when_the_server_dies(busy):
    meter = Meter(busy, 0.05 * PERIOD_S)
    meter._tell(cpu_quota.BUSY)
    until(lambda: state(busy) == "T")
    meter.close()  # as the kernel closes a pipe whose owner was killed
    assert state(busy) != "T"


@on_linux
def test_a_process_whose_meter_was_killed_does_not_run_unmetered(busy):
    meter = Meter(busy, 0.05 * PERIOD_S)
    meter._meter.kill()
    meter._meter.wait()
    with meter.enforced():
        assert busy.wait(LIMIT_S) == -9
    meter.close()


# --- the cgroup, on a folder that looks like one ------------------------------------------------


@pytest.fixture
def cgroups(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(machine, "CGROUPS", tmp_path)
    (tmp_path / "cgroup.subtree_control").write_text("cpu memory\n")
    return tmp_path


@pytest.mark.parametrize(
    ("own", "controls", "chosen"),
    [
        ("/", {}, ""),
        ("/user", {"user": "cpuset memory"}, ""),
        ("/user/me", {"user": "cpu pids", "user/me": ""}, "user"),
        ("/user/me", {"user": "cpu", "user/me": "cpu"}, "user/me"),
        ("/user/me", {"user": "memory", "user/me": ""}, None),
        (None, {"": "memory"}, None),
    ],
)
def test_a_cgroup_is_made_where_its_quota_is_obeyed(cgroups, monkeypatch, own, controls, chosen):
    for name, text in controls.items():
        (cgroups / name).mkdir(exist_ok=True)
        (cgroups / name / "cgroup.subtree_control").write_text(text)
    lines = "4:memory:/x\n" + (f"0::{own}\n" if own else "")
    read_text = Path.read_text
    monkeypatch.setattr(
        Path,
        "read_text",
        lambda path: lines if path == Path("/proc/self/cgroup") else read_text(path),
    )
    if chosen is None:
        with pytest.raises(OSError, match=r"quota|No such file"):
            cgroup_parent()
    else:
        assert cgroup_parent() == cgroups / chosen


def test_a_cgroup_has_its_quota_from_the_first_event_on_and_goes_with_the_process(cgroups, busy):
    group = Cgroup(busy, 0.0058, cgroups)
    (folder,) = [path for path in cgroups.iterdir() if path.is_dir()]
    assert (folder / "cgroup.procs").read_text() == str(busy.pid)
    assert (folder / "cpu.max").read_text() == "max 20000"  # the init phase
    with group.enforced():
        assert (folder / "cpu.max").read_text() == "5800 20000"
    for file in folder.iterdir():  # the kernel's own, which are no hindrance there
        file.unlink()
    group.close()
    assert not folder.exists()


@on_linux
def test_without_a_cgroup_there_is_a_meter(busy, monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "CGROUPS", tmp_path)
    limit = share_of(busy, 512)
    assert isinstance(limit, Meter)
    busy.kill()
    limit.close()


def test_a_system_that_offers_nothing_says_so_once(busy, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(machine, "CGROUPS", tmp_path)
    monkeypatch.delattr(cpu_quota.os, "pidfd_open", raising=False)
    cpu_quota.say_that_nothing_is_enforced.cache_clear()
    assert type(share_of(busy, 512)) is type(share_of(busy, 512)) is WholeProcessor
    assert capsys.readouterr().err.count("warning: this system offers no way to hold") == 1
    share_of(busy, FULL_VCPU_MB)


# --- functions ----------------------------------------------------------------------------------


@pytest.fixture
def small_cloud(tmp_path) -> Iterator[Cloud]:
    """A function of 128 MB, which may use 7% of a processor, for a second."""
    cloud = Cloud(tmp_path, "standard_library", memory_mb=128, timeout_s=1, code=BURNING)
    yield cloud
    cloud.service.stop()


BURNING = """
import time
start = time.monotonic(), time.process_time()
while time.process_time() - start[1] < 0.2:
    pass
INIT_SHARE = (time.process_time() - start[1]) / (time.monotonic() - start[0])

def handle(event, context):
    start = time.monotonic(), time.process_time()
    while time.process_time() - start[1] < event["burn_s"]:
        pass
    share = (time.process_time() - start[1]) / (time.monotonic() - start[0])
    return {"share": share, "init_share": INIT_SHARE}
"""


@on_linux
def test_a_handler_is_throttled_and_its_init_phase_is_not(small_cloud):
    answer = small_cloud.answer(burn_s=0.03)
    assert answer["share"] < 0.12  # the last quota may have no pause after it
    assert answer["init_share"] > 2 * answer["share"]
    assert small_cloud.answer(burn_s=0.03)["share"] < 0.12


@on_linux
def test_time_outs_are_of_wall_time_and_leave_no_process(small_cloud):
    before = set(children(os.getpid()))
    outcome = small_cloud.invoke(burn_s=0.5)
    assert json.loads(outcome.payload)["errorType"] == "Sandbox.Timedout"
    until(lambda: not set(children(os.getpid())) - before)


SLOW_PICTURE = """
import time
from lambda_function import limits
limits.MAX_CPU_S, limits.MAX_WALL_S, limits.LOOK_AGAIN_S = 0.3, 0.6, 0.1
print("ready", flush=True)
input()
start = time.monotonic(), time.process_time()
try:
    with limits.limits(0):
        while True:
            pass
except limits.TooSlow:
    print(time.monotonic() - start[0], time.process_time() - start[1])
"""


@on_linux
def test_a_throttled_picture_that_takes_too_long_is_ended_by_wall_time():
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_PICTURE],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    limit = share_of(process, 128)
    with limit.enforced():
        answer, _ = process.communicate("\n", timeout=LIMIT_S)
    limit.close()
    wall_s, cpu_s = map(float, answer.split())
    assert wall_s >= 0.6
    assert cpu_s < 0.3


@pytest.mark.slow
@on_linux
def test_rows_of_a_small_function_show_its_share():
    picture = io.BytesIO()
    Image.linear_gradient("L").resize((8000, 6000)).save(picture, "PNG", compress_level=1)
    with embedded_cloud(concurrency=1) as cloud:
        site = find_site(cloud)
        parameters = parameters_for(None, parameters_of_this_machine() | {"MemorySize": "512"})
        package = package_for(parameters, for_this_machine=True)
        deploy(site, own_stack(site), package, parameters, confirm=lambda _: True)
        s3, buckets = make_client(cloud, "s3"), find_buckets(cloud)
        expected = {RowId("small", 1, f"{number}.png") for number in range(3)}
        for row_id in expected:
            s3.put_object(
                Bucket=buckets.input,
                Key=f"input/{row_id.image_key}",
                Body=picture.getvalue(),
                Metadata={"run-id": "small", "round": "1"},
            )
        rows = waited_rows(s3, buckets.output, expected, LIMIT_S)
    assert {(row.status, row.memory_mb) for row in rows} == {("ok", 512)}
    shares = [row.cpu_ms / row.proc_ms for row in rows]
    # 0.29 but for a quota at each end; others on the machine can only take from it.
    assert 0.25 < max(shares) < 0.33
