"""What the cloud arm costs on AWS, part by part, before a run and after it.

List prices without free tier, volume tiers or savings plans, from PRICES: one table, one date, one
region; other regions differ by some percent. Requests to S3 count as much as computing at these
sizes, so a cost from durations alone would be wrong.

Two numbers, never mixed: what the work costs, and what it costs to measure it (rows, their queue
and writer, logs, downloads). A break-even rests on the work alone.
"""

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


PRICES_OF = "us-east-1, list prices as of November 2025"
PRICES = {  # USD
    "lambda_request": 0.20 / 1e6,
    "lambda_gb_s_x86_64": 0.0000166667,
    "lambda_gb_s_arm64": 0.0000133334,
    "s3_put": 0.005 / 1e3,  # PUT, POST, COPY, LIST
    "s3_get": 0.0004 / 1e3,  # GET, HEAD; DELETE is free
    "s3_gb_month": 0.023,
    "transfer_out_gb": 0.09,  # into AWS is free, and so is S3 to Lambda in one region
    "logs_gb": 0.50,
    "sqs_request": 0.40 / 1e6,
}
GB = 1e9
HOURS_A_MONTH = 365.25 * 24 / 12
STORED_HOURS = 24.0  # until the next run, or the stack's deletion, removes what this one left

# What is assumed before a run, from the embedded cloud's own log lines on the sample set and on
# 500 small pictures (2026-11-24): billed time grows with the file; requests do not.
BILLED_MS = 60.0
BILLED_MS_PER_MB = 40.0
PUTS_A_PICTURE, GETS_A_PICTURE = 1.0, 1.0  # by the handler: the output, the picture
WRITER_S, WRITER_MB = 0.2, 1769  # of a batch of rows: assumed, and the template's memory
OUTPUT_BYTES, LOG_BYTES, ROW_BYTES = 90_000, 700, 400  # of a picture


@dataclass(frozen=True)
class Usage:
    """What AWS bills for. `stored_gb` are input and output together."""

    pictures: int
    invocations: float
    gb_s: float
    s3_puts: float
    s3_gets: float
    stored_gb: float
    transfer_out_gb: float
    logs_gb: float
    architecture: str = "x86_64"
    row_batches: float = 0.0  # that the metrics writer takes: at most one a second


def expected_usage(
    sizes: list[int], rounds: int, memory_mb: int, architecture: str = "x86_64"
) -> Usage:
    """Of a run over pictures of these sizes (bytes), each done once in every round."""
    n = len(sizes) * rounds
    megabytes = sum(sizes) / 1e6 * rounds
    billed_s = (BILLED_MS * n + BILLED_MS_PER_MB * megabytes) / 1000
    return Usage(
        pictures=n,
        invocations=n,
        gb_s=billed_s * memory_mb / 1024,
        s3_puts=n * (PUTS_A_PICTURE + 1),  # and the upload
        s3_gets=n * GETS_A_PICTURE,
        stored_gb=(megabytes * 1e6 + n * OUTPUT_BYTES) / GB,
        # At worst every output is downloaded, to be compared with the on-prem one.
        transfer_out_gb=n * (ROW_BYTES + OUTPUT_BYTES) / GB,
        logs_gb=n * LOG_BYTES / GB,
        architecture=architecture,
        row_batches=min(n, rounds + billed_s),  # as if one picture were done after the other
    )


def sum_of(usages: list[Usage]) -> Usage:
    """Of several runs of one function."""
    numbers = [field.name for field in fields(Usage) if field.name != "architecture"]
    return replace(usages[0], **{name: sum(getattr(u, name) for u in usages) for name in numbers})


@dataclass(frozen=True)
class Bill:
    """What Lambda itself measured of a run, and what AWS bills for that.

    `requests` are those that the rows name, `reported` those with a REPORT line; the others are
    taken for average ones, since they were billed, too.
    """

    usage: Usage
    requests: int
    reported: int
    retries: int
    timed_out: int
    cold_starts: int
    memory_mb: float
    max_memory_mb: float
    on_aws: bool


