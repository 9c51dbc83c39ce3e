"""scripts/bench: runs benchmarks by name, prints a table, writes JSON. A bench reports; it fails only when it could not measure."""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import subprocess
import sys
from typing import Callable

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "examples" / "hospital")]

import machine  # noqa: E402
import rounds  # noqa: E402
import scale  # noqa: E402
from cluster import Failed, Tools  # noqa: E402


def say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


@dataclasses.dataclass(frozen=True)
class Target:
    """What a figure should be: `at_most` or `at_least`, of a member of the result (a path with dots)."""

    figure: str
    at_most: float | None = None
    at_least: float | None = None

    def judge(self, result: dict) -> dict:
        found = result
        for part in self.figure.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        met = found is not None and (self.at_most is None or found <= self.at_most) and (self.at_least is None or found >= self.at_least)
        wanted = f"at most {self.at_most:g}" if self.at_most is not None else f"at least {self.at_least:g}"
        return {"figure": self.figure, "wanted": wanted, "found": found, "met": met}


@dataclasses.dataclass(frozen=True)
class Bench:
    what: str
    measure: Callable[[Tools, argparse.Namespace], dict]
    targets: tuple[Target, ...] = ()


def json_of(tools: Tools, *argv) -> dict:
    done = tools.run(*argv, timeout=900)
    return json.loads(done.stdout)


def channel(tools: Tools, _) -> dict:
    found = json_of(tools, "cloister-bench-channel")
    return found | {key: found["cases"]["stream_up"][key] for key in ("ratio_to_tls", "seconds")}


def tiny(tools: Tools, a: argparse.Namespace) -> dict:
    found = rounds.measure(tools, 8, 1000, a.rounds or 300, 5, 120, say)
    del found["ratio_to_tls"], found["plain_tls"]  # nothing of a tiny round is the wire's
    say("counting fsyncs")
    found["syncs_per_round_and_process"] = rounds.syncs(tools, 8, 1000, 30)
    return found


def big(tools: Tools, a: argparse.Namespace) -> dict:
    wanted = 16 << 30
    if machine.free_bytes() < wanted:
        raise Failed(f"wanted {wanted >> 30} GiB of free memory, found {machine.free_bytes() / 2**30:.1f}")
    return rounds.measure(tools, 1, 625_000_000, a.rounds or 3, 1, 600, say)


BENCHES: dict[str, Bench] = {
    "channel": Bench("one attested stream, and attested handshakes", channel,
                     (Target("cases.stream_up.speed_to_tls", at_least=0.9),
                      Target("cases.stream_down.speed_to_tls", at_least=0.9),
                      Target("cases.handshakes.speed_to_tls", at_least=0.5),
                      Target("cases.idle.bytes_per_connection", at_most=32 << 10))),
    "aggregation": Bench("staging and summing updates in memory", lambda tools, _: json_of(tools, "cloister-bench-aggregation")),
    "enclave": Bench("the aggregator's size, and a round inside one process", lambda tools, _: json_of(tools, "cloister-bench-enclave")),
    "round-100mb": Bench("4 participants, 100 MB down and 100 MB up each",
                         lambda tools, a: rounds.measure(tools, 4, 25_000_000, a.rounds or 5, 3, 300, say),
                         (Target("ratio_to_tls", at_most=1.8), Target("peak_rss_models.aggregator", at_most=6))),
    "update-2.5gb": Bench("1 participant, one update of 2.5 GB", big,
                          (Target("ratio_to_tls", at_most=1.8), Target("peak_rss_models.aggregator", at_most=3.5),
                           Target("peak_rss_models.participant", at_most=2.5))),
    "scale": Bench("10 to 10,000 participants, multiplexed in four processes",
                   lambda tools, a: scale.measure(tools, say, plot=a.json.with_suffix(".scale.png") if a.json else None),
                   (Target("flatness.update_cpu_us", at_most=1.3), Target("flatness.bytes_beside_the_numbers", at_most=1.5),
                    Target("idle_rss_bytes", at_most=64 << 10))),
    "round-tiny": Bench("8 participants, 1,000 floats, every fsync included", tiny, (Target("rounds_per_second", at_least=50),)),
}


