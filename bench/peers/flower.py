"""Flower as deployed: a SuperLink, one SuperNode per participant and `flwr run`, TLS with a CA of the bench's own."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import threading
import time

from cases import Case, emit, report
from environments import VERSIONS
from watch import Watch, tree

HERE = pathlib.Path(__file__).resolve().parent
VERSION = VERSIONS["flwr"]
HOW = "SuperLink, SuperNodes, TLS (server side), subprocess isolation, FedAvg"
ROLES = ("serverapp", "clientapp", "superexec", "supernode", "superlink")
_wait = threading.Event().wait


class Federation:
    def __init__(self, bin: pathlib.Path, folder: pathlib.Path, case: Case):
        self.bin, self.folder, self.case = bin, folder, case
        self.processes: list[tuple[str, subprocess.Popen]] = []
        self.result = folder / "rounds.json"
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "home").mkdir(parents=True)
        shutil.copytree(HERE / "flower_app", folder / "app")
        self.certificates = make_certificates(folder / "certificates")
        self.port = free_port()
        self.environment = dict(os.environ, FLWR_HOME=str(folder / "home"), FLWR_TELEMETRY_ENABLED="0", PATH=f"{bin}:{os.environ['PATH']}")
        (folder / "home" / "config.toml").write_text(
            f'[superlink]\ndefault = "bench"\n\n[superlink.bench]\naddress = "127.0.0.1:{self.port}"\nroot-certificates = "{self.certificates}/ca.crt"\n')

    def start(self, name: str, *argv: object) -> subprocess.Popen:
        with open(self.folder / f"{name}.log", "w") as log:
            process = subprocess.Popen(list(map(str, argv)), stdout=log, stderr=log, env=self.environment, start_new_session=True)
        self.processes.append((name, process))
        return process

    def run(self) -> list[float]:
        """Seconds of each round. Raises RuntimeError with the end of a log."""
        c, rounds = self.certificates, self.case.rounds["flwr"]
        tls = ["--ssl-ca-certfile", f"{c}/ca.crt", "--ssl-certfile", f"{c}/server.pem", "--ssl-keyfile", f"{c}/server.key"]
        address = f"127.0.0.1:{self.port}"
        self.start("superlink", self.bin / "flower-superlink", "--host", "127.0.0.1", "--port", self.port, "--isolation", "subprocess",
                   "--disable-runtime-dependency-installation", *tls)
        self.until(lambda: listening(self.port), 60, "the SuperLink listens")
        for i in range(self.case.participants):
            self.start(f"supernode{i}", self.bin / "flower-supernode", "--superlink", address, "--isolation", "subprocess", "--host", "127.0.0.1",
                       "--port", free_port(), "--node-config", f"partition-id={i}", "--root-certificates", f"{c}/ca.crt", *tls)
        self.start("run", self.bin / "flwr", "run", self.folder / "app", "bench", "--stream", "--run-config",
                   f'num-server-rounds={rounds} participants={self.case.participants} floats={self.case.floats} out="{self.result}"')
        self.until(self.result.exists, self.case.seconds, "the run ends")
        found = json.loads(self.result.read_text())
        if abs(found["first"] - found["wanted"]) > 1e-2 * max(1, abs(found["wanted"])):
            raise RuntimeError(f"the final model does not hold every contribution: wanted {found['wanted']}, found {found['first']}")
        return found["seconds"]

    def until(self, condition, seconds: float, what: str) -> None:
        end = time.monotonic() + seconds
        while not condition():
            failed = [n for n, p in self.processes if p.poll() is not None and (n != "run" or p.returncode != 0)]
            if failed or time.monotonic() > end:
                why = f"{failed[0]} ended" if failed else f"not within {seconds:.0f} s"
                raise RuntimeError(f"{what}: {why}: {self.tail(failed[0] if failed else self.processes[-1][0])}")
            _wait(0.1)

    def tail(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")[-400:]

    def end(self) -> None:
        """Ends what was started, and what that started, by process number."""
        everything = [pid for _, p in self.processes for pid in tree(p.pid)]
        for _, process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
        until = time.monotonic() + 8
        while time.monotonic() < until and any(p.poll() is None for _, p in self.processes):
            _wait(0.1)
        for pid in everything:
            try:
                if b"flower" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)
            except OSError:
                pass


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def listening(port: int) -> bool:
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def make_certificates(folder: pathlib.Path) -> pathlib.Path:
    """A CA and a server certificate for 127.0.0.1."""
    folder.mkdir()

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    (folder / "extensions").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n")
    for name in ("ca", "server"):
        openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", f"{name}.key")
    openssl("req", "-new", "-x509", "-key", "ca.key", "-subj", "/CN=bench CA", "-days", "30", "-addext", "keyUsage=critical,keyCertSign", "-out", "ca.crt")
    openssl("req", "-new", "-key", "server.key", "-subj", "/CN=localhost", "-out", "server.csr")
    by_ca = ["-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial"]
    openssl("x509", "-req", "-in", "server.csr", *by_ca, "-days", "30", "-extfile", "extensions", "-out", "server.pem")
    return folder


def measure(bin: pathlib.Path, folder: pathlib.Path, case: Case) -> None:
    federation = Federation(bin, folder, case)
    watch = Watch(lambda command: next((r for r in ROLES if r in command), None), lambda: [p.pid for _, p in federation.processes])
    try:
        seconds = federation.run()
    except RuntimeError as e:
        emit("flwr", VERSION, case, "failed", None, "", str(e))
        return
    finally:
        peak = watch.stop()
        federation.end()
    server = peak.get("superlink", 0) + peak.get("serverapp", 0)
    client = peak.get("supernode", 0) + peak.get("clientapp", 0)
    report("flwr", VERSION, case, seconds, server, client, HOW)
