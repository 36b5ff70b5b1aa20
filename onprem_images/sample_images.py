"""A generated sample data set: 16 photo-like pictures for users who bring none of their own.

Method: the "dead leaves" model, in which discs with a power law of radii (density ~ r**-3)
occlude each other; its scale invariance, edges and occlusions resemble those of natural
photographs (A. Lee, D. Mumford, J. Huang, "Occlusion models for natural images: a statistical
study of a scale-invariant dead leaves model", IJCV 41, 2001). On top of the model come palettes
of real scenes, haze, an out-of-focus distance, shaded and textured discs, and sensor noise, so
that the JPEG files weigh what a camera's would: 0.2 to 0.5 bytes per pixel.

The bytes depend on the seed and the package versions alone, not on the processor: numpy's sin,
exp, log or power may differ in the last bit between SIMD levels, and so may float sums, so only
+ - * / and sqrt are used, and draws of integers and uniform numbers.

A run makes them itself where images_to_upload/ is empty; as a script, this does so anywhere:

    python onprem_images/sample_images.py
    python onprem_images/sample_images.py --images ~/samples
"""

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: the project is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import argparse
import io
import os
from dataclasses import dataclass

from PIL import Image, ImageFilter

from metrics.common.cli import DONE, UserError, run_script, script_parser
from metrics.common.flags import add_flag
from metrics.common.machine import available_cpus
from metrics.common.paths import shown, write_whole
from metrics.common.progress import tqdm
from metrics.common.streams import start_script
from metrics.common.worker_pool import results, worker_pool

# Fixed, so that everybody's sample pictures are the same bytes and results can be compared.
SAMPLE_SEED = 20010401

JPEG_QUALITY = 90
# Pixels shaded at a time: few enough for the temporary arrays to stay in the processor's cache.
STRIP_PIXELS = 65_536
TEXTURE_SIZE = 1024
ZLIB_HUFFMAN_ONLY = 2  # zlib.Z_HUFFMAN_ONLY
ORIENTATION_TAG, ROTATE_CLOCKWISE_TO_VIEW = 0x0112, 6

# Top of the sky, haze at the horizon and ground; then the colours of the leaves, each as likely.
SCENES = {
    "harbour": "34557f e9b48a 3c4a58 | 26374a 5d7186 b5653c d9a066 8a9aa6 e8dcc8 43302a",
    "forest": "b9cfd2 cfdcc4 4a4a2c | 2f4a25 47652f 6d8340 8c9c58 54422c 7a6444 2a3620 a9b36f",
    "beach": "4a90cf dcebf0 d8bf92 | e3cfa3 cbb083 f1e6cf 5fb0c4 2f7fa3 f4f4ee c7694f 9b8a6c",
    "market": "7f8894 b9b7b4 5c5350 | b5382f d98d2b e2c04a 4f7f3a 3d5f8c 8a5a3c c9c2b6 573a4f",
    "mountain": "3f78b8 d6e2ec 6e7a58 | 6f7781 8d949b 4f5a4a 7d8a5c e6ebf0 59503f a8a48f 37424d",
    "autumn": "c9b48a d9b070 5a3d22 | a8431c c96a1f d99a32 7a2f1a 8a6a34 e0b860 4f4a22 5e3a20",
    "town": "9fb3c4 d9d4c8 716a62 | b98f6d d2b48c 8f5f4a e5dccb 5f6770 a8a29a 3f3d42 c9774f",
    "fruit": "d8c7b0 e5d8c2 8a6a4a | c23a2e e39a2c f0cf4c 7f9f3a 9c4a6a 5a7a34 e8b08a 703028",
    "garden": "8fbbe0 dbe8dc 4f6b34 | 3f6b2c 6c9440 9dbb5a d46a8c e8b5c6 f0e2b0 7a4fa0 2f4d26",
    "snow": "8fb0d6 e6ecf2 dfe6ee | f0f3f7 d5dfea b5c5d8 8fa3ba 5d6b78 e3e8ec 47564a c4ccd6",
    "night": "0d1430 3a2f52 15151f | 1b2036 2a2f4a 46385a f0b455 d9643a 2f5570 14182a 5a4a3e",
    "pebbles": "b5b0a8 c0bab0 75706a | 8d8880 a9a39a 6a655f c7bfb2 7d6a5a 55585c b59a80 d8d4cc",
}


