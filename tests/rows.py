"""Rows for tests."""

import hashlib

from lambda_function.metrics_log import MetricRow


def row(image_key: str = "a.jpg", **fields: object) -> MetricRow:
    """A plausible cloud row of a picture, with `fields` in place of what is not told apart."""
    defaults = {
        "timestamp": "2026-01-02T03:04:05.678+00:00",
        "image_key": image_key,
        "orig_size": 1000,
        "new_size": 500,
        "proc_ms": 12.5,
        "source": "cloud",
        "run_id": "run",
        "round": 1,
        "status": "ok",
        "error": "",
        "cpu_ms": 12.25,
        "fetch_ms": 1.5,
        "store_ms": 2.5,
        "cold_start": False,
        "worker": "w1",
        "memory_mb": 1769,
        "environment": "embedded",
        "output_sha256": hashlib.sha256(image_key.encode(errors="surrogatepass")).hexdigest(),
        "transform": "v1",
    }
    return MetricRow(**(defaults | fields))
