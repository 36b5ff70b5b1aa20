"""What makes the scripts behave alike: exit codes, one line for a user's error, flag types."""

import argparse
import difflib
import itertools
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from metrics.common.paths import PROJECT

DONE, FAILED, INTERRUPTED = 0, 1, 130  # argparse itself exits with 2 on wrong usage
# What to do about the errors of AWS that a user meets most, by code.
_SIGN_IN = "the credentials are expired or unknown; sign in again, or use another --profile"
_ALLOW = (
    "the credentials lack this permission; see the policy in lambda_function/README.md, "
    "or use --profile"
)
_REGION = "the bucket is in another region; name it with --region"
_BUCKET = "check --stack, --input-bucket, --output-bucket and --region"
NEXT_STEPS = {
    **dict.fromkeys(["ExpiredToken", "ExpiredTokenException", "RequestExpired"], _SIGN_IN),
    **dict.fromkeys(["InvalidAccessKeyId", "InvalidClientTokenId"], _SIGN_IN),
    **dict.fromkeys(["SignatureDoesNotMatch", "UnrecognizedClientException"], _SIGN_IN),
    **dict.fromkeys(["AccessDenied", "AccessDeniedException", "403"], _ALLOW),
    **dict.fromkeys(["PermanentRedirect", "AuthorizationHeaderMalformed", "301"], _REGION),
    **dict.fromkeys(["IllegalLocationConstraintException"], _REGION),
    **dict.fromkeys(["NoSuchBucket", "404"], _BUCKET),
    "OperationAborted": "S3 is still busy with that bucket; wait some minutes and run it again",
    "OptInRequired": "the account must enable that region first; or use another --region",
    "InvalidToken": _SIGN_IN,
}
# Groups of --help in their order, so that a flag stands under the same title everywhere.
GROUPS = PICTURES, ROUNDS, CLOUD, FUNCTION, SWEEPS, OUTPUT, COST, RARE = (
    *("pictures and run", "rounds", "cloud", "function", "sweeps", "output and judgement"),
    *("cost assumptions", "rarely used"),
)
CREDENTIALS = re.compile(r"(https?://).*@", re.IGNORECASE | re.DOTALL)
RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class UserError(Exception):
    """Something a user can mend: the message names it, the cause and the next step."""


def run_script(body: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    """The exit code of `body(args)`; errors that a user can cause become one line on stderr."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return body(args)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except UserError as error:
        print(f"error: {without_credentials(str(error))}", file=sys.stderr)
    except OSError as error:
        name = error.filename2 or error.filename  # of a file that is replaced, its own name
        reason = error.strerror or error
        print(f"error: {name}: {reason}" if name else f"error: {reason}", file=sys.stderr)
    except Exception as error:
        if str(error) == "can't start new thread":
            line = "can't start new thread; raise the limit that `ulimit -u` shows"
        elif (line := cloud_problem(error)) is None:
            raise
        print(f"error: {line}", file=sys.stderr)
    return FAILED


def cloud_problem(error: Exception) -> str | None:
    """One line about an error at the cloud that a user can mend; None for any other error."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        EndpointConnectionError,
        NoCredentialsError,
        NoRegionError,
    )

    from lambda_function.metrics_log import MetricsLogError

    if isinstance(error, NoCredentialsError):
        return "no AWS credentials found; run `aws configure`, or use --profile"
    if isinstance(error, NoRegionError):
        return "no AWS region is set; use --region or AWS_REGION"
    if isinstance(error, ClientError):
        answer, call = error.response["Error"], error.operation_name
        name = answer.get("BucketName") or answer.get("Key")
        what = f"{call} {name}" if name else call
        step = NEXT_STEPS.get(answer["Code"])
        line = f"{what}: {answer['Code']}: {answer.get('Message', '')}"
        return _one_line(f"{line}; {step}" if step else line)
    if isinstance(error, EndpointConnectionError):
        return f"{_one_line(str(error))}; is it running? (an embedded cloud ends with Ctrl-C)"
    if isinstance(error, BotoCoreError | Boto3Error | MetricsLogError):
        return _one_line(str(error))
    return None


def _one_line(text: str) -> str:
    return without_credentials(" ".join(text.split()))


def without_credentials(text: str) -> str:
    """`text` without the user name and password that a URL in it may have: of an endpoint, a proxy
    or a package index."""
    return CREDENTIALS.sub(r"\1***@", text)


def some_text(text: str) -> str:
    """A name or an address; an empty one would count as the default."""
    if not text:
        raise argparse.ArgumentTypeError("'' is empty; give a value, or leave the flag out")
    return text


def some_path(name: str) -> Path:
    """An empty one would be the working directory."""
    return Path(some_text(name))


