"""The yardstick of every round: plain TLS moving the same bytes (tls_bench.cpp), before and after the measurement."""

from __future__ import annotations

import json
import statistics

from cluster import Tools


class Yardstick:
    """down, up: bytes of one round over all participants. The median of all its runs is what a ratio is to."""

    def __init__(self, tools: Tools, down: int, up: int):
        self._tools, self.down, self.up = tools, down, up
        self.seconds: list[float] = []

    def measure(self, times: int = 1) -> None:
        done = self._tools.run("cloister-bench-tls", self.down, self.up, times, timeout=600)
        self.seconds += json.loads(done.stdout)["seconds"]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def facts(self) -> dict:
        return {"seconds": self.seconds, "median_seconds": round(self.median, 4), "gb_per_s": round((self.down + self.up) / self.median / 1e9, 3)}