@dataclass(frozen=True)
class SamplePicture:
    """One picture as it is to be seen: `kind` "rotated" is stored lying on its side.

    `horizon`: where the leaves begin, as a part of the height (0: they fill the picture).
    `grain`: strength of the sensor noise, near its standard deviation in grey levels.
    """

    name: str
    width: int
    height: int
    scene: str
    horizon: float = 0.0
    grain: int = 6
    kind: str = "rgb"


PICTURES = (
    SamplePicture("harbour-at-dusk.jpg", 4000, 3000, "harbour", 0.35),
    SamplePicture("forest-path.jpg", 1800, 2700, "forest", 0.15),
    SamplePicture("holiday/beach.jpg", 2400, 1600, "beach", 0.4),
    SamplePicture("market day + rain.jpg", 1920, 1280, "market", 0.1),
    SamplePicture("mountain-panorama.jpg", 3000, 1000, "mountain", 0.35),
    SamplePicture("autumn-leaves.jpg", 1600, 2400, "autumn"),
    SamplePicture("phone-held-upright.jpg", 1536, 2048, "town", 0.25, kind="rotated"),
    SamplePicture("old-town-greyscale.jpg", 1800, 1200, "town", 0.3, kind="grey"),
    SamplePicture("print-proof-cmyk.jpg", 1400, 1050, "fruit", kind="cmyk"),
    SamplePicture("sticker-transparent.png", 800, 800, "fruit", kind="alpha"),
    SamplePicture("garden-square.jpg", 1200, 1200, "garden", 0.2),
    SamplePicture("street-portrait.jpg", 1080, 1620, "town", 0.2),
    SamplePicture("snow-field.jpg", 1600, 900, "snow", 0.4),
    SamplePicture("night-lights.jpg", 1281, 853, "night", 0.3, grain=10),
    SamplePicture("flower-close-up.jpg", 900, 600, "garden"),
    SamplePicture("pebbles-small.jpg", 400, 267, "pebbles"),
)


def main(argv: list[str] | None = None) -> int:
    parser = script_parser(__doc__)
    add_flag(parser, "--images", help="folder to write them into")
    return run_script(run, parser.parse_args(argv))


def run(args: argparse.Namespace) -> int:
    for path in generate_sample_images(args.images):
        print(shown(path))
    return DONE


def generate_sample_images(folder: Path) -> list[Path]:
    """Write the pictures into `folder` (made if missing). Raises UserError when anything else has
    the name of one, also a link that leads nowhere: it is the user's.

    Nothing is written before all are rendered, so an interruption of that leaves nothing.
    """
    paths = [Path(folder, picture.name) for picture in PICTURES]
    _check_free(paths)
    contents = _render_in_processes()
    drafts = [path.with_name(f"{path.name}.{os.getpid()}.tmp") for path in paths]
    try:
        for draft, content in zip(drafts, contents, strict=True):
            write_whole(draft, content)
        _check_free(paths)  # rendering takes a while
        for draft, path in zip(drafts, paths, strict=True):
            os.replace(draft, path)
    finally:
        for draft in drafts:
            draft.unlink(missing_ok=True)
    return paths


def _check_free(paths: list[Path]) -> None:
    for path in paths:
        if os.path.lexists(path):
            raise UserError(f"{shown(path)} is in the way of a sample picture; move it away")


def _render_in_processes() -> list[bytes]:
    """The encoded pictures in the order of PICTURES, the largest rendered first."""
    order = sorted(range(len(PICTURES)), key=lambda i: -PICTURES[i].width * PICTURES[i].height)
    with (
        worker_pool(min(available_cpus(), len(order)), _import_numpy) as pool,
        tqdm(total=len(order), desc="sample pictures", unit="picture", disable=None) as bar,
    ):
        rendered = {}
        tasks = ((index, PICTURES[index]) for index in order)
        for index, content in results(pool, _render, tasks):
            rendered[index] = content
            bar.update()
    return [rendered[index] for index in range(len(PICTURES))]


