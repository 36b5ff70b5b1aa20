"""The embedded cloud: S3, Lambda and the stack on this machine, with no account and no Docker.

moto answers the API calls; the function's zip runs in processes of its own under AWS's runtime
client (emulator/). It listens on 127.0.0.1 only and never contacts another host. What it measures
is this machine, not AWS.

Prints the AWS_ENDPOINT_URL line that the other scripts need, then serves until Ctrl-C:

    python lambda_function/embedded_cloud.py --concurrency 2
    AWS_ENDPOINT_URL=http://127.0.0.1:... python upload_images_s3.py
"""

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: the project is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import argparse
import contextlib
import gc
import importlib.util
import os
import re
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from importlib import metadata

from lambda_function.cloud import DEFAULT_STACK, Cloud, add_stack_argument
from lambda_function.emulator.faults import KINDS, Faults, parse_faults
from metrics.common.cli import (
    CLOUD,
    DONE,
    FAILED,
    RARE,
    UserError,
    run_script,
    script_parser,
)
from metrics.common.flags import add_flag
from metrics.common.machine import available_cpus
from metrics.common.streams import after_output, start_script

RUNTIME_PACKAGES = ("boto3", "awslambdaric")  # what the Lambda runtime offers beside the zip
STOP_LIMIT_S = 20
LOOPBACK = "127.0.0.1"
# How the names of the variables begin that moto reads.
OF_MOTO = ("MOTO_", "INITIAL_NO_AUTH", "S3_UPLOAD_PART", "TEST_SERVER_MODE", "TEST_PROXY_MODE")


def default_runtime_client() -> str:
    """AWS's own client, or a stand-in on systems that it has no wheel for."""
    return "awslambdaric" if importlib.util.find_spec("awslambdaric") else "standard_library"


@contextlib.contextmanager
def embedded_cloud(
    concurrency: int,
    stack: str = DEFAULT_STACK,
    runtime_client: str | None = None,
    faults: str | None = None,
) -> Iterator[Cloud]:
    """An embedded cloud in a process of its own, with the stack deployed; ends with the context.

    The process ends, too, when this one dies: it reads the pipe that this one holds open. Raises
    UserError when it does not start.
    """
    command = [
        *(sys.executable, str(Path(__file__).resolve()), "--until-stdin-closes"),
        *("--concurrency", str(concurrency), "--stack", stack),
        *("--runtime-client", runtime_client or default_runtime_client()),
        *(["--faults", faults] if faults else []),
    ]
    process = subprocess.Popen(  # nosec B603 # this script, no shell; its flags were checked
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C in the terminal is for this process, which then ends it
    )
    try:
        line = process.stdout.readline()
        if not line.startswith("AWS_ENDPOINT_URL="):
            raise UserError("the embedded cloud did not start; its message stands above")
        yield Cloud("embedded", line.strip().partition("=")[2], stack=stack)
    finally:
        process.stdin.close()
        try:
            process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def main(argv: list[str] | None = None) -> int:
    parser = script_parser(__doc__)
    cloud = parser.group(CLOUD)
    cloud.add_argument("--port", type=int, default=0, metavar="N", help="0: a free one")
    add_flag(
        parser,
        "--concurrency",
        default=available_cpus(),
        help="environments at once; more than CPUs inflate what is measured",
    )
    cloud.add_argument(
        "--empty", action="store_true", help="deploy no stack: for trying deploy.py create"
    )
    add_stack_argument(parser)
    rare = parser.group(RARE)
    rare.add_argument(
        "--runtime-client",
        choices=["awslambdaric", "standard_library"],
        default=default_runtime_client(),
        help="what runs the handler: AWS's own client, or a stand-in where it has no wheel",
    )
    rare.add_argument(
        "--faults",
        type=faults_flag,
        metavar="SEED[:KIND,...]",
        help="let things go wrong, to see that no row is lost: all kinds, or some of "
        + "; ".join(f"{name} ({kind.meaning})" for name, kind in KINDS.items()),
    )
    rare.add_argument("--until-stdin-closes", action="store_true", help=argparse.SUPPRESS)
    return run_script(serve, parser.parse_args(argv))


