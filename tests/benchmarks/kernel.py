"""How near is the transform to what this machine can do, and to other libraries?

Each competitor turns the same generated JPEGs into 800x600 JPEGs of quality 80, 4:2:0, with
optimised Huffman tables, in warm processes of its own, one for each processor, all busy at once;
the competitors take turns, round by round. Speed is given as the ratio to plain Pillow (open,
convert, resize, save) in the same round, by processor time of all threads, which is what counts
when every processor is busy, and by the clock, which other work on the machine disturbs. SSIM and
PSNR are against a full decode resized with Lanczos. The "ceiling" decodes at a reduced scale and
encodes a picture that was ready, and nothing else.

Prints tables in Markdown, and draws a chart into --output.
Took 9 minutes on 2 processors that others kept busy; a quiet machine needs less.

    python tests/benchmarks/kernel.py --install --output kernel.png
    python tests/benchmarks/kernel.py --quick --only 'plain Pillow' 'this project'
"""

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: the project is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import argparse
import contextlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from ctypes.util import find_library
from dataclasses import dataclass, field

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, JpegImagePlugin
from scipy.ndimage import gaussian_filter

from lambda_function.image_transform import TARGET_SIZE
from metrics.common.cli import DONE, UserError, positive_int, run_script, script_parser, some_path
from metrics.common.machine import available_cpus
from metrics.common.originals import check_target, is_chart
from metrics.common.paths import whole_file
from metrics.common.streams import start_script
from metrics.report.chart_style import DPI, LIGHT, SMALL, WIDTH_INCHES, add_foot
from onprem_images.sample_images import SAMPLE_SEED, SamplePicture, render_picture

HERE = Path(__file__).resolve().parent
PEERS = Path.home() / ".cache" / "kernel-benchmark-peers"
PYTHON = "python"  # folder in it of the peers that Python imports; pillow-simd would hide Pillow
BASE, OURS, SIMD, MAGICK, SHARP = (
    *("plain Pillow", "this project", "pillow-simd", "ImageMagick", "sharp"),
)
PYTHON_PEERS = ("pyvips[binary]", "opencv-python-headless", "simplejpeg", "Wand")
MAGICK_LIBRARIES = ("MagickWand-7.Q16HDRI", "MagickWand-7.Q16", "MagickWand-6.Q16")
OWN = (BASE, OURS)  # these need nothing but the project's packages
LOOKS = {  # colour and marker, as in the chart; told apart with any colour vision
    BASE: ("#555B63", "s"),
    OURS: ("#0072B2", "o"),
    SIMD: ("#56B4E9", "o"),
    "pyvips thumbnail": ("#D55E00", "^"),
    "pyvips full shrink": ("#E69F00", "^"),
    SHARP: ("#CC79A7", "D"),
    "OpenCV": ("#009E73", "v"),
    MAGICK: ("#8A5300", "P"),
    "ceiling": ("#1B1F24", "_"),
}
# Widths and heights as cameras and phones have them: two of 4:3, one of 3:2.
SIZES = {
    "0.1": [(368, 276), (368, 276), (392, 262)],
    "0.5": [(816, 612), (816, 612), (866, 578)],
    "2": [(1632, 1224), (1632, 1224), (1800, 1200)],
    "8": [(3264, 2448), (3264, 2448), (3456, 2304)],
    "12": [(4000, 3000), (4032, 3024), (4240, 2832)],
    "24": [(5656, 4242), (5656, 4242), (6000, 4000)],
}
SCENES = [("beach", 0.4), ("mountain", 0.35), ("town", 0.5)]
PASS_S = 0.5  # about plain Pillow's time for one measurement, but no less than one pass takes
# Every processor has a process of its own.
ONE_THREAD = dict.fromkeys(("VIPS_CONCURRENCY", "MAGICK_THREAD_LIMIT", "OMP_NUM_THREADS"), "1")


@dataclass
class Competitor:
    """By size: pictures per second of each round; SSIM and PSNR of each picture.

    `speed` is per second of processor time, `clock_speed` of all processes together by the clock.
    """

    name: str
    version: str
    processes: list[subprocess.Popen]
    speed: dict[str, list[float]] = field(default_factory=dict)
    clock_speed: dict[str, list[float]] = field(default_factory=dict)
    ssim: dict[str, list[float]] = field(default_factory=dict)
    psnr: dict[str, list[float]] = field(default_factory=dict)


