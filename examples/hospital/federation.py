"""A study under way: its processes, and a run from submission to result."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import time
from typing import Callable

from cluster import Failed, Process, read_events, wait_until
from founding import COMPUTE_OWNER, MODEL_OWNER, SUBMITTER, Founding


class Federation:
    """Starts launcher, coordinator and hospitals as separate processes; ends them all on exit."""

    def __init__(self, study: Founding, hospitals: list[str] | None = None):
        self.study = study
        s = study
        self.processes: dict[str, Process] = {}
        self._add(COMPUTE_OWNER, "launcher", ["launcher", "run", "--config", "launcher.toml"])
        self._add(MODEL_OWNER, "coordinator", ["coordinator", "run", "--config", "coordinator.toml"])
        for owner in hospitals if hospitals is not None else s.owners:
            tee = ["--tee", str(s.owner(owner) / "platform")] if s.attested(owner) else []
            self._add(owner, "participant", ["participant", "run", "--config", "participant.toml", *tee])

    def _add(self, owner: str, name: str, arguments: list[str]) -> None:
        folder = self.study.owner(owner)
        self.processes[owner] = Process(f"{name} {owner}", [self.study.tools.path("cloister"), *arguments], folder, folder / f"{name}.log")

    def log(self, owner: str) -> pathlib.Path:
        return self.processes[owner].log

    @property
    def aggregator_log(self) -> pathlib.Path:
        """What the instances said; the launcher writes it down."""
        return self.study.owner(COMPUTE_OWNER) / "instances" / "aggregator.log"

    def __enter__(self) -> "Federation":
        try:
            for owner in self.processes:
                self.processes[owner].start()
            wait_until(lambda: all(self._listening(o) for o in (COMPUTE_OWNER, MODEL_OWNER)), 30, "launcher and coordinator listen",
                       [self.processes[o] for o in (COMPUTE_OWNER, MODEL_OWNER)])
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _listening(self, owner: str) -> bool:
        return any(e.get("event") == "listening" for e in read_events(self.log(owner)))

    def __exit__(self, *_) -> None:
        for process in self.processes.values():
            if process.running:
                process.process.terminate()
        for process in self.processes.values():
            process.end()

    # --- Runs --------------------------------------------------------------------------------------------------------

    def _run(self, *arguments, expect: int | None = 0, timeout: float = 60):
        return self.study.tools.json("run", *arguments, *self._access(), expect=expect, timeout=timeout)

    def _access(self) -> list[str]:
        s = self.study
        return ["--charter", str(s.charter), "--key", str(s.key(SUBMITTER, "submitter"))]

    def submit(self, settings: dict[str, float] | None = None, note: str = "") -> int:
        """Submits a run and gives its number."""
        chosen = [x for name, value in (settings or {}).items() for x in ("--set", f"{name}={value:g}")]
        return int(self._run("submit", *chosen, "--note", note)["run"])

    def watch(self, run: int, on_event: Callable[[dict], None], timeout: float) -> dict:
        """Follows a run to its end, an event at a time; gives the last event."""
        argv = [self.study.tools.path("cloister"), "--json", "run", "watch", str(run), *self._access()]
        last: dict = {}
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            until = time.monotonic() + timeout
            try:
                for line in process.stdout:
                    last = json.loads(line)
                    on_event(last)
                    if time.monotonic() > until:
                        raise Failed(f"run {run}: not ended within {timeout:.0f} s")
            finally:
                if process.poll() is None and sys.exc_info()[0] is not None:
                    process.kill()
            error = process.stderr.read()
        if last.get("event") != "ended":
            raise Failed(f"run {run}: the watch ended without an end: {error}")
        return last

    def show(self, run: int) -> dict:
        return self._run("show", str(run))

    def fetch(self, run: int, kind: str, to: pathlib.Path) -> pathlib.Path:
        self.study.tools.run("cloister", "run", "fetch", str(run), "--kind", kind, "--out", to, *self._access())
        return to

    def receipts(self, run: int, to: pathlib.Path) -> subprocess.CompletedProcess:
        """Verifies the run's receipts against the charter, on the submitter's side, and keeps their signed bytes in `to`."""
        return self.study.tools.run("cloister", "run", "receipts", str(run), "--verify", "--out", to, *self._access(), expect=None)

    def statistics(self, run: int, owner: str | None = None) -> pathlib.Path:
        """What the enclave published to the cohort, as that hospital's node (by default the first one's) keeps it."""
        owner = owner or self.study.owners[0]
        kept = sorted((self.study.owner(owner) / "ledger" / "results").glob(f"*-run-{run}-round-*.statistics"))
        if not kept:
            raise Failed(f"run {run}: {owner} keeps no statistics")
        return kept[0]

    # --- What was refused ---------------------------------------------------------------------------------------------

    def refusals(self, *owners: str) -> list[dict]:
        """Every refusal in the logs of these owners ("aggregator" for the enclave's), as demo and tests report them."""
        out = []
        for owner in owners:
            log = self.aggregator_log if owner == "aggregator" else self.log(owner)
            for e in read_events(log):
                if e.get("event") == "refusal":
                    out.append({"by": e["component"], **{k: e.get(k, "") for k in ("owner", "requirement", "wanted", "found", "remedy", "about")}})
        return out

    def wait_for_refusal(self, owner: str, requirement: str, seconds: float = 60) -> dict:
        """The first refusal of this requirement in that owner's log."""
        return wait_until(lambda: next((r for r in self.refusals(owner) if r["requirement"] == requirement), None), seconds,
                          f"{owner} refuses for {requirement}", list(self.processes.values()))
