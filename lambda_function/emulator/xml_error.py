"""The one answer in which the embedded cloud itself refuses a request, in the words of S3."""

import html
from collections.abc import Callable


def refuse(environ: dict, start_response: Callable, status: str, code: str, reason: str) -> list:
    """Answer a WSGI request with an error; to HEAD without a body."""
    message = html.escape(reason)
    body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))]
    start_response(status, headers)
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]