def main(argv: list[str] | None = None) -> int:
    parser = script_parser(__doc__)
    parser.add_argument("--output", type=some_path, help="draw the chart into this PNG file")
    parser.add_argument("--rounds", type=positive_int, default=9)
    parser.add_argument("--only", nargs="+", choices=LOOKS, default=[*LOOKS], help="competitors")
    parser.add_argument("--install", action="store_true", help="install absent peers into --peers")
    parser.add_argument("--peers", type=some_path, default=PEERS, help="folder of installed peers")
    parser.add_argument(
        "--quick", action="store_true", help="a try: 0.1 and 2 megapixels, once in 2 rounds"
    )
    return run_script(run, parser.parse_args(argv))


def run(args: argparse.Namespace) -> int:
    if args.output:
        check_target(args.output, "--output", is_chart)
    names = [BASE, *(name for name in args.only if name != BASE)]
    sizes, rounds, pass_s = [*SIZES], args.rounds, PASS_S
    if args.quick:
        sizes, rounds, pass_s = ["0.1", "2"], 2, 0.0
    if args.install:
        install(names, args.peers)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        pictures = render(Path(folder), sizes)
        competitors = start(names, args.peers, stack)
        for size in sizes:
            judge_outputs(competitors, size, pictures[size], Path(folder))
            measure_speed(competitors, size, pictures[size], rounds, pass_s)
            print(f"{size} megapixels done", file=sys.stderr)
    print(tables(competitors, sizes))
    if args.output:
        with whole_file(args.output) as file:
            draw(competitors, sizes).savefig(file, format="png", dpi=DPI)
        print(f"\n{args.output}")
    return DONE


# --- pictures -------------------------------------------------------------------------------------


def render(folder: Path, sizes: list[str]) -> dict[str, list[str]]:
    """Paths of photo-like JPEGs, by size: quality 90, 4:2:0, 0.2 to 0.3 bytes per pixel.

    Made as the sample pictures are. Small ones have less grain, as what was shrunk has.
    """
    specs = [
        SamplePicture(f"{size}-{i}.jpg", *shape, *SCENES[i], grain=3 if float(size) < 4 else 6)
        for size in sizes
        for i, shape in enumerate(SIZES[size])
    ]
    with ProcessPoolExecutor(available_cpus()) as pool:
        contents = pool.map(render_picture, specs, [(SAMPLE_SEED, i) for i in range(len(specs))])
        for spec, content in zip(specs, contents, strict=True):
            Path(folder, spec.name).write_bytes(content)
    return {size: [str(p) for p in sorted(folder.glob(f"{size}-*.jpg"))] for size in sizes}


# --- competitors ----------------------------------------------------------------------------------


