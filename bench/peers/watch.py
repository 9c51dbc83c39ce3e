"""What a peer's processes cost: the peak memory of each role, sampled over a process tree."""

from __future__ import annotations

import os
import threading
from typing import Callable

FREE_AT_LEAST = 2500 << 20  # bytes: below it a measurement gives up before the kernel picks a victim


def _status(pid: int) -> dict[str, int]:
    """The numeric lines of /proc/PID/status; empty when the process is gone."""
    out = {}
    try:
        with open(f"/proc/{pid}/status") as lines:
            for line in lines:
                name, _, value = line.partition(":")
                if name in ("PPid", "VmHWM", "VmRSS"):
                    out[name] = int(value.split()[0])
    except (OSError, ValueError):
        return {}
    return out


def tree(root: int) -> list[int]:
    """`root` and everything below it."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and "PPid" in (status := _status(int(entry))):
            children.setdefault(status["PPid"], []).append(int(entry))
    out = [root]
    for pid in out:
        out.extend(children.get(pid, []))
    return out


def command(pid: int) -> str:
    """The program and its first two arguments (a later one may name another role)."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            return " ".join(f.read().decode(errors="replace").split("\0")[:3])
    except OSError:
        return ""


def free() -> int:
    with open("/proc/meminfo") as lines:
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))


class Watch:
    """Samples ten times a second until `stop`. `role` names a process by its command, or gives None for one that does not count."""

    def __init__(self, role: Callable[[str], str | None], roots: Callable[[], list[int]]):
        self._role, self._roots = role, roots
        self._stopped = threading.Event()
        self.low_memory = threading.Event()
        self.peak: dict[str, int] = {}  # bytes, the largest VmHWM of one process of that role
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped.wait(0.1):
            if free() < FREE_AT_LEAST:
                self.low_memory.set()
            for root in self._roots():
                for pid in tree(root):
                    if role := self._role(command(pid)):
                        self.peak[role] = max(self.peak.get(role, 0), _status(pid).get("VmHWM", 0) << 10)

    def stop(self) -> dict[str, int]:
        self._stopped.set()
        self._thread.join()
        return self.peak
