"""scripts/soak: a long run watched for what grows. Samples memory and descriptors of every process, draws them, says whether they are flat."""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "examples" / "hospital")]

import numpy  # noqa: E402

import machine  # noqa: E402
import rounds as bench_rounds  # noqa: E402
from cluster import Failed, Tools  # noqa: E402
from federation import Federation  # noqa: E402

# Flat: the line through the second half of the samples rises by no more than this over that half. What may rise at all is the
# index of a run's past (docs/decisions.md): some ten bytes a round, and what an allocator rounds it up to.
RSS_RISE = 3 << 20
RSS_RISE_SHARE = 0.05
FD_RISE = 2
# Of a process that has just started, little can be said.
FEWEST_SAMPLES = 20


def say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def rss(pid: int) -> int:
    try:
        return int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def descriptors(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0


class Sampler:
    """A sample of every role each `interval` seconds: {"seconds", "<role>": {"rss": bytes of all its processes, "fds": their number}}."""

    def __init__(self, roles, interval: float):
        self._roles, self._interval = roles, interval
        self.samples: list[dict] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        start = time.monotonic()
        while not self._end.wait(self._interval):
            sample: dict = {"seconds": round(time.monotonic() - start, 2)}
            for role, pids in self._roles().items():
                if pids:
                    sample[role] = {"rss": sum(map(rss, pids)), "fds": sum(map(descriptors, pids))}
            self.samples.append(sample)

    def __enter__(self) -> "Sampler":
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._end.set()
        self._thread.join()


def rise(seconds: list[float], values: list[float]) -> float:
    """By how much the line of least squares through the second half of the samples rises over that half."""
    half = len(values) // 2
    x, y = numpy.array(seconds[half:]), numpy.array(values[half:], dtype=float)
    slope = numpy.polyfit(x, y, 1)[0]
    return float(slope * (x[-1] - x[0]))


def judge(samples: list[dict]) -> dict:
    """By role and figure: rise, bound, whether it is flat."""
    out: dict = {}
    if len(samples) < FEWEST_SAMPLES:
        raise Failed(f"wanted at least {FEWEST_SAMPLES} samples, found {len(samples)}: run more rounds, or sample more often")
    for role in sorted({r for s in samples for r in s} - {"seconds"}):
        known = [(s["seconds"], s[role]) for s in samples if role in s]
        if len(known) < FEWEST_SAMPLES:
            continue
        seconds = [t for t, _ in known]
        memory, files = [v["rss"] for _, v in known], [v["fds"] for _, v in known]
        bound = max(RSS_RISE, RSS_RISE_SHARE * memory[-1])
        found = {"rss_rise_bytes": round(rise(seconds, memory)), "rss_bound_bytes": round(bound), "rss_last_bytes": memory[-1],
                 "fds_rise": round(rise(seconds, files), 2), "fds_bound": FD_RISE, "fds_last": files[-1]}
        out[role] = found | {"flat": found["rss_rise_bytes"] <= bound and found["fds_rise"] <= FD_RISE}
    return out


def processes(tools: Tools, participants: int, wanted: int, interval: float) -> dict:
    """Real processes, every one of them: coordinator, launcher, TEE, aggregator, participants with their trainers."""
    with tempfile.TemporaryDirectory(prefix="cloister-soak-") as folder:
        study = bench_rounds.BenchStudy(pathlib.Path(folder) / "study", tools, participants, 100, wanted).build()
        with Federation(study) as federation:
            with Sampler(lambda: bench_rounds.roles(federation), interval) as sampler:
                start = time.monotonic()
                bench_rounds.one_run(federation, wanted, 6 * 3600)
                took = time.monotonic() - start
    return {"kind": "processes", "participants": participants, "rounds": wanted, "seconds": round(took, 1),
            "rounds_per_second": round(wanted / took, 2), "samples": sampler.samples, "roles": judge(sampler.samples)}


def cuts(tools: Tools, participants: int, wanted: int, per_second: float, seed: int, every: float) -> dict:
    """Many participants in few processes, whose connections are cut and who are restarted by a seeded schedule."""
    with tempfile.TemporaryDirectory(prefix="cloister-soak-") as folder:
        series = pathlib.Path(folder) / "series"
        done = tools.run("cloister-bench-scale", participants, "--rounds", wanted, "--quorum", max(2, participants * 3 // 4), "--cuts", per_second,
                         "--seed", seed, "--values", 100, "--series", series, "--every", every, timeout=6 * 3600)
        found = json.loads(done.stdout)
        samples = [{"seconds": s["seconds"], "aggregator": {"rss": s["aggregator_rss_kib"] * 1024, "fds": s["aggregator_fds"]},
                    "participants": {"rss": s["participants_rss_kib"] * 1024, "fds": s["participants_fds"]}}
                   for s in map(json.loads, series.read_text().splitlines())]
    roles = judge(samples)
    # Connections that are down at a moment are no descriptors that leak: of those only what grows beyond all of them counts.
    for role in roles.values():
        role["fds_bound"] = max(FD_RISE, participants // 4)
        role["flat"] = role["rss_rise_bytes"] <= role["rss_bound_bytes"] and role["fds_rise"] <= role["fds_bound"]
    return {"kind": "cuts", "participants": participants, "rounds": wanted, "seconds": found["run_seconds"], "cuts": found["cuts"],
            "restarts": found["restarts"], "seed": seed, "samples": samples, "roles": roles}


def draw(results: list[dict], to: pathlib.Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(len(results), 2, figsize=(11, 4 * len(results)), layout="constrained", squeeze=False)
    for row, result in zip(axes, results):
        for a, key, scale, label in ((row[0], "rss", 2**20, "resident memory (MiB)"), (row[1], "fds", 1, "open descriptors")):
            for role, verdict in result["roles"].items():
                known = [(s["seconds"], s[role][key] / scale) for s in result["samples"] if role in s]
                a.plot(*zip(*known), linewidth=1, label=role if verdict["flat"] else f"{role}: NOT flat")
            a.set_xlabel("seconds")
            a.set_title(f"{label}: {result['participants']} participants, {result['rounds']:,} rounds"
                        + (f", {result['cuts'] + result['restarts']:,} cuts" if result["kind"] == "cuts" else ""), fontsize=9)
            a.set_ylim(bottom=0)
            a.grid(alpha=0.3)
            a.legend(fontsize=7)
    figure.savefig(to, dpi=130)


def table(results: list[dict]) -> str:
    lines = [f"{'soak':<12}{'role':<14}{'RSS (MiB)':>10}{'rise (KiB)':>12}{'bound (KiB)':>12}{'fds':>7}{'rise':>7}"]
    for r in results:
        for role, v in r["roles"].items():
            lines.append(f"{r['kind']:<12}{role:<14}{v['rss_last_bytes'] / 2**20:10.1f}{v['rss_rise_bytes'] / 1024:12.0f}{v['rss_bound_bytes'] / 1024:12.0f}"
                         f"{v['fds_last']:7}{v['fds_rise']:7.1f}  {'flat' if v['flat'] else 'NOT flat'}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__)
    parser.add_argument("kind", nargs="?", choices=["processes", "cuts", "all"], default="all",
                        help="processes: real ones, 10,000 rounds; cuts: 200 participants in few processes, cut and restarted at random")
    parser.add_argument("--rounds", type=int, metavar="N", help="instead of 10,000 of processes and 2,000 with cuts")
    parser.add_argument("--participants", type=int, metavar="N", help="instead of 3 of processes and 200 with cuts")
    parser.add_argument("--cuts-per-second", type=float, default=20, metavar="R")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--interval", type=float, default=2, metavar="SECONDS", help="between samples")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE")
    parser.add_argument("--plot", type=pathlib.Path, metavar="PNG")
    parser.add_argument("--bin", type=pathlib.Path, default=HERE.parent / "build" / "release" / "bin")
    a = parser.parse_args()
    tools = Tools(a.bin.resolve())
    results = []
    try:
        if a.kind in ("processes", "all"):
            say("real processes")
            results.append(processes(tools, a.participants or 3, a.rounds or 10_000, a.interval))
        if a.kind in ("cuts", "all"):
            say("cuts and restarts")
            results.append(cuts(tools, a.participants or 200, a.rounds or 2_000, a.cuts_per_second, a.seed, a.interval))
    except Failed as error:
        print(f"soak: {error}", file=sys.stderr)
        return 1
    print(table(results))
    if a.plot:
        draw(results, a.plot)
    if a.json:
        a.json.write_text(json.dumps({"machine": machine.facts(), "results": results}))
    return 0 if all(v["flat"] for r in results for v in r["roles"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