def positive_int(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def positive_seconds(text: str) -> float:
    return _positive(text, text, "seconds")


def positive_usd(text: str) -> float:
    return _positive(text, text, "USD")


def _positive(text: str, digits: str, unit: str) -> float:
    try:
        number = float(digits)
    except ValueError:
        number = -1
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of {unit} above 0")
    return number


def percentage(text: str) -> float:
    """`5%` or `5` as 0.05; a small number without the sign may be meant as a part of 1."""
    percent = _positive(text, text.removesuffix("%"), "percent")
    if percent < 1 and not text.endswith("%"):
        raise argparse.ArgumentTypeError(
            f"{text!r} would be less than a percent; write {text}% or {100 * percent:g}%"
        )
    return percent / 100


def precision(text: str) -> float:
    """A percentage up to 100: an interval that is wider to either side holds "twice as fast" and
    "as fast" alike, so it answers nothing."""
    if (half_width := percentage(text)) > 1:
        raise argparse.ArgumentTypeError(
            f"{text!r} answers nothing: an interval so wide holds twice as fast and as fast alike; "
            "use 100% at most, such as 5%"
        )
    return half_width


def positive_ints(text: str) -> tuple[int, ...]:
    """`8,32,128`, each above the one before."""
    numbers = tuple(map(positive_int, text.split(",")))
    if sorted(set(numbers)) != list(numbers):
        raise argparse.ArgumentTypeError(f"{text!r}: each number must be above the one before")
    return numbers


def run_id(text: str) -> str:
    if not RUN_ID.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no run id: 1 to 64 letters, digits, '.', '_' or '-'"
        )
    return text


class ScriptParser(argparse.ArgumentParser):
    """A parser whose help is in groups by purpose, and shows every default that is a value; one
    that says which flag a mistyped one may mean."""

    def __init__(self, **how: object):
        usage = {"usage": "%(prog)s [flags]"}
        super().__init__(**(usage | how), formatter_class=_Formatter, allow_abbrev=False)
        self._groups = {title: self.add_argument_group(title) for title in GROUPS}

    def group(self, title: str) -> "argparse._ActionsContainer":
        """One of GROUPS. The first is the one that argparse puts --help into."""
        return self if title == PICTURES else self._groups[title]

    def parse_known_args(self, args=None, namespace=None):
        """Nothing is left over: an unknown word ends the script here. So it does in a sub-command,
        whose parser knows its flags. An unknown flag is named before anything that is missing."""
        words = self._with_values(sys.argv[1:] if args is None else args)
        own = itertools.takewhile(lambda word: word not in self._commands(), words)
        flags = [word for word in own if word.startswith("--") and word != "--"]
        self._check_known([f for f in flags if f.partition("=")[0] not in self._own_flags()])
        found, unknown = super().parse_known_args(words, namespace)
        self._check_known(unknown)
        return found, unknown

    def _check_known(self, unknown: list[str]) -> None:
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}{self._hint(unknown[0])}")

    def _with_values(self, words: Iterable[str]) -> list[str]:
        """`words`, with a value that begins with one minus joined to its flag (`--precision=-5%`),
        so that it is called wrong, and not missing."""
        joined: list[str] = []
        for word in words:
            if joined and self._takes_value(joined[-1]) and re.match(r"(?!-h$)-[^-]", word):
                joined[-1] += f"={word}"
            else:
                joined.append(word)
        return joined

    def _own_flags(self) -> dict[str, argparse.Action]:
        return self._option_string_actions

    def _commands(self) -> "dict[str, ScriptParser]":
        found = (a.choices for a in self._actions if isinstance(a, argparse._SubParsersAction))
        return next(found, {})

    def _takes_value(self, word: str) -> bool:
        action = self._own_flags().get(word)
        return action is not None and action.nargs != 0

    def _hint(self, word: str) -> str:
        """Which flag an unknown word is near to, or which it begins; else nothing."""
        word = word.partition("=")[0]
        flags = {f for parser in (self, *self._commands().values()) for f in parser._shown_flags()}
        if word in flags:
            return "; flags stand after the command"
        if not re.match(r"--?\w", word):
            return ""
        name = f"--{word.strip('-').lower().replace('_', '-')}"
        near = difflib.get_close_matches(name, flags, n=1, cutoff=0.8)
        near = near or sorted(flag for flag in flags if flag.startswith(name))
        return f"; did you mean {' or '.join(near)}?" if near else ""

    def _shown_flags(self) -> list[str]:
        return [f for f, action in self._own_flags().items() if action.help != argparse.SUPPRESS]


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=25)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        default = action.default
        if isinstance(default, Path) and default.is_relative_to(PROJECT):
            # As it is called in the READMEs, wherever the checkout lies; a folder has no suffix.
            default = f"{default.relative_to(PROJECT)}{'' if default.suffix else '/'}"
        if default is None or default is False or default in ((), argparse.SUPPRESS):
            return action.help  # which says itself what happens without the flag
        return f"{action.help} (default: {str(default).replace('%', '%%')})"


def script_parser(docstring: str, first_group: str = "options") -> ScriptParser:
    """A parser whose help begins with the script's docstring."""
    parser = ScriptParser(description=docstring)
    parser._optionals.title = first_group
    return parser
