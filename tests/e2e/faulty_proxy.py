"""A bad network in a process: an HTTP CONNECT proxy (what `proxy = "host:port"` of a node or coordinator dials) that
cuts, holds, silences, slows, delays, loses and corrupts what it passes, by rule or at a test's word.

A test says what happens to the next connections with `faults` (one rule for all, or a function of the connection's
number from 1), and reaches into a living one: `hold`, `allow`, `silence`, `cut`. Everything random comes from a seed.
Nothing here reads what passes: it is TLS, and only bytes and turns are seen.

Packets cannot be lost between two sockets of one machine, so loss is what TCP shows of it: every lost segment stalls its
direction by a round trip, and one in ten by a retransmission time-out.
"""

from __future__ import annotations

import dataclasses
import random
import socket
import threading
import time
from typing import Callable

UP, DOWN = "up", "down"  # from who dialled; to who dialled
SEGMENT = 1460           # bytes of a TCP segment on Ethernet
READ = 64 << 10
KERNEL = 128 << 10       # of each of the proxy's sockets: what it hides from its two ends stays small


@dataclasses.dataclass
class Faults:
    """What happens to one connection. Offsets count bytes of one direction, from 0, behind the CONNECT."""

    cut_after: dict[str, int] = dataclasses.field(default_factory=dict)      # direction -> bytes that still pass
    hold_after: dict[str, int] = dataclasses.field(default_factory=dict)     # likewise; then it waits for allow() or release()
    hold_turn: dict[str, int] = dataclasses.field(default_factory=dict)      # direction -> from the so-manieth time on that it speaks
    corrupt_at: dict[str, int] = dataclasses.field(default_factory=dict)     # direction -> the byte of which one bit is flipped
    cut_every: float = 0.0                                                   # seconds: each connection lives as long
    cut_at_random: float = 0.0                                               # likewise, on average (exponential)
    rate: dict[str, float] = dataclasses.field(default_factory=dict)         # direction -> bytes a second
    delay: float = 0.0                                                       # seconds, of everything
    loss: float = 0.0                                                        # share of segments
    round_trip: float = 0.02                                                 # seconds: what one lost segment costs ...
    time_out: float = 0.2                                                    # ... and one in ten of them


