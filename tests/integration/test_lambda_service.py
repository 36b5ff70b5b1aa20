"""Functions run as on AWS: environments, time-outs, crashes, retries, logs; both clients."""

import io
import json
import re
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest
from processes import LIMIT_S, until

from lambda_function.embedded_cloud import link_runtime_packages
from lambda_function.emulator import lambda_service
from lambda_function.emulator.invocation import FunctionConfig, Host
from lambda_function.emulator.lambda_service import LambdaService
from lambda_function.emulator.runtime_api import runtime_client_code

CLIENTS = ["awslambdaric", "standard_library"] if sys.platform == "linux" else ["standard_library"]

HANDLER = """
import json, os, sys, time, uuid
ENVIRONMENT = uuid.uuid4().hex
if os.environ.get("FAIL_INIT"):
    raise RuntimeError("no init")

def handle(event, context):
    print("said", event.get("say"))
    if "wait_for" in event:
        while not os.path.exists(event["wait_for"]):
            time.sleep(0.01)
    if event.get("do") == "raise":
        raise ValueError("as asked")
    if event.get("do") == "exit":
        os._exit(3)
    if event.get("do") == "import":
        __import__(event["module"])
    return {
        "environment": ENVIRONMENT,
        "request_id": context.aws_request_id,
        "left_ms": context.get_remaining_time_in_millis(),
        "variables": dict(os.environ),
        "event": event,
    }
"""


class Cloud:
    """A LambdaService with one function, and what it logged and gave up."""

    def __init__(self, folder, client: str, concurrency: int = 2, code: str = HANDLER, **config):
        package = io.BytesIO()
        with zipfile.ZipFile(package, "w") as archive:
            archive.writestr("my_function.py", code)
        self.lines: list[str] = []
        self.failures: list[tuple[str, dict]] = []
        self.config = FunctionConfig(
            **{
                "name": "f",
                "arn": "arn:aws:lambda:us-east-1:123456789012:function:f",
                "region": "us-east-1",
                "handler": "my_function.handle",
                "runtime": "python3.11",
                "memory_mb": 512,
                "timeout_s": 20,
                "variables": (("MINE", "1"),),
                "role_arn": "arn:aws:iam::123456789012:role/f",
                "credentials": (("AWS_ACCESS_KEY_ID", "EMBEDDED"),),
                "log_group": "/aws/lambda/f",
                "reserved_concurrency": None,
                "max_retries": 2,
                "max_event_age_s": 3600,
                "failure_queue_arn": "arn:aws:sqs:us-east-1:123456789012:failures",
                "code_sha256": "1",
                "code": package.getvalue(),
                **config,
            }
        )
        self.service = LambdaService(
            Host(
                folder=folder,
                runtime_folder=link_runtime_packages(folder / "runtime"),
                client_code=runtime_client_code(folder / "runtime", client),
                endpoint_url="http://127.0.0.1:9",
                concurrency=concurrency,
                write_log=lambda config, stream, lines: self.lines.extend(lines),
                send_failure=lambda config, record: self.failures.append(
                    (config.failure_queue_arn, record)
                ),
            )
        )

    def invoke(self, **event):
        return self.service.invoke(self.config, json.dumps(event).encode())

    def answer(self, **event) -> dict:
        outcome = self.invoke(**event)
        assert not outcome.error, outcome
        return json.loads(outcome.payload)

    def reports(self) -> list[str]:
        return [line for line in self.lines if line.startswith("REPORT")]


@pytest.fixture(params=CLIENTS)
def client(request) -> str:
    return request.param


@pytest.fixture
def cloud_of(tmp_path, client):
    clouds = []

    def make(**options) -> Cloud:
        clouds.append(Cloud(tmp_path, client, **options))
        return clouds[-1]

    yield make
    for cloud in clouds:
        cloud.service.stop()


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch):
    monkeypatch.setattr(lambda_service, "RETRY_WAITS_S", (0.01, 0.02))


def test_a_function_answers_and_knows_what_lambda_tells_it(cloud_of):
    answer = cloud_of().answer(say="hello")
    assert answer["event"] == {"say": "hello"}
    assert 0 < answer["left_ms"] <= 20_000
    variables = answer["variables"]
    assert variables["AWS_LAMBDA_FUNCTION_NAME"] == "f"
    assert variables["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"] == "512"
    assert variables["AWS_LAMBDA_LOG_GROUP_NAME"] == "/aws/lambda/f"
    assert variables["AWS_ENDPOINT_URL"] == "http://127.0.0.1:9"
    assert variables["MINE"] == "1"


