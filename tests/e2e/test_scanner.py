"""The scanner can find: a process that leaks on purpose is found in every form and at every place where the real ones are searched."""

import base64
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys

import pytest

import scanner
from cluster import wait_until
from scanner import Needles

VALUES = [round(random.SystemRandom().uniform(1, 9), 6) for _ in range(8)]
TEXT = ",".join(f"{v:.6f}" for v in VALUES)

# Gets each form on its standard input as hex, leaks it in the way that it is told, says so, and waits.
LEAK = """
import os, sqlite3, socket, sys
how, where = sys.argv[1], sys.argv[2]
forms = [bytes.fromhex(line) for line in sys.stdin.read().split()]
kept = []
if how == "memory":
    kept += [bytearray(b"x" * 100 + f) for f in forms]
else:
    forms, kept = [f for f in forms], None
if how == "log":
    open(where, "ab").writelines(b'{"event": "' + f + b'"}\\n' for f in forms)
if how == "sqlite":
    database = sqlite3.connect(where)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("CREATE TABLE t (x BLOB)")
    database.executemany("INSERT INTO t VALUES (?)", [(f,) for f in forms])
    database.commit()
if how == "deleted file":
    kept = open(where, "w+b", 0)
    os.unlink(where)
    kept.write(b"".join(forms))
if how == "memory file":
    kept = os.memfd_create("leak")
    os.write(kept, b"".join(forms))
if how == "tcp":
    kept = socket.create_connection(("127.0.0.1", int(where)))
    for f in forms:
        kept.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for half in (f[:7], f[7:]):
            kept.sendall(half)
if how == "udp":
    kept = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for f in forms:
        kept.sendto(f, ("127.0.0.1", int(where)))
print("leaked", flush=True)
import signal
signal.pause()
"""


@pytest.fixture(scope="module")
def needles() -> Needles:
    return scanner.update_needles(VALUES, 5, 36, TEXT)


@pytest.fixture
def leak(needles):
    """leak(how, where) starts a leaking process and gives its pid once it has leaked."""
    started = []

    def start(how: str, where: object = "") -> int:
        process = subprocess.Popen([sys.executable, "-c", LEAK, how, str(where)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        started.append(process)
        process.stdin.write("\n".join(n.hex() for n in needles.forms.values()).encode())
        process.stdin.close()
        assert process.stdout.readline() == b"leaked\n"
        return process.pid

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_every_form_is_there_in_hex_both_ways_and_in_base64_at_every_alignment(needles):
    assert len(needles.forms) == 4 * 6
    assert all(len(raw) >= scanner.SHORTEST for raw in needles.forms.values())


@pytest.mark.parametrize("before", range(6))
def test_base64_of_anything_around_the_pattern_holds_one_of_the_alignments(before):
    raw = random.randbytes(24)
    text = base64.b64encode(random.randbytes(before) + raw + random.randbytes(5))
    assert sum(form in text for form in scanner.base64_forms(raw)) == 1
    assert not any(form in base64.b64encode(random.randbytes(60)) for form in scanner.base64_forms(raw))


def test_a_pattern_that_could_be_there_by_accident_is_none():
    with pytest.raises(ValueError, match="by accident"):
        Needles().plant("short", b"12345678")
    with pytest.raises(ValueError, match="by accident"):
        Needles().plant("zeros", bytes(64))


def test_the_grid_of_the_ring_is_the_engines():
    # DESIGN's figures, from aggregation/grid.hpp: 1,000 participants, weights up to 5,000, |delta| <= 16: f = 36; a million: 26.
    assert scanner.fraction_bits(16, 1000, 1000, 5000) == 36
    assert scanner.fraction_bits(16, 1000, 10**6, 5000) == 26


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: another process's memory")
def test_a_leak_into_memory_is_found_in_every_form_also_while_the_process_stands_still(leak, needles):
    pid = leak("memory")
    assert scanner.memory(pid, needles) == set(needles.forms)
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: scanner.state(pid) == "T", 30, "it stands still")
    assert scanner.memory(pid, needles) == set(needles.forms)
    assert scanner.state(pid) == "T"  # it was not continued


def test_a_form_across_two_pieces_of_a_stream_is_found(needles):
    for form, raw in needles.forms.items():
        assert form in needles.found_in_parts([b"a" * 50 + raw[:9], raw[9:] + b"b" * 50])
        assert needles.found_in_parts([raw[:9], b"-", raw[9:]]) == set()


@pytest.mark.parametrize("how, name", [("log", "coordinator.log"), ("sqlite", "coordinator.db")])
def test_a_leak_into_a_log_or_a_database_and_its_write_ahead_log_is_found(leak, needles, tmp_path, how, name):
    leak(how, tmp_path / name)
    found = scanner.files(tmp_path, needles)
    assert set().union(*found.values()) == set(needles.forms)
    if how == "sqlite":
        assert any(path.endswith("-wal") for path in found), found  # nothing was checkpointed


@pytest.mark.parametrize("how", ["deleted file", "memory file"])
def test_a_leak_into_a_file_without_a_name_is_found_through_its_descriptor(leak, needles, tmp_path, how):
    pid = leak(how, tmp_path / "gone")
    assert scanner.files(tmp_path, needles) == {}
    found = scanner.descriptors(pid, needles)
    assert [set(f) for f in found.values()] == [set(needles.forms)]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a capture of loopback")
@pytest.mark.parametrize("how, kind", [("tcp", socket.SOCK_STREAM), ("udp", socket.SOCK_DGRAM)])
def test_a_leak_over_loopback_is_found_also_across_packets(leak, needles, how, kind):
    with socket.socket(socket.AF_INET, kind) as listener:
        listener.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            listener.listen()
        capture = scanner.Capture()
        leak(how, listener.getsockname()[1])
        capture.stop()
    assert capture.found(needles) == set(needles.forms)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a process's core limit is raised")
def test_a_crash_that_nothing_forbids_leaves_a_core_that_is_found(leak, needles, tmp_path):
    pattern = pathlib.Path("/proc/sys/kernel/core_pattern").read_text().strip()
    if "/" in pattern or pattern.startswith("|"):
        pytest.skip(f"core_pattern is {pattern!r}: a core would not lie in the process's own folder")
    code = ("import os, resource, sys; resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY,) * 2);"
            f"os.chdir({str(tmp_path)!r}); kept = bytes.fromhex(sys.stdin.readline()); os.abort()")
    raw = needles.forms["float32"]
    subprocess.run([sys.executable, "-c", code], input=raw.hex().encode(), check=False)
    assert any("float32" in found for found in scanner.files(tmp_path, needles).values())


def test_the_whole_tree_of_a_process_is_known(leak):
    pid = leak("memory")
    assert pid in scanner.tree(os.getpid())
