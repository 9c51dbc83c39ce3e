"""The cases, as scripts/bench names them, and the lines that a peer's measurement prints."""

from __future__ import annotations

import dataclasses
import json
import statistics


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    participants: int
    floats: int  # float32 of the model
    rounds: dict[str, int]  # by peer: theirs take seconds to minutes each
    seconds: int  # limit of one measurement


CASES = {
    c.name: c
    for c in (
        Case("round-100mb", 4, 25_000_000, {"flwr": 3, "nvflare": 5}, 300),
        Case("update-2.5gb", 1, 625_000_000, {"flwr": 1, "nvflare": 1}, 420),
        Case("round-tiny", 8, 1_000, {"flwr": 4, "nvflare": 20}, 240),
    )
}


def emit(peer: str, version: str, case: Case, metric: str, value: float | None, unit: str, note: str = "") -> None:
    line = {"peer": peer, "version": version, "case": case.name, "metric": metric, "value": value, "unit": unit, "note": note}
    print(json.dumps(line), flush=True)


def report(peer: str, version: str, case: Case, rounds: list[float], server: int, client: int, how: str) -> None:
    """`rounds`: seconds of each, in order. The first is left out where there are more: it also starts things."""
    counted = rounds[1:] or rounds
    emit(peer, version, case, "seconds", statistics.median(counted), "s per round", f"median of {len(counted)}; {how}")
    emit(peer, version, case, "rounds_per_second", len(counted) / sum(counted), "1/s", how)
    emit(peer, version, case, "server_peak_rss_bytes", server, "bytes", "sum of its processes' own peaks")
    emit(peer, version, case, "client_peak_rss_bytes", client, "bytes", "sum of one client's processes' own peaks")
