"""The bad network does what the tests that use it believe of it."""

import hashlib
import random
import socket
import threading
import time

import pytest

from faulty_proxy import DOWN, UP, Faults, FaultyProxy

CONTENT = random.Random(7).randbytes(400_000)


@pytest.fixture
def echo():
    """A server that gives back what it gets."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(s):
        with s:
            try:
                while data := s.recv(65536):
                    s.sendall(data)
            except OSError:
                pass

    def listen():
        while True:
            try:
                s, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(s,), daemon=True).start()

    threading.Thread(target=listen, daemon=True).start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def dial(proxy, port):
    s = socket.create_connection(("127.0.0.1", proxy.port), timeout=30)
    s.sendall(f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = s.recv(1)
        if not byte:
            raise ConnectionError("the proxy hung up")
        head += byte
    assert head.startswith(b"HTTP/1.1 200")
    return s


def exactly(s, n):
    back = b""
    while len(back) < n and (data := s.recv(n - len(back))):
        back += data
    return back


def exchange(s, content=CONTENT):
    """Sends all of it beside reading; gives what came back before the end."""
    def send():
        try:
            s.sendall(content)
            s.shutdown(socket.SHUT_WR)
        except OSError:
            pass
    threading.Thread(target=send, daemon=True).start()
    back = bytearray()
    try:
        while data := s.recv(65536):
            back += data
    except ConnectionError:
        pass
    return bytes(back)


def test_without_faults_every_byte_passes_both_ways(echo):
    with FaultyProxy() as proxy, dial(proxy, echo) as s:
        assert exchange(s) == CONTENT
        assert proxy.passed(UP) == proxy.passed(DOWN) == len(CONTENT)


@pytest.mark.parametrize("direction", [UP, DOWN])
def test_a_link_is_cut_behind_exactly_so_many_bytes(echo, direction):
    with FaultyProxy(Faults(cut_after={direction: 123_456})) as proxy, dial(proxy, echo) as s:
        assert CONTENT.startswith(exchange(s))
        proxy.link.wait_until(lambda link: link.over, 30, "it is cut")
        assert proxy.link.way(direction).passed == 123_456


def test_a_rule_per_connection_and_a_network_that_is_down(echo):
    with FaultyProxy(lambda n: Faults(cut_after={UP: 1000}) if n == 1 else Faults()) as proxy:
        with dial(proxy, echo) as s:
            assert len(exchange(s)) <= 1000
        with dial(proxy, echo) as s:
            assert exchange(s) == CONTENT
        proxy.refusing = True
        with pytest.raises(ConnectionError):
            dial(proxy, echo)


def test_held_bytes_wait_and_none_is_lost(echo):
    with FaultyProxy(Faults(hold_after={DOWN: 1000})) as proxy, dial(proxy, echo) as s:
        s.sendall(CONTENT[:5000])
        proxy.link.wait_until(lambda link: link.down.passed == 1000 and link.down.held >= 1000, 30, "bytes wait")
        proxy.link.allow(DOWN, 500)
        proxy.link.wait_until(lambda link: link.down.passed == 1500, 30, "some more pass")
        proxy.link.release()
        assert exactly(s, 5000) == CONTENT[:5000]


def test_a_half_open_link_passes_nothing_and_tells_nobody(echo):
    with FaultyProxy() as proxy, dial(proxy, echo) as s:
        s.sendall(b"before")
        assert exactly(s, 6) == b"before"
        proxy.link.silence()
        s.sendall(b"after")
        proxy.link.wait_until(lambda link: link.up.held == 5, 30, "it was taken")
        s.settimeout(0.2)
        with pytest.raises(TimeoutError):
            s.recv(1)
        assert not proxy.link.over


def test_one_bit_is_flipped_where_it_was_asked_for(echo):
    with FaultyProxy(Faults(corrupt_at={UP: 70_000})) as proxy, dial(proxy, echo) as s:
        back = exchange(s)
        assert [i for i, (a, b) in enumerate(zip(back, CONTENT)) if a != b] == [70_000]


def test_a_slow_link_keeps_its_rate_and_a_lossy_one_stalls(echo):
    with FaultyProxy(Faults(rate={UP: 125_000})) as proxy, dial(proxy, echo) as s:  # 1 Mbit/s
        began = time.monotonic()
        assert exchange(s, CONTENT[:50_000]) == CONTENT[:50_000]
        assert time.monotonic() - began >= 0.39
    with FaultyProxy(Faults(loss=0.01), seed=3) as proxy, dial(proxy, echo) as s:
        assert hashlib.sha256(exchange(s)).digest() == hashlib.sha256(CONTENT).digest()
        assert proxy.link.up.stalled + proxy.link.down.stalled > 0


def test_every_connection_lives_as_long_as_the_rule_says_and_seeds_repeat(echo):
    with FaultyProxy(Faults(cut_every=0.3)) as proxy, dial(proxy, echo) as s:
        proxy.link.wait_until(lambda link: link.over, 30, "it is cut")
    lives = []
    for _ in range(2):
        with FaultyProxy(Faults(cut_at_random=5), seed=11) as proxy, dial(proxy, echo):
            lives.append(proxy.link.timer.interval)
    assert lives[0] == lives[1]
