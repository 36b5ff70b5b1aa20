"""Same work: identical, equivalent or different, by real JPEGs; and nobody's file is read."""

import contextlib
import hashlib
import io
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import metrics.common.paths
from lambda_function.image_transform import JPEG_QUALITY, output_name
from metrics.analysis import output_equivalence
from metrics.analysis.output_equivalence import (
    MAX_DIFFERENCE,
    MIN_PSNR_DB,
    PixelDifference,
    classify,
    compare_pixels,
    measure_pixels,
    output_at_hand,
    pixels_from_csv,
    pixels_to_csv,
)
from metrics.common.paths import cloud_output_path

ARMS = ("on_prem", "cloud")
ROUNDING = PixelDifference(MIN_PSNR_DB, MAX_DIFFERENCE)


def photo(width: int = 400, height: int = 300) -> np.ndarray:
    """Smooth shapes with a grain, as photographs have."""
    random = np.random.default_rng(1)
    coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=float)
    grain = random.normal(0, 8, smooth.shape)
    return np.clip(smooth + grain, 0, 255).astype(np.uint8)


def rounded_otherwise(pixels: np.ndarray) -> np.ndarray:
    """One value in twenty by one level off, as another processor may round it."""
    random = np.random.default_rng(2)
    off = random.choice([-1, 1], pixels.shape) * (random.random(pixels.shape) < 0.05)
    return np.clip(pixels.astype(int) + off, 0, 255).astype(np.uint8)


def encoded(pixels: np.ndarray, format: str = "JPEG", **options: object) -> bytes:
    file = io.BytesIO()
    options = {"quality": JPEG_QUALITY, "optimize": True} | options
    Image.fromarray(pixels).save(file, format, **options)
    return file.getvalue()


def hash_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


OUTPUT = encoded(photo())


# --- pixels -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "other",
    [OUTPUT, encoded(photo(), optimize=False), encoded(rounded_otherwise(photo()))],
    ids=["the same bytes", "other bytes, the same pixels", "rounded otherwise before encoding"],
)
def test_the_same_picture_up_to_rounding_differs_by_rounding(other):
    assert compare_pixels(OUTPUT, other).is_rounding
    assert compare_pixels(other, OUTPUT) == compare_pixels(OUTPUT, other)


OTHER_PICTURES = {
    "a quality of 79": encoded(photo(), quality=79),
    "a quality of 95": encoded(photo(), quality=95),
    "half as much colour": encoded(photo(), subsampling=0),
    "mirrored": encoded(photo()[:, ::-1]),
    "brighter": encoded(np.clip(photo().astype(int) + 3, 0, 255).astype(np.uint8)),
    "a stamp on it": encoded(np.where(np.indices(photo().shape).sum(0) < 9, 0, photo())),
    "grey": encoded(photo()[..., 0]),
}


@pytest.mark.parametrize("other", OTHER_PICTURES.values(), ids=OTHER_PICTURES)
def test_another_picture_differs_by_more_than_rounding(other):
    assert not compare_pixels(OUTPUT, other).is_rounding


