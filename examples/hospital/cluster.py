"""Real processes in real folders: start them, read their logs, wait for events with deadlines, end them.

Shared by the demo and the end-to-end tests. Nothing here knows what a study is.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import signal
import socket
import subprocess
import threading
import time
from typing import Callable


class Failed(Exception):
    """A process or a wait ended in a way that nobody asked for; the text says which, and shows the end of its output."""


def free_port() -> int:
    """A port on loopback that was free a moment ago."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@dataclasses.dataclass
class Tools:
    """The programs of one build."""

    bin: pathlib.Path

    def path(self, name: str) -> str:
        return str(self.bin / name)

    def run(self, *argv, expect: int | None = 0, cwd: pathlib.Path | None = None, timeout: float = 120) -> subprocess.CompletedProcess:
        """Runs a program of the build to its end. `expect`: the exit code it must have, or None for any."""
        argv = [self.path(argv[0]), *map(str, argv[1:])]
        done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=timeout)
        if expect is not None and done.returncode != expect:
            raise Failed(f"{' '.join(argv)}: wanted exit code {expect}, found {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        return done

    def json(self, *argv, expect: int | None = 0, **options):
        """Runs `cloister --json ...` and gives what it printed."""
        done = self.run("cloister", "--json", *argv, expect=expect, **options)
        try:
            return json.loads(done.stdout)
        except json.JSONDecodeError as e:
            raise Failed(f"cloister {' '.join(map(str, argv))}: no JSON ({e}): {done.stdout[:500]}{done.stderr[-500:]}") from None


class Process:
    """A program that runs until it ends or is ended. Standard error and output go to `name`.out in its folder."""

    def __init__(self, name: str, argv: list, folder: pathlib.Path, log: pathlib.Path):
        self.name, self.argv, self.folder, self.log = name, [str(a) for a in argv], folder, log
        self.output = folder / f"{name.replace(' ', '-')}.out"
        self.process: subprocess.Popen | None = None

    def start(self) -> "Process":
        with open(self.output, "ab") as out:
            self.process = subprocess.Popen(self.argv, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
        return self

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def wait(self, timeout: float) -> int:
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise Failed(f"{self.name} did not end within {timeout:.0f} s\n{self.tail()}") from None

    def kill(self) -> None:
        """kill -9 of the process alone: what it started must notice by itself."""
        if self.running:
            self.process.kill()
            self.process.wait()

    def end(self, timeout: float = 10) -> None:
        """Asks it to end; after `timeout` kills it and everything it started."""
        if self.process is None:
            return
        if self.running:
            self.process.terminate()
            try:
                self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                pass
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()

    def tail(self, lines: int = 15) -> str:
        try:
            return "\n".join(self.output.read_text(errors="replace").splitlines()[-lines:])
        except FileNotFoundError:
            return ""

    def events(self) -> list[dict]:
        return read_events(self.log)


def read_events(log: pathlib.Path) -> list[dict]:
    """The complete JSON lines of a log; one that is being written now is left for later."""
    try:
        text = log.read_text(errors="replace")
    except FileNotFoundError:
        return []
    out = []
    for line in text.split("\n")[:-1]:
        try:
            out.append(json.loads(line))
        except json.JSONDecodeError:
            out.append({"event": "unreadable", "message": line})
    return out


_never = threading.Event()


def wait_until(condition: Callable[[], object], seconds: float, what: str, alive: list[Process] = ()):
    """The first truthy value of `condition`, which is asked twenty times a second: files and foreign processes raise no event here.

    Fails at the deadline, or at once when a process of `alive` has ended.
    """
    until = time.monotonic() + seconds
    while True:
        if value := condition():
            return value
        for p in alive:
            if not p.running:
                raise Failed(f"{what}: {p.name} ended with {p.process.returncode} meanwhile\n{p.tail()}")
        if time.monotonic() > until:
            ends = "\n".join(f"--- {p.name}\n{p.tail()}" for p in alive)
            raise Failed(f"{what}: not within {seconds:.0f} s\n{ends}")
        _never.wait(0.05)
