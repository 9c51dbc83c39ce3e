"""Three hospitals train while strangers do their worst to the enclave's port: idle connections without end, garbage, bytes that come
one a second, frames too large. The hospitals do not notice, the enclave's memory stays bounded, and who was away comes back in.

Prints rounds a second without and with the strangers as one line of JSON; asserts only a generous ratio, since the machine is shared.
"""

import contextlib
import json
import os
import pathlib
import socket
import threading
import time

import pytest

import scanner
from cluster import Tools, read_events, wait_until
from federation import Federation
from founding import COMPUTE_OWNER
from small_study import Options, SmallStudy, rounds_committed

BIN = pathlib.Path(os.environ.get("CLOISTER_BIN", pathlib.Path(__file__).resolve().parents[2] / "build" / "release" / "bin"))
HOSPITALS = ["north", "south", "east"]
CONNECTIONS = 16               # that the launch allows: far fewer than the strangers make
IDLE = 1000
ROUNDS = 15
BUSY_AT_MOST = 64 << 20        # bytes that the enclave may grow by: CONNECTIONS + 64 handshakes of some 100 KiB are a tenth of it


class Strangers:
    """Who connects without a key. Each goes on until the end; a connection that the enclave ends is made again."""

    def __init__(self, port: int):
        self.port, self.over = port, threading.Event()
        self.made = dict.fromkeys(("idle", "garbage", "one byte a second", "half a hello", "a frame too large"), 0)
        self.idle: list[socket.socket] = []
        self.threads = [threading.Thread(target=self._again, args=(name, act), daemon=True) for name, act in (
            ("garbage", lambda s: s.sendall(os.urandom(64 << 10))),
            ("one byte a second", self._dribble),
            ("half a hello", lambda s: (s.sendall(bytes.fromhex("160301020001000100")), self.over.wait(5))),
            ("a frame too large", lambda s: s.sendall(b"\x16\x03\x01\xff\xff" + bytes(0xffff))))]

    def _connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=5)

    def _sit(self) -> socket.socket:
        s = self._connect()
        s.setblocking(False)
        return s

    def _again(self, name: str, act) -> None:
        while not self.over.is_set():
            with contextlib.suppress(OSError):
                with self._connect() as s:
                    self.made[name] += 1
                    act(s)
                    s.recv(1)  # until the enclave ends it
            self.over.wait(0.1)

    def _stay(self) -> None:
        """Comes back, twenty times a second, wherever the enclave ended an idle connection."""
        while not self.over.is_set():
            ended = []
            for i, s in enumerate(self.idle):
                with contextlib.suppress(BlockingIOError):
                    with contextlib.suppress(ConnectionError):
                        s.recv(1)
                    ended.append(i)
            for i in ended:
                self.idle[i].close()
                with contextlib.suppress(OSError):
                    self.idle[i] = self._sit()
                    self.made["idle"] += 1
                if self.over.wait(0.05):
                    return
            self.over.wait(0.05)

    def _dribble(self, s: socket.socket) -> None:
        for byte in bytes.fromhex("1603010200010001fc0303") + bytes(500):
            if self.over.wait(1):
                return
            s.sendall(bytes([byte]))

    def __enter__(self) -> "Strangers":
        while len(self.idle) < IDLE:
            self.idle.append(self._sit())
            self.made["idle"] += 1
        self.threads.append(threading.Thread(target=self._stay, daemon=True))
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join(30)
        for s in self.idle:
            s.close()


def aggregator(federation: Federation) -> int:
    return scanner.tree(federation.processes[COMPUTE_OWNER].process.pid)[2]


def peak(pid: int) -> int:
    """Bytes: the most that was resident, ever."""
    line = next(x for x in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("VmHWM"))
    return int(line.split()[1]) << 10


def seconds_for(federation: Federation, rounds: int) -> float:
    alive = list(federation.processes.values())
    begin, first = time.monotonic(), rounds_committed(federation, "south")
    wait_until(lambda: rounds_committed(federation, "south") >= first + rounds, 240, f"{rounds} rounds are committed", alive)
    return time.monotonic() - begin


@pytest.fixture
def federation(tmp_path):
    options = Options(values=20_000, rounds=100_000, connections=CONNECTIONS, round_deadline="60s", channel_deadline="10s")
    study = SmallStudy(tmp_path / "study", Tools(BIN), HOSPITALS, options).build()
    with Federation(study) as running:
        yield running


def test_hospitals_train_on_and_come_back_while_strangers_hold_a_thousand_connections(federation):
    federation.submit({"rounds": 100_000})
    alone = seconds_for(federation, ROUNDS)
    pid = aggregator(federation)
    before = peak(pid)
    with Strangers(federation.study.ports["aggregator"]) as strangers:
        beside = seconds_for(federation, ROUNDS)
        # All places are taken by strangers: a hospital that must dial anew gets in all the same, and its rounds are not lost.
        federation.processes["north"].kill()
        federation.processes["north"].start()
        back = rounds_committed(federation, "north")
        wait_until(lambda: rounds_committed(federation, "north") >= back + 2, 120, "the restarted hospital takes part again",
                   list(federation.processes.values()))
        seconds_for(federation, 2)
        made = dict(strangers.made)
    grown = peak(pid) - before
    print(json.dumps({"rounds_per_second_alone": round(ROUNDS / alone, 2), "rounds_per_second_beside_strangers": round(ROUNDS / beside, 2),
                      "strangers": made, "enclave_peak_bytes_before": before, "enclave_peak_bytes_grown": grown}))
    assert made["idle"] >= IDLE and all(made.values()), made
    turned_away = [e for e in read_events(federation.aggregator_log) if e.get("event") == "connection_refused"]
    assert not turned_away, turned_away[:3]  # there was a place for whoever came: the one that had waited longest gave its own
    assert grown < BUSY_AT_MOST
    assert beside < 10 * alone + 20
    for owner in HOSPITALS:
        lost = [e for e in read_events(federation.log(owner)) if e.get("event") == "run_ended"]
        assert not lost, lost