def install(names: list[str], folder: Path) -> None:
    """Put what is absent into `folder`. What cannot be installed stays absent, and is reported."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target"]
    commands = {
        SIMD: [*pip, folder / SIMD, "--no-deps", "--no-binary", ":all:", "pillow-simd"],
        SHARP: ["npm", "install", "--silent", "--prefix", folder / SHARP, "sharp"],
        PYTHON: [*pip, folder / PYTHON, *PYTHON_PEERS],
        MAGICK: ["apt-get", "install", "-qq", "--no-install-recommends", "imagemagick"],
    }
    wanted = {name if name in (SIMD, SHARP) else PYTHON for name in names if name not in OWN}
    absent = {what for what in wanted if not (folder / what).exists()}
    if MAGICK in names and not any(map(find_library, MAGICK_LIBRARIES)) and os.geteuid() == 0:
        absent.add(MAGICK)
    folder.mkdir(parents=True, exist_ok=True)
    for what in sorted(absent):
        print("installing:", *commands[what], file=sys.stderr)
        # pillow-simd has no wheels, and uses AVX2 only when the compiler may.
        environment = os.environ | ({"CC": "cc -mavx2"} if what == SIMD else {})
        with contextlib.suppress(FileNotFoundError):
            subprocess.run(commands[what], stdout=sys.stderr, env=environment)


def start(names: list[str], folder: Path, stack: contextlib.ExitStack) -> list[Competitor]:
    """Those of `names` that are there; the absent ones are named on stderr."""
    competitors = []
    for name in names:
        try:
            processes = [stack.enter_context(launch(name, folder)) for _ in range(available_cpus())]
        except FileNotFoundError as error:
            print(f"absent: {name}: no {error.filename} here", file=sys.stderr)
            continue
        for process in processes:
            stack.callback(process.stdin.close)  # which ends it
        versions = [process.stdout.readline().strip() for process in processes]
        if all(versions):
            competitors.append(Competitor(name, versions[0], processes))
        else:
            print(f"absent: {name}: {last_words(processes[0])}; see --install", file=sys.stderr)
    return competitors


def launch(name: str, folder: Path) -> subprocess.Popen:
    environment = os.environ | ONE_THREAD
    if name == SHARP:
        command = ["node", HERE / "kernel_sharp.js"]
        environment["NODE_PATH"] = str(folder / SHARP / "node_modules")
    else:
        command = [sys.executable, HERE / "kernel_peers.py", name]
        if name not in OWN:
            environment["PYTHONPATH"] = str(folder / (SIMD if name == SIMD else PYTHON))
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(command, env=environment, text=True, **pipes)


def last_words(process: subprocess.Popen) -> str:
    """The line from which to see why a process ended."""
    lines = [line for line in process.stderr.read().splitlines() if "Error" in line]
    return lines[-1].strip() if lines else "it ended without a word"


def work(
    competitor: Competitor, pictures: list[str], repeat: int = 1, folder: Path | None = None
) -> tuple[float, float]:
    """Seconds until all processes have transformed all pictures, and the processor time they took.

    `folder` gets the outputs.
    """
    task = {"pictures": pictures, "repeat": repeat, "folder": folder and str(folder)}
    begin = time.perf_counter()
    for process in competitor.processes:
        print(json.dumps(task), file=process.stdin, flush=True)
    answers = [process.stdout.readline() for process in competitor.processes]
    wall_s = time.perf_counter() - begin
    if not all(answers):
        words = "; ".join(map(last_words, competitor.processes))
        raise UserError(f"{competitor.name} failed: {words}; leave it out with --only")
    return wall_s, sum(map(float, answers))


# --- measuring ------------------------------------------------------------------------------------


def measure_speed(
    competitors: list[Competitor], size: str, pictures: list[str], rounds: int, pass_s: float
) -> None:
    base_s, _ = work(competitors[0], pictures)
    repeat = max(round(pass_s / base_s), 1)
    done = repeat * len(pictures) * available_cpus()
    for number in range(rounds):
        # Turned by one each round and reversed every other time: nobody always follows the same.
        turn = number % len(competitors)
        order = [*competitors[turn:], *competitors[:turn]][:: -1 if number % 2 else 1]
        for competitor in order:
            wall_s, cpu_s = work(competitor, pictures, repeat)
            competitor.speed.setdefault(size, []).append(done / cpu_s)
            competitor.clock_speed.setdefault(size, []).append(done / wall_s)


def judge_outputs(
    competitors: list[Competitor], size: str, pictures: list[str], folder: Path
) -> None:
    """Fills in the quality, and refuses an output of another kind than plain Pillow's."""
    lanczos = Image.Resampling.LANCZOS
    references = [Image.open(path).resize(TARGET_SIZE, lanczos) for path in pictures]
    kinds = {}
    for competitor in competitors:
        outputs = folder / competitor.name
        outputs.mkdir(exist_ok=True)
        work(competitor, pictures, folder=outputs)
        images = [Image.open(outputs / Path(path).name) for path in pictures]
        kinds[competitor.name] = [kind(image) for image in images]
        if kinds[competitor.name] != kinds[BASE]:
            raise UserError(f"{competitor.name} does not write JPEGs of the same kind as {BASE}")
        pairs = list(zip(images, references, strict=True))
        competitor.ssim[size] = [ssim(*pair) for pair in pairs]
        competitor.psnr[size] = [psnr(*pair) for pair in pairs]


def kind(image: Image.Image) -> tuple:
    """Size, chroma subsampling and quality of a JPEG."""
    subsampling = JpegImagePlugin.get_sampling(image)
    return image.format, image.mode, image.size, subsampling, image.quantization