def test_nothing_of_this_process_environment_reaches_a_function(cloud_of, monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "production")
    monkeypatch.setenv("SECRET", "1")
    assert not {"AWS_PROFILE", "SECRET", "HOME"} & set(cloud_of().answer()["variables"])


def test_one_environment_serves_events_one_after_the_other(cloud_of):
    cloud = cloud_of()
    assert len({cloud.answer()["environment"] for _ in range(3)}) == 1
    assert [("Init Duration" in report) for report in cloud.reports()] == [True, False, False]


def test_events_at_the_same_time_get_environments_up_to_the_concurrency(cloud_of, tmp_path):
    cloud, go = cloud_of(concurrency=2), tmp_path / "go"
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(cloud.answer, wait_for=str(go)) for _ in range(4)]
        function = cloud.service._function(cloud.config)
        until(lambda: len(function._environments) == 2 and function._unoccupied == 0)
        go.touch()
        assert len({answer.result(LIMIT_S)["environment"] for answer in answers}) == 2


def test_reserved_concurrency_is_a_limit(cloud_of):
    cloud = cloud_of(concurrency=2, reserved_concurrency=1)
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda _: cloud.answer(), range(3)))
    assert len({answer["environment"] for answer in answers}) == 1


def test_an_error_of_the_handler_is_reported_and_its_environment_stays(cloud_of):
    cloud = cloud_of()
    before = cloud.answer()["environment"]
    outcome = cloud.invoke(do="raise")
    assert outcome.error == "Unhandled"
    problem = json.loads(outcome.payload)
    assert (problem["errorType"], problem["errorMessage"]) == ("ValueError", "as asked")
    assert cloud.answer()["environment"] == before


def test_a_crashed_environment_is_replaced(cloud_of):
    cloud = cloud_of()
    before = cloud.answer()["environment"]
    outcome = cloud.invoke(do="exit")
    assert json.loads(outcome.payload)["errorType"] == "Runtime.ExitError"
    assert "exit status 3" in outcome.payload.decode()
    assert cloud.answer()["environment"] != before


def test_an_environment_that_died_while_idle_costs_no_event(cloud_of):
    cloud = cloud_of()
    cloud.answer()
    (environment,) = cloud.service._function(cloud.config)._environments
    environment._process.kill()
    environment._process.wait()
    assert cloud.answer()
    assert len(cloud.reports()) == 2


def test_a_time_out_kills_the_environment_and_says_so(cloud_of):
    cloud = cloud_of(timeout_s=0.5)
    outcome = cloud.invoke(wait_for="/nowhere")
    assert json.loads(outcome.payload)["errorType"] == "Sandbox.Timedout"
    assert any("Task timed out after 0.50 seconds" in line for line in cloud.lines)
    assert cloud.answer(say="again")


def test_a_function_that_cannot_start_fails_its_events(cloud_of):
    cloud = cloud_of(variables=(("FAIL_INIT", "1"),))
    outcome = cloud.invoke()
    assert outcome.error == "Unhandled"
    assert json.loads(outcome.payload)["errorMessage"] == "no init"


def test_an_asynchronous_event_that_fails_is_tried_three_times_then_reported(cloud_of):
    cloud = cloud_of()
    cloud.service.invoke_async(cloud.config, json.dumps({"do": "raise", "n": 7}).encode())
    until(lambda: cloud.failures)
    ((arn, failure),) = cloud.failures
    assert arn == "arn:aws:sqs:us-east-1:123456789012:failures"
    assert failure["requestPayload"] == {"do": "raise", "n": 7}
    assert failure["requestContext"]["condition"] == "RetriesExhausted"
    assert failure["requestContext"]["approximateInvokeCount"] == 3
    assert failure["responsePayload"]["errorMessage"] == "as asked"
    ids = {re.search(r"RequestId: (\S+)", report).group(1) for report in cloud.reports()}
    assert len(cloud.reports()) == 3
    assert ids == {failure["requestContext"]["requestId"]}


