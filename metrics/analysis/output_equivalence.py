"""Proof that both arms did the same to the same pictures.

Vocabulary
    identical   the outputs' hashes are equal
    equivalent  other bytes, but the decoded pixels differ by no more than rounding does
    different   anything else; one such picture voids the comparison

Pixels are compared where both outputs are at hand: the on-prem arm's in output_local/, the cloud's
as downloaded to metrics/cloud_outputs/. What was measured is kept in pixel_differences.csv, so
that the judgement can be repeated where the outputs are not.
"""

import csv
import hashlib
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from lambda_function.image_transform import FORMATS, TARGET_SIZE, output_name
from metrics.common.paths import CLOUD_OUTPUTS, OUTPUT_LOCAL, cloud_output_path
from onprem_images.outputs import is_inside

# Measured on the sample set: when one value in twenty is rounded the other way before encoding,
# the output stays above 45.5 dB and within 21 levels; another filter or a quality of 79 instead of
# 80 gives 42.2 dB at most.
MIN_PSNR_DB = 44.0
MAX_DIFFERENCE = 32  # levels of 255
STATES = ("identical", "equivalent", "different")


@dataclass(frozen=True)
class PixelDifference:
    """How far two outputs differ. `psnr_db` is infinite when no pixel does."""

    psnr_db: float
    largest: int

    @property
    def is_rounding(self) -> bool:
        return self.psnr_db >= MIN_PSNR_DB and self.largest <= MAX_DIFFERENCE


# The output of an arm (its source, an image key, the output's hash) as JPEG, if it is at hand.
Outputs = Callable[[str, str, str], bytes | None]
# By the hashes of both outputs: a measurement is about those bytes, whatever the picture's name.
PixelDifferences = dict[tuple[str, str], PixelDifference]


def classify(pairs: pd.DataFrame, arms: tuple[str, str], pixels: PixelDifferences) -> pd.Series:
    """STATES of `pairs`; empty text where neither arm says what its output was, but the sizes are
    equal."""
    first, second = (pairs[f"output_sha256_{arm}"] for arm in arms)
    state = pd.Series("different", index=pairs.index, dtype=object)
    state[(first == "") & (second == "")] = ""
    state[(first == second) & (first != "")] = "identical"
    for index in pairs.index[(state == "different").to_numpy()] if pixels else ():
        difference = pixels.get((first[index], second[index]))
        if difference is not None and difference.is_rounding:
            state[index] = "equivalent"
    same_size = pairs[f"new_size_{arms[0]}"] == pairs[f"new_size_{arms[1]}"]
    state[(state == "") & ~same_size] = "different"
    versions = [pairs[f"transform_{arm}"].astype(object) for arm in arms]
    state[versions[0] != versions[1]] = "different"
    return state


def measure_pixels(pairs: pd.DataFrame, outputs: Outputs) -> PixelDifferences:
    """Pixel differences of the on-prem and cloud outputs of `pairs` that are both at hand."""
    found = {}
    hashes = pairs[["image_key", "output_sha256_on_prem", "output_sha256_cloud"]]
    for key, first, second in hashes.itertuples(index=False):
        both = outputs("on_prem", key, first), outputs("cloud", key, second)
        if None not in both:
            found[first, second] = compare_pixels(*both)
    return found


def compare_pixels(first: bytes, second: bytes) -> PixelDifference:
    """The difference of two pictures; of one that cannot be decoded, or of another size, all.

    What a bucket or a bundle calls an output may be anything: here, too, no picture starts a
    program, and what is larger than an output is not decoded.
    """
    try:
        with (
            Image.open(io.BytesIO(first), formats=FORMATS) as a,
            Image.open(io.BytesIO(second), formats=FORMATS) as b,
        ):
            if a.size != b.size or math.prod(a.size) > math.prod(TARGET_SIZE):
                return PixelDifference(0.0, 255)
            arrays = [np.asarray(image.convert("RGB"), dtype=np.int16) for image in (a, b)]
    except Exception:  # hostile bytes make Pillow raise nearly anything
        return PixelDifference(0.0, 255)
    difference = np.abs(arrays[0] - arrays[1])
    mean_square = float(np.mean(np.square(difference, dtype=np.int32)))
    psnr_db = 10 * math.log10(255**2 / mean_square) if mean_square else math.inf
    return PixelDifference(round(psnr_db, 2), int(difference.max()))


def output_at_hand(source: str, image_key: str, sha256: str) -> bytes | None:
    """An arm's output of a picture, if the file is here and still is what its row tells of."""
    if source == "cloud":
        return _read(cloud_output_path(image_key), sha256, CLOUD_OUTPUTS)
    return _read(OUTPUT_LOCAL / output_name(image_key), sha256, OUTPUT_LOCAL)


def _read(path: Path, sha256: str, folder: Path) -> bytes | None:
    if not is_inside(path, folder):
        return None
    data = path.read_bytes()
    return data if hashlib.sha256(data).hexdigest() == sha256 else None


PIXEL_COLUMNS = ["output_sha256_on_prem", "output_sha256_cloud", "psnr_db", "largest_difference"]


def pixels_to_csv(pixels: PixelDifferences) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(PIXEL_COLUMNS)
    for hashes, difference in sorted(pixels.items()):
        writer.writerow([*hashes, difference.psnr_db, difference.largest])
    return text.getvalue().encode()


def pixels_from_csv(data: bytes) -> PixelDifferences:
    """Raises ValueError when `data` is not what pixels_to_csv writes."""
    try:
        header, *records = csv.reader(io.StringIO(data.decode(), newline=""))
    except csv.Error as error:
        raise ValueError(str(error)) from None
    if header != PIXEL_COLUMNS:
        raise ValueError(f"columns {header}")
    return {(a, b): PixelDifference(float(psnr), int(most)) for a, b, psnr, most in records}
