"""The whole job on Lambda, in all worlds at once, of which forecast.py takes medians and intervals.

A picture's event arrives, its environment starts when it is a new one, then GET, transform and PUT.
A job ends with its last PUT. Pictures that are in S3 already all have their event at once; those
from here have it when their upload has ended.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy import stats

from metrics.analysis import forecast_model as model
from metrics.analysis.aws_profile import Profile
from metrics.analysis.calibration import Calibration
from metrics.analysis.forecast_inputs import Pictures, Settings
from metrics.analysis.forecast_worlds import SAMPLE, Worlds

IN_S3, FROM_HERE = "in S3 already", "from here"


@dataclass(frozen=True)
class JobOnLambda:
    """Arrays of worlds x SAMPLE pictures, or of worlds. `pictures`: at most SAMPLE, which stand for
    a set of `count`."""

    profile: Profile
    calibration: Calibration
    pictures: Pictures
    count: int
    settings: Settings
    worlds: Worlds

    def _noisy(self, name: str, fact: str) -> np.ndarray:
        return np.exp(self.profile.facts[fact].each_log_sd * self.worlds.noise[name])

    def _by_memory(self, name: str) -> np.ndarray | float:
        """How far off a rule for memory sizes is. An own profile needs none for the size that it
        was measured with."""
        is_needed = self.profile.is_published or not self.profile.was_measured_with(
            self.settings.memory_mb
        )
        return self.worlds[name] if is_needed else 1.0

    @cached_property
    def transform_ms(self) -> np.ndarray:
        w, arch = self.worlds, self.settings.architecture
        ratio = model.ratio_to_lambda(self.profile, self.calibration.kernel_ms, arch)
        factor = ratio * w["local step"] * w["kernel"] * w["moment"]
        factor = factor / (w["picture factor"] * w["calibration"])
        full_ms = self.pictures.cpu_ms[w.picks] * factor
        full_ms = full_ms * self._noisy("transform", f"kernel_ms_{arch}")
        memory = self.settings.memory_mb
        small = (w["escape"], w.noise["wait"], w["waiting"])
        took = model.transform_ms(self.profile, full_ms, memory, *small)
        return took * self._by_memory("memory rule")

    @cached_property
    def fetch_ms(self) -> np.ndarray:
        size, memory = self.pictures.orig_size[self.worlds.picks], self.settings.memory_mb
        took = model.fetch_ms(self.profile, size, memory) * self.worlds["fetch"]
        took = took * self.worlds["s3 by author"] * self._by_memory("s3 by memory")
        return took * self._noisy("fetch", "fetch_net_ms")

    @cached_property
    def store_ms(self) -> np.ndarray:
        size, memory = self.pictures.new_size[self.worlds.picks], self.settings.memory_mb
        took = model.store_ms(self.profile, size, memory) * self.worlds["store"]
        took = took * self.worlds["s3 by author"] * self._by_memory("s3 by memory")
        return took * self._noisy("store", "store_net_ms")

    @cached_property
    def handler_ms(self) -> np.ndarray:
        """Of a picture in a warm environment."""
        return self.fetch_ms + self.transform_ms + self.store_ms

    @cached_property
    def init_ms(self) -> np.ndarray:
        arch = self.settings.architecture
        took = model.init_ms(self.profile, arch) * self.worlds["init"]
        return took * self._noisy("init", f"init_ms_{arch}")

    @cached_property
    def first_call_ms(self) -> np.ndarray:
        return (
            model.first_call_ms(self.profile, self.settings.memory_mb) * self.worlds["first call"]
        )

    @cached_property
    def event_ms(self) -> np.ndarray:
        return self.profile["event_ms"] * self.worlds["event"] * self._noisy("event", "event_ms")

    def mean_ms(self, values: np.ndarray) -> np.ndarray:
        """Of this set's pictures, each once, in each world."""
        return values[:, : len(self.pictures)].mean(axis=1)

    def stages_ms(self) -> dict[str, np.ndarray]:
        return {
            "event": self.mean_ms(self.event_ms),
            "cold start": self.mean_ms(self.init_ms + self.first_call_ms),
            "fetch": self.mean_ms(self.fetch_ms),
            "transform": self.mean_ms(self.transform_ms),
            "store": self.mean_ms(self.store_ms),
        }

    # --- all pictures ---------------------------------------------------------------------------

    def upload_s(self, n: float) -> np.ndarray:
        """When the last of so many pictures is in S3, by world."""
        by_bytes, by_requests = model.upload_s(
            self.profile,
            n,
            float(self.pictures.orig_size.mean()),
            self.settings.uplink_mbit_s,
            self.settings.uploads_at_once,
        )
        w = self.worlds
        longest = np.maximum(by_bytes / w["uplink"], by_requests * w["upload request"])
        return longest[:, 0]

    def environments(self, n: float, case: str) -> np.ndarray:
        """How many start, by world: as many as there are pictures at once, up to the limit. Events
        of a stream come in bursts, so a burst's pictures are at once."""
        most = min(n, self.settings.account_limit)
        if case == IN_S3:
            return np.full(len(self.worlds.picks), float(most))
        processing_s = (
            self.profile["event_burst_ms"] + (self.handler_ms + self.init_ms).mean(1)
        ) / 1000
        return np.clip(n / self.upload_s(n) * processing_s, 1, most)

    def job_s(self, n: float, case: str) -> np.ndarray:
        """Until the last of n pictures of this mix is stored, by world."""
        columns = min(int(n), SAMPLE)
        upload_s = self.upload_s(n) if case == FROM_HERE else np.zeros(len(self.worlds.picks))
        # The last columns of n pictures: which of them each is, when it is in S3, and whether its
        # environment is a new one.
        place = np.arange(n - columns, n)
        is_cold = place < self.environments(n, case)[:, None] if case == FROM_HERE else True
        cold_ms = (self.init_ms + self.first_call_ms)[:, :columns] * is_cold
        took_s = (self.event_ms + self.handler_ms)[:, :columns] + cold_ms
        took_s /= 1000
        in_s3_s = upload_s[:, None] * (place + 1) / n
        last_s = (in_s3_s + took_s).max(axis=1)
        if case == IN_S3 and n > columns:
            last_s = np.maximum(last_s, self._slowest_of(n, took_s))
        return last_s + self._waiting_s(n, upload_s)

    def _slowest_of(self, n: float, took_s: np.ndarray) -> np.ndarray:
        """Of more pictures than are drawn one by one: a lognormal distribution's, of the same mean
        and spread."""
        logs = np.log(took_s)
        chance = self.worlds.factors["slowest"][:, 0]
        return np.exp(logs.mean(axis=1) + logs.std(axis=1) * stats.norm.ppf(chance ** (1 / n)))

    def _waiting_s(self, n: float, upload_s: np.ndarray) -> np.ndarray:
        """For a free environment, where more pictures are at hand than may be done at once."""
        each_s = self.mean_ms(self.handler_ms) / 1000
        low, high = self.profile["throttled_low"], self.profile["throttled_high"]
        throttled = low + (high - low) * self.worlds["throttled"][:, 0]
        needed_s = model.seconds_for(n * each_s, self.profile, self.settings.account_limit)
        return throttled * np.maximum(needed_s - each_s - upload_s, 0)

    def usd_by_part(self, n: float, case: str) -> dict[str, np.ndarray]:
        """Cost of the work for n pictures of this mix, by world."""
        gb_s = self.settings.memory_mb / 1024 / 1000  # of a ms
        environments = self.environments(n, case)
        first_call_ms = environments * self.first_call_ms[:, 0]
        puts = model.upload_puts(self.pictures.orig_size).mean() * n if case == FROM_HERE else 0
        return model.usd_by_part(
            n,
            puts,
            gb_s * (n * self.mean_ms(self.handler_ms) + first_call_ms),
            gb_s * environments * self.init_ms.mean(axis=1),
            self.settings.architecture,
        )

    def at_memory(self, memory_mb: int) -> "JobOnLambda":
        return replace(self, settings=replace(self.settings, memory_mb=memory_mb))

    def with_fixed(self, part: str) -> "JobOnLambda":
        return replace(self, worlds=self.worlds.with_fixed(part))
