"""What this machine is, and what processes on it used."""

from __future__ import annotations

import os
import pathlib
import platform
import re
import ssl
import threading
import time


def facts() -> dict:
    cpu = re.search(r"^model name\s*:\s*(.*)$", pathlib.Path("/proc/cpuinfo").read_text(), re.M)
    memory = re.search(r"^MemTotal:\s*(\d+) kB", pathlib.Path("/proc/meminfo").read_text(), re.M)
    return {"cpu": cpu.group(1) if cpu else platform.machine(), "cores": os.cpu_count(), "memory_bytes": int(memory.group(1)) * 1024,
            "kernel": platform.release(), "openssl": ssl.OPENSSL_VERSION, "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}


def load() -> float:
    """The load average of the last minute."""
    return os.getloadavg()[0]


def free_bytes() -> int:
    found = re.search(r"^MemAvailable:\s*(\d+) kB", pathlib.Path("/proc/meminfo").read_text(), re.M)
    return int(found.group(1)) * 1024


def _status(pid: int) -> dict[str, str]:
    try:
        text = pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return {}
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def children() -> dict[int, list[int]]:
    """Of every process that runs, by its number."""
    out: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            parent = int(pathlib.Path(f"/proc/{entry}/stat").read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, IndexError, ValueError):
            continue
        out.setdefault(parent, []).append(int(entry))
    return out


def descendants(pid: int, of: dict[int, list[int]] | None = None) -> list[int]:
    of = of if of is not None else children()
    out = list(of.get(pid, []))
    for child in of.get(pid, []):
        out += descendants(child, of)
    return out


class Peaks:
    """The largest VmHWM of each role while it runs: the kernel's own high-water mark, asked for once a second.

    roles: gives the processes of each role now. Of several in one role the largest counts, not their sum.
    """

    def __init__(self, roles, interval: float = 1.0):
        self._roles, self._interval = roles, interval
        self.bytes: dict[str, int] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._end.wait(self._interval):
            self.sample()

    def sample(self) -> None:
        for role, pids in self._roles().items():
            for pid in pids:
                kib = _status(pid).get("VmHWM", "0 kB").split()[0]
                self.bytes[role] = max(self.bytes.get(role, 0), int(kib) * 1024)

    def __enter__(self) -> "Peaks":
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._end.set()
        self._thread.join()
        self.sample()
