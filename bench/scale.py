"""What one more participant costs the aggregator, from 10 to 10,000 of them: cloister-bench-scale for each number, and a plot of how flat it is."""

from __future__ import annotations

import json
import pathlib
import resource

from cluster import Failed, Tools

# Rounds: enough of few participants to measure processor time well, few of many.
STEPS = {10: 400, 100: 100, 1_000: 20, 10_000: 3}
IDLE_LIMIT = 64 << 10
COSTS = {"update_cpu_us": "processor time of the aggregator per update (µs)",
         "bytes_beside_the_numbers": "bytes per participant and round, beside model and update",
         "connection_cpu_us": "processor time of the aggregator per connection (µs)",
         "idle_rss_bytes": "memory of the aggregator per idle participant (bytes)"}


def measure(tools: Tools, say, most: int = 10_000, plot: pathlib.Path | None = None) -> dict:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    sizes = {}
    for participants, rounds in STEPS.items():
        if participants > most:
            continue
        if limit < participants + 1_000:
            raise Failed(f"wanted {participants + 1_000} open files for {participants} participants, the limit is {limit}: ulimit -n")
        say(f"{participants:,} participants, {rounds} rounds")
        done = tools.run("cloister-bench-scale", participants, "--rounds", rounds, timeout=1_800)
        sizes[participants] = json.loads(done.stdout)
    first, last = sizes[min(sizes)], sizes[max(sizes)]
    # Of ten connections page granularity is most of the memory: the idle figures that count are those of a hundred and more.
    out = {"sizes": list(sizes.values()), "idle_rss_bytes": max(r["idle_rss_bytes"] for n, r in sizes.items() if n >= 100 or len(sizes) == 1),
           "flatness": {cost: round(last[cost] / first[cost], 3) for cost in ("update_cpu_us", "bytes_beside_the_numbers", "connection_cpu_us")}}
    if plot is not None:
        draw(sizes, plot)
        out["plot"] = str(plot)
    return out


def draw(sizes: dict[int, dict], to: pathlib.Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(10, 7), layout="constrained")
    for (cost, label), a in zip(COSTS.items(), axes.flat):
        a.plot(list(sizes), [r[cost] for r in sizes.values()], marker="o", color="#0b5fa5")
        a.set_xscale("log")
        a.set_ylim(bottom=0)
        a.set_xlabel("participants")
        a.set_title(label, fontsize=9)
        a.grid(alpha=0.3)
    axes.flat[3].axhline(IDLE_LIMIT, color="#b03030", linestyle="--", linewidth=1)
    axes.flat[3].annotate("64 KiB", (list(sizes)[0], IDLE_LIMIT), color="#b03030", fontsize=8, va="bottom")
    figure.savefig(to, dpi=130)
