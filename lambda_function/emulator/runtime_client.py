"""A Lambda runtime client in the standard library, for systems that awslambdaric has no wheel for.

Runs as a script inside an execution environment, with the handler's name as its argument. It talks
the same Runtime API as awslambdaric, and the tests run both.
"""

import http.client
import importlib
import json
import os
import sys
import time
import traceback

PREFIX = "/2018-06-01/runtime"


class Context:
    """The part of Lambda's context object that handlers commonly use."""

    def __init__(self, headers: http.client.HTTPMessage):
        self.aws_request_id = headers["Lambda-Runtime-Aws-Request-Id"]
        self.invoked_function_arn = headers["Lambda-Runtime-Invoked-Function-Arn"]
        self.function_name = os.environ["AWS_LAMBDA_FUNCTION_NAME"]
        self.function_version = os.environ["AWS_LAMBDA_FUNCTION_VERSION"]
        self.memory_limit_in_mb = os.environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"]
        self.log_group_name = os.environ["AWS_LAMBDA_LOG_GROUP_NAME"]
        self.log_stream_name = os.environ["AWS_LAMBDA_LOG_STREAM_NAME"]
        self._deadline_ms = int(headers["Lambda-Runtime-Deadline-Ms"])

    def get_remaining_time_in_millis(self) -> int:
        return max(0, self._deadline_ms - int(time.time() * 1000))


def main() -> None:
    api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    try:
        module, _, function = sys.argv[1].rpartition(".")
        handler = getattr(importlib.import_module(module), function)
    except Exception as error:
        post(api, f"{PREFIX}/init/error", problem(error))
        sys.exit(1)
    while True:
        api.request("GET", f"{PREFIX}/invocation/next")
        response = api.getresponse()
        event = json.loads(response.read())
        context = Context(response.headers)
        try:
            answer, path = handler(event, context), "response"
            body = json.dumps(answer)
        except Exception as error:
            body, path = json.dumps(problem(error)), "error"
        sys.stdout.flush()
        post(api, f"{PREFIX}/invocation/{context.aws_request_id}/{path}", body)


def problem(error: Exception) -> dict[str, object]:
    traceback.print_exception(error, file=sys.stdout)
    return {
        "errorType": type(error).__name__,
        "errorMessage": str(error),
        "stackTrace": traceback.format_tb(error.__traceback__),
    }


def post(api: http.client.HTTPConnection, path: str, body: object) -> None:
    api.request("POST", path, body if isinstance(body, str) else json.dumps(body))
    api.getresponse().read()


if __name__ == "__main__":
    main()
