"""Starts flare_run.py where nothing of it can get out: its own network and process namespaces, with loopback up."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess

from cases import Case, emit, report
from environments import VERSIONS

HERE = pathlib.Path(__file__).resolve().parent
VERSION = VERSIONS["nvflare"]
HOW = "proof-of-concept kits, mTLS, NumPy FedAvg recipe"
# ip(8) may be absent: SIOCSIFFLAGS with IFF_UP | IFF_RUNNING for lo.
LOOPBACK_UP = "import fcntl,socket,struct; fcntl.ioctl(socket.socket(), 0x8914, struct.pack('16sh', b'lo', 0x41) + bytes(14))"


def measure(bin: pathlib.Path, folder: pathlib.Path, case: Case) -> None:
    unshare = ["unshare", "--net", "--pid", "--fork", "--mount-proc", "--kill-child", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    python = bin / "python"
    rounds = case.rounds["nvflare"]
    script = f'"$0" -c "{LOOPBACK_UP}" && exec "$0" "$@"'
    argv = [*unshare, "bash", "-c", script, python, HERE / "flare_run.py", folder, case.participants, case.floats, rounds, case.seconds]
    with open(folder.parent / f"{folder.name}.log", "w") as log:
        done = subprocess.run(list(map(str, argv)), stdout=subprocess.PIPE, stderr=log, text=True, timeout=case.seconds + 240)
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"failed"')]
    found = json.loads(lines[-1]) if lines else {"failed": f"ended with {done.returncode}: {pathlib.Path(log.name).read_text(errors='replace')[-400:]}"}
    if found["failed"]:
        emit("nvflare", VERSION, case, "failed", None, "", found["failed"])
        return
    peak = found["peak"]
    server = peak.get("server parent", 0) + peak.get("server job", 0)
    client = peak.get("client parent", 0) + peak.get("client job", 0)
    report("nvflare", VERSION, case, found["seconds"], server, client, HOW)
