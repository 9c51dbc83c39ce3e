"""Rounds of real processes without training: founded by the same commands as the example's study, measured from the processes' logs."""

from __future__ import annotations

import dataclasses
import datetime
import math
import pathlib
import re
import statistics
import subprocess
import tempfile

import numpy

import machine
from cluster import Failed, Tools, read_events, wait_until
from federation import Federation
from founding import COMPUTE_OWNER, MODEL_OWNER, SUBMITTER, Founding, fill_file, validity
from yardstick import Yardstick

TEMPLATES = pathlib.Path(__file__).resolve().parent / "templates"
PURPOSE = "to measure rounds"
PERIOD = 1021  # bench_trainer.cpp


def hidden_for(values: int) -> list[int]:
    """Two hidden layers of an mlp with two features that come closest to this many values: (a + 2)(b + 3) - 5 of them."""
    best = min(range(1, math.isqrt(values + 5) + 1), key=lambda a: (abs(round((values + 5) / (a + 2)) * (a + 2) - values - 5), -a))
    return [best, round((values + 5) / (best + 2)) - 3]


class BenchStudy(Founding):
    """participants: how many; values: float32 of the model, about; rounds: the most that a run may have."""

    signers = ("officer",)
    trainer_program = "cloister-bench-trainer"
    data_file = "records.csv"

    def __init__(self, folder: pathlib.Path, tools: Tools, participants: int, values: int, rounds: int, runs: int = 4):
        super().__init__(folder, tools, [f"site-{i + 1:03}" for i in range(participants)])
        self.hidden = hidden_for(values)
        a, b = self.hidden
        self.values = (a + 2) * (b + 3) - 5
        self.rounds, self.runs = rounds, runs

    @property
    def model_bytes(self) -> int:
        return 4 * self.values

    def _common(self) -> dict:
        n = len(self.owners)
        gib = 1 + math.ceil(12 * self.model_bytes / 2**30)
        return validity() | dict(purpose=PURPOSE, measurement=self.measurement, platform=self.platform, trainer=self.trainer, runs=self.runs,
                                 rounds=self.rounds, participants=n, at_least=max(1, n - 1), memory=f"{gib} GiB", connections=n + 8,
                                 owners=", ".join(f'"{o}"' for o in self.owners))

    def _policies(self) -> None:
        self._write_policy(COMPUTE_OWNER, fill_file(TEMPLATES / "compute.policy.toml", **self._common()))
        self._write_policy(MODEL_OWNER, fill_file(TEMPLATES / "model.policy.toml", submitter_key=self.public(SUBMITTER, "submitter"), **self._common()))
        for owner in self.owners:
            self._write_policy(owner, fill_file(TEMPLATES / "data.policy.toml", owner=owner, **self._common()))

    def manifest_text(self, initial_model: str, tensors: str) -> str:
        # With one or two witnesses none may lie, or they would never reach their quorum.
        return fill_file(TEMPLATES / "manifest.toml", initial_model=initial_model, tensors=tensors, hidden=self.hidden, parties=self._parties(),
                         aggregator_port=self.ports["aggregator"], lying=1 if len(self.owners) > 2 else 0, **self._common())

    def _configurations(self) -> None:
        for owner in self.owners:
            (self.owner(owner) / self.data_file).write_text("x,y\n1,0\n2,1\n")
        super()._configurations()

    def check_model(self, file: pathlib.Path, rounds: int) -> None:
        """Does this published model hold every participant's contribution of every round, once and in its place?"""
        found = numpy.memmap(file, dtype="<f4", mode="r", offset=file.stat().st_size - self.model_bytes)
        n = len(self.owners)
        constant = (n + 1) / 2 / 1024
        step = 1 << 24
        for at in range(0, self.values, step):
            part = found[at:at + step]
            wanted = rounds * (constant + (numpy.arange(at, at + len(part)) % PERIOD) / 65536)
            worst = float(numpy.abs(part - wanted).max())
            if not worst <= 1e-6 * rounds * constant + 1e-6:
                raise Failed(f"the final model differs by {worst} from the mean of {n} updates over {rounds} rounds")


def roles(federation: Federation) -> dict[str, list[int]]:
    """The processes of a study that run now."""
    below = machine.children()
    started = {owner: p.process.pid for owner, p in federation.processes.items() if p.running}
    out: dict[str, list[int]] = {"participant": [], "trainer": [], "aggregator": []}
    for owner, pid in started.items():
        if owner == MODEL_OWNER:
            out["coordinator"] = [pid]
        elif owner == COMPUTE_OWNER:
            out["launcher"] = [pid]
            tees = below.get(pid, [])
            out["aggregator"] = [guest for tee in tees for guest in machine.descendants(tee, below)]
        else:
            out["participant"].append(pid)
            out["trainer"] += machine.descendants(pid, below)
    return out


def at(event: dict) -> float:
    return datetime.datetime.fromisoformat(event["time"].replace("Z", "+00:00")).timestamp()