def faults_flag(text: str) -> Faults:
    try:
        return parse_faults(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def serve(args: argparse.Namespace) -> int:
    """Serve until SIGINT, SIGTERM, or (for a parent process) the end of standard input."""
    gc.disable()  # moto's many objects live as long as the process: looking through them is in vain
    forget_aws_configuration()
    wait_for_end = end_of_service(args.until_stdin_closes)
    with tempfile.TemporaryDirectory(prefix="embedded-cloud-") as folder:
        server, moto_cloud = start_server(args, Path(folder))
        try:
            cloud = Cloud("embedded", f"http://{LOOPBACK}:{server.bind_addr[1]}", stack=args.stack)
            if not args.empty:
                deploy_stack(cloud)
            gc.freeze()
            gc.enable()
            if args.faults:
                args.faults.arm()
            print(f"AWS_ENDPOINT_URL={cloud.endpoint_url}", flush=True)
            if after_output(DONE) != DONE:  # nobody would know where it listens
                return FAILED
            if not args.until_stdin_closes:
                stack = "no stack" if args.empty else f"stack {args.stack!r}"
                print(
                    f"embedded cloud ready, {stack} deployed, "
                    f"{args.concurrency} environments at most; Ctrl-C stops it"
                    + (f"; with faults of seed {args.faults.seed}" if args.faults else ""),
                    file=sys.stderr,
                )
            wait_for_end()
        finally:
            moto_cloud.stop()
            server.stop()
    if args.faults:
        print(args.faults, file=sys.stderr)
    return DONE


def end_of_service(until_stdin_closes: bool) -> Callable[[], object]:
    """Waits for SIGINT, SIGTERM or the end of standard input, also for one that came before.

    Each writes to a pipe, which any number of signals at once can do: a handler that sets an Event
    waits for ever when it interrupts another that is about to, or the wait itself.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)  # a pipe that is full tells enough
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)  # what wakes the pipe's reader is the signal itself
    if until_stdin_closes:
        end = threading.Thread(
            target=lambda: (sys.stdin.read(), os.write(writer, b"\0")), daemon=True
        )
        end.start()
    return partial(os.read, reader, 1)


def forget_aws_configuration() -> None:
    """For the rest of this process: moto asks boto3 for a session, which must not find a profile
    of the user's, or miss one that the environment names; and moto, which is not loaded yet, has
    settings of its own that a user's tests may have left (another account's roles, another mode).
    """
    for name in [name for name in os.environ if name.startswith(("AWS_", *OF_MOTO))]:
        del os.environ[name]
    os.environ["AWS_CONFIG_FILE"] = os.environ["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull


def start_server(args: argparse.Namespace, folder: Path):
    """moto behind a local HTTP server, and what runs its functions."""
    from lambda_function.emulator.faults import UnreliableApi, UnreliableLambda
    from lambda_function.emulator.http_server import http_server
    from lambda_function.emulator.invocation import Host
    from lambda_function.emulator.lambda_service import LambdaService
    from lambda_function.emulator.moto_patches import MotoCloud
    from lambda_function.emulator.runtime_api import runtime_client_code

    moto_cloud = MotoCloud(args.faults.of_batch if args.faults else None)
    moto_cloud.install()
    try:
        server = http_server(LOOPBACK, args.port)
    except (OSError, OverflowError) as error:
        raise UserError(f"cannot listen on port {args.port}: {error}; choose another") from error
    port = server.bind_addr[1]
    host = Host(
        folder=folder,
        runtime_folder=link_runtime_packages(folder / "runtime"),
        client_code=runtime_client_code(folder / "runtime", args.runtime_client),
        endpoint_url=f"http://{LOOPBACK}:{port}",
        concurrency=args.concurrency,
        write_log=moto_cloud.write_log,
        send_failure=moto_cloud.send_failure,
    )
    if args.faults:
        moto_cloud.lambda_service = UnreliableLambda(host, args.faults)
        server.wsgi_app = UnreliableApi(moto_cloud, args.faults, moto_cloud.lambda_service)
    else:
        moto_cloud.lambda_service = LambdaService(host)
        server.wsgi_app = moto_cloud
    threading.Thread(target=server.serve, daemon=True).start()
    return server, moto_cloud


def deploy_stack(cloud: Cloud) -> None:
    """As deploy.py does it, with this interpreter as the runtime."""
    from lambda_function.deploy import package_for, parameters_of_this_machine
    from lambda_function.stack.change_sets import deploy, find_site, parameters_for

    parameters = parameters_for(None, parameters_of_this_machine())
    package = package_for(parameters, for_this_machine=True)
    deploy(find_site(cloud), None, package, parameters, confirm=lambda _: True)


def link_runtime_packages(folder: Path) -> Path:
    """A folder with the runtime's packages and what they require, and nothing else: a zip that
    lacks a package fails here as it does on AWS, whatever this interpreter has installed."""
    folder.mkdir()
    waiting, seen = list(RUNTIME_PACKAGES), set()
    while waiting:
        name = waiting.pop()
        try:
            package = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # for another platform, or awslambdaric on macOS
            continue
        if package.name in seen:
            continue
        seen.add(package.name)
        for top in {file.parts[0] for file in package.files} - {"..", "__pycache__"}:
            with contextlib.suppress(FileExistsError):
                os.symlink(package.locate_file(top), folder / top)
        for requirement in package.requires or []:
            if "extra ==" not in requirement:  # such as `botocore<1.45,>=1.44`
                waiting.append(re.match(r"[A-Za-z0-9._-]+", requirement).group())
    return folder


if __name__ == "__main__":
    sys.exit(start_script(main))
