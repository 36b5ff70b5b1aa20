"""One run: both arms take all pictures, round by round, and their rows are fetched.

A Run knows nothing of sweeps, and does not judge: master_pipeline.py does several, and says what
happens with the rows of each.
"""

import argparse
import contextlib
import functools
import gc
import importlib
import itertools
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from lambda_function.cloud import Cloud, cloud_of, find_buckets, find_function, make_client
from lambda_function.metrics_log import RowId
from metrics.analysis.rounds import first_arm_leads
from metrics.analysis.run_record import RunRecord, run_id_in
from metrics.analysis.sweep import Setting
from metrics.collect.cloud_rows import (
    CloudRows,
    default_timeout_s,
    download_outputs,
    wait_for_rows,
)
from metrics.common.cli import UserError, cloud_problem
from metrics.common.paths import (
    CLOUD_CSV,
    FUNCTION_JSON,
    INVOCATIONS_CSV,
    LOCAL_CSV,
    MANIFEST_JSON,
    PIXELS_CSV,
    RUN_JSON,
    shown,
    write_whole,
)
from metrics.run.cleaning import clean_cloud, clean_local
from metrics.run.uploads import (
    check_conditional_writes,
    check_run_is_new,
    upload_images,
    uploaded_before,
)
from onprem_images.dataset import DataSet, describe_data_set, write_manifest
from onprem_images.local_image_proc import process_on_prem

if TYPE_CHECKING:
    from metrics.analysis.comparison import Comparison
    from metrics.analysis.stopping import Limits
    from metrics.run.resume import Unfinished


