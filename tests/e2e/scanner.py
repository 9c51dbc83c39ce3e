"""Looks for planted bytes in memory, files, open descriptors and captured packets, in every form in which they could leak.

`Needles` makes the forms, `memory`, `files`, `descriptors` and `Capture` look; each says which forms it found. A form that is
not found proves something only beside a control in which the same function finds it (test_scanner.py).
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import os
import pathlib
import signal
import socket
import struct
import threading
import time

CHUNK = 8 << 20
SHORTEST = 16  # bytes of a needle: nothing as long is there by accident


def base64_forms(raw: bytes) -> list[bytes]:
    """What every Base64 text holds that has `raw` in it, at each of the three alignments."""
    out = []
    for before in range(3):
        text = base64.b64encode(bytes(before) + raw)
        first = (before * 8 + 5) // 6                 # the first character made of bits of `raw` alone ...
        last = (before + len(raw)) * 8 // 6           # ... and the first behind it that is not
        out.append(text[first:last])
    return out


@dataclasses.dataclass
class Needles:
    """Byte strings by the name of their form: "float32", "float32 in base64 (2)", "float32 in hex" and so on."""

    forms: dict[str, bytes] = dataclasses.field(default_factory=dict)

    def plant(self, name: str, raw: bytes) -> "Needles":
        found = {name: raw, f"{name} in hex": raw.hex().encode(), f"{name} in HEX": raw.hex().upper().encode()}
        for i, text in enumerate(base64_forms(raw)):
            found[f"{name} in base64 ({i})"] = text
        for form, needle in found.items():
            if len(needle) < SHORTEST or len(set(needle)) < 6:
                raise ValueError(f"{form}: {needle!r} could be there by accident")
            self.forms[form] = needle
        return self

    @property
    def longest(self) -> int:
        return max(map(len, self.forms.values()))

    def found_in(self, data) -> set[str]:
        return {form for form, needle in self.forms.items() if data.find(needle) >= 0}

    def found_in_parts(self, parts) -> set[str]:
        """Over pieces of one stream: what lies across two of them is found too."""
        found: set[str] = set()
        tail = b""
        for part in parts:
            found |= self.found_in(tail + part)
            tail = (tail + part)[-(self.longest - 1):]
        return found


def update_needles(values: list[float], weight: int, fraction_bits: int, text: str) -> Needles:
    """Adjacent values of an update: as the trainer made them, as the enclave's ring holds them, and as the data's text."""
    def ring(factor: int) -> bytes:
        return b"".join(struct.pack("<Q", round(v * 2**fraction_bits) * factor % 2**64) for v in values)

    needles = Needles().plant("float32", struct.pack(f"<{len(values)}f", *values)).plant("text", text.encode())
    return needles.plant("ring", ring(1)).plant("weighted ring", ring(weight))


def fraction_bits(bound: float, elements: int, contributors: int, weight: int) -> int:
    """aggregation/grid.hpp's rule, for the needles of the ring."""
    def fits(f: int) -> bool:
        q = int(-(-bound * 2**f // 1))
        return contributors * weight * q < 2**63 and elements * q * q < 2**127

    return next(f for f in range(40, -1, -1) if fits(f))


# --- Processes -------------------------------------------------------------------------------------------------------

def state(pid: int) -> str:
    """R, S, T ... of proc(5); "" when it is gone."""
    with contextlib.suppress(OSError):
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    return ""


@contextlib.contextmanager
def stopped(pid: int):
    """The process stands still meanwhile, unless it did already."""
    still = state(pid) == "T"
    if not still:
        os.kill(pid, signal.SIGSTOP)
        until = time.monotonic() + 10
        while state(pid) not in "T" and time.monotonic() < until:  # the kernel tells nobody but its parent
            os.sched_yield()
    try:
        yield
    finally:
        if not still:
            os.kill(pid, signal.SIGCONT)


def regions(pid: int):
    """(from, to) of all that the process could have written to: not the pages of program files, which files() sees."""
    for line in pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines():
        span, rights, _, _, inode, *name = line.split(None, 5)
        if rights[0] != "r" or (name and name[0] in ("[vvar]", "[vsyscall]", "[vdso]")):
            continue
        if inode != "0" and rights[1] != "w" and rights[3] == "p" and not name[0].startswith("/memfd:"):
            continue
        begin, end = (int(x, 16) for x in span.split("-"))
        yield begin, end


def memory(pid: int, needles: Needles) -> set[str]:
    """The forms in a process's memory, read while it stands still. OSError when this user may not."""
    found: set[str] = set()
    with stopped(pid), open(f"/proc/{pid}/mem", "rb", 0) as mem:
        for begin, end in regions(pid):
            found |= needles.found_in_parts(read_region(mem.fileno(), begin, end))
    return found


def read_region(fd: int, begin: int, end: int):
    while begin < end:
        try:
            part = os.pread(fd, min(CHUNK, end - begin), begin)
        except OSError:
            return  # a guard page, or a mapping behind the end of its file
        if not part:
            return
        yield part
        begin += len(part)


def descriptors(pid: int, needles: Needles) -> dict[str, set[str]]:
    """By name, the open files with something in them: unnamed and deleted ones, and memory files, too."""
    out = {}
    folder = pathlib.Path(f"/proc/{pid}/fd")
    for link in folder.iterdir():
        with contextlib.suppress(OSError):
            name = os.readlink(link)
            if name.startswith("/dev/") or not link.is_file():
                continue
            if found := in_file(link, needles):
                out[name] = found
    return out


def tree(pid: int) -> list[int]:
    """The process and all below it, parents first."""
    out = [pid]
    for parent in out:
        with contextlib.suppress(OSError):
            for task in pathlib.Path(f"/proc/{parent}/task").iterdir():
                out += [int(c) for c in (task / "children").read_text().split()]
    return out


# --- Files -----------------------------------------------------------------------------------------------------------

def in_file(path: pathlib.Path, needles: Needles) -> set[str]:
    with open(path, "rb", 0) as f:
        return needles.found_in_parts(iter(lambda: f.read(CHUNK), b""))


def files(folder: pathlib.Path, needles: Needles) -> dict[str, set[str]]:
    """Every regular file below `folder` with something in it: database, write-ahead log, logs, everything."""
    out = {}
    for base, _, names in os.walk(folder):
        for name in names:
            path = pathlib.Path(base) / name
            with contextlib.suppress(FileNotFoundError):
                if path.is_file() and not path.is_symlink() and (found := in_file(path, needles)):
                    out[str(path)] = found
    return out


# --- The network -----------------------------------------------------------------------------------------------------

ETH_P_ALL, PACKET_OUTGOING, PACKET_STATISTICS, SOL_PACKET, SO_RCVBUFFORCE = 0x0003, 4, 6, 263, 33


class Capture:
    """All that goes over loopback in this network namespace. Needs CAP_NET_RAW: PermissionError without it."""

    def __init__(self, interface: str = "lo"):
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 256 << 20)
        self._socket.bind((interface, ETH_P_ALL))
        self._socket.settimeout(0.2)
        self._packets: list[bytes] = []
        self._over = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                packet, (_, _, kind, *_) = self._socket.recvfrom(1 << 17)
            except TimeoutError:
                if self._over:
                    return
                continue
            if kind != PACKET_OUTGOING:  # on loopback each packet comes twice
                self._packets.append(packet)

    def stop(self) -> None:
        """Ends it once everything that was sent before is read. Raises when the kernel had to drop a packet."""
        self._over = True
        self._thread.join()
        seen, dropped = struct.unpack("II", self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
        self._socket.close()
        if dropped:
            raise RuntimeError(f"the capture lost {dropped} of {seen} packets")

    def streams(self) -> dict[tuple, list[bytes]]:
        """The payloads of every TCP connection and direction, in the order in which they were sent."""
        out: dict[tuple, list[bytes]] = {}
        for packet in self._packets:
            ip = packet[14:]
            if len(ip) < 40 or ip[0] >> 4 != 4 or ip[9] != socket.IPPROTO_TCP:
                continue
            tcp = ip[(ip[0] & 15) * 4:]
            payload = tcp[(tcp[12] >> 4) * 4:]
            if payload:
                out.setdefault((ip[12:20], tcp[:4]), []).append(payload)
        return out

    @property
    def bytes(self) -> int:
        return sum(map(len, self._packets))

    def found(self, needles: Needles) -> set[str]:
        """Over the streams, put together again, and over every packet of any kind."""
        found: set[str] = set()
        for parts in self.streams().values():
            found |= needles.found_in_parts(parts)
        return found | needles.found_in_parts(self._packets)