def ssim(image: Image.Image, reference: Image.Image) -> float:
    """Structural similarity of the luma, as Wang et al. define it: a Gaussian window of 11 pixels.

    Z. Wang, A. C. Bovik, H. R. Sheikh, E. P. Simoncelli, "Image quality assessment: from error
    visibility to structural similarity", IEEE Trans. Image Processing 13, 2004.
    """

    def mean(values: np.ndarray) -> np.ndarray:
        return gaussian_filter(values, 1.5, truncate=3.5)[5:-5, 5:-5]

    x, y = (np.asarray(picture.convert("L"), np.float64) for picture in (image, reference))
    mean_x, mean_y = mean(x), mean(y)
    var_x, var_y = mean(x * x) - mean_x**2, mean(y * y) - mean_y**2
    covariance = mean(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return float(np.mean(luminance * (2 * covariance + c2) / (var_x + var_y + c2)))


def psnr(image: Image.Image, reference: Image.Image) -> float:
    """Peak signal-to-noise ratio of red, green and blue together, in dB."""
    difference = np.asarray(image, np.float64) - np.asarray(reference, np.float64)
    return float(10 * np.log10(255**2 / np.mean(difference**2)))


# --- telling --------------------------------------------------------------------------------------


def ratios(one: dict[str, list[float]], other: dict[str, list[float]], size: str) -> np.ndarray:
    """How many times as fast the first is as the other, round by round."""
    return np.divide(one[size], other[size])


def spread(values: np.ndarray) -> str:
    return f"{np.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def tables(competitors: list[Competitor], sizes: list[str]) -> str:
    base = competitors[0]
    ours = next((one for one in competitors if one.name == OURS), base)
    others = [one for one in competitors if one is not ours]
    of = f"median of {len(base.speed[sizes[0]])} rounds (least to most)"

    def speed(one: Competitor, size: str) -> str:
        return spread(ratios(one.speed, base.speed, size))

    def ours_to(one: Competitor, size: str) -> str:
        return spread(ratios(ours.speed, one.speed, size))

    def clock_speed(one: Competitor, size: str) -> str:
        return spread(ratios(one.clock_speed, base.clock_speed, size))

    return "\n\n".join(
        [
            f"Pictures per second of processor time, relative to {BASE}: {of}",
            table(sizes, competitors, speed),
            f"The same of {ours.name}, relative to each",
            table(sizes, others, ours_to),
            f"Pictures per second by the clock, {available_cpus()} processes, relative to {BASE}",
            table(sizes, competitors, clock_speed),
            "SSIM: mean (least); PSNR: mean, dB",
            table(sizes, competitors, quality),
            "\n".join(f"- {one.name}: {one.version}" for one in competitors),
        ]
    )


def table(sizes: list[str], rows: list[Competitor], cell: Callable[[Competitor, str], str]) -> str:
    lines = [["", *(f"{size} MP" for size in sizes)], ["---"] * (1 + len(sizes))]
    lines += [[one.name, *(cell(one, size) for size in sizes)] for one in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def quality(one: Competitor, size: str) -> str:
    mean, least = np.mean(one.ssim[size]), min(one.ssim[size])
    return f"{mean:.4f} ({least:.3f}); {np.mean(one.psnr[size]):.1f}"


def draw(competitors: list[Competitor], sizes: list[str]) -> Figure:
    figure = Figure(figsize=(WIDTH_INCHES, 7.4), facecolor=LIGHT.background)
    top, bottom = figure.subplots(2, 1, height_ratios=(3, 2))
    base = competitors[0]
    places = np.arange(len(sizes))
    shifts = np.linspace(-0.3, 0.3, len(competitors))
    for one, shift in zip(competitors, shifts, strict=True):
        colour, marker = LOOKS[one.name]
        style = {"color": colour, "marker": marker, "markersize": 5, "linestyle": "none"}
        rounds = [ratios(one.speed, base.speed, size) for size in sizes]
        middle = np.median(rounds, axis=1)
        ends = np.abs([np.min(rounds, axis=1) - middle, np.max(rounds, axis=1) - middle])
        top.errorbar(places + shift, middle, yerr=ends, label=one.name, elinewidth=1, **style)
        bottom.plot(places + shift, [np.mean(one.ssim[size]) for size in sizes], **style)
    top.set_ylabel(f"speed / {BASE}'s", color=LIGHT.text)
    top.set_ylim(0)
    bottom.set_ylabel("SSIM (mean)", color=LIGHT.text)
    bottom.set_xlabel("megapixels", color=LIGHT.text)
    for axes in (top, bottom):
        axes.set_xticks(places, sizes)
        axes.set_axisbelow(True)
        axes.grid(axis="y", color=LIGHT.grid)
        axes.tick_params(colors=LIGHT.muted, length=0)
        for edge in axes.spines.values():
            edge.set_visible(False)
        for place in places[1:]:
            axes.axvline(place - 0.5, color=LIGHT.grid, linewidth=0.8)
    figure.suptitle(
        "Pictures per second of processor time, and what is left of them",
        x=0.02,
        ha="left",
        fontsize=13,
        fontweight="bold",
        color=LIGHT.text,
    )
    figure.legend(
        *top.get_legend_handles_labels(),
        loc="upper left",
        bbox_to_anchor=(0.01, 0.955),
        ncols=5,
        frameon=False,
        fontsize=SMALL,
        labelcolor=LIGHT.text,
    )
    foot = (
        f"Median, least and most of {len(base.speed[sizes[0]])} rounds in which all took turns. "
        "Higher is better in both panels. The ceiling decodes and encodes, and resizes nothing; "
        "its SSIM is what JPEG of this quality leaves of the reference."
    )
    bottom_inches = add_foot(figure, foot, LIGHT)
    figure.align_ylabels()
    figure.subplots_adjust(
        left=0.09, right=0.98, top=0.87, bottom=(bottom_inches + 0.45) / 7.4, hspace=0.15
    )
    return figure


if __name__ == "__main__":
    sys.exit(start_script(main))