class Run:
    """A run with one setting; without what is done `before` when it was interrupted."""

    def __init__(
        self,
        args: argparse.Namespace,
        setting: Setting,
        data_set: DataSet,
        run_id: str,
        cloud: "CloudInUse",
        before: "Unfinished | None",
    ):
        self._args, self._setting, self._cloud, self._before = args, setting, cloud, before
        self._pictures = data_set.pictures
        self.run_id = run_id
        self.record = RunRecord(
            run_id,
            args.command_line,
            "none" if args.self_check else args.cloud,
            describe_data_set(data_set),
            before.record if before else None,
        )
        self.record.note(setting=asdict(setting))

    def measure(self, limits: "Limits | None", usd_a_round: float = 0.0) -> None:
        """All rounds of the setting, or within `limits` as many as the answer needs; then the files
        of both arms lie here."""
        # A cloud of the run's own starts when it is first needed: starting would slow the pass that
        # is before it. Any other is open by now, so that what is wrong with it was said at once.
        if not self._before:
            self._begin(1 if limits else self._setting.rounds, limits)
        if limits:
            self._add_rounds(limits, usd_a_round)
        else:
            for number in range(1, self._setting.rounds + 1):
                self._round(number, self._setting.rounds)
            if not self._args.self_check:
                self._fetch_rows()
        if not self._args.self_check:
            self._ask_lambda()
        self._check_own()

    def _check_own(self) -> None:
        """Raise UserError when what lies here is of another run. The lock keeps others away; where
        there is none, or somebody put files here, no run passes for another."""
        for path in (MANIFEST_JSON, RUN_JSON):
            if (found := run_id_in(path)) != self.run_id:
                raise UserError(
                    f"{shown(path)} is of run {found!r}, and no longer of {self.run_id!r}: another "
                    "run worked in this checkout; run it again"
                )

    def _add_rounds(self, limits: "Limits", usd_a_round: float) -> None:
        """After each, fetch the rows and see whether another is needed."""
        start, first = time.monotonic(), 1
        if self._before:  # all rounds but its last are done
            first = self._before.passes // (2 if self._args.self_check else 1)
        for number in itertools.count(first):
            self._write_manifest(number, limits)
            self._round(number, limits.max_rounds)
            done_here = number - first + 1
            time_s = (time.monotonic() - start) * (done_here + 1) / done_here
            if why := self._reason_to_stop(limits, number, time_s, (number + 1) * usd_a_round):
                print(f"no more rounds after {number}: {why}", file=sys.stderr)
                self.record.note(rounds_ended=why)
                break

    def _begin(self, rounds: int, limits: "Limits | None") -> None:
        """Clean what earlier runs left, here and in a cloud that is there already, and write what
        this run is about."""
        cloud = self._cloud
        if not self._args.no_clean:
            with self.record.step("clean"):
                clean_local()
                if cloud.is_open:
                    clean_cloud(cloud.s3, cloud.buckets)
        if cloud.is_open:
            check_run_is_new(cloud.s3, cloud.buckets.output, self.run_id)
        self._write_manifest(rounds, limits)

    def _write_manifest(self, rounds: int, limits: "Limits | None") -> None:
        passes = 2 * rounds if self._args.self_check else rounds
        write_manifest(self.run_id, passes, self._pictures, limits and limits.half_width)

    def _round(self, number: int, of: int) -> None:
        if self._args.self_check:  # two on-prem passes are the two arms
            for place in (2 * number - 1, 2 * number):
                self._pass_on_prem(place, 2 * of)
            return
        passes = (self._pass_on_prem, self._pass_in_cloud)
        for run_pass in passes if first_arm_leads(number) else reversed(passes):
            run_pass(number, of)

    def _pass_on_prem(self, number: int, of: int) -> None:
        if self._before and number in self._before.done_on_prem:
            return
        with self.record.step("on-prem", number, of):
            process_on_prem(self._pictures, self.run_id, self._setting.workers, number)

    def _pass_in_cloud(self, number: int, of: int) -> None:
        args, pictures, run_id = self._args, self._pictures, self.run_id
        self._cloud.open()
        s3, buckets, done = self._cloud.s3, self._cloud.buckets, frozenset()
        with self.record.step("upload", number, of):
            if self._before:
                done = uploaded_before(s3, buckets, pictures, run_id, number)
            upload_images(s3, buckets, pictures, run_id, number, before=done)
        with self.record.step("wait", number, of):
            expected = {RowId(run_id, number, picture.image_key) for picture in pictures}
            timeout_s = args.timeout or default_timeout_s(len(pictures), args.cloud == "aws")
            queues = self._cloud.queues
            try:
                wait_for_rows(self._rows, expected, timeout_s, args.allow_partial, queues)
            except UserError:
                self._say_refused()  # perhaps why
                raise

    @functools.cached_property
    def _rows(self) -> CloudRows:
        """All rounds' rows, which the waits read."""
        return CloudRows(self._cloud.s3, self._cloud.buckets.output, self.run_id)

    def _fetch_rows(self) -> None:
        self._rows.look()
        self._rows.save(CLOUD_CSV)

    def _reason_to_stop(self, limits: "Limits", rounds: int, time_s: float, usd: float) -> str:
        from metrics.analysis.stopping import reason_to_stop

        comparison = self._judged_so_far()
        if comparison.problems:
            return f"the arms cannot be compared: {comparison.problems[0]}"
        return reason_to_stop(limits, rounds, comparison.per_picture, time_s, usd)

    def _judged_so_far(self) -> "Comparison":
        from metrics.analysis.bundle import Choices
        from metrics.analysis.judgement import compare_run_files
        from metrics.analysis.output_equivalence import pixels_to_csv
        from metrics.report.judgement import run_files_here

        fetch = None
        if not self._args.self_check:
            self._fetch_rows()
            fetch = partial(download_outputs, self._cloud.s3, self._cloud.buckets.output)
        self._check_own()
        choices = Choices(self.run_id, self._args.self_check, self._args.allow_partial)
        run_files = run_files_here(LOCAL_CSV, CLOUD_CSV, MANIFEST_JSON, choices)
        comparison, pixels = compare_run_files(run_files, fetch)
        if pixels is not run_files.pixels:  # so that they are measured once
            write_whole(PIXELS_CSV, pixels_to_csv(pixels))
        return comparison

    def _note_refused(self) -> dict[str, int]:
        """Record what else than pictures the function was called with since the run began."""
        from metrics.collect.invocations import count_refused

        logs, group = make_client(self._cloud.address, "logs"), self._cloud.function["LogGroupName"]
        refused = count_refused(logs, group, self.record.begun)
        self.record.note(refused_events=refused)
        return refused

    def _say_refused(self) -> None:
        from metrics.analysis.stability import refused_events

        if not self._cloud.function:
            return
        with _goes_on("what the function refused"):
            if refused := self._note_refused():
                print(refused_events(refused), file=sys.stderr)

    def _ask_lambda(self) -> None:
        """Save what Lambda measured. A permission that is missing for this costs no answer."""
        from metrics.collect.invocations import count_throttles, save_invocations

        cloud = self._cloud
        if not cloud.function:
            return
        services = ("logs", "lambda", "cloudwatch")
        logs, functions, metrics = (make_client(cloud.address, service) for service in services)
        with self.record.step("logs"), _goes_on("all of Lambda's own measurements"):
            save_invocations(logs, functions, cloud.function, self._rows, INVOCATIONS_CSV)
            name, now = cloud.function["FunctionName"], datetime.now(UTC)
            self._note_refused()
            self.record.note(throttles=count_throttles(metrics, name, self.record.begun, now))