def bill_of(rows: "pd.DataFrame", invocations: "pd.DataFrame") -> Bill | None:
    """From the cloud arm's rows, and a line for each invocation (see invocations.py); None when no
    row names its invocation, or none of them was reported."""
    asked = set(rows["request_id"].unique()) - {""}
    own = invocations[invocations["request_id"].isin(asked)]
    reported = own["request_id"].nunique()
    if not reported:
        return None
    scale = len(asked) / reported
    gb_s = (own["billed_ms"] / 1000 * own["memory_mb"] / 1024).sum()
    stored = rows[["orig_size", "new_size"]].sum().sum()  # as if each round's stayed
    usage = Usage(
        pictures=len(rows),
        invocations=len(own) * scale,
        gb_s=gb_s * scale,
        s3_puts=own["s3_puts"].sum() * scale + len(rows),  # and the uploads
        s3_gets=own["s3_gets"].sum() * scale,
        stored_gb=float(stored) / GB,
        transfer_out_gb=len(rows) * ROW_BYTES / GB,
        logs_gb=len(own) * scale * LOG_BYTES / GB,
        architecture=own["architecture"].iloc[0],
        row_batches=rows["timestamp"].str.slice(0, len("2026-01-01T00:00:00")).nunique(),
    )
    return Bill(
        usage=usage,
        requests=len(asked),
        reported=reported,
        retries=len(own) - reported,
        timed_out=int(own["timed_out"].sum()),
        cold_starts=int((own["init_ms"] > 0).sum()),
        memory_mb=float(own["memory_mb"].max()),
        max_memory_mb=float(own["max_memory_mb"].max()),
        on_aws=set(rows["environment"].unique()) == {"aws"},
    )


def usd_by_round(rows: "pd.DataFrame", invocations: "pd.DataFrame") -> dict[int, float]:
    """USD of the work on a picture in each round that Lambda reported of, S3 requests included."""
    bills = {number: bill_of(part, invocations) for number, part in rows.groupby("round")}
    return {
        number: work_usd(bill.usage) / bill.usage.pictures for number, bill in bills.items() if bill
    }


def bill_lines(bill: Bill) -> list[str]:
    """The bill in a terminal."""
    whose = "on AWS" if bill.on_aws else "at AWS's prices, with this machine's durations"
    unreported = bill.requests - bill.reported
    return [
        f"Lambda measured {bill.reported:,} of {bill.requests:,} requests"
        + (f" ({unreported:,} without a REPORT line are taken for average)" if unreported else "")
        + f": {bill.retries:,} retries, {bill.timed_out:,} time-outs, "
        f"{bill.cold_starts:,} cold starts, at most {bill.max_memory_mb:.0f} of "
        f"{bill.memory_mb:.0f} MB used",
        cost_table(bill.usage, f"cost {whose}"),
        f"prices: {PRICES_OF}",
    ]


def cost_by_part(usage: Usage) -> dict[str, float]:
    """USD of each part of the bill."""
    return {
        "Lambda requests": usage.invocations * PRICES["lambda_request"],
        "Lambda GB-seconds": usage.gb_s * PRICES[f"lambda_gb_s_{usage.architecture}"],
        "S3 PUT and LIST": usage.s3_puts * PRICES["s3_put"],
        "S3 GET": usage.s3_gets * PRICES["s3_get"],
        "S3 storage": usage.stored_gb * PRICES["s3_gb_month"] * STORED_HOURS / HOURS_A_MONTH,
        "data transfer": usage.transfer_out_gb * PRICES["transfer_out_gb"],
        "logs": usage.logs_gb * PRICES["logs_gb"],
        "queue of rows": sqs_requests(usage) * PRICES["sqs_request"],
        "writer of rows": usage.row_batches * writer_usd(usage.architecture),
    }


MEASURING = ("data transfer", "logs", "queue of rows", "writer of rows")


def sqs_requests(usage: Usage) -> float:
    """A row is sent by itself; receiving and deleting takes ten at a time."""
    return usage.pictures + 2 * max(usage.pictures / 10, usage.row_batches)


def writer_usd(architecture: str) -> float:
    """Of one batch of rows: an invocation, and a PUT of the CSV while that is small."""
    gb_s = WRITER_S * WRITER_MB / 1024
    computing = gb_s * PRICES[f"lambda_gb_s_{architecture}"]
    return PRICES["lambda_request"] + computing + PRICES["s3_put"]


def cost_table(usage: Usage, title: str) -> str:
    """The bill as aligned text: of the run, and of 1,000 pictures."""
    work, total = work_usd(usage), total_usd(usage)
    parts = cost_by_part(usage) | {"the work": work, "measuring it": total - work, "in all": total}
    per_1000 = 1000 / usage.pictures if usage.pictures else 0.0
    lines = [title, f"{'':<20}{'this run, USD':>16}{'1,000 pictures':>16}"]
    lines += [f"{name:<20}{usd:>16.6f}{usd * per_1000:>16.6f}" for name, usd in parts.items()]
    return "\n".join(lines)


def total_usd(usage: Usage) -> float:
    return sum(cost_by_part(usage).values())


def work_usd(usage: Usage) -> float:
    """Without what it costs to measure the work."""
    return sum(usd for part, usd in cost_by_part(usage).items() if part not in MEASURING)
