"""Another memory or concurrency of the function for a while, and its own again in any case.

What it had is written down before it is changed, so that also after a kill or a power cut the next
run can give it back.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from metrics.common.cli import UserError
from metrics.common.paths import write_whole
from metrics.common.worker_pool import defer_interrupts


def settings_now(client, name: str) -> dict[str, int | None]:
    """Memory in MB and reserved concurrency, None for none, of a function."""
    memory_mb = client.get_function_configuration(FunctionName=name)["MemorySize"]
    reserved = client.get_function_concurrency(FunctionName=name)
    return {"memory_mb": memory_mb, "concurrency": reserved.get("ReservedConcurrentExecutions")}


def change(client, name: str, memory_mb: int, concurrency: int | None) -> None:
    """Returns once it is in force. `concurrency` None: none is reserved."""
    settled = client.get_waiter("function_updated_v2")
    settled.wait(FunctionName=name)  # AWS refuses a change while another is under way
    now = settings_now(client, name)
    if memory_mb != now["memory_mb"]:
        client.update_function_configuration(FunctionName=name, MemorySize=memory_mb)
        settled.wait(FunctionName=name)
    if concurrency != now["concurrency"]:
        if concurrency is None:
            client.delete_function_concurrency(FunctionName=name)
        else:
            client.put_function_concurrency(
                FunctionName=name, ReservedConcurrentExecutions=concurrency
            )


@contextlib.contextmanager
def changed(
    client, name: str, memory_mb: int | None, concurrency: int | None, saved: Path | None
) -> Iterator[None]:
    """Within it the function has these settings; None stays as it was. `saved` is the file that
    says meanwhile what it had; None for a function that ends with the run."""
    if memory_mb is None and concurrency is None:
        yield
        return
    before = settings_now(client, name)
    if saved:
        write_whole(saved, json.dumps({"function": arn_of(client, name), **before}).encode())
    try:
        change(
            client,
            name,
            memory_mb or before["memory_mb"],
            before["concurrency"] if concurrency is None else concurrency,
        )
        yield
    finally:
        with defer_interrupts():  # a second Ctrl-C would leave the function as it is
            change(client, name, before["memory_mb"], before["concurrency"])
            if saved:
                saved.unlink(missing_ok=True)


def arn_of(client, name: str) -> str:
    """Names a function in all accounts and regions."""
    return client.get_function_configuration(FunctionName=name)["FunctionArn"]


def restore(client, name: str, saved: Path) -> bool:
    """Give the function what it had before a run that could not do so itself; whether there was
    anything to do. Raises UserError when `saved` is of another function."""
    if not saved.exists():
        return False
    try:
        content = json.loads(saved.read_bytes())
        its_arn, memory_mb = content["function"], int(content["memory_mb"])
        concurrency = content["concurrency"]
        concurrency = None if concurrency is None else int(concurrency)
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{saved} is damaged ({error!r}); check the function, and delete it"
        ) from None
    if its_arn != arn_of(client, name):
        raise UserError(
            f"a run that was killed left function {its_arn!r} with other settings than its own "
            f"({memory_mb} MB, reserved concurrency {concurrency}); restore these, delete {saved}"
        )
    change(client, name, memory_mb, concurrency)
    saved.unlink()
    return True
