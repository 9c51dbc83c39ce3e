"""A run's events as lines that a person can follow: states, bytes, reasons. Nothing here comes from a single hospital's data."""

from __future__ import annotations

import sys


def size(n: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if n < 1024:
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1024
    return f"{n:.1f} GiB"


class Progress:
    """Feed it a run's events; it prints a line per committed round, and on a terminal what happens meanwhile.

    auc: {"round": train round, "auc": value or None} as the enclave published them.
    """

    def __init__(self, rounds: int, out=sys.stderr, quiet: bool = False):
        self.rounds, self.out, self.quiet = rounds, out, quiet
        self.live = out.isatty()
        self.auc: list[dict] = []
        self.status: dict = {}      # the last one of the round under way
        self.train_round = 0
        self.waiting_for_auc = ""   # an evaluate round's line, until its result comes

    def line(self, text: str, final: bool = True) -> None:
        if self.quiet or not (final or self.live):
            return
        self.out.write(("\r\033[K" if self.live else "") + text + ("\n" if final else ""))
        self.out.flush()

    def __call__(self, event: dict) -> None:
        handler = getattr(self, "on_" + str(event.get("event")), None)
        if handler:
            handler(event)

    def on_launching(self, _: dict) -> None:
        self.line("  asking the launcher for an instance")

    def on_instance(self, event: dict) -> None:
        self.line(f"  {event['instance']} is {event['state']}", final=event["state"] == "granted")

    def on_waiting(self, event: dict) -> None:
        self.line(f"  waiting: {event['reason']}")

    def on_attached_again(self, event: dict) -> None:
        self.line(f"  connected again: {event['reason']}")

    def on_started(self, event: dict) -> None:
        self.line("  the run is given to the aggregator" + (" (simulated TEE)" if event.get("simulated") else ""))

    def label(self, task: str, train_round: int) -> str:
        return f"{task} {train_round}/{self.rounds}" if task == "train" else task

    def on_status(self, event: dict) -> None:
        self.status = event
        states: dict[str, int] = {}
        for m in event.get("members") or []:
            states[m["state"]] = states.get(m["state"], 0) + 1
        who = ", ".join(f"{n} {s}" for s, n in states.items())
        self.line(f"  round {event['round']:>3}  {event['task']:<12} {event['state']:<11} {who}", final=False)

    def on_committed(self, event: dict) -> None:
        self.flush()
        receipt, status = event["receipt"], self.status
        self.train_round = receipt["train_round"]
        contributed = sum(m["state"] == "contributed" for m in receipt["members"])
        missing = "; ".join(f"{m['owner']} {m['state']}: {m['reason']}" for m in receipt["members"] if m["state"] != "contributed")
        moved = ""
        if status.get("round") == receipt["round"]:
            moved = f"  in {size(status['bytes_in']):>9}  out {size(status['bytes_out']):>9}  {status['ms']:>5} ms"
        text = (f"  round {receipt['round']:>3}  {self.label(receipt['task'], self.train_round):<12} {contributed} of {len(receipt['members'])} hospitals, "
                f"{event['acknowledgements']} witnesses{moved}" + (f"  ({missing})" if missing else ""))
        if receipt["task"] == "evaluate":
            self.waiting_for_auc = text
        else:
            self.line(text)

    def on_published(self, event: dict) -> None:
        if event.get("kind") == "evaluate":
            self.auc.append({"round": self.train_round, "auc": event.get("auc")})
            value = event.get("auc")
            self.waiting_for_auc += "  AUC undefined" if value is None else f"  AUC {value:.3f}"
            self.flush()

    def on_ended(self, event: dict) -> None:
        self.flush()
        self.line(f"  run {event['run']} {event['state']}: {event['reason'] or 'all rounds committed'}")

    def flush(self) -> None:
        if self.waiting_for_auc:
            self.line(self.waiting_for_auc)
            self.waiting_for_auc = ""
