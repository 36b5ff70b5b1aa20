"""The flags that several scripts have, each defined once: the same thing has the same flag.

Which cloud: see add_cloud_arguments in lambda_function/cloud.py. What is assumed of cost: see
metrics/analysis/assumptions.py.
"""

from metrics.common.cli import (
    CLOUD,
    OUTPUT,
    PICTURES,
    RARE,
    ROUNDS,
    ScriptParser,
    percentage,
    positive_int,
    positive_seconds,
    run_id,
    some_path,
)
from metrics.common.paths import IMAGES

_SHARED: dict[str, tuple[str, dict[str, object]]] = {
    "--images": (
        PICTURES,
        {"type": some_path, "default": IMAGES, "metavar": "FOLDER", "help": "folder of pictures"},
    ),
    "--dry-run": (PICTURES, {"action": "store_true", "help": "say what would be done, and stop"}),
    "--resume": (PICTURES, {"action": "store_true"}),
    "--self-check": (
        PICTURES,
        {"action": "store_true", "help": "on-prem against itself: should find no difference"},
    ),
    "--workers": (
        PICTURES,
        {"type": positive_int, "metavar": "N"},
    ),
    "--run-id": (RARE, {"type": run_id, "metavar": "ID", "help": "default: a new one"}),
    "--all-files": (
        RARE,
        {
            "action": "store_true",
            "help": "also files that programs leave (@eaDir, ._*, *.xmp)",
        },
    ),
    "--rounds": (ROUNDS, {"type": positive_int, "metavar": "N"}),
    "--concurrency": (
        CLOUD,
        {"type": positive_int, "metavar": "N"},
    ),
    "--timeout": (CLOUD, {"type": positive_seconds, "metavar": "SECONDS"}),
    "--bundle": (
        OUTPUT,
        {
            "type": some_path,
            "metavar": "ZIP",
            "help": "also pack rows, manifest, summary and report",
        },
    ),
    "--baseline": (
        OUTPUT,
        {
            "type": some_path,
            "metavar": "ZIP",
            "help": "say what changed since the run in that bundle",
        },
    ),
    "--plan": (
        OUTPUT,
        {
            "type": percentage,
            "metavar": "PERCENT",
            "help": "how many pictures and rounds find such a difference",
        },
    ),
    "--allow-partial": (
        RARE,
        {"action": "store_true", "help": "judge although rows are missing, and say so"},
    ),
}


def add_flags(parser: ScriptParser, *names: str) -> None:
    for name in names:
        add_flag(parser, name)


def add_flag(parser: ScriptParser, name: str, **own: object) -> None:
    """With what is special to a script, such as its help."""
    group, shared = _SHARED[name]
    parser.group(own.pop("group", group)).add_argument(name, **(shared | own))


def add_judgement_arguments(parser: ScriptParser) -> None:
    """What is passed on to judge()."""
    add_flags(parser, "--bundle", "--baseline", "--plan", "--allow-partial")
