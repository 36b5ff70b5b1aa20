"""The stack on AWS: create it, change it, look at it, remove it and all that belongs to it.

create and update show the change set that CloudFormation worked out, ask, carry it out, and prove
with a picture (the smoke test) that its row arrives; a flag that is not given leaves the stack as
it is. delete empties the stack's own buckets first, and exits 1 when anything remains. With
--dry-run nothing is touched, and what would happen is printed.

    python lambda_function/deploy.py create --cloud aws --dry-run
    python lambda_function/deploy.py update --cloud aws --memory 3008
    python lambda_function/deploy.py delete --cloud aws
"""

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: the project is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import argparse
from functools import partial

from lambda_function.cloud import Buckets, Cloud, add_cloud_arguments, cloud_of
from lambda_function.stack.change_sets import (
    TEMPLATE,
    Site,
    code_parameters,
    deploy,
    deployable_stack,
    find_site,
    own_stack,
    parameters_for,
    present_parameters,
    template,
)
from lambda_function.stack.package import THIS_PYTHON, build_zip, host_architecture, package_key
from metrics.common.cli import (
    DONE,
    FAILED,
    FUNCTION,
    ScriptParser,
    UserError,
    run_script,
    script_parser,
)
from metrics.common.flags import add_flag
from metrics.common.streams import start_script

LAMBDA_PYTHONS = ("3.12", "3.13", "3.14")  # those whose system has the glibc that Pillow needs


def main(argv: list[str] | None = None) -> int:
    parser = script_parser(__doc__)
    parser.usage = "%(prog)s COMMAND [flags]"
    commands = parser.add_subparsers(
        title="commands", prog=parser.prog, dest="command", required=True, metavar="COMMAND"
    )
    for name, body, purpose in (
        ("create", run_deploy, "create the stack, or bring it up to date"),
        ("update", run_deploy, "change the stack that is there"),
        ("status", run_status, "print the stack's state, parameters and outputs"),
        ("delete", run_delete, "remove the stack, its buckets and what is in them"),
    ):
        command = commands.add_parser(name, help=purpose, description=purpose)
        command.set_defaults(body=body)
        if body is run_deploy:
            add_parameter_arguments(command)
        if body is run_delete:
            command.add_argument(
                "--force", action="store_true", help="delete objects of others in its buckets, too"
            )
        if body is not run_status:
            command.add_argument("--yes", action="store_true", help="do not ask")
            add_flag(command, "--dry-run", help="say what would happen, touch nothing")
        add_cloud_arguments(command, named_buckets=False)
    args = parser.parse_args(argv)
    return run_script(args.body, args)


def add_parameter_arguments(parser: ScriptParser) -> None:
    """A flag for each parameter of the template that is a user's choice."""
    group = parser.group(FUNCTION)
    group.description = "what is not given stays as the stack has it, or is the default"
    for flag, unit, parameter, text in (
        ("--memory", "MB", "MemorySize", "1769 is one vCPU"),
        ("--function-timeout", "SECONDS", "TimeoutSeconds", "of an invocation"),
        ("--architecture", "NAME", "Architecture", "of the processor; at an endpoint that of here"),
        ("--concurrency", "N", "ReservedConcurrency", "most invocations at once; 0: no limit"),
        ("--log-retention-days", "DAYS", "LogRetentionDays", "for the function's logs"),
        ("--expire-days", "DAYS", "ExpireDays", "for what runs leave in the buckets"),
    ):
        default = template()["Parameters"][parameter]["Default"]
        group.add_argument(
            flag,
            dest=parameter,
            metavar=unit,
            type=partial(parameter_value, parameter),
            default=None,
            help=f"{text} (default: {default})",
        )
    group.add_argument(
        "--python",
        choices=sorted({*LAMBDA_PYTHONS, THIS_PYTHON}),
        default=None,
        help="version of Python (default: 3.13; at an endpoint that of this interpreter)",
    )


def parameter_value(parameter: str, text: str) -> str:
    """A value that the template allows; CloudFormation would say so only at the end."""
    described = template()["Parameters"][parameter]
    allowed = [str(value) for value in described.get("AllowedValues", [])]
    if allowed and text not in allowed:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(allowed)}")
    if described["Type"] == "Number" and not allowed:
        least, most = described["MinValue"], described.get("MaxValue", float("inf"))
        if not text.isdecimal() or not least <= int(text) <= most:
            limits = f"{least} to {most}" if "MaxValue" in described else f"{least} or more"
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number of {limits}")
    return text


def is_aws_itself(cloud: Cloud) -> bool:
    return cloud.name == "aws" and not cloud.endpoint_url


def chosen_parameters(args: argparse.Namespace, cloud: Cloud, found: dict | None) -> dict[str, str]:
    """The flags; and at an endpoint, where a function runs on this machine, what suits it."""
    chosen = {
        n: str(v) for n, v in vars(args).items() if n in template()["Parameters"] and v is not None
    }
    if args.python:
        chosen["Runtime"] = f"python{args.python}"
    if is_aws_itself(cloud):
        if args.python and args.python not in LAMBDA_PYTHONS:
            raise UserError(
                f"Lambda's python{args.python} cannot load Pillow's wheel (its glibc is older); "
                f"use --python {LAMBDA_PYTHONS[-2]}"
            )
        return chosen
    return parameters_of_this_machine() | present_parameters(found) | chosen


