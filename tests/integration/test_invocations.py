"""What Lambda measured of a run, from its log group; and what that costs."""

import dataclasses
import io
import json
import time
from datetime import UTC, datetime, timedelta

import boto3
import pandas as pd
import pytest
from moto import mock_aws
from rows import row

from lambda_function.cloud import find_buckets, find_function, make_client
from lambda_function.metrics_log import RowId
from metrics.analysis import cost
from metrics.analysis.cost import (
    PRICES,
    bill_lines,
    bill_of,
    cost_by_part,
    expected_usage,
    total_usd,
    work_usd,
)
from metrics.collect import invocations
from metrics.collect.cloud_rows import CloudRows, wait_for_rows
from metrics.collect.invocations import (
    Invocation,
    collect_invocations,
    count_refused,
    count_throttles,
    invocations_from_csv,
    invocations_to_csv,
    parse_report,
    save_invocations,
    with_invocations,
)

GROUP = "/aws/lambda/image-pipeline"
# As AWS writes them: tabs between the parts, and one at the end.
WARM = (
    "REPORT RequestId: r-1\tDuration: 102.25 ms\tBilled Duration: 103 ms\t"
    "Memory Size: 1769 MB\tMax Memory Used: 91 MB\t\n"
)
COLD = WARM.replace("r-1", "r-2").rstrip() + "\tInit Duration: 412.50 ms\t\n"
TIMEOUT = WARM.replace("r-1", "r-3").rstrip("\t\n") + "\tStatus: timeout\n"


def test_a_report_line_is_read_whole():
    assert parse_report(WARM) == Invocation("r-1", 102.25, 103, 0, 1769, 91, timed_out=False)
    assert parse_report(COLD).init_ms == 412.5
    assert parse_report(TIMEOUT).timed_out
    for line in ("START RequestId: r-1 Version: $LATEST", "END RequestId: r-1", "", "{}"):
        assert parse_report(line) is None


@pytest.fixture
def logs(_aws_environment):
    """A log group of moto's, and a function that writes messages into it."""
    with mock_aws():
        client = boto3.client("logs")
        client.create_log_group(logGroupName=GROUP)
        client.create_log_stream(logGroupName=GROUP, logStreamName="s")

        def write(*messages: str) -> None:
            now = int(time.time() * 1000)
            client.put_log_events(
                logGroupName=GROUP,
                logStreamName="s",
                logEvents=[{"timestamp": now, "message": message} for message in messages],
            )

        client.write = write
        yield client


def test_tries_of_the_requests_are_collected_with_their_s3_requests_and_others_are_not(logs):
    logs.write(
        '{"request_id": "r-1", "s3_requests": '
        '{"PutObject": 3, "GetObject": 2, "ListObjectsV2": 1}}',
        *("not json {", '["r-1"]', WARM, COLD),
        WARM.replace("r-1", "another"),
        TIMEOUT.replace("r-3", "r-1"),
    )
    found = collect_invocations(logs, GROUP, {"r-1", "r-2"}, 0, limit_s=0)
    assert sorted(one.request_id for one in found) == ["r-1", "r-1", "r-2"]
    first, killed = (one for one in found if one.request_id == "r-1")
    assert (first.s3_puts, first.s3_gets) == (4, 2)
    assert (killed.s3_puts, killed.timed_out) == (0, True)


def test_lines_that_come_late_are_waited_for_and_those_that_never_come_are_not_for_ever(
    logs, monkeypatch
):
    monkeypatch.setattr(invocations.time, "sleep", lambda _: logs.write(COLD))
    logs.write(WARM)
    assert len(collect_invocations(logs, GROUP, {"r-1", "r-2"}, 0, limit_s=60)) == 2
    assert len(collect_invocations(logs, GROUP, {"r-1", "gone"}, 0, limit_s=0)) == 1


def test_events_that_the_function_refused_are_counted_by_reason_since_the_run_began(logs):
    refused = '{"level": "ERROR", "refused": "an SQS message", "count": 2}'
    logs.write(refused, refused, '{"level": "ERROR", "refused": "x", "count": 1}', "[ERROR] other")
    logs.write('{"request_id": "r-1", "refused": 5, "note": "ERROR"}', WARM)
    began = datetime.now(UTC) - timedelta(hours=1)
    assert count_refused(logs, GROUP, began) == {"an SQS message": 4, "x": 1}
    assert count_refused(logs, GROUP, datetime.now(UTC) + timedelta(hours=1)) == {}


