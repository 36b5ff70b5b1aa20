"""Deleting what earlier runs left, here and in the buckets: only what they recorded as theirs."""

import json
import re
import sys

from lambda_function.cloud import Buckets
from lambda_function.handler import INPUT_PREFIX, PROCESSED_PREFIX
from lambda_function.image_transform import output_name
from lambda_function.metrics_log import (
    CSV_KEY,
    LEASE_KEY,
    ROWS_PREFIX,
    delete_objects,
    read_object,
)
from metrics.cloud_rows import MANIFESTS_PREFIX
from metrics.files import (
    CHART_NAMES,
    CHARTS,
    CLOUD_CSV,
    CLOUD_OUTPUTS,
    INVOCATIONS_CSV,
    LOCAL_CSV,
    MANIFEST_JSON,
    MERGED_CSV,
    PIXELS_CSV,
    REPORT_HTML,
    RUN_JSON,
    SUMMARY_JSON,
)
from metrics.outputs import clear_outputs

OWN_DOWNLOAD = re.compile(r"[0-9a-f]{64}\.jpg")  # see cloud_output_path in files.py


def clean_local() -> None:
    """Delete the results and outputs of the run before."""
    clear_outputs()
    charts = [CHARTS / f"{name}.png" for name in CHART_NAMES]
    downloads = [path for path in CLOUD_OUTPUTS.glob("*.jpg") if OWN_DOWNLOAD.fullmatch(path.name)]
    rows = (LOCAL_CSV, CLOUD_CSV, MERGED_CSV, INVOCATIONS_CSV, PIXELS_CSV)
    about = (MANIFEST_JSON, RUN_JSON, SUMMARY_JSON, REPORT_HTML)
    for path in (*rows, *about, *charts, *downloads):
        path.unlink(missing_ok=True)


def clean_cloud(s3, buckets: Buckets) -> None:
    """Delete the objects of every run that has a manifest, and the appended rows of all.

    Manifests go last, so that an interrupted clean can be repeated.
    """
    manifests, inputs, outputs = [], set(), set()
    for key in list_keys(s3, buckets.output, MANIFESTS_PREFIX):
        try:
            run_id, names = read_manifest(read_object(s3, buckets.output, key).data)
        except (ValueError, KeyError, TypeError):
            print(f"left alone, not a manifest: s3://{buckets.output}/{key}", file=sys.stderr)
            continue
        manifests.append(key)
        inputs.update(INPUT_PREFIX + name for name in names)
        outputs.update(PROCESSED_PREFIX + output_name(name) for name in names)
        outputs.update(list_keys(s3, buckets.output, f"{ROWS_PREFIX}{run_id}/"))
    if manifests:
        outputs.update([CSV_KEY, LEASE_KEY])
    delete_objects(s3, buckets.input, sorted(inputs))
    delete_objects(s3, buckets.output, sorted(outputs))
    delete_objects(s3, buckets.output, manifests)


def read_manifest(data: bytes) -> tuple[str, list[str]]:
    """The run id and the image keys of a manifest; see manifest_bytes in dataset.py."""
    manifest = json.loads(data)
    return manifest["run_id"], [picture["image_key"] for picture in manifest["pictures"]]


def list_keys(s3, bucket: str, prefix: str) -> list[str]:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return [entry["Key"] for page in pages for entry in page.get("Contents", [])]
