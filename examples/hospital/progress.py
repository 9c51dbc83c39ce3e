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
    """Feed it a run's events; it prints a line per committed round (rewriting it while the round goes on, on a terminal)."""

    def __init__(self, rounds: int, out=sys.stderr, quiet: bool = False):
        self.rounds, self.out, self.quiet = rounds, out, quiet
        self.live = out.isatty()
        self.auc: list[dict] = []   # published, by train round
        self.train_round = 0
        self.pending = ""
        self.last_end = None

    def line(self, text: str, final: bool = True) -> None:
        if self.quiet:
            return
        if self.live:
            self.out.write("\r\033[K" + text + ("\n" if final else ""))
        elif final:
            self.out.write(text + "\n")
        self.out.flush()

    def __call__(self, event: dict) -> None:
        kind = event.get("event")
        if kind == "status":
            self.status(event)
        elif kind == "published" and event.get("kind") == "evaluate":
            self.auc.append({"round": self.train_round, "auc": event.get("auc")})
            if self.last_end:
                value = event.get("auc")
                self.line(self.last_end + f"  AUC {value:.3f}" if value is not None else self.last_end + "  AUC undefined")
                self.last_end = None
        elif kind in ("launching", "instance", "waiting", "started", "submitted", "attached_again", "cancel_asked"):
            self.line("  " + (event.get("message") or " ".join(str(event[k]) for k in ("event", "instance", "state", "reason") if event.get(k))))
        elif kind == "ended":
            self.flush()
            self.line(f"  run {event.get('run')} {event.get('state')}: {event.get('reason') or 'all rounds committed'}")

    def flush(self) -> None:
        if self.last_end:
            self.line(self.last_end)
            self.last_end = None

    def status(self, event: dict) -> None:
        task, state = event.get("task"), event.get("state")
        if task == "train" and state == "offered":
            self.train_round += 1
        members = event.get("members") or []
        states: dict[str, int] = {}
        for m in members:
            states[m["state"]] = states.get(m["state"], 0) + 1
        who = ", ".join(f"{n} {s}" for s, n in states.items())
        missing = "; ".join(f"{m['owner']} {m['state']}: {m['reason']}" for m in members if m.get("reason"))
        label = f"{task} {self.train_round}/{self.rounds}" if task == "train" else task
        text = f"  round {event.get('round'):>3}  {label:<14} {state:<11} {who}"
        if state == "committed":
            self.flush()
            text = (f"  round {event.get('round'):>3}  {label:<14} committed   in {size(event.get('bytes_in', 0))}, out {size(event.get('bytes_out', 0))}, "
                    f"{event.get('ms', 0)} ms" + (f"  ({missing})" if missing else ""))
            if task == "evaluate":
                self.last_end = text
            else:
                self.line(text)
        else:
            self.line(text + (f"  ({missing})" if missing else ""), final=False)