PEER_CASES = ("round-100mb", "update-2.5gb", "round-tiny")


def peers(name: str) -> dict:
    """Flower and FLARE on the same case, now: by peer its figures by metric, or why there are none."""
    done = subprocess.run([sys.executable, HERE / "peers" / "measure.py", name], stdout=subprocess.PIPE, text=True, check=True)
    out: dict[str, dict] = {}
    for line in map(json.loads, done.stdout.splitlines()):
        figures = out.setdefault(line["peer"], {"version": line["version"]})
        figures[line["metric"]] = line["note"] if line["metric"] == "failed" else line["value"]
    return out


def run(name: str, tools: Tools, a: argparse.Namespace) -> dict:
    bench = BENCHES[name]
    print(f"{name}: {bench.what}", file=sys.stderr, flush=True)
    before = machine.load()
    result = {"name": name, "what": bench.what, **bench.measure(tools, a)}
    if a.peers and name in PEER_CASES:
        result["peers"] = peers(name)
    return result | {"load_before": before, "load_after": machine.load(), "targets": [t.judge(result) for t in bench.targets]}


def peer_row(peer: str, figures: dict, ours: dict) -> str:
    if "failed" in figures:
        return f"  {peer} {figures['version']}: failed: {figures['failed'][:200]}"
    plain = ours["seconds"] / ours["ratio_to_tls"] if "ratio_to_tls" in ours else None
    ratio = f"{figures['seconds'] / plain:8.2f}" if plain else f"{'-':>8}"
    peaks = f"server {figures['server_peak_rss_bytes'] / 1e6:,.0f}, client {figures['client_peak_rss_bytes'] / 1e6:,.0f}"
    return f"  {peer + ' ' + figures['version']:<12.12}{figures['seconds']:10.4f}{ratio}{figures['rounds_per_second']:10.2f}  {peaks}"


def table(results: list[dict]) -> str:
    lines = [f"{'bench':<14}{'seconds':>10}{'x TLS':>8}{'rounds/s':>10}  peak RSS (MB)"]
    for r in results:
        if "error" in r:
            lines.append(f"{r['name']:<14}  {r['error']}")
            continue
        peak = r.get("peak_rss_bytes", {})
        peaks = ", ".join(f"{role} {b / 1e6:,.0f}" for role, b in sorted((peak if isinstance(peak, dict) else {"all": peak}).items()))
        cells = [f"{r[k]:{w}.{d}f}" if isinstance(r.get(k), (int, float)) else " " * (w - 1) + "-"
                 for k, w, d in (("seconds", 10, 4), ("ratio_to_tls", 8, 2), ("rounds_per_second", 10, 1))]
        lines.append(f"{r['name']:<14}{''.join(cells)}  {peaks}")
        lines += [peer_row(peer, figures, r) for peer, figures in r.get("peers", {}).items()]
        for t in r.get("targets", []):
            lines.append(f"{'':<14}  {t['figure']}: wanted {t['wanted']}, found {t['found']}: {'met' if t['met'] else 'NOT met'}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("name", nargs="+", choices=[*BENCHES, "all"], metavar="NAME", help=f"{', '.join(BENCHES)}, or all")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="where to write the results")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds of a run, instead of the bench's own number")
    parser.add_argument("--peers", action="store_true", help="measure Flower and NVIDIA FLARE too where they can do the same (minutes; see peers/)")
    parser.add_argument("--bin", type=pathlib.Path, default=HERE.parent / "build" / "release" / "bin", help="the programs of a build")
    a = parser.parse_args()
    tools = Tools(a.bin.resolve())
    document = {"machine": machine.facts(), "results": []}
    names = list(BENCHES) if "all" in a.name else a.name
    for name in names:
        try:
            document["results"].append(run(name, tools, a))
        except (Failed, OSError, subprocess.SubprocessError) as e:
            document["results"].append({"name": name, "error": str(e)})
        if a.json:
            a.json.write_text(json.dumps(document, indent=1) + "\n")
    print(table(document["results"]))
    return 1 if any("error" in r for r in document["results"]) else 0


if __name__ == "__main__":
    sys.exit(main())