def test_an_event_that_is_not_s3s_costs_no_try_and_is_counted_from_the_embedded_clouds_log(
    embedded,
):
    began, function = datetime.now(UTC), find_function(embedded)
    event = {"source": "aws.s3", "detail-type": "Object Created", "detail": {}}
    answer = make_client(embedded, "lambda").invoke(
        FunctionName=function["FunctionName"], Payload=json.dumps(event)
    )
    assert "FunctionError" not in answer
    assert json.loads(answer["Payload"].read())["refused"] == 1
    reason = "an EventBridge event, 'Object Created' of 'aws.s3', and no S3 event of a picture"
    logs = make_client(embedded, "logs")
    assert count_refused(logs, function["LogGroupName"], began) == {reason: 1}


def test_invocations_survive_being_written_and_read():
    ones = [parse_report(line) for line in (WARM, COLD, TIMEOUT)]
    table = invocations_from_csv(invocations_to_csv(ones))
    assert [Invocation(**line) for line in table.to_dict("records")] == ones
    with pytest.raises(ValueError, match="columns"):
        invocations_from_csv(b"a,b\n1,2\n")


def test_the_embedded_clouds_log_group_is_read_by_the_same_code(embedded, tmp_path):
    buckets, function = find_buckets(embedded), find_function(embedded)
    s3 = make_client(embedded, "s3")
    keys = [f"reported {n}" for n in range(3)]
    for key in keys:
        s3.put_object(
            Bucket=buckets.input,
            Key=f"input/{key}",
            Body=b"no picture",
            Metadata={"run-id": "reported", "round": "1"},
        )
    expected = {RowId("reported", 1, key) for key in keys}
    rows = CloudRows(s3, buckets.output, "reported")
    wait_for_rows(rows, expected, 60)
    frame = pd.read_csv(io.StringIO(rows.csv()), keep_default_na=False)
    target = tmp_path / "invocations.csv"
    logs, functions = (make_client(embedded, name) for name in ("logs", "lambda"))
    save_invocations(logs, functions, function, rows, target)
    bill = bill_of(frame, invocations_from_csv(target.read_bytes()))
    assert (bill.requests, bill.reported, bill.retries, bill.timed_out) == (3, 3, 0, 0)
    assert bill.usage.s3_puts == 3  # the uploads: no picture has an output, and rows are not in S3
    assert bill.usage.s3_gets >= 3
    assert bill.usage.gb_s > 0
    assert 10 < bill.max_memory_mb < bill.memory_mb == 1769
    assert not bill.on_aws


def test_what_lambda_billed_stands_beside_each_row():
    merged = pd.DataFrame({"image_key": ["a", "b"], "request_id_cloud": ["r-1", "gone"]})
    one = parse_report(WARM)
    joined = with_invocations(merged, table_of(one, dataclasses.replace(one, init_ms=7)))
    assert list(joined["billed_ms_cloud"].fillna(-1)) == [2 * 103, -1]
    assert list(joined["init_ms_cloud"].fillna(-1)) == [7, -1]
    assert with_invocations(merged, None) is merged


def test_throttles_are_counted_from_the_functions_metric():
    now = datetime.now(UTC)
    with mock_aws():
        client = boto3.client("cloudwatch")
        for name, value in (("mine", 3), ("mine", 4), ("another's", 9)):
            client.put_metric_data(
                Namespace="AWS/Lambda",
                MetricData=[
                    {
                        "MetricName": "Throttles",
                        "Dimensions": [{"Name": "FunctionName", "Value": name}],
                        "Timestamp": now,
                        "Value": value,
                    }
                ],
            )
        span = now - timedelta(minutes=5), now + timedelta(minutes=5)
        assert count_throttles(client, "mine", *span) == 7
        assert count_throttles(client, "nobody's", *span) is None
        assert count_throttles(client, "mine", *reversed(span)) == 7  # a clock that was set back


