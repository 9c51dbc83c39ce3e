"""The kill table: at every named step of a run, kill -9 of every process and a half-open link, in turn; what happened.

    kill_table.py [--json FILE] [--markdown FILE] [--steps a,b] [--faults a,b] [--seed N]

A cell is one run of one round over real processes, each behind a proxy of its own. The run is brought to the step and held
there (the proxies hold what would end the step; a process that would go on by itself is stopped), the fault strikes,
everything is let go, and whoever keeps a service starts it again. Then every promise is asserted (`check`). A cell that
breaks one fails the command; the table says what happened in all.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import shutil
import sys
import tempfile
import time
from typing import Callable

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "examples" / "hospital"))

from cluster import Failed, wait_until
from faulty_proxy import DOWN, UP, Faults, Link
from fleet import Fleet, expected_model
from founding import COMPUTE_OWNER, MODEL_OWNER
from study import OWNERS

VICTIM, SECOND = "zurich", "budapest"  # whose link is held; a further witness, so that three of four are not there
ROUND, CHANNEL = 8, 4                   # seconds: the charter's two deadlines
# The longest that any run may take from its fault on: the round, its witnesses, and the coordinator's patience with an
# enclave that is gone (twice channel.deadline); and what a loaded machine needs to start processes.
LONGEST = 2 * ROUND + 3 * CHANNEL + 15
FAULTS = ["participant", "trainer", "coordinator", "launcher", "tee", "aggregator", "half-open link"]


# --- Steps: each brings run `self.run` to where its name says, and returns with everything held there ---------------------


class Cell:
    def __init__(self, fleet: Fleet, step: str, fault: str):
        self.fleet, self.step, self.fault = fleet, step, fault
        self.run = 0
        self.stopped: list[int] = []
        self.links = {o: fleet.proxies[o].link for o in OWNERS}

    @property
    def link(self) -> Link:
        return self.links[VICTIM]

    def submit(self) -> None:
        self.run = self.fleet.submit({"rounds": 1}, note=f"{self.step} / {self.fault}")

    def await_bytes(self, owner: str, direction: str, what: str) -> None:
        self.links[owner].wait_until(lambda link: link.way(direction).held > 0, 30, what)

    def new_link(self, faults: Faults) -> None:
        """The victim dials anew, under these faults."""
        proxy = self.fleet.proxies[VICTIM]
        proxy.faults = faults
        before = proxy.number
        proxy.cut()
        self.links[VICTIM] = proxy.wait_for_link(before, 60)
        proxy.faults = Faults()

    def forget_the_model(self) -> None:
        """The victim holds the charter's initial model since an earlier run; now it has to fetch it."""
        node = self.fleet.processes[VICTIM]
        before = self.fleet.proxies[VICTIM].number
        node.kill()
        shutil.rmtree(self.fleet.study.owner(VICTIM) / "ledger" / "models", ignore_errors=True)
        node.start()
        self.links[VICTIM] = self.fleet.proxies[VICTIM].wait_for_link(before, 60)
        self.fleet.all_connected()

    def enclave_link(self) -> Link:
        """The coordinator's connection to the enclave."""
        port = self.fleet.study.ports["aggregator"]
        return [l for l in self.fleet.proxies[MODEL_OWNER].links if l.target[1] == port and not l.over][-1]

    def stop(self, role: str, hospital: str = VICTIM) -> None:
        pid = self.fleet.pid(role, hospital)
        self.stopped.append(pid)
        self.fleet.stop(pid)

    # What the steps share: how far the round's messages may go.

    def to_transfer(self, direction: str, passed: int) -> None:
        way = self.link.way(direction)
        before = way.passed
        self.link.hold(direction, passed)
        self.submit()
        self.link.wait_until(lambda _: way.passed - before == passed and way.held > 0, 30, f"{passed} bytes {direction}")

    def to_download(self, passed: int) -> None:
        self.forget_the_model()
        self.to_transfer(DOWN, passed)

    def to_last_upload_bytes(self) -> None:
        self.to_transfer(UP, self.fleet.model_bytes - 10_000)
        for owner in OWNERS:  # the others are done: the round waits for the victim alone
            if owner != VICTIM:
                self.fleet.wait_for_event(owner, "uploaded", run=self.run)

    def to_receipts(self) -> None:
        """Signed and sent by the enclave; nobody has it."""
        self.to_last_upload_bytes()
        for link in self.links.values():
            link.hold(DOWN)
        self.link.allow(UP, 1 << 30)
        for owner in OWNERS:
            self.await_bytes(owner, DOWN, "the receipt")

    def to_acknowledgements(self, held: list[str]) -> None:
        """These have signed, and what they say is on its way."""
        self.to_receipts()
        for owner in held:
            self.links[owner].hold(UP)
        for link in self.links.values():
            link.allow(DOWN, 1 << 30)
        for owner in held:
            self.await_bytes(owner, UP, "the acknowledgement")
            self.fleet.wait_for_event(owner, "signed", run=self.run)

    def to_publication(self) -> None:
        """Committed in the enclave; neither hospital nor coordinator knows."""
        self.to_acknowledgements([o for o in OWNERS if o != "cleveland"])
        for link in [*self.links.values(), self.enclave_link()]:
            link.hold(DOWN)
        coordinator = self.enclave_link()
        for link in self.links.values():
            link.allow(UP, 1 << 30)
        coordinator.wait_until(lambda link: link.down.held > 0, 30, "the record of the round")
        self.await_bytes(VICTIM, DOWN, "the commit")

    # The steps.

    def connect(self) -> None:
        self.new_link(Faults(hold_after={UP: 0}))
        self.submit()
        self.fleet.wait_for_event("aggregator", "round_offered", run=self.run)  # to the others; the round waits
        self.await_bytes(VICTIM, UP, "the TLS handshake's first message")

    def authenticate(self) -> None:
        self.new_link(Faults(hold_turn={DOWN: 3}))  # handshake, grant, evidence
        self.submit()
        self.fleet.wait_for_event("aggregator", "round_offered", run=self.run)
        self.await_bytes(VICTIM, DOWN, "the enclave's evidence")

    def offer(self) -> None:
        self.link.hold(DOWN)
        self.submit()
        self.await_bytes(VICTIM, DOWN, "the offer")

    def accept(self) -> None:
        self.link.hold(UP)
        self.submit()
        self.await_bytes(VICTIM, UP, "the acceptance")
        self.fleet.wait_for_event(VICTIM, "charged", run=self.run)

    def download_first(self) -> None:
        self.to_download(64 << 10)

    def download_middle(self) -> None:
        self.to_download(self.fleet.model_bytes // 2)

    def download_last(self) -> None:
        self.to_download(self.fleet.model_bytes - 10_000)

    def upload_first(self) -> None:
        self.to_transfer(UP, 64 << 10)

    def upload_middle(self) -> None:
        self.to_transfer(UP, self.fleet.model_bytes // 2)

    def upload_last(self) -> None:
        self.to_last_upload_bytes()

    def close(self) -> None:
        """Every byte lies in the enclave's socket; it stands still before it reads them."""
        self.to_last_upload_bytes()
        self.stop("aggregator")
        self.link.allow(UP, 1 << 30)
        self.link.wait_until(lambda link: link.up.held == 0, 60, "the last bytes are delivered")

    def reduce(self) -> None:
        """The enclave has closed the round and stands still, before its receipt has left."""
        self.to_last_upload_bytes()
        for link in self.links.values():
            link.hold(DOWN)
        pid = self.fleet.pid("aggregator", VICTIM)
        self.stop("aggregator")
        self.link.allow(UP, 1 << 30)
        self.link.wait_until(lambda link: link.up.held == 0, 60, "the last bytes are delivered")
        until = time.monotonic() + 60
        while not self.fleet.events("aggregator", "round_closed", run=self.run):  # in slices of its time
            if time.monotonic() > until:
                raise Failed("the round never closed")
            self.fleet.go_on(pid)
            self.fleet.stop(pid)

    def receipt(self) -> None:
        self.to_receipts()

    def acknowledge(self) -> None:
        self.to_acknowledgements([VICTIM, SECOND])

    def publish(self) -> None:
        self.to_publication()

    def store(self) -> None:
        """The commit lies in the sockets of the victim and the coordinator; both stand still before they read it."""
        self.to_publication()
        self.stop("participant")
        self.stop("coordinator")
        coordinator = self.enclave_link()
        before = coordinator.down.passed
        for link in [*self.links.values(), coordinator]:
            link.release()
        self.link.wait_until(lambda link: link.down.held == 0, 60, "the commit is delivered")
        # The model that follows the record is more than a socket takes.
        coordinator.wait_until(lambda link: link.down.passed > before, 60, "the record is delivered")

    # --- Fault, recovery, end --------------------------------------------------------------------------------------------

    def strike(self) -> bool:
        if self.fault == "half-open link":
            self.link.silence()
            return True
        return self.fleet.kill(self.fault, VICTIM)

    def let_go(self) -> None:
        for pid in self.stopped:
            self.fleet.go_on(pid)
        for proxy in self.fleet.proxies.values():
            for link in proxy.links:
                if not link.silent:
                    link.release()
        self.fleet.start_again(self.fault, VICTIM)


STEPS: dict[str, Callable[[Cell], None]] = {
    "connect": Cell.connect, "authenticate": Cell.authenticate, "offer": Cell.offer, "accept": Cell.accept,
    "first chunk down": Cell.download_first, "middle down": Cell.download_middle, "last down": Cell.download_last,
    "first chunk up": Cell.upload_first, "middle up": Cell.upload_middle, "last up": Cell.upload_last,
    "close": Cell.close, "reduce": Cell.reduce, "receipt": Cell.receipt, "acknowledge": Cell.acknowledge,
    "publish": Cell.publish, "store": Cell.store}


@dataclasses.dataclass
class Outcome:
    step: str
    fault: str
    run: int = 0
    struck: bool = True
    state: str = ""
    contributors: int = 0
    missing: dict[str, str] = dataclasses.field(default_factory=dict)
    reason: str = ""
    victim: str = ""       # what the victim's own command line says of the run's end
    told: float = 0.0      # seconds from the fault until the submitter's command line says how the run ended
    seconds: float = 0.0   # ... and every hospital's
    repeated: int = 0
    committed: int = 0     # hospitals that have the committed receipt of a run whose result never left the enclave
    broken: list[str] = dataclasses.field(default_factory=list)


class Table:
    def __init__(self, fleet: Fleet, folder: pathlib.Path):
        self.fleet, self.folder = fleet, folder
        self.outcomes: list[Outcome] = []

    def plain_run(self) -> None:
        """A run without a fault: the study is whole (again)."""
        run = self.fleet.submit({"rounds": 1}, note="no fault")
        end = self.fleet.watch(run, lambda _: None, LONGEST)
        if end["state"] != "done":
            raise Failed(f"run {run} without a fault: {end}")
        self.fleet.all_connected()

    def cell(self, step: str, fault: str) -> Outcome:
        cell = Cell(self.fleet, step, fault)
        outcome = Outcome(step, fault)
        try:
            STEPS[step](cell)
            outcome.struck = cell.strike()
            struck = time.monotonic()
            cell.let_go()
            outcome.run = cell.run
            self.follow(outcome, struck)
            outcome.seconds = round(time.monotonic() - struck, 1)
            self.check(outcome)
        except (Failed, TimeoutError) as e:
            outcome.run = cell.run
            outcome.broken.append(str(e))
            cell.let_go()
        self.outcomes.append(outcome)
        self.heal(outcome)
        return outcome

    def heal(self, outcome: Outcome) -> None:
        for proxy in self.fleet.proxies.values():
            for link in proxy.links:
                if link.silent:
                    link.cut()
            proxy.links = [link for link in proxy.links if not link.over]
        if outcome.state != "done" or outcome.broken or len(self.fleet.proxies[VICTIM].links) == 0:
            self.plain_run()
        self.fleet.all_connected()

    def follow(self, outcome: Outcome, struck: float) -> None:
        """To the run's end, at the submitter's and at every hospital's."""
        events = []
        end = self.fleet.watch(outcome.run, events.append, LONGEST)
        outcome.state, outcome.reason = end["state"], end.get("reason", "")
        outcome.told = round(time.monotonic() - struck, 1)
        for e in events:
            if e["event"] == "status":
                outcome.repeated = max(outcome.repeated, e.get("bytes_repeated", 0))
            if e["event"] == "committed":
                outcome.missing = {m["owner"]: f"{m['state']}: {m['reason']}" for m in e["receipt"]["members"] if m["state"] != "contributed"}
                outcome.contributors = len(OWNERS) - len(outcome.missing)
        for owner in OWNERS:
            wait_until(lambda: self.fleet.ledger(owner, outcome.run).get("outcome") or not self.fleet.ledger(owner, outcome.run),
                       ROUND + CHANNEL + 15, f"{owner} knows how run {outcome.run} ended")
        outcome.victim = next((f"{e['outcome']}{': ' if e['reason'] else ''}{e['reason']}" for e in
                               reversed(self.fleet.events(VICTIM, "run_ended", run=outcome.run))), "never heard of the run")

    # --- What must hold, whatever happened ---------------------------------------------------------------------------------

    def check(self, o: Outcome) -> None:
        def broken(condition, what: str) -> None:
            if condition:
                o.broken.append(what)

        broken(o.seconds > LONGEST, f"took {o.seconds} s, the deadlines allow {LONGEST}")
        broken(o.state not in ("done", "failed"), f"ended as {o.state}")
        broken(o.state == "failed" and len(o.reason) < 20, f"a failure without a reason: {o.reason!r}")
        ledgers = {owner: self.fleet.ledger(owner, o.run) for owner in OWNERS}
        self.check_receipts(o, ledgers, broken)
        for owner, run in ledgers.items():
            rounds = run.get("rounds", [])
            broken(len({r["round"] for r in rounds}) != len(rounds) or len(rounds) > 1, f"{owner}: charged more than the one round: {rounds}")
            left = self.fleet.events(owner, "stored", run=o.run) or self.fleet.events(owner, "uploaded", run=o.run)
            broken(left and not any(r.get("charged") for r in rounds), f"{owner}: bytes left without a charge")
            broken(run.get("outcome") == "failed" and not run.get("reason"), f"{owner}: its ledger gives no reason for the failure")
            done = run.get("outcome") == "done"
            kept = any(r.get("receipt") for r in rounds)
            broken(o.state == "failed" and done and not kept, f"{owner} believes that a failed run is done, and has no receipt")
            o.committed += o.state == "failed" and done and kept

    def check_receipts(self, o: Outcome, ledgers: dict, broken: Callable) -> None:
        folder = self.folder / f"run-{o.run}"
        verified = self.fleet.receipts(o.run, folder)
        signed = {r["receipt"] for run in ledgers.values() for r in run.get("rounds", []) if r.get("receipt")}
        broken(len(signed) > 1, f"two receipts of one round: {signed}")
        if o.state != "done":
            return
        broken(verified.returncode != 0, f"receipts do not verify: {verified.stderr[-300:]}")
        listed = self.fleet.receipts_of(o.run)
        broken(len(listed) != 1, f"{len(listed)} receipts of one round")
        broken(signed != {listed[0]["digest"]}, f"the hospitals signed {signed}, the coordinator keeps {listed[0]['digest']}")
        members = {m["owner"]: m["state"] for m in listed[0]["members"]}
        broken(sorted(members) != sorted(OWNERS), f"the receipt names {sorted(members)}")
        contributors = [owner for owner in OWNERS if members.get(owner) == "contributed"]
        for owner in contributors:
            broken(not any(r.get("charged") for r in ledgers[owner].get("rounds", [])), f"{owner} contributed, and its ledger was not charged")
        model = self.fleet.model(o.run, folder / "model.bin")
        broken(not np.array_equal(model, expected_model(len(model), [contributors])), "the model is not the contributors' exact mean")

    # --- The table itself ---------------------------------------------------------------------------------------------------

    def json(self) -> dict:
        return {"round_deadline_s": ROUND, "channel_deadline_s": CHANNEL, "longest_s": LONGEST, "victim": VICTIM,
                "cells": [dataclasses.asdict(o) for o in self.outcomes]}

    def markdown(self) -> str:
        return markdown(self.json())


def word(cell: dict) -> str:
    """One cell of the table for people."""
    if cell["broken"]:
        return "**BROKEN**: " + "; ".join(cell["broken"])
    if not cell["struck"]:
        what = "no such process yet; "
    else:
        what = ""
    if cell["state"] == "done":
        who = f"{cell['contributors']} of 4" + "".join(f"; {o} {why}" for o, why in cell["missing"].items())
        return f"{what}done, {who} ({cell['seconds']:.1f} s)"
    return f"{what}failed, the submitter told after {cell['told']:.1f} s, the last hospital after {cell['seconds']:.1f} s: {cell['reason']}" + (
        f"; {cell['committed']} hospitals have the committed receipt" if cell["committed"] else "")


def markdown(table: dict) -> str:
    faults = [f for f in FAULTS if any(c["fault"] == f for c in table["cells"])]
    cells = {(c["step"], c["fault"]): c for c in table["cells"]}
    lines = ["| step | " + " | ".join(faults) + " |", "|---" * (len(faults) + 1) + "|"]
    for step in STEPS:
        if any(s == step for s, _ in cells):
            texts = [word(cells[step, f]).replace("|", "\\|").replace("\n", " ") if (step, f) in cells else "" for f in faults]
            lines.append(f"| {step} | " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n"


def selection(seed: int) -> list[tuple[str, str]]:
    """Every step once and every fault at least once; which meets which depends on the seed."""
    return [(step, FAULTS[(i + seed) % len(FAULTS)]) for i, step in enumerate(STEPS)]


def study(folder: pathlib.Path, seed: int) -> Fleet:
    return Fleet(folder, seed=seed, rounds=1, runs=500, quorum=4, round_deadline=f"{ROUND}s", channel_deadline=f"{CHANNEL}s")


def run(cells: list[tuple[str, str]], folder: pathlib.Path, seed: int = 1, say: Callable[[str], None] = lambda _: None) -> Table:
    with study(folder, seed) as fleet:
        table = Table(fleet, folder)
        table.plain_run()
        for step, fault in cells:
            outcome = table.cell(step, fault)
            say(f"{step:>16} x {fault:<14} run {outcome.run:>3}: {word(dataclasses.asdict(outcome))}")
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--markdown", type=pathlib.Path)
    parser.add_argument("--steps", default=",".join(STEPS))
    parser.add_argument("--faults", default=",".join(FAULTS))
    parser.add_argument("--covering", action="store_true", help="every step and every fault once, as ctest has it")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=pathlib.Path, help="kept, with every log; default: a temporary one")
    options = parser.parse_args()
    cells = [(s, f) for s in options.steps.split(",") for f in options.faults.split(",")]
    if options.covering:
        cells = selection(options.seed)
    with tempfile.TemporaryDirectory() as temporary:
        table = run(cells, options.folder or pathlib.Path(temporary), options.seed, lambda line: print(line, flush=True))
    if options.json:
        options.json.write_text(json.dumps(table.json(), indent=1))
    if options.markdown:
        options.markdown.write_text(table.markdown())
    broken = [o for o in table.outcomes if o.broken]
    print(f"{len(table.outcomes)} cells, {len(broken)} broken")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