@pytest.mark.parametrize(
    "other",
    [
        encoded(photo(400, 301)),
        encoded(photo().swapaxes(0, 1)),
        b"",
        b"no picture",
        OUTPUT[:100],
        OUTPUT[: len(OUTPUT) // 2],
    ],
    ids=["another size", "turned", "nothing", "no picture", "a header alone", "cut in half"],
)
def test_what_cannot_be_compared_differs_as_much_as_can_be(other):
    assert compare_pixels(OUTPUT, other) == PixelDifference(0.0, 255)
    assert compare_pixels(other, OUTPUT) == PixelDifference(0.0, 255)


def test_the_difference_is_what_a_hand_computes():
    grey = np.full((10, 10, 3), 100, dtype=np.uint8)
    one_off = grey.copy()
    one_off[3, 4, 1] = 132
    difference = compare_pixels(encoded(grey, "PNG"), encoded(one_off, "PNG"))
    assert difference.largest == 32
    assert difference.psnr_db == pytest.approx(10 * math.log10(255**2 / (32**2 / 300)), abs=0.01)
    same = compare_pixels(encoded(grey, "PNG"), encoded(grey, "BMP"))
    assert same == PixelDifference(math.inf, 0)
    extremes = (encoded(np.full((2, 2, 3), level, dtype=np.uint8), "PNG") for level in (0, 255))
    assert compare_pixels(*extremes) == PixelDifference(0.0, 255)


@pytest.mark.parametrize(
    ("psnr_db", "largest", "is_rounding"),
    [
        (MIN_PSNR_DB, MAX_DIFFERENCE, True),
        (math.inf, 0, True),
        (MIN_PSNR_DB - 0.01, 0, False),
        (MIN_PSNR_DB, MAX_DIFFERENCE + 1, False),
        (math.nan, 0, False),
    ],
)
def test_rounding_is_within_both_tolerances(psnr_db, largest, is_rounding):
    assert PixelDifference(psnr_db, largest).is_rounding == is_rounding


# --- states -------------------------------------------------------------------------------------


def pairs_of(*hashes: tuple[str, str], key: str = "a.jpg") -> pd.DataFrame:
    columns = [f"output_sha256_{arm}" for arm in ARMS]
    same = {f"{name}_{arm}": 1 for arm in ARMS for name in ("new_size", "transform")}
    return pd.DataFrame(hashes, columns=columns, dtype=object).assign(image_key=key, **same)


@pytest.mark.parametrize("column", ["new_size", "transform"])
def test_another_size_without_hashes_and_another_transform_are_different(column):
    pairs = pairs_of(("", ""), ("", "")).assign(**{f"{column}_{ARMS[1]}": [1, 2]})
    assert list(classify(pairs, ARMS, {})) == ["", "different"]
    equal = pairs_of(("x", "x")).assign(**{f"transform_{ARMS[1]}": 2})
    assert list(classify(equal, ARMS, {})) == ["different"]


BEYOND = PixelDifference(MIN_PSNR_DB - 1, 1)
STATES = {
    "equal hashes": (("x", "x"), {}, "identical"),
    "other hashes": (("x", "y"), {}, "different"),
    "measured as rounding": (("x", "y"), {("x", "y"): ROUNDING}, "equivalent"),
    "measured beyond rounding": (("x", "y"), {("x", "y"): BEYOND}, "different"),
    "others measured": (("x", "y"), {("x", "z"): ROUNDING, ("y", "x"): ROUNDING}, "different"),
    "equal hashes measured beyond": (("x", "x"), {("x", "x"): BEYOND}, "identical"),
    "no hashes": (("", ""), {("", ""): ROUNDING}, ""),
    "a hash in the first arm": (("x", ""), {}, "different"),
    "a hash in the second arm": (("", "x"), {}, "different"),
}


@pytest.mark.parametrize(("hashes", "pixels", "state"), STATES.values(), ids=STATES)
def test_a_pair_has_the_state_that_its_hashes_and_pixels_give(hashes, pixels, state):
    pairs = pairs_of(("q", "q"), hashes, ("", "")).set_axis([7, 3, 5])
    assert classify(pairs, ARMS, pixels).to_dict() == {7: "identical", 3: state, 5: ""}


def test_no_pair_has_no_state():
    assert classify(pairs_of(), ARMS, {("x", "y"): ROUNDING}).tolist() == []


# --- outputs at hand ----------------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path, monkeypatch) -> dict[str, Path]:
    """The folders of both arms' outputs, in a folder of the test's own."""
    paths = {"on_prem": tmp_path / "arms" / "local", "cloud": tmp_path / "arms" / "cloud"}
    for module in (metrics.common.paths, output_equivalence):
        monkeypatch.setattr(module, "CLOUD_OUTPUTS", paths["cloud"])
    monkeypatch.setattr(output_equivalence, "OUTPUT_LOCAL", paths["on_prem"])
    for path in paths.values():
        path.mkdir(parents=True)
    return paths


def put_output(folders: dict[str, Path], arm: str, key: str, data: bytes) -> str:
    """The hash of an output that is put where its arm leaves it."""
    path = folders["on_prem"] / output_name(key) if arm == "on_prem" else cloud_output_path(key)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return hash_of(data)


KEYS = ["a.jpg", "folder/é b.png", 'quote".jpg', "new\nline.jpg"]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("arm", ARMS)
def test_an_output_is_at_hand_while_it_is_what_its_row_tells_of(folders, arm, key):
    sha256 = put_output(folders, arm, key, OUTPUT)
    assert output_at_hand(arm, key, sha256) == OUTPUT
    for other in ("", sha256[:-1], hash_of(b"")):
        assert output_at_hand(arm, key, other) is None
    put_output(folders, arm, key, OUTPUT + b"changed")
    assert output_at_hand(arm, key, sha256) is None


@pytest.mark.parametrize("arm", ARMS)
def test_an_output_that_is_not_there_is_not_at_hand(folders, arm):
    assert output_at_hand(arm, "a.jpg", hash_of(OUTPUT)) is None
    assert output_at_hand(arm, "", hash_of(OUTPUT)) is None
    assert output_at_hand(arm, "long" * 99, hash_of(OUTPUT)) is None
    assert output_at_hand(arm, "nul\0.jpg", hash_of(OUTPUT)) is None
    (folders["on_prem"] / "a.jpg").mkdir()
    assert output_at_hand(arm, "a.jpg", hash_of(OUTPUT)) is None
    folders[arm].rename(folders[arm].with_name("moved"))
    assert output_at_hand(arm, "a.jpg", hash_of(OUTPUT)) is None


@pytest.mark.parametrize("key", ["../x.jpg", "../../x.jpg", "link/x.jpg", "b/../../../x.jpg", None])
def test_a_key_that_leads_out_of_the_folder_reads_nothing_there(folders, tmp_path, key):
    outside = tmp_path / "x.jpg"
    (folders["on_prem"] / "b").mkdir()
    (folders["on_prem"] / "link").symlink_to(tmp_path)
    for path in (outside, folders["on_prem"].parent / "x.jpg"):
        path.write_bytes(OUTPUT)
    for arm in ARMS:
        assert output_at_hand(arm, key or str(outside), hash_of(OUTPUT)) is None


@given(st.text(st.characters(codec="utf-8")))
def test_a_cloud_output_lies_right_in_its_folder_whatever_its_key(key):
    path = cloud_output_path(key)
    assert path.parent == metrics.common.paths.CLOUD_OUTPUTS
    assert path.stem == hash_of(key.encode())


def test_pixels_are_measured_where_both_outputs_are_at_hand(folders):
    outputs = {
        "same": (OUTPUT, OUTPUT),
        "rounded": (OUTPUT, encoded(rounded_otherwise(photo()))),
        "other": (OUTPUT, encoded(photo(), quality=60)),
        "no picture": (OUTPUT, b"junk"),
        "one only": (OUTPUT, None),
    }
    lines = []
    for key, both in outputs.items():
        hashes = [
            put_output(folders, arm, key, data) if data else "gone"
            for arm, data in zip(ARMS, both, strict=True)
        ]
        lines.append(pairs_of(tuple(hashes), key=key))
    pairs = pd.concat(lines, ignore_index=True)
    pixels = measure_pixels(pairs, output_at_hand)
    states = classify(pairs, ARMS, pixels).tolist()
    assert states == ["identical", "equivalent", "different", "different", "different"]
    assert ("gone" in str(pixels), len(pixels)) == (False, 4)


# --- what is kept of a measurement --------------------------------------------------------------

hashes = st.text("0123456789abcdef", max_size=64)
differences = st.builds(PixelDifference, st.floats(0, allow_nan=False), st.integers(0, 255))


@given(st.dictionaries(st.tuples(hashes, hashes), differences, max_size=5))
def test_pixel_differences_read_back_as_they_were_written(pixels):
    assert pixels_from_csv(pixels_to_csv(pixels)) == pixels


def test_equal_measurements_are_written_alike_in_whatever_order_they_came():
    pixels = {("b", "a"): ROUNDING, ("a", "b"): BEYOND}
    assert pixels_to_csv(pixels) == pixels_to_csv(dict(reversed(pixels.items())))


KEPT = pixels_to_csv({("x", "y"): ROUNDING}).decode()
NOT_KEPT = {
    "nothing": "",
    "other columns": KEPT.replace("psnr_db", "psnr"),
    "a short line": f"{KEPT}x,y\r\n",
    "a number that is none": KEPT.replace("44.0", "much"),
    "a cell without end": KEPT.replace("x,", "x" * 200_000 + ","),
}


@pytest.mark.parametrize("text", NOT_KEPT.values(), ids=NOT_KEPT)
def test_a_file_that_is_no_record_of_pixels_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"\w"):
        pixels_from_csv(text.encode())


@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: (KEPT + text).encode()))
def test_no_bytes_raise_any_other_error_than_a_value_error(data):
    with contextlib.suppress(ValueError):
        pixels_from_csv(data)