def parameters_of_this_machine() -> dict[str, str]:
    return {"Runtime": f"python{THIS_PYTHON}", "Architecture": host_architecture()}


def package_for(parameters: dict[str, str], for_this_machine: bool) -> bytes:
    python = parameters["Runtime"].removeprefix("python")
    own = for_this_machine and python == THIS_PYTHON
    return build_zip(() if own else (python,), parameters["Architecture"], for_this_machine)


def run_deploy(args: argparse.Namespace) -> int:
    from lambda_function.stack.smoke_test import run_smoke_test

    cloud = cloud_of(args)
    site = find_site(cloud)
    found = deployable_stack(site)
    if found is None and args.command == "update":
        raise UserError(f"stack {site.stack!r} not found; run deploy.py create")
    parameters = parameters_for(found, chosen_parameters(args, cloud, found))
    package = package_for(parameters, not is_aws_itself(cloud))
    print_plan(site, found, package, parameters)
    if args.dry_run:
        print_dry_run(site, found)
        return DONE

    def confirm(change_set: dict) -> bool:
        print_changes(change_set)
        return args.yes or ask("carry this out? [y/N] ") in ("y", "yes")

    if not deploy(site, found, package, parameters, confirm):
        print("nothing was changed")
        return FAILED
    waited_s = run_smoke_test(site.s3, Buckets(site.bucket("input"), site.bucket("output")))
    print(f"the smoke test's row was there after {waited_s:.1f} s, and is removed")
    print_outputs(own_stack(site))
    return DONE


def ask(question: str) -> str:
    try:
        return input(question).strip()
    except (EOFError, OSError) as error:
        raise UserError("nobody answers the question; use --yes to go on without it") from error


def print_plan(site: Site, found: dict | None, package: bytes, parameters: dict[str, str]) -> None:
    present = present_parameters(found)
    print(f"stack {site.stack!r}, account {site.account}, {site.region}")
    print(f"zip {package_key(package)[:12]}..., {len(package):,} bytes, in {site.bucket('code')}")
    for name, value in (parameters | code_parameters(site, package)).items():
        before = f" (now {present[name]})" if name in present and present[name] != value else ""
        print(f"  {name} = {value}{before}")


def print_changes(change_set: dict) -> None:
    for entry in change_set["Changes"]:
        change = entry["ResourceChange"]
        replaced = change.get("Replacement", "False")
        note = {"True": ", replaced", "Conditional": ", perhaps replaced"}.get(replaced, "")
        print(f"  {change['Action']:<7} {change['LogicalResourceId']:<16} ", end="")
        print(f"{change['ResourceType']}{note}")


def print_dry_run(site: Site, found: dict | None) -> None:
    """What follows from the template, since a change set would already be something made."""
    if not present_parameters(found):
        for name, resource in template()["Resources"].items():
            print(f"  Add     {name:<16} {resource['Type']}")
        print(f"  Add     (bucket)         {site.bucket('code')}, for the zip")
    else:
        body = site.cloudformation.get_template(StackName=site.stack)["TemplateBody"]
        changed = "the same as" if body == TEMPLATE.read_text() else "another than"
        print(f"the template is {changed} the stack's; what changes is worked out in a change set")
    print("dry run: nothing was touched")


def print_outputs(found: dict) -> None:
    for output in found.get("Outputs", []):
        print(f"  {output['OutputKey']} = {output['OutputValue']}")


def run_status(args: argparse.Namespace) -> int:
    """Exits 1 where there is no stack, or one that is not at rest after a success."""
    site = find_site(cloud_of(args))
    if (found := own_stack(site)) is None:
        raise UserError(f"stack {site.stack!r} not found; run deploy.py create")
    state = found["StackStatus"]
    print(f"stack {site.stack!r}, account {site.account}, {site.region}: {state}")
    for name, value in present_parameters(found).items():
        print(f"  {name} = {value}")
    print_outputs(found)
    good = ("CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE")
    return DONE if state in good else FAILED


def run_delete(args: argparse.Namespace) -> int:
    from lambda_function.stack.removal import (
        check_deletable,
        check_nothing_foreign,
        contents,
        remove,
        wait_until_nothing_is_left,
    )

    site = find_site(cloud_of(args))
    stack = own_stack(site)
    check_deletable(site, stack)
    found = contents(site, stack)
    if not args.force:
        check_nothing_foreign(found)
    state = stack["StackStatus"] if stack else "not there"
    print(f"stack {site.stack!r}, account {site.account}, {site.region}: {state}")
    for content in found:
        of_others = f", {len(content.foreign)} of them of others" if content.foreign else ""
        print(f"  bucket {content.bucket}: {content.objects} object versions{of_others}")
    if args.dry_run:
        print("dry run: nothing was touched")
        return DONE
    nothing_there = stack is None and not found
    if (
        not (args.yes or nothing_there)
        and ask("to delete all this, type the stack's name: ") != site.stack
    ):
        print("nothing was deleted")
        return FAILED
    remove(site, stack, found)
    if left := wait_until_nothing_is_left(site):
        raise UserError(
            f"still there: {', '.join(left)}; run deploy.py delete again, or look there"
        )
    print(f"nothing is left of stack {site.stack!r}")
    return DONE


if __name__ == "__main__":
    sys.exit(start_script(main))
