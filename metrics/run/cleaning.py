"""What earlier runs left, here and in the buckets: finding it, and deleting it.

Only what the project itself recorded as its own, or writes under a fixed name, is found. All else
stays, whatever it is called and wherever it lies.
"""

import re
import sys
from pathlib import Path
from typing import NamedTuple

from lambda_function.cloud import Buckets
from lambda_function.image_transform import output_name
from lambda_function.metrics_log import (
    CSV_KEY,
    INPUT_PREFIX,
    PROCESSED_PREFIX,
    SMOKE_TEST_KEY,
    delete_objects,
    read_object,
)
from metrics.analysis.sweep import KINDS
from metrics.collect.cloud_rows import MANIFESTS_PREFIX
from metrics.common.cli import RUN_ID
from metrics.common.paths import (
    CHART_NAMES,
    CHARTS,
    CLOUD_CSV,
    CLOUD_OUTPUTS,
    INVOCATIONS_CSV,
    LOCAL_CSV,
    MANIFEST_JSON,
    MERGED_CSV,
    OUTPUT_LOCAL,
    OUTPUTS_JSONL,
    PART_PREFIX,
    PIXELS_CSV,
    PROJECT,
    REPORT_HTML,
    RESULTS,
    RUN_JSON,
    SUMMARY_JSON,
)
from metrics.common.text import printable
from onprem_images.outputs import delete_files, is_in_place, recorded_outputs

OWN_DOWNLOAD = re.compile(r"[0-9a-f]{64}\.jpg")  # see cloud_output_path in paths.py
PARTS = f"{PART_PREFIX}*.part"  # what a killed run was writing, see whole_file in paths.py
OWN_PART = re.compile(re.escape(PART_PREFIX) + r"[a-z0-9_]{8}\.part")
OWN_CSVS = (CSV_KEY, SMOKE_TEST_KEY)
MAX_MANIFEST = 2**28  # bytes: enough for a million pictures; what is larger would fill memory


class StoredKey(NamedTuple):
    bucket: str
    key: str


# --- here -----------------------------------------------------------------------------------------


def local_leftovers() -> list[Path]:
    """Results and outputs of earlier runs. What lies behind a link is nobody's; a link in the
    place of a file goes, and what it leads to stays."""
    charts = [CHARTS / f"{name}.png" for name in (*CHART_NAMES, *KINDS)]  # and of sweeps
    downloads = [path for path in CLOUD_OUTPUTS.glob("*.jpg") if OWN_DOWNLOAD.fullmatch(path.name)]
    rows = (LOCAL_CSV, CLOUD_CSV, MERGED_CSV, INVOCATIONS_CSV, PIXELS_CSV)
    about = (MANIFEST_JSON, RUN_JSON, SUMMARY_JSON, REPORT_HTML, OUTPUTS_JSONL)
    folders = (RESULTS, CHARTS, CLOUD_OUTPUTS, LOCAL_CSV.parent)  # and all below OUTPUT_LOCAL
    parts = [path for folder in folders for path in folder.glob(PARTS)]
    parts += OUTPUT_LOCAL.rglob(PARTS)
    results = [*rows, *about, *charts, *downloads, *filter(is_part, parts)]
    results = [path for path in results if is_in_place(path, PROJECT)]
    return results + recorded_outputs()


def is_part(path: Path) -> bool:
    return OWN_PART.fullmatch(path.name) is not None


def clean_local() -> None:
    delete_files(local_leftovers())


# --- in the buckets -------------------------------------------------------------------------------


def cloud_leftovers(s3, buckets: Buckets) -> list[StoredKey]:
    """The objects of every run that has a manifest, and the rows of all.

    Manifests come last, so that deleting can be repeated when it was interrupted.
    """
    manifests, pictures = [], set()
    for key, size in list_sizes(s3, buckets.output, MANIFESTS_PREFIX).items():
        if (found := read_own_manifest(s3, buckets.output, key, size)) is None:
            where = printable(f"s3://{buckets.output}/{key}")
            print(f"left alone, not a manifest: {where}", file=sys.stderr)
            continue
        manifests.append(key)
        pictures.update(found)
    if not manifests:
        return []
    inputs = {INPUT_PREFIX + name for name in pictures}
    outputs = {PROCESSED_PREFIX + output_name(name) for name in pictures}
    outputs = outputs.intersection(list_keys(s3, buckets.output, PROCESSED_PREFIX))
    inputs.intersection_update(list_keys(s3, buckets.input, INPUT_PREFIX))
    rows = [key for key in OWN_CSVS if key in list_keys(s3, buckets.output, key)]
    return [
        *(StoredKey(buckets.input, key) for key in sorted(inputs)),
        *(StoredKey(buckets.output, key) for key in (*sorted(outputs), *rows)),
        *(StoredKey(buckets.output, key) for key in manifests),
    ]


def clean_cloud(s3, buckets: Buckets) -> None:
    leftovers = cloud_leftovers(s3, buckets)
    for bucket in (buckets.input, buckets.output):
        delete_objects(s3, bucket, [stored.key for stored in leftovers if stored.bucket == bucket])


def read_own_manifest(s3, bucket: str, key: str, size: int) -> list[str] | None:
    """Image keys of a manifest of ours; None for what upload_images_s3.py did not write:
    of another shape or name, too large, or with keys that are no paths below a folder."""
    from metrics.analysis.ledger import (
        parse_manifest,  # half a second, for what an own cloud has none of
    )

    if size > MAX_MANIFEST or (stored := read_object(s3, bucket, key)) is None:
        return None
    try:
        manifest = parse_manifest(stored.data)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    names = list(manifest.pictures["image_key"])
    is_named_right = key == f"{MANIFESTS_PREFIX}{manifest.run_id}.json"
    if not (RUN_ID.fullmatch(manifest.run_id) and is_named_right and all(map(_is_path, names))):
        return None
    return names


def _is_path(image_key: str) -> bool:
    return not {"", ".", ".."}.intersection(image_key.split("/"))


def list_keys(s3, bucket: str, prefix: str) -> list[str]:
    return list(list_sizes(s3, bucket, prefix))


def list_sizes(s3, bucket: str, prefix: str) -> dict[str, int]:
    """Keys below `prefix`, with the objects' sizes in bytes."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return {entry["Key"]: entry["Size"] for page in pages for entry in page.get("Contents", [])}