@contextlib.contextmanager
def _goes_on(without: str) -> Iterator[None]:
    """An error of the cloud, such as a permission that is missing, costs no answer."""
    try:
        yield
    except Exception as error:
        if (line := cloud_problem(error)) is None:
            raise
        print(f"going on without {without}: {line}", file=sys.stderr)


# --- the cloud ----------------------------------------------------------------------------------


def has_own_cloud(args: argparse.Namespace) -> bool:
    """Whether the flags ask for an embedded cloud that starts and ends with the run. Variables such
    as AWS_ENDPOINT_URL alone do not count, since they may name anything."""
    own = args.cloud == "embedded" and not args.endpoint_url
    if own and (args.input_bucket or args.output_bucket):
        raise UserError(
            "an embedded cloud of its own has the buckets of its stack; "
            "use --endpoint-url or --cloud aws with buckets of yours"
        )
    return own


class CloudInUse:
    """The cloud of the flags, once it is open: `address` (which cloud), `s3`, `buckets`, `function`
    (empty when nothing is known of it) and `queues`, for the wait."""

    def __init__(self, args: argparse.Namespace):
        self._args = args
        self._stack = contextlib.ExitStack()
        self.is_open = False

    def __enter__(self) -> "CloudInUse":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def open(self) -> None:
        """Start it if it is the run's own; see whether its S3 is one that loses no row, and that
        its function has its own settings. Only the first call does anything."""
        if self.is_open:
            return
        from metrics.collect.dead_letters import find_queues

        own = has_own_cloud(self._args)
        with imported_meanwhile("metrics.report.judgement"):
            self.address = self._start() if own else cloud_of(self._args)
            self.s3 = make_client(self.address, "s3")
            self.buckets, self.function = find_buckets(self.address), find_function(self.address)
            self.queues = find_queues(self.address, self.function, self.s3, self.buckets)
            check_conditional_writes(self.s3, self.buckets.output)
            if FUNCTION_JSON.exists() and self.function and not own:
                self._restore_function()
        self.is_open = True

    def _start(self) -> Cloud:
        from lambda_function.embedded_cloud import embedded_cloud

        concurrency, stack = self._args.concurrency[-1], self._args.stack
        return self._stack.enter_context(embedded_cloud(concurrency, stack))

    def _restore_function(self) -> None:
        """A run that was killed could not do so itself."""
        from lambda_function.stack.function_settings import restore

        client = make_client(self.address, "lambda")
        restore(client, self.function["FunctionName"], FUNCTION_JSON)

    @contextlib.contextmanager
    def function_with(self, setting: Setting) -> Iterator[None]:
        """Within it, the function has what the setting says."""
        if setting.memory_mb is None and setting.concurrency is None:
            yield
            return
        from lambda_function.stack.function_settings import changed

        self.open()
        if not self.function:
            raise UserError("buckets do not tell which function to set; name a stack with --stack")
        client, name = make_client(self.address, "lambda"), self.function["FunctionName"]
        saved = None if has_own_cloud(self._args) else FUNCTION_JSON  # its function ends with it
        with changed(client, name, setting.memory_mb, setting.concurrency, saved):
            yield


@contextlib.contextmanager
def imported_meanwhile(module: str) -> Iterator[None]:
    """Import what takes a second and is needed later, while the caller waits for something else."""
    thread = threading.Thread(target=importlib.import_module, args=[module], daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join()  # an import must not go on while the interpreter ends
    gc.freeze()  # all this stays to the end: the collector need not look through it again and again
