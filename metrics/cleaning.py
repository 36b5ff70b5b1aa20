"""Deleting what earlier runs left, here and in the buckets: only what they recorded as theirs."""

import json
from pathlib import Path

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
from metrics.charts import CHART_NAMES
from metrics.cloud_rows import MANIFESTS_PREFIX
from metrics.files import CHARTS, CLOUD_CSV, LOCAL_CSV, MERGED_CSV, RUN_JSON
from onprem_images.local_image_proc import clear_outputs, recorded_outputs


def local_files() -> list[Path]:
    """Generated files that are there, all of which a new run replaces."""
    results = [LOCAL_CSV, CLOUD_CSV, MERGED_CSV, RUN_JSON]
    results += [CHARTS / f"{name}.png" for name in CHART_NAMES]
    return [path for path in results if path.exists()] + recorded_outputs()


def clean_local() -> int:
    """Delete local_files(); returns how many there were."""
    files = local_files()
    clear_outputs()
    for path in files:
        path.unlink(missing_ok=True)
    return len(files)


def clean_cloud(s3, buckets: Buckets) -> int:
    """Delete the objects of every run that has a manifest, and the appended rows of all.

    Manifests go last, so that an interrupted clean can be repeated. Returns the number of keys.
    """
    manifests = list_keys(s3, buckets.output, MANIFESTS_PREFIX)
    inputs, outputs = set(), set()
    for key in manifests:
        manifest = json.loads(read_object(s3, buckets.output, key).data)
        names = [picture["image_key"] for picture in manifest["pictures"]]
        inputs.update(INPUT_PREFIX + name for name in names)
        outputs.update(PROCESSED_PREFIX + output_name(name) for name in names)
        outputs.update(list_keys(s3, buckets.output, f"{ROWS_PREFIX}{manifest['run_id']}/"))
    if manifests:
        outputs.update([CSV_KEY, LEASE_KEY])
    delete_objects(s3, buckets.input, sorted(inputs))
    delete_objects(s3, buckets.output, sorted(outputs))
    delete_objects(s3, buckets.output, manifests)
    return len(inputs) + len(outputs) + len(manifests)


def list_keys(s3, bucket: str, prefix: str) -> list[str]:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return [entry["Key"] for page in pages for entry in page.get("Contents", [])]
