"""The generated sample set: repeatable, photo-like in weight, and with the promised variety."""

import dataclasses
import hashlib
import io
import os
import signal
import subprocess
import sys

import numpy
import pytest
from PIL import Image, ImageChops, ImageOps, ImageStat
from processes import LIMIT_S, hear_ctrl_c, is_starting_workers, until

from metrics.common.paths import PROJECT
from onprem_images import sample_images

SMALL = sample_images.SamplePicture("small.jpg", 161, 120, "beach", 0.4)
# Of SMALL with seed (1, 2), for Pillow 13.0.0 and numpy 2.4.6; a change of the sample pictures
# makes results incomparable with earlier ones, so it should be on purpose.
SMALL_SHA256 = "659dee6ddad4bc1f3924420e536b7b896951be509d888ffc7406fb9d199bc0cc"


@pytest.fixture(scope="module")
def sample_set(tmp_path_factory):
    """The generated folder, and the paths returned by picture."""
    folder = tmp_path_factory.mktemp("samples")
    paths = sample_images.generate_sample_images(folder)
    return folder, dict(zip(sample_images.PICTURES, paths, strict=True))


def path_of_kind(sample_set, kind):
    (path,) = [path for picture, path in sample_set[1].items() if picture.kind == kind]
    return path


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others():
    content = sample_images.render_picture(SMALL, (1, 2))
    assert sample_images.render_picture(SMALL, (1, 2)) == content
    assert sample_images.render_picture(SMALL, (1, 3)) != content


def test_the_bytes_are_the_pinned_ones():
    content = sample_images.render_picture(SMALL, (1, 2))
    assert hashlib.sha256(content).hexdigest() == SMALL_SHA256


def test_the_bytes_do_not_depend_on_the_processor_features_numpy_and_the_codec_use():
    program = (
        "import sys, numpy; from onprem_images import sample_images as module;"
        "small = module.SamplePicture('small.jpg', 161, 120, 'beach', 0.4);"
        "sys.stdout.buffer.write(module.render_picture(small, (1, 2)));"
        "sys.exit(len(numpy.show_config('dicts')['SIMD Extensions'].get('found', [])))"
    )
    features = " ".join(numpy.show_config("dicts")["SIMD Extensions"].get("found", []))
    environment = os.environ | {"NPY_DISABLE_CPU_FEATURES": features, "JSIMD_FORCENONE": "1"}
    plain = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        cwd=PROJECT,
        check=True,
        capture_output=True,
    )
    assert plain.stdout == sample_images.render_picture(SMALL, (1, 2))


def test_the_folder_holds_the_16_pictures_and_no_leftovers(sample_set):
    folder, paths = sample_set
    assert len(set(paths.values())) == 16
    assert {path for path in folder.rglob("*") if path.is_file()} == set(paths.values())


def test_the_set_equals_pictures_rendered_one_by_one(sample_set):
    index = next(i for i, p in enumerate(sample_images.PICTURES) if p.name == "pebbles-small.jpg")
    picture = sample_images.PICTURES[index]
    content = sample_images.render_picture(picture, (sample_images.SAMPLE_SEED, index))
    assert sample_set[1][picture].read_bytes() == content


def test_jpeg_files_weigh_what_photographs_do(sample_set):
    for picture, path in sample_set[1].items():
        if path.suffix == ".jpg":
            assert 0.2 <= path.stat().st_size / (picture.width * picture.height) <= 0.5, picture


def test_sizes_go_from_0_1_to_12_megapixels_and_are_mostly_moderate():
    sizes = [picture.width * picture.height / 1e6 for picture in sample_images.PICTURES]
    assert 0.1 <= min(sizes) < 0.2
    assert max(sizes) == 12
    assert sum(0.5 <= size <= 4 for size in sizes) >= 12
    assert 35 <= sum(sizes) <= 45


def test_some_pictures_are_upright_and_some_lie():
    ratios = [picture.width / picture.height for picture in sample_images.PICTURES]
    assert sum(ratio < 1 for ratio in ratios) >= 3
    assert sum(ratio > 1 for ratio in ratios) >= 3
    assert len({round(ratio, 2) for ratio in ratios}) >= 5


def test_one_name_has_a_space_and_a_plus_and_one_is_in_a_sub_folder():
    names = [picture.name for picture in sample_images.PICTURES]
    assert sum(" " in name and "+" in name for name in names) == 1
    assert sum("/" in name for name in names) == 1


def test_stored_modes_are_what_the_kinds_promise(sample_set):
    modes = {"rgb": "RGB", "rotated": "RGB", "grey": "L", "cmyk": "CMYK", "alpha": "RGBA"}
    for picture, path in sample_set[1].items():
        with Image.open(path) as image:
            assert image.mode == modes[picture.kind], picture
            assert image.format == ("PNG" if picture.kind == "alpha" else "JPEG"), picture
            stored = (picture.width, picture.height)
            assert image.size == (stored[::-1] if picture.kind == "rotated" else stored), picture


def test_the_rotated_picture_is_shown_upright_by_its_orientation():
    upright = Image.open(io.BytesIO(sample_images.render_picture(SMALL, (1, 2))))
    rotated = dataclasses.replace(SMALL, kind="rotated")
    stored = Image.open(io.BytesIO(sample_images.render_picture(rotated, (1, 2))))
    assert stored.getexif()[0x0112] == 6
    shown = ImageOps.exif_transpose(stored)
    assert shown.size == upright.size
    difference = ImageStat.Stat(ImageChops.difference(shown, upright)).mean
    assert max(difference) < 6  # the losses of JPEG; another turn differs by more than 30


def test_the_png_has_colour_under_its_transparent_parts(sample_set):
    with Image.open(path_of_kind(sample_set, "alpha")) as image:
        *colours, alpha = image.split()
    assert alpha.getextrema() == (0, 255)
    assert any(alpha.histogram()[1:255])  # a soft edge
    hidden = alpha.point([255] + [0] * 255)
    for colour in colours:
        assert ImageStat.Stat(colour, hidden).stddev[0] > 20


def test_the_cmyk_picture_uses_all_four_inks(sample_set):
    with Image.open(path_of_kind(sample_set, "cmyk")) as image:
        assert all(deviation > 5 for deviation in ImageStat.Stat(image).stddev)


def test_importing_the_module_does_not_import_numpy():
    program = "import sys, onprem_images.sample_images; sys.exit('numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], cwd=PROJECT, check=True)


def test_ctrl_c_ends_it_and_leaves_no_files(tmp_path):
    program = (
        "import pathlib, sys; from onprem_images.sample_images import generate_sample_images;"
        "generate_sample_images(pathlib.Path(sys.argv[1]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, tmp_path],
        cwd=PROJECT,
        stderr=subprocess.PIPE,
        preexec_fn=hear_ctrl_c,
        start_new_session=True,  # as from a terminal, the signal goes to the workers too
        text=True,
    )
    until(lambda: is_starting_workers(process.pid))
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=LIMIT_S)  # until the workers have closed stderr too
    assert process.returncode == -signal.SIGINT
    assert errors.count("Traceback") == 1  # the parent's alone
    assert list(tmp_path.iterdir()) == []
