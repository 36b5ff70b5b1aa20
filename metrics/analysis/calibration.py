"""How fast this machine's processor is, by the kernel that was published for Lambda.

The kernel is SeBS's thumbnailer (spcl/serverless-benchmarks, 210.thumbnailer): decode a JPEG,
shrink it to fit 200x200, encode it as JPEG. Its time here, by its time on Lambda (aws_profile.toml,
kernel_ms_*), says how much slower a Lambda vCPU is. It is timed while as many threads do it as the
on-prem arm has workers, since processors slow each other down; Pillow lets threads run side by
side. Processor time counts, and the least of many: what disturbs only ever adds to it.

SeBS's own picture is not ours to give away, so the kernel works on a generated one of the same size
in pixels and nearly in bytes. What the two differ by is a fact of the profile, with a spread.
"""

import io
import math
import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache

from PIL import Image

from metrics.common.machine import CpuCounters, available_cpus, cpu_model
from onprem_images.sample_images import SamplePicture, render_picture

KERNEL_SIZE = (200, 200)  # SeBS's input.py
PICTURE_SIZE = (3648, 5472)  # of SeBS's 6_astronomy-desktop-wallpaper-evening-1056.jpg
TILES = 4  # in each direction: to draw all of it would take 10 s, and its edges do not matter
JPEG_QUALITY = 60  # gives 2.2 MB, as SeBS's picture has
SEED = (20201111, 0)
SAMPLE_S = 0.5  # at a run's begin, and at its end
MIN_REPEATS = 3

# What widens the interval, as a standard deviation of the logarithm.
REPEAT_LOG_SD = 0.02  # least times of ten undisturbed samples, on an EPYC Milan core, 2026-11-25
MAX_WALL_BY_CPU = 1.1  # beyond: others had the processor, and its caches, in between
DISTURBED_LOG_SD = 0.05
MAX_KERNEL_MS, MAX_LOG_SD = 1e6, 5.0  # beyond, a file holds something else
MAX_CHANGE = 1.05  # between begin and end: beyond, it is said


@dataclass(frozen=True)
class KernelSample:
    """The kernel's times at one moment, with `workers` threads at once. `typical_ms` is the median;
    `wall_by_cpu` all wall time by all processor time; `throttled_ms` what a quota took."""

    workers: int
    repeats: int
    kernel_ms: float
    typical_ms: float
    wall_by_cpu: float
    throttled_ms: float
    steal_share: float


@dataclass(frozen=True)
class Calibration:
    """The kernel's processor time on this machine during a run, for the generated picture."""

    kernel_ms: float
    log_sd: float
    machine: str
    warnings: tuple[str, ...] = ()


def sample_kernel(workers: int, seconds: float = SAMPLE_S) -> KernelSample:
    """Does the kernel for that long in each of `workers` threads, one a processor at most."""
    workers = min(workers, available_cpus())
    data = kernel_picture()
    run_kernel(data)  # nobody pays for first use
    before = CpuCounters.now()
    times: list[list[tuple[float, float]]] = [[] for _ in range(workers)]
    threads = [
        threading.Thread(target=_repeat, args=(data, seconds, own), daemon=True) for own in times
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    happened = CpuCounters.now().since(before)
    together = [one for own in times for one in own]
    cpu_s, wall_s = (sum(part) for part in zip(*together, strict=True))
    return KernelSample(
        workers=workers,
        repeats=len(together),
        kernel_ms=1000 * statistics.mean(min(own)[0] for own in times),
        typical_ms=1000 * statistics.median(cpu for cpu, _ in together),
        wall_by_cpu=wall_s / cpu_s,
        throttled_ms=happened["quota_throttled_ms"],
        steal_share=happened["steal_share"],
    )


def _repeat(data: bytes, seconds: float, times: list[tuple[float, float]]) -> None:
    begin = time.perf_counter()
    while len(times) < MIN_REPEATS or time.perf_counter() - begin < seconds:
        cpu, wall = time.thread_time(), time.perf_counter()
        run_kernel(data)
        times.append((time.thread_time() - cpu, time.perf_counter() - wall))


def run_kernel(data: bytes) -> bytes:
    """SeBS's: a thumbnail of the picture `data`, as JPEG."""
    with Image.open(io.BytesIO(data)) as image:
        image.thumbnail(KERNEL_SIZE)
        output = io.BytesIO()
        image.save(output, "JPEG")
    return output.getvalue()


@cache
def kernel_picture(scene: str = "harbour") -> bytes:
    """The generated picture, the same bytes everywhere (sample_images.py says why); in 0.5 s."""
    width, height = (side // TILES for side in PICTURE_SIZE)
    drawn = render_picture(SamplePicture("kernel", width, height, scene, 0.2, grain=3), SEED)
    tile = Image.open(io.BytesIO(drawn))
    picture = Image.new("RGB", PICTURE_SIZE)
    for place in range(TILES * TILES):
        picture.paste(tile, (width * (place % TILES), height * (place // TILES)))
    output = io.BytesIO()
    picture.save(output, "JPEG", quality=JPEG_QUALITY)
    return output.getvalue()


def calibration_of(samples: Sequence[KernelSample], machine: str | None = None) -> Calibration:
    """From the samples of one run, at least one. The least time counts. What makes it doubtful
    widens the interval: samples that differ, typical times above the least, other work, a quota."""
    least = min(sample.kernel_ms for sample in samples)
    changed = max(sample.kernel_ms for sample in samples) / least
    typical = min(sample.typical_ms / sample.kernel_ms for sample in samples)
    disturbed = _disturbances(samples, changed)
    parts = [REPEAT_LOG_SD, math.log(changed) / 2, math.log(typical) / 2]
    parts += [DISTURBED_LOG_SD] * bool(disturbed)
    return Calibration(least, math.hypot(*parts), machine or cpu_model(), tuple(disturbed))


def _disturbances(samples: Sequence[KernelSample], changed: float) -> list[str]:
    found = []
    if changed > MAX_CHANGE:
        found.append(f"the calibration's times differ by {changed - 1:.0%} between begin and end")
    wall = max(sample.wall_by_cpu for sample in samples)
    if wall > MAX_WALL_BY_CPU:
        found.append(f"the calibration had the processor for {1 / wall:.0%} of its time only")
    throttled_ms = sum(sample.throttled_ms for sample in samples)
    if throttled_ms > 0:
        found.append(f"a quota held the calibration's processors back ({throttled_ms:,.0f} ms)")
    return found


def calibration_from(content: object) -> Calibration:
    """From run.json or a bundle, where it stands as dataclasses.asdict() has it. Raises ValueError
    for what no calibration gives."""
    if not isinstance(content, dict) or content.keys() != {one.name for one in fields(Calibration)}:
        raise ValueError(f"no calibration: {content!r:.100}")
    kernel_ms, log_sd, machine, warnings = (content[one.name] for one in fields(Calibration))
    for value, most in ((kernel_ms, MAX_KERNEL_MS), (log_sd, MAX_LOG_SD)):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most:
            raise ValueError(f"no number of a calibration: {value!r:.100}")
    if not isinstance(warnings, list | tuple):
        raise ValueError(f"no warnings: {warnings!r:.100}")
    if not all(isinstance(text, str) for text in (machine, *warnings)):
        raise ValueError("a text of the calibration is none")
    return Calibration(float(kernel_ms), float(log_sd), machine, tuple(warnings))