def table_of(*ones: Invocation) -> pd.DataFrame:
    return pd.DataFrame([dataclasses.asdict(one) for one in ones])


def rows_of(*request_ids: str, **fields: object) -> pd.DataFrame:
    facts = {"orig_size": 1_000_000, "new_size": 100_000, **fields}
    rows = [row(f"{n}.jpg", request_id=r, **facts) for n, r in enumerate(request_ids)]
    return pd.DataFrame([dataclasses.asdict(one) for one in rows])


def test_the_bill_is_what_a_hand_computes():
    one = Invocation("r", 900, 1000, 0, 1024, 100, False, "arm64", s3_puts=4, s3_gets=2)
    table = table_of(one, dataclasses.replace(one, request_id="q", billed_ms=3000, init_ms=5))
    bill = bill_of(rows_of("r", "q", environment="aws"), table)
    assert (bill.usage.gb_s, bill.usage.invocations, bill.cold_starts) == (4, 2, 1)
    parts = cost_by_part(bill.usage)
    assert parts["Lambda GB-seconds"] == pytest.approx(4 * 0.0000133334)
    assert parts["Lambda requests"] == pytest.approx(2 * 0.20 / 1e6)
    assert parts["S3 PUT and LIST"] == pytest.approx((8 + 2) * 0.005 / 1000)  # with the uploads
    assert parts["S3 GET"] == pytest.approx(4 * 0.0004 / 1000)
    assert parts["S3 storage"] == pytest.approx(0.0022 * 0.023 * 24 / 730.5)
    # Two rows within one second: two messages sent, a batch received and deleted.
    assert parts["queue of rows"] == pytest.approx((2 + 2) * 0.40 / 1e6)
    gb_s = 0.2 * 1769 / 1024 * 0.0000133334
    assert parts["writer of rows"] == pytest.approx(0.20 / 1e6 + gb_s + 0.005 / 1000)
    assert total_usd(bill.usage) == pytest.approx(sum(parts.values()))
    measuring = ("data transfer", "logs", "queue of rows", "writer of rows")
    work = total_usd(bill.usage) - sum(parts[name] for name in measuring)
    assert work_usd(bill.usage) == pytest.approx(work)
    assert bill.on_aws


def test_requests_without_a_line_are_counted_and_taken_for_average_ones():
    one = Invocation("r-0", 900, 1000, 0, 1024, 100, False, s3_puts=4)
    whole = bill_of(rows_of("r-0"), table_of(one))
    half = bill_of(rows_of("r-0", "r-1"), table_of(one))
    assert (half.requests, half.reported) == (2, 1)
    assert half.usage.gb_s == 2 * whole.usage.gb_s
    assert "1 of 2 requests (1 without a REPORT line are taken for average)" in bill_lines(half)[0]
    assert bill_of(rows_of("r-0"), table_of(dataclasses.replace(one, request_id="x"))) is None


def test_retries_are_billed_too():
    one = Invocation("r", 900, 1000, 0, 1024, 100, True)
    bill = bill_of(rows_of("r"), table_of(one, one, one))
    assert (bill.retries, bill.timed_out) == (2, 3)
    assert bill.usage.gb_s == 3
    assert bill.usage.invocations == 3


def test_what_is_expected_grows_with_pictures_sizes_rounds_and_memory():
    base = expected_usage([1_000_000] * 10, 1, 1769)
    assert base.invocations == 10
    assert expected_usage([1_000_000] * 10, 3, 1769).gb_s == pytest.approx(3 * base.gb_s)
    assert expected_usage([1_000_000] * 10, 1, 2 * 1769).gb_s == pytest.approx(2 * base.gb_s)
    assert expected_usage([9_000_000] * 10, 1, 1769).gb_s > 2 * base.gb_s
    parts = cost_by_part(base)
    assert parts["S3 PUT and LIST"] > parts["Lambda GB-seconds"]  # as the docstring says


def test_the_price_table_has_both_architectures_and_a_date():
    assert {"lambda_gb_s_x86_64", "lambda_gb_s_arm64"} <= PRICES.keys()
    assert "2025" in cost.PRICES_OF
