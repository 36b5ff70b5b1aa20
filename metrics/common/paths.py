"""Where each file of the project lives, and how one is written whole."""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from enum import StrEnum, auto
from pathlib import Path
from typing import BinaryIO

PROJECT = Path(__file__).resolve().parents[2]
RESULTS = PROJECT / "metrics"

IMAGES = PROJECT / "images_to_upload"
OUTPUT_LOCAL = PROJECT / "onprem_images" / "output_local"
LOCAL_CSV = PROJECT / "onprem_images" / "metrics" / "local_metrics.csv"
OUTPUTS_JSONL = PROJECT / "onprem_images" / "metrics" / "outputs.jsonl"
CLOUD_CSV = RESULTS / "lambda_metrics.csv"
MERGED_CSV = RESULTS / "merged_metrics.csv"
RUN_JSON = RESULTS / "run.json"
MANIFEST_JSON = RESULTS / "manifest.json"
PIXELS_CSV = RESULTS / "pixel_differences.csv"
INVOCATIONS_CSV = RESULTS / "invocations.csv"
CLOUD_OUTPUTS = RESULTS / "cloud_outputs"
SUMMARY_JSON = RESULTS / "summary.json"
REPORT_HTML = RESULTS / "report.html"
CHARTS = RESULTS / "charts"
SWEEP = RESULTS / "sweep"
FUNCTION_JSON = RESULTS / "function_settings.json"  # while a sweep has changed them
RUN_LOCK = RESULTS / ".run.lock"  # of the run that is under way, see run_lock.py
# Where runs write, replace and delete. A new place that code writes to belongs here: no picture of
# a run may lie in one, see originals.py.
WRITTEN_FOLDERS = (OUTPUT_LOCAL, LOCAL_CSV.parent, CHARTS, CLOUD_OUTPUTS, SWEEP, RESULTS)
PART_PREFIX = ".image-pipeline-"  # of a file that is being written; a killed run leaves some


class ChartName(StrEnum):
    """Of the files in CHARTS, without `.png`, in the order of the report."""

    AVG_TIME = auto()
    BOXPLOT_TIME = auto()
    SIZE_VS_TIME = auto()
    TOTAL_TIME = auto()
    COMPLETENESS = auto()
    PAIRED_RATIO = auto()
    CUMULATIVE_TIME = auto()
    TIMELINE = auto()
    PHASES = auto()
    STABILITY_OVER_TIME = auto()
    STABILITY = auto()
    BREAK_EVEN = auto()


CHART_NAMES = tuple(ChartName)


def write_whole(path: Path, data: bytes) -> None:
    """Write `path` so that a reader finds the old content or the new, never a part of it."""
    with whole_file(path) as file:
        file.write(data)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the place of `path` when the context ends without an error.

    An OSError about it names `path`: a full disk names no file, and the temporary one helps nobody.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=PART_PREFIX, suffix=".part")
        with os.fdopen(handle, "wb") as file:
            yield file
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes it private
        os.replace(temporary, path)
    except BaseException as error:
        if temporary:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        if isinstance(error, OSError) and PART_PREFIX in str(error.filename or PART_PREFIX):
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
        raise


def _umask() -> int:
    current = os.umask(0o022)
    os.umask(current)
    return current


def cloud_output_path(image_key: str) -> Path:
    """Of a downloaded output. A hash: a key that comes back from a bucket may lead anywhere."""
    return CLOUD_OUTPUTS / f"{hashlib.sha256(image_key.encode()).hexdigest()}.jpg"


def shown(path: Path) -> str:
    """`path` as a user types it: relative to the working directory when it is below it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