class Way:
    """One direction of a link: a thread that reads, waits as the faults say, and writes."""

    def __init__(self, link: "Link", name: str, source: socket.socket, target: socket.socket):
        self.link, self.name, self.source, self.target = link, name, source, target
        self.received = self.passed = 0
        faults = link.faults
        self.limit = faults.hold_after.get(name)   # bytes that may pass, None: all
        self.turns = 0                             # how often this direction began to speak after the other one did
        self.stalled = 0.0                         # seconds lost to loss
        self.thread = threading.Thread(target=self._run, daemon=True, name=f"{name} of link {link.number}")

    @property
    def held(self) -> int:
        return self.received - self.passed

    def _run(self) -> None:
        try:
            while data := self.source.recv(READ):
                with self.link.changed:
                    if self.link.last_speaker != self.name:
                        self.link.last_speaker = self.name
                        self.turns += 1
                        if self.link.faults.hold_turn.get(self.name) == self.turns:
                            self.limit = self.received
                    self.received += len(data)
                    self.link.changed.notify_all()
                if self.link.faults.delay:
                    self.link.wait(self.link.faults.delay)
                while data and not self.link.over:
                    data = data[self._pass(data):]
            self._end_of_stream()
        except OSError:
            self.link.cut()  # one end is gone: the other hears of it

    def _end_of_stream(self) -> None:
        with self.link.changed:
            while self.limit is not None and not self.link.over:  # whoever holds bytes holds the goodbye too
                self.link.changed.wait()
        self.target.shutdown(socket.SHUT_WR)

    def _pass(self, data: bytes) -> int:
        link, faults = self.link, self.link.faults
        with link.changed:
            while not link.over and (link.silent or (self.limit is not None and self.passed >= self.limit)):
                link.changed.wait()
            if link.over:
                return 0
            n = len(data) if self.limit is None else min(len(data), self.limit - self.passed)
        cut = faults.cut_after.get(self.name)
        if cut is not None:
            n = min(n, cut - self.passed)
            if n <= 0:
                link.cut()
                return 0
        if rate := faults.rate.get(self.name):
            n = max(1, min(n, int(rate / 20)))  # twenty pieces a second
            link.wait(n / rate)
        if faults.loss:
            self._lose(n)
        out = self._corrupted(data[:n])
        if link.over:
            return 0
        self.target.sendall(out)
        with link.changed:
            self.passed += n
            link.changed.notify_all()
        return n

    def _lose(self, n: int) -> None:
        faults, draw = self.link.faults, self.link.random
        stall = sum(faults.time_out if draw.random() < 0.1 else faults.round_trip
                    for _ in range((n + SEGMENT - 1) // SEGMENT) if draw.random() < faults.loss)
        self.stalled += stall
        self.link.wait(stall)

    def _corrupted(self, data: bytes) -> bytes:
        at = self.link.faults.corrupt_at.get(self.name)
        if at is None or not self.passed <= at < self.passed + len(data):
            return data
        out = bytearray(data)
        out[at - self.passed] ^= 0x10
        return bytes(out)


class Link:
    """One connection through the proxy."""

    def __init__(self, number: int, faults: Faults, near: socket.socket, far: socket.socket, seed: int):
        self.number, self.faults = number, faults
        self.target = far.getpeername()
        self.changed = threading.Condition()
        self.over = self.silent = False
        self.last_speaker = ""
        self.random = random.Random(f"{seed} {number}")
        self.sockets = (near, far)
        self.up, self.down = Way(self, UP, near, far), Way(self, DOWN, far, near)
        life = faults.cut_every or (self.random.expovariate(1 / faults.cut_at_random) if faults.cut_at_random else 0.0)
        self.timer = threading.Timer(life, self.cut) if life else None

    def start(self) -> "Link":
        if self.timer:
            self.timer.daemon = True
            self.timer.start()
        for way in (self.up, self.down):
            way.thread.start()
        return self

    def way(self, direction: str) -> Way:
        return self.up if direction == UP else self.down

    def wait(self, seconds: float) -> None:
        """Lets time pass, unless the link ends meanwhile."""
        until = time.monotonic() + seconds
        with self.changed:
            while not self.over and (left := until - time.monotonic()) > 0:
                self.changed.wait(left)

    def hold(self, direction: str, after: int = 0) -> None:
        """From now on `after` more bytes pass in this direction; what comes behind them waits."""
        with self.changed:
            self.way(direction).limit = self.way(direction).passed + after
            self.changed.notify_all()

    def allow(self, direction: str, more: int) -> None:
        with self.changed:
            way = self.way(direction)
            if way.limit is not None:
                way.limit += more
            self.changed.notify_all()

    def release(self) -> None:
        with self.changed:
            self.up.limit = self.down.limit = None
            self.silent = False
            self.changed.notify_all()

    def silence(self) -> None:
        """Half open: both sockets stay, nothing passes any more in either direction, nobody is told."""
        with self.changed:
            self.silent = True
            self.changed.notify_all()

    def cut(self) -> None:
        """Gone at once: what is held, and what the proxy's sockets hold, is lost."""
        with self.changed:
            if self.over:
                return
            self.over = True
            self.changed.notify_all()
        if self.timer:
            self.timer.cancel()
        for s in self.sockets:
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def wait_until(self, condition: Callable[["Link"], object], seconds: float, what: str) -> None:
        until = time.monotonic() + seconds
        with self.changed:
            while not condition(self):
                left = until - time.monotonic()
                if left <= 0 or (self.over and not condition(self)):
                    raise TimeoutError(f"link {self.number}: {what}: not within {seconds:.0f} s; up {self.up.passed} of {self.up.received}, "
                                       f"down {self.down.passed} of {self.down.received}{', cut' if self.over else ''}")
                self.changed.wait(min(left, 0.5))


class FaultyProxy:
    """Listens on a loopback port until close(). `faults`: of connections made from now on."""

    def __init__(self, faults: Faults | Callable[[int], Faults] | None = None, seed: int = 1):
        self.faults = faults or Faults()
        self.seed = seed
        self.links: list[Link] = []    # a test may take out those that are over
        self._made = 0
        self.refusing = False          # dials are taken and dropped: the network is down
        self.changed = threading.Condition()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._listen, daemon=True, name=f"proxy {self.port}").start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def number(self) -> int:
        """How many connections were made so far."""
        return self._made

    @property
    def link(self) -> Link | None:
        """The connection that was made last."""
        return self.links[-1] if self.links else None

    def passed(self, direction: str) -> int:
        """Bytes that came out of the proxy in this direction, over all connections."""
        return sum(link.way(direction).passed for link in self.links)

    def wait_for_link(self, after: int, seconds: float) -> Link:
        """The connection with a number above `after`, once it is made."""
        until = time.monotonic() + seconds
        with self.changed:
            while self._made <= after or not self.links:
                left = until - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"proxy {self.port}: connection {after + 1} was not made within {seconds:.0f} s")
                self.changed.wait(left)
            return self.links[-1]

    def cut(self) -> None:
        for link in self.links:
            link.cut()

    def close(self) -> None:
        self.refusing = True
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._listener.close()
        self.cut()

    def __enter__(self) -> "FaultyProxy":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _listen(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        with near:
            try:
                far = self._connect(near)
            except (OSError, ValueError):
                return
            if far is None:
                return
            with far:
                for s in (near, far):
                    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with self.changed:
                    self._made += 1
                    faults = self.faults(self._made) if callable(self.faults) else self.faults
                    link = Link(self._made, faults, near, far, self.seed)
                    self.links.append(link)
                    self.changed.notify_all()
                near.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                link.start()
                for way in (link.up, link.down):
                    way.thread.join()
                link.cut()

    def _connect(self, near: socket.socket) -> socket.socket | None:
        near.settimeout(20)
        head = b""
        while not head.endswith(b"\r\n\r\n"):  # not a byte more: what follows is TLS
            byte = near.recv(1)
            if not byte or len(head) > 4096:
                return None
            head += byte
        if self.refusing:
            return None
        host, port = head.split(b" ")[1].decode().rsplit(":", 1)
        try:
            far = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL)
            far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL)
            far.connect((host, int(port)))
        except OSError:
            far.close()
            near.sendall(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
            return None
        near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL)
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL)
        near.settimeout(None)
        return far
