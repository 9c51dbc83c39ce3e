"""A study of four hospitals behind bad networks: every hospital and the coordinator dial through a FaultyProxy of their own.

Nobody trains: cloister-bench-trainer's updates are constants, so a run's model says which hospitals are in it, and how often.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import signal
import struct

import numpy as np

import data
from cluster import Tools, read_events, wait_until
from faulty_proxy import FaultyProxy
from federation import Federation
from founding import COMPUTE_OWNER, MODEL_OWNER
from study import OWNERS, Options, Study

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("CLOISTER_BIN", ROOT / "build" / "release" / "bin"))
TRAINER = "cloister-bench-trainer"


class OneTaskStudy(Study):
    """The hospital study without statistics and evaluation: a run of one round is one train task."""

    def __init__(self, folder: pathlib.Path, tools: Tools, hidden: int, proxies: dict[str, FaultyProxy], **options):
        cohort = data.Cohort(data.draw(folder.parent / "data"), "SYNTHETIC", True)
        super().__init__(folder, tools, cohort, Options(trainer=TRAINER, hidden=(hidden,), founders_check=False, **options))
        self.proxies = proxies

    def manifest_text(self, initial_model: str, tensors: str) -> str:
        text = super().manifest_text(initial_model, tensors)
        for section in ("statistics", "evaluate"):
            text = re.sub(rf"\n\[{section}\]\n(?:[^\[\n].*\n)+", "\n", text)
            text = re.sub(rf'\n{section} = "[a-z-]+"', f'\n{section} = "never"', text)
        return text

    def _participant_toml(self, owner: str, policy: str | None = None) -> str:
        return f'proxy = "{self.proxies[owner].address}"\n' + super()._participant_toml(owner, policy)

    def _coordinator_toml(self) -> str:
        text = super()._coordinator_toml().replace('"30s"', '"10m"')  # an instance stays for the next run
        return f'proxy = "{self.proxies[MODEL_OWNER].address}"\n' + text


class Fleet(Federation):
    """A Federation whose processes can be killed, stopped and started again by their role."""

    def __init__(self, folder: pathlib.Path, hidden: int = 27_000, seed: int = 1, **options):
        self.proxies = {owner: FaultyProxy(seed=seed) for owner in [*OWNERS, MODEL_OWNER]}
        super().__init__(OneTaskStudy(folder / "study", Tools(BIN), hidden, self.proxies, **options).build())

    def __exit__(self, *details) -> None:
        for pid in self._tree():
            _signal(pid, signal.SIGCONT)
        super().__exit__(*details)
        for proxy in self.proxies.values():
            proxy.close()

    # --- Processes ----------------------------------------------------------------------------------------------------

    def _tree(self) -> list[int]:
        roots = [p.process.pid for p in self.processes.values() if p.running]
        return [pid for root in roots for pid in [root, *descendants(root)]]

    def pid(self, role: str, hospital: str) -> int | None:
        """Of a role of the kill table; None while there is no such process."""
        if role in ("participant", "trainer"):
            node = self.processes[hospital]
            if not node.running or role == "participant":
                return node.process.pid if node.running else None
            children = descendants(node.process.pid)
            return children[-1] if children else None
        if role == "coordinator":
            return self.processes[MODEL_OWNER].process.pid
        launcher = self.processes[COMPUTE_OWNER].process.pid
        if role == "launcher":
            return launcher
        below = descendants(launcher)  # the simulated TEE, then the aggregator that it started
        wanted = 0 if role == "tee" else 1
        return below[wanted] if len(below) > wanted else None

    def stop(self, pid: int) -> None:
        """SIGSTOP, and back when it stands still."""
        _signal(pid, signal.SIGSTOP)
        wait_until(lambda: _state(pid) in "TtZX", 10, f"process {pid} stands still")

    def go_on(self, pid: int) -> None:
        _signal(pid, signal.SIGCONT)

    def kill(self, role: str, hospital: str) -> bool:
        """kill -9; False when there is no such process."""
        owner = {"participant": hospital, "coordinator": MODEL_OWNER, "launcher": COMPUTE_OWNER}.get(role)
        if owner:
            self.processes[owner].kill()
            return True
        pid = self.pid(role, hospital)
        if pid is not None:
            _signal(pid, signal.SIGKILL)
        return pid is not None

    def start_again(self, role: str, hospital: str) -> None:
        """As systemd would, for what its owner runs as a service."""
        owner = {"participant": hospital, "coordinator": MODEL_OWNER, "launcher": COMPUTE_OWNER}.get(role)
        if owner and not self.processes[owner].running:
            listened = len(self.events(owner, "listening"))
            self.processes[owner].start()
            if role != "participant":
                wait_until(lambda: len(self.events(owner, "listening")) > listened, 30, f"the {role} listens again", [self.processes[owner]])

    # --- Logs ---------------------------------------------------------------------------------------------------------

    def events(self, owner: str, event: str, **fields) -> list[dict]:
        log = self.aggregator_log if owner == "aggregator" else self.log(owner)
        return [e for e in read_events(log) if e.get("event") == event and all(e.get(k) == v for k, v in fields.items())]

    def wait_for_event(self, owner: str, event: str, seconds: float = 60, **fields) -> dict:
        return wait_until(lambda: next(iter(self.events(owner, event, **fields)), None), seconds, f"{owner} logs {event} {fields}",
                          [self.processes[owner]] if owner in self.processes else [])

    def all_connected(self, seconds: float = 60) -> None:
        """Every hospital's present connection is admitted by the present instance."""
        def admitted() -> bool:
            events = read_events(self.aggregator_log)
            starts = [i for i, e in enumerate(events) if e.get("event") == "listening"]
            if not starts:
                return False
            here = [(e["event"], e.get("owner")) for e in events[starts[-1]:] if e.get("event") in ("peer_admitted", "peer_left")]
            return all(sum(1 if e == "peer_admitted" else -1 for e, who in here if who == o) > 0 for o in OWNERS)
        wait_until(admitted, seconds, "every hospital is connected to the instance", [p for p in self.processes.values()])

    # --- Results ------------------------------------------------------------------------------------------------------

    def ledger(self, owner: str, run: int) -> dict:
        """What the hospital's ledger says of a run; empty when it says nothing."""
        ledger = self.study.tools.json("participant", "ledger", "--config", self.study.owner(owner) / "participant.toml")
        return next((r for r in ledger["runs"] if r["run"] == run), {})

    def receipts_of(self, run: int) -> list[dict]:
        """As the coordinator keeps them."""
        return self._run("receipts", str(run))["receipts"]

    def model(self, run: int, to: pathlib.Path) -> np.ndarray:
        return values_of(self.fetch(run, "model", to))

    @property
    def model_bytes(self) -> int:
        return (self.study.owner(MODEL_OWNER) / "initial.model").stat().st_size


def expected_model(size: int, contributors: list[list[str]]) -> np.ndarray:
    """What plain arithmetic makes of cloister-bench-trainer's updates: the contributors of every train round, in order."""
    pattern = (np.arange(size) % 1021).astype(np.float64) / 65536
    model = np.zeros(size, np.float32)
    for owners in contributors:
        mean = np.mean([(OWNERS.index(o) + 1) / 1024 for o in owners]) + pattern
        model = (model.astype(np.float64) + mean).astype(np.float32)
    return model


def values_of(path: pathlib.Path) -> np.ndarray:
    content = path.read_bytes()
    start = len(b"cloister model 1\n")
    (schema,) = struct.unpack(">I", content[start:start + 4])
    return np.frombuffer(content[start + 4 + schema:], "<f4")


def descendants(pid: int) -> list[int]:
    """Children first, then theirs; depth first."""
    out = []
    try:
        tasks = list(pathlib.Path(f"/proc/{pid}/task").iterdir())
        children = [int(c) for t in tasks for c in (t / "children").read_text().split()]
    except OSError:
        return out
    for child in children:
        out += [child, *descendants(child)]
    return out


def _state(pid: int) -> str:
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "X"


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
