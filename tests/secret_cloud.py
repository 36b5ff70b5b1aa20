"""A simulated AWS whose truth is known: a secret profile, rows measured on it, and what a later job
takes there. It shares no formula with metrics/analysis/forecast*.py."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from rows import row

from metrics.analysis.forecast_fit import CloudRun

KERNEL_HERE_MS = 31.4
FULL_MB = 1769


@dataclass
class SecretCloud:
    """Drawn from a seed: a processor 1.2 to 3 times as slow as this machine, S3 and events up to
    twice as slow or fast as published, and noise; a later day differs, and so does each memory size
    from the rule."""

    seed: int

    def __post_init__(self):
        self.rng = rng = np.random.default_rng(self.seed)
        self.ratio = rng.uniform(1.2, 3.0)
        self.of_pictures = rng.uniform(0.02, 0.12)  # log-sd of a picture's own ratio
        self.noise = rng.uniform(0.02, 0.10)
        self.get, self.put, self.event = np.exp(rng.uniform(-0.7, 0.7, 3)) * (27, 40, 1000)
        self.get_mb, self.put_mb = np.exp(rng.uniform(-0.7, 0.7, 2)) * (11, 27)
        self.get_cpu, self.put_cpu = rng.uniform(0.3, 0.7), rng.uniform(0.05, 0.3)
        self.get_noise, self.put_noise = rng.uniform(0.15, 0.4, 2)
        self.event_noise = rng.uniform(0.1, 0.3)
        self.init, self.first = np.exp(rng.uniform(-0.5, 0.5, 2)) * (600, 70)
        self.rule = {size: np.exp(rng.normal(0, 0.04)) for size in (512, 1024)}

    def pictures(self, count: int) -> dict[str, np.ndarray]:
        rng = self.rng
        cpu_ms = rng.lognormal(3.6, 0.5, count)
        return {
            "cpu_ms": cpu_ms,
            "orig_size": (cpu_ms * rng.lognormal(9.8, 0.3, count)).round(),
            "new_size": rng.lognormal(11.3, 0.3, count).round(),
            "own": np.exp(rng.normal(0, self.of_pictures, count)),  # its ratio, by the mean one
        }

    def times_ms(self, pictures: dict, memory_mb: int, day: float = 0.0) -> dict[str, np.ndarray]:
        """`day`: how much a later day differs, in the spreads that the profile allows for."""
        rng, count = self.rng, len(pictures["cpu_ms"])
        share = min(memory_mb / FULL_MB, 1)
        rule = self.rule.get(memory_mb, 1.0)
        mb_in, mb_out = pictures["orig_size"] / 1e6, pictures["new_size"] / 1e6

        def each(log_sd: float) -> np.ndarray:
            return np.exp(rng.normal(0, log_sd, count))

        def today(log_sd: float) -> float:
            return float(np.exp(rng.normal(0, day * log_sd)))

        proc = pictures["cpu_ms"] * pictures["own"] * self.ratio * rule * each(self.noise)
        get = self.get * (1 - self.get_cpu + self.get_cpu / share) + self.get_mb * mb_in
        put = self.put * (1 - self.put_cpu + self.put_cpu / share) + self.put_mb * mb_out
        return {
            "proc": proc / share * today(0.039),
            "fetch": get * each(self.get_noise) * today(0.1),
            "store": put * each(self.put_noise) * today(0.1),
            "event": self.event * each(self.event_noise) * today(0.1),
            "init": self.init * each(0.09) * today(0.1),
            "first": self.first * (0.6 + 0.4 / share) * each(0.1) * today(0.1),
        }

    def run(self, pictures: dict, rounds: int = 4, cold: int = 6):
        """On-prem rows and the CloudRun of one run with 1,769 MB; of the first round so many are
        cold."""
        on_prem, cloud, inits, events = [], [], [], []
        for number in range(1, rounds + 1):
            times = self.times_ms(pictures, FULL_MB)
            events += list(times["event"])
            for i, cpu_ms in enumerate(pictures["cpu_ms"]):
                is_cold = number == 1 and i < cold
                same = {
                    "image_key": f"{i}.jpg",
                    "round": number,
                    "orig_size": int(pictures["orig_size"][i]),
                    "new_size": int(pictures["new_size"][i]),
                    "memory_mb": FULL_MB,
                }
                on_prem.append(row(**same, source="on_prem", cpu_ms=cpu_ms, environment="local"))
                fetch = times["fetch"][i] + is_cold * times["first"][i]
                took = {"proc_ms": times["proc"][i], "fetch_ms": fetch}
                took["store_ms"] = times["store"][i]
                cloud.append(row(**same, **took, cold_start=is_cold, environment="aws"))
                inits.append(times["init"][i] if is_cold else 0.0)
        told = CloudRun(
            rows=pd.DataFrame(cloud),
            invocations=pd.DataFrame({"init_ms": inits}),
            event_ms=np.array(events),
            upload_ms=np.full(16, 170.0),
            architecture="x86_64",
            region="a simulation",
            date="2026-11-25",
        )
        return pd.DataFrame(on_prem), told

    def later(self, pictures: dict, memory_mb: int) -> tuple[float, float]:
        """On a later day: a picture's mean time in the function (ms), and the whole job (s) when
        all are in S3 already and each has an environment of its own."""
        times = self.times_ms(pictures, memory_mb, day=1.0)
        handler = times["fetch"] + times["proc"] + times["store"]
        whole = handler + times["event"] + times["init"] + times["first"]
        return float(handler.mean()), float(whole.max() / 1000)