def _render(index: int, picture: SamplePicture) -> tuple[int, bytes]:
    return index, render_picture(picture, (SAMPLE_SEED, index))


def _import_numpy() -> None:
    import numpy  # noqa: F401 - not at the top: scripts import this module for their --help


def render_picture(picture: SamplePicture, seed: tuple[int, ...]) -> bytes:
    """The encoded picture; the same picture and seed give the same bytes."""
    import numpy as np

    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
    texture = _texture(rng)
    colours = _scene_colours(picture.scene)
    # What is far away is out of focus, so a quarter of the resolution is enough for it.
    small = (-(-picture.width // 4), -(-picture.height // 4))
    far = _sky_and_ground(*small, colours, picture.horizon)
    far = _paint(rng, far, colours, picture.horizon * 0.7, 0.75, texture)
    # Pillow computes its weights in floating point; a box blur and an enlargement by exactly 4
    # leave nothing to round there, so no compiler's choice of instructions can show.
    blurred = Image.fromarray(far).filter(ImageFilter.BoxBlur(1.5)).filter(ImageFilter.BoxBlur(1.5))
    enlarged = blurred.resize((4 * small[0], 4 * small[1]), Image.Resampling.BICUBIC)
    backdrop = np.asarray(enlarged)[: picture.height, : picture.width]
    pixels = _paint(rng, backdrop, colours, picture.horizon, 0.35, texture)
    # A lens does not draw an edge sharper than a pixel; the discs' edges are.
    softened = Image.fromarray(pixels).filter(ImageFilter.BoxBlur(0.6))
    return _encode(_add_noise(rng, np.array(softened), picture.grain), picture.kind)


def _paint(rng, backdrop, colours, horizon: float, haze: float, texture):
    """Pixels of a dead leaves picture in front of `backdrop`."""
    height, width = backdrop.shape[:2]
    leaves = _scatter_leaves(rng, width, height, colours, horizon, haze, texture)
    return _shade(_label_map(width, height, leaves), leaves, backdrop, texture)


def _scene_colours(scene: str):
    """Rows of red, green, blue: sky, horizon, ground, then the leaves' colours."""
    import numpy as np

    codes = SCENES[scene].replace("|", " ").split()
    return np.array([tuple(bytes.fromhex(code)) for code in codes], np.float32)


def _texture(rng):
    """A flat, periodic field of multi-scale noise around 0, of TEXTURE_SIZE**2 numbers.

    Doubled from a coarse grid, with finer and weaker noise added at each size.
    """
    import numpy as np

    field = np.zeros((4, 4), np.float32)
    strength = np.float32(1)
    while True:
        field += (rng.random(field.shape, np.float32) - np.float32(0.5)) * strength
        if len(field) == TEXTURE_SIZE:
            return field.ravel()
        for axis in (0, 1):
            field = field.repeat(2, axis)
            field = (np.roll(field, 1, axis) + field * 2 + np.roll(field, -1, axis)) / 4
        strength *= np.float32(0.75)


def _sky_and_ground(width: int, height: int, colours, horizon: float):
    """Pixels that go from the sky to the haze at the horizon, and from there to the ground."""
    import numpy as np

    y = np.arange(height, dtype=np.float32)[:, None] / np.float32(height)
    edge = np.float32(max(horizon, 0.05))
    above = np.minimum(y / edge, 1)
    below = np.maximum(y - edge, 0) / (1 - edge)
    sky, haze, ground = colours[:3]
    column = sky + (haze - sky) * above + (ground - haze) * np.sqrt(below)
    return np.repeat(column.astype(np.uint8)[:, None], width, axis=1)


def _scatter_leaves(rng, width: int, height: int, colours, horizon: float, haze: float, texture):
    """Columns of numbers, one per disc, by name; index 0 stands for "no disc", then far to near.

    With a horizon, what is nearer is lower in the picture and larger.
    """
    import numpy as np

    smallest = max(min(width, height) / 350, 2.5)
    largest = min(width, height) / 4
    # The mean area of a disc is about 25 times the smallest's square; 3 layers hide most gaps.
    count = int(3 * width * height / (25 * smallest * smallest))

    def uniform(low, high):
        return np.float32(low) + np.float32(high - low) * rng.random(count + 1, np.float32)

    depth = np.arange(count + 1, dtype=np.float32) / np.float32(count + 1)  # 1: nearest
    # The inverse of the cumulative distribution of a density r**-3 from smallest to largest.
    ratio = smallest / largest
    radius = np.float32(smallest) / np.sqrt(1 - uniform(0, 1) * np.float32(1 - ratio * ratio))
    x, y = uniform(-0.05, 1.05), uniform(-0.05, 1.05)
    if horizon > 0:
        radius *= np.float32(0.35) + np.float32(0.9) * depth
        y = np.float32(horizon) + np.float32(1.1 - horizon) * (depth + uniform(-0.25, 0.25))
    leaves = {
        "x": (x * np.float32(width)).astype(np.int32),
        "y": (y * np.float32(height)).astype(np.int32),
        "radius": radius.astype(np.int32),
        "rough": uniform(0, 1) * uniform(0.1, 0.9),
        "shift": rng.integers(0, TEXTURE_SIZE * TEXTURE_SIZE, count + 1),
    }
    return leaves | _light(uniform) | _tints(x, y, depth, uniform, colours, haze, texture)


def _light(uniform):
    """Columns for the shading of discs between flat leaves, tilted at random, and lit balls."""
    ball = uniform(0, 1) * uniform(0.1, 1.1)
    return {
        "bias": 1 - ball * 2 / 3,  # the mean of the bulge is 2/3: balls are no darker than leaves
        "ball": ball,
        "tilt_x": uniform(-0.25, 0.25) - ball / 3,  # the light comes from the upper left
        "tilt_y": uniform(-0.25, 0.25) - ball / 2,
    }


def _tints(x, y, depth, uniform, colours, haze: float, texture):
    """Columns of the discs' colours: alike in a neighbourhood, and fading with the distance."""
    import numpy as np

    half = np.float32(TEXTURE_SIZE / 2)  # so the picture spans half the texture and sees no repeat
    place = (np.abs(y) * half).astype(np.intp) * TEXTURE_SIZE + (np.abs(x) * half).astype(np.intp)
    mood = texture.take(place, mode="wrap")
    leaf_colours = colours[3:]
    choice = mood * np.float32(1.5) + uniform(-0.25, 0.25) + 4
    choice = (choice * len(leaf_colours)).astype(np.intp) % len(leaf_colours)
    tint = leaf_colours[choice] * (uniform(0.6, 1.1) + mood * np.float32(0.3))[:, None]
    tint += uniform(-12, 12)[:, None] * np.array([1, 0, -1], np.float32)  # warmer or colder
    tint += (colours[1] - tint) * (np.float32(haze) * (1 - depth) * (1 - depth))[:, None]
    return {"red": tint[:, 0].copy(), "green": tint[:, 1].copy(), "blue": tint[:, 2].copy()}


def _label_map(width: int, height: int, leaves):
    """For each pixel the number of the nearest disc that covers it, or 0."""
    import numpy as np

    labels = np.zeros((height, width), np.min_scalar_type(len(leaves["x"])))
    masks = {}
    discs = zip(leaves["x"].tolist(), leaves["y"].tolist(), leaves["radius"].tolist(), strict=True)
    for label, (x, y, r) in enumerate(discs):
        left, right = max(x - r, 0), min(x + r + 1, width)
        top, bottom = max(y - r, 0), min(y + r + 1, height)
        if label == 0 or left >= right or top >= bottom:
            continue
        if r not in masks:
            square = np.arange(-r, r + 1, dtype=np.int32) ** 2
            masks[r] = square[:, None] + square <= r * r
        mask = masks[r][top - y + r : bottom - y + r, left - x + r : right - x + r]
        np.copyto(labels[top:bottom, left:right], label, where=mask)
    return labels


def _shade(labels, leaves, backdrop, texture):
    """Pixels of the labelled discs, lit and textured, in front of `backdrop`."""
    import numpy as np

    height, width = labels.shape
    pixels = np.empty((height, width, 3), np.uint8)
    x = np.arange(width, dtype=np.float32)
    rows = max(STRIP_PIXELS // width, 1)
    scale = 1 / (leaves["radius"].astype(np.float32) + np.float32(0.5))
    column_x, column_y = leaves["x"].astype(np.float32), leaves["y"].astype(np.float32)
    for top in range(0, height, rows):
        label = labels[top : top + rows].astype(np.intp)
        y = np.arange(top, top + len(label), dtype=np.float32)[:, None]
        inverse = scale.take(label)
        u = (x - column_x.take(label)) * inverse
        v = (y - column_y.take(label)) * inverse
        bulge = np.sqrt(np.maximum(1 - u * u - v * v, 0))
        light = leaves["bias"].take(label) + leaves["ball"].take(label) * bulge
        light += leaves["tilt_x"].take(label) * u
        light += leaves["tilt_y"].take(label) * v
        # One number addresses the periodic texture; each disc looks at another part of it.
        place = np.arange(width) + np.arange(top, top + len(label))[:, None] * TEXTURE_SIZE
        place = (place + leaves["shift"].take(label)) & (TEXTURE_SIZE * TEXTURE_SIZE - 1)
        light *= 1 + leaves["rough"].take(label) * texture.take(place)
        strip = pixels[top : top + rows]
        for channel, name in enumerate(("red", "green", "blue")):
            value = leaves[name].take(label) * light
            np.clip(value, 0, 255, out=value)
            strip[..., channel] = value
        np.copyto(strip, backdrop[top : top + rows], where=(label == 0)[..., None])
    return pixels


def _add_noise(rng, pixels, grain: int):
    """Sensor noise: the sum of two uniform numbers stands in for a Gaussian one."""
    import numpy as np

    rows = max(STRIP_PIXELS // pixels.shape[1], 1)
    for top in range(0, len(pixels), rows):
        strip = pixels[top : top + rows]
        noise = rng.integers(-grain, grain + 1, (2, *strip.shape), np.int8)
        total = strip.astype(np.int16) + noise[0] + noise[1]
        strip[:] = np.clip(total, 0, 255, out=total)
    return pixels


def _encode(pixels, kind: str) -> bytes:
    """A PNG for the kind "alpha", a JPEG for the others."""
    image = Image.fromarray(pixels)
    output = io.BytesIO()
    options = {"quality": JPEG_QUALITY, "subsampling": "4:2:0"}
    if kind == "alpha":
        image.putalpha(Image.fromarray(_round_cutout(*image.size)))
        # Without a search for repeats, which zlib-ng does differently on different processors
        # (and which finds next to nothing in noise).
        image.save(output, "PNG", compress_type=ZLIB_HUFFMAN_ONLY)
        return output.getvalue()
    if kind == "rotated":
        image = image.transpose(Image.Transpose.ROTATE_90)
        exif = Image.Exif()
        exif[ORIENTATION_TAG] = ROTATE_CLOCKWISE_TO_VIEW
        options["exif"] = exif
    elif kind == "grey":
        image = image.convert("L")
        del options["subsampling"]
    elif kind == "cmyk":
        image = Image.fromarray(_inks(pixels), "CMYK")
    image.save(output, "JPEG", **options)
    return output.getvalue()


def _round_cutout(width: int, height: int):
    """An alpha channel: opaque in the middle, a soft edge, transparent in the corners."""
    import numpy as np

    x = (2 * np.arange(width) + 1 - width) * 1000 // width
    y = (2 * np.arange(height) + 1 - height) * 1000 // height
    distance = x * x + (y * y)[:, None]
    return np.clip((900_000 - distance) // 600, 0, 255).astype(np.uint8)


def _inks(pixels):
    """Cyan, magenta, yellow and black; half of the grey is printed in black, as presses do."""
    import numpy as np

    coloured = 255 - pixels
    black = coloured.min(axis=2, keepdims=True) // 2
    return np.concatenate([coloured - black, black], axis=2)


if __name__ == "__main__":
    sys.exit(start_script(main))