@dataclasses.dataclass
class Times:
    """When rounds began (the aggregator offered them) and ended (the last participant held the committed receipt)."""

    offered: list[float]
    committed: list[float]
    trainer: list[float]      # the longest task of each round
    bytes_down: int
    bytes_up: int

    @staticmethod
    def of(federation: Federation, run: int) -> "Times":
        offered = {e["round"]: at(e) for e in read_events(federation.aggregator_log) if e.get("event") == "round_offered" and e["run"] == run}
        committed: dict[int, float] = {}
        trainer: dict[int, float] = {}
        down = up = 0
        for owner in federation.study.owners:
            begun: dict[int, float] = {}
            for e in read_events(federation.log(owner)):
                kind = e.get("event")
                if kind == "committed":
                    committed[e["round"]] = max(committed.get(e["round"], 0), at(e))
                elif kind == "task_started":
                    begun[e["round"]] = at(e)
                elif kind == "task_done":
                    trainer[e["round"]] = max(trainer.get(e["round"], 0), at(e) - begun[e["round"]])
                elif kind == "downloaded":
                    down += e["bytes"]
                elif kind == "uploaded":
                    up += e["bytes"]
        rounds = sorted(offered)
        return Times([offered[r] for r in rounds], [committed[r] for r in rounds], [trainer.get(r, 0) for r in rounds], down, up)

    def each(self) -> list[float]:
        """Seconds of every round: from the end of the one before, the first one from its offer."""
        ends = [self.offered[0], *self.committed]
        return [b - a for a, b in zip(ends, ends[1:])]


def all_committed(federation: Federation, rounds: int) -> None:
    def last(owner: str) -> bool:
        events = [e for e in read_events(federation.log(owner)) if e.get("event") == "run_ended"]
        return bool(events)
    wait_until(lambda: all(last(o) for o in federation.study.owners), 60, "every participant's run has ended", list(federation.processes.values()))


def ended(log: pathlib.Path, run: int) -> bool:
    """Asks the log's last lines alone: whoever watches must not cost what it measures."""
    with open(log, "rb") as f:
        f.seek(max(0, log.stat().st_size - 4096))
        return any(b'"event":"run_ended"' in line and b'"run":%d,' % run in line for line in f.read().split(b"\n"))


def one_run(federation: Federation, rounds: int, timeout: float) -> int:
    run = federation.submit({"rounds": rounds})
    wait_until(lambda: ended(federation.log(MODEL_OWNER), run), timeout, f"run {run} ends", list(federation.processes.values()))
    end = federation.show(run)
    if end["state"] != "done":
        raise Failed(f"run {run} ended as {end['state']}: {end['reason']}")
    all_committed(federation, rounds)
    return run


def syncs(tools: Tools, participants: int, values: int, rounds: int) -> dict | None:
    """fsync and fdatasync per round and role, counted by strace in a run of its own: it would disturb the measured one. None without strace."""
    with tempfile.TemporaryDirectory() as folder:
        study = BenchStudy(pathlib.Path(folder) / "study", tools, participants, values, rounds).build()
        with Federation(study) as federation:
            one_run(federation, 1, 120)  # everything runs and is connected
            counters = {}
            for role, pids in roles(federation).items():
                if role == "trainer" or not pids:
                    continue
                out = pathlib.Path(folder) / f"{role}.strace"
                argv = ["strace", "-f", "-qq", "-e", "trace=fsync,fdatasync", "-o", str(out), *(x for p in pids for x in ("-p", str(p)))]
                try:
                    counters[role] = (subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL), out, len(pids))
                except FileNotFoundError:
                    return None
            wait_until(lambda: all(out.exists() for _, out, _ in counters.values()), 20, "strace is attached")
            one_run(federation, rounds, 300)
            for process, _, _ in counters.values():
                process.terminate()
                process.wait()
            return {role: round(len(re.findall(r"\b(?:fsync|fdatasync)\(", out.read_text())) / rounds / n, 2) for role, (_, out, n) in counters.items()}


def measure(tools: Tools, participants: int, values: int, rounds: int, tls_runs: int, timeout: float, say) -> dict:
    """One run of `rounds` rounds. Seconds are the median round, the first one left out where there are more."""
    with tempfile.TemporaryDirectory(prefix="cloister-bench-") as folder:
        say(f"founding a study of {participants} participants and {values:,} values")
        study = BenchStudy(pathlib.Path(folder) / "study", tools, participants, values, rounds).build()
        moved = participants * study.model_bytes
        tls = Yardstick(tools, moved, moved)
        say(f"plain TLS, {2 * moved / 1e6:,.1f} MB, {tls_runs} times")
        tls.measure(tls_runs)
        say(f"{rounds} rounds")
        with Federation(study) as federation, machine.Peaks(lambda: roles(federation)) as peaks:
            run = one_run(federation, rounds, timeout)
            times = Times.of(federation, run)
            verified = federation.receipts(run, pathlib.Path(folder) / "receipts")
            if verified.returncode != 0:
                raise Failed(f"receipts: {verified.stdout}{verified.stderr}")
            say("checking the final model")
            study.check_model(federation.fetch(run, "model", pathlib.Path(folder) / "final.model"), rounds)
        say(f"plain TLS again, {tls_runs} times")
        tls.measure(tls_runs)
        each = times.each()
        counted = each[1:] or each
        seconds = statistics.median(counted)
        first, last = (times.committed[0], rounds - 1) if rounds > 1 else (times.offered[0], 1)
        trainer = statistics.median(times.trainer[1:] or times.trainer)
        return {"participants": participants, "values": study.values, "model_bytes": study.model_bytes, "rounds": rounds,
                "seconds": round(seconds, 5), "rounds_per_second": round(last / (times.committed[-1] - first), 3),
                "first_round_seconds": round(each[0], 4), "round_seconds": [round(s, 4) for s in (each if rounds <= 20 else each[:20])],
                "trainer_seconds": round(trainer, 4), "bytes_down": times.bytes_down, "bytes_up": times.bytes_up,
                "bytes_per_round": 2 * moved, "gb_per_s": round(2 * moved / seconds / 1e9, 3),
                "ratio_to_tls": round(seconds / tls.median, 3), "plain_tls": tls.facts(),
                "peak_rss_bytes": peaks.bytes, "peak_rss_models": {r: round(b / study.model_bytes, 2) for r, b in peaks.bytes.items()},
                "checked": "the final model holds every participant's update of every round; receipts verify"}