def test_retries_follow_the_configuration(cloud_of):
    cloud = cloud_of(max_retries=0)
    cloud.service.invoke_async(cloud.config, b'{"do": "exit"}')
    until(lambda: cloud.failures)
    assert len(cloud.reports()) == 1


def test_an_event_that_grows_too_old_is_given_up(cloud_of):
    cloud = cloud_of(max_event_age_s=0)
    cloud.service.invoke_async(cloud.config, b'{"do": "raise"}')
    until(lambda: cloud.failures)
    assert cloud.failures[0][1]["requestContext"]["condition"] == "EventAgeExceeded"


def test_each_invocation_logs_start_output_end_and_report(cloud_of):
    cloud = cloud_of()
    request_id = cloud.answer(say="hello")["request_id"]
    start, output, end, report = cloud.lines
    assert start == f"START RequestId: {request_id} Version: $LATEST"
    assert output == "said hello"
    assert end == f"END RequestId: {request_id}"
    numbers = dict(re.findall(r"([A-Z][A-Za-z ]+): ([\d.]+) (?:ms|MB)", report))
    assert float(numbers["Billed Duration"]) >= float(numbers["Duration"]) + float(
        numbers["Init Duration"]
    )
    assert numbers["Memory Size"] == "512"


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_the_report_says_how_much_memory_was_used(cloud_of):
    cloud = cloud_of()
    cloud.answer()
    assert int(re.search(r"Max Memory Used: (\d+) MB", cloud.reports()[0]).group(1)) > 5


@pytest.mark.parametrize("module", ["pytest", "pandas", "PIL", "lambda_function"])
def test_a_package_that_is_neither_in_the_zip_nor_in_the_runtime_is_not_there(cloud_of, module):
    outcome = cloud_of().invoke(do="import", module=module)
    assert json.loads(outcome.payload)["errorType"] == "ModuleNotFoundError"


def test_boto3_is_there_as_in_the_lambda_runtime(cloud_of):
    assert cloud_of().answer(do="import", module="boto3")


def test_a_new_configuration_gets_new_environments(cloud_of):
    cloud = cloud_of()
    before = cloud.answer()
    cloud.config = FunctionConfig(**{**vars(cloud.config), "memory_mb": 1024})
    after = cloud.answer()
    assert after["environment"] != before["environment"]
    assert after["variables"]["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"] == "1024"


def test_stopping_ends_every_process_even_a_busy_one(cloud_of):
    cloud = cloud_of()
    cloud.service.invoke_async(cloud.config, b'{"wait_for": "/nowhere"}')
    function = cloud.service._function(cloud.config)
    until(lambda: any(e._process for e in function._environments))
    processes = [environment._process for environment in function._environments]
    cloud.service.stop()
    assert all(process.poll() is not None for process in processes)


def test_what_waits_or_is_retried_survives_a_change_of_the_function(cloud_of, tmp_path):
    cloud, go = cloud_of(concurrency=1), tmp_path / "go"
    failing = json.dumps({"wait_for": str(go), "do": "raise"}).encode()
    for _ in range(3):  # one under way, two waiting
        cloud.service.invoke_async(cloud.config, failing)
    until(lambda: cloud.service._function(cloud.config)._unoccupied == 0)
    cloud.config = FunctionConfig(**{**vars(cloud.config), "memory_mb": 1024})
    cloud.service._function(cloud.config)  # retires the one of the old configuration
    go.touch()
    until(lambda: len(cloud.failures) == 3)
    counts = [f["requestContext"]["approximateInvokeCount"] for _, f in cloud.failures]
    assert counts == [3, 3, 3]


def test_stopping_ends_retired_functions_too_and_starts_none(cloud_of):
    cloud = cloud_of()
    cloud.service.invoke_async(cloud.config, b'{"wait_for": "/nowhere"}')
    retired = cloud.service._function(cloud.config)
    until(lambda: any(e._process for e in retired._environments))
    (environment,) = retired._environments
    cloud.config = FunctionConfig(**{**vars(cloud.config), "memory_mb": 1024})
    cloud.service.invoke_async(cloud.config, b"{}")
    cloud.service.stop()
    assert environment._process.poll() is not None
    cloud.service.invoke_async(cloud.config, b"{}")
    assert cloud.service._function(cloud.config) is None
    assert cloud.invoke().error == "Unhandled"
