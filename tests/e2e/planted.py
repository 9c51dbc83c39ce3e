"""The run that test_nobody_else_reads.py judges: one hospital's data is a planted pattern, and at four moments everything that
other parties hold is searched for it, and for the model. Prints what was found, as JSON.

    planted.py --bin build/release/bin

As root it runs itself in a network namespace, where it captures loopback, and in a mount namespace with a /tmp, /var/tmp and
/dev/shm of its own, so that whatever appears there is this run's. Otherwise it says what it left out.

    moment       what holds the round open                                          the update is
    uploading    the planted hospital's proxy, in the middle of its upload          in a slot of the enclave, half of it
    alone        the other hospitals' trainers, which have stopped themselves       in its slot, whole: a sum of one needs no words
    summed       the last hospital's trainer                                        in the enclave's sum with another, where no one finds it
    ended        nothing: the run is done, the instance idle                        nowhere but at its own hospital
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import json
import os
import pathlib
import random
import resource
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "examples" / "hospital"), str(pathlib.Path(__file__).resolve().parent)]

import scanner  # noqa: E402
from cluster import Tools, wait_until  # noqa: E402
from faulty_proxy import UP, FaultyProxy  # noqa: E402
from federation import Federation  # noqa: E402
from scanner import Needles  # noqa: E402
from small_study import COMPUTE_OWNER, MODEL_OWNER, VALUE_BOUND, WEIGHT_AT_MOST, Options, SmallStudy, wait_for_event  # noqa: E402

HOSPITALS = ["north", "south", "east"]
PLANTED, HELD = HOSPITALS[0], 2                # the hospital with the pattern; the round that is held open
VALUES, RECORDS, ROUNDS = 250_000, 5, 3        # 1 MB: several frames and many records
BEFORE_HOLD = 600_000                          # bytes of the planted update that pass the proxy
PRIVATE = ["/tmp", "/var/tmp", "/dev/shm"]


# --- A machine of its own --------------------------------------------------------------------------------------------

def separate() -> dict[str, str]:
    """Enters namespaces of its own. Gives what it left out, and why."""
    if os.geteuid() != 0:
        return {"capture": "needs root", "private folders": "needs root", "memory of the aggregator": "needs root"}
    libc = ctypes.CDLL(None, use_errno=True)
    clone_newns, clone_newnet, ms_rec, ms_private = 0x00020000, 0x40000000, 0x4000, 0x40000
    if libc.unshare(clone_newns | clone_newnet) != 0:
        why = f"unshare: {os.strerror(ctypes.get_errno())}"
        return {"capture": why, "private folders": why}
    with socket.socket() as s:  # loopback begins down in a new namespace
        fcntl.ioctl(s, 0x8914, struct.pack("16sh14x", b"lo", 0x1 | 0x40))
    libc.mount(b"none", b"/", None, ms_rec | ms_private, None)
    here = [p.resolve() for p in (ROOT, pathlib.Path(sys.prefix), pathlib.Path(sys.base_prefix))]
    for folder in PRIVATE:
        if any(p.is_relative_to(folder) for p in here):
            return {f"private {folder}": "this checkout lies there"}
        if libc.mount(b"tmpfs", folder.encode(), b"tmpfs", 0, None) != 0:
            return {"private folders": f"mount: {os.strerror(ctypes.get_errno())}"}
    return {}


# --- What is looked for ----------------------------------------------------------------------------------------------

def update_needles(study: SmallStudy) -> Needles:
    bits = scanner.fraction_bits(VALUE_BOUND, VALUES, len(HOSPITALS), WEIGHT_AT_MOST)
    return scanner.update_needles([as_float32(v) for v in study.data[PLANTED]], RECORDS, bits, study.row(PLANTED))


def as_float32(value: float) -> float:
    return struct.unpack("<f", struct.pack("<f", value))[0]


def model_needles(study: SmallStudy) -> dict[str, Needles]:
    """Eight values at the end of: the initial model, those after rounds 1 and 2 (never published), and the last (published)."""
    initial = (study.owner(MODEL_OWNER) / "initial.model").read_bytes()
    values = list(struct.unpack("<8f", initial[-32:]))
    bits = scanner.fraction_bits(VALUE_BOUND, VALUES, len(HOSPITALS), WEIGHT_AT_MOST)
    out = {"initial": Needles().plant("model", initial[-32:])}
    for round_number in range(1, ROUNDS + 1):
        for i in range(8):
            total = sum(RECORDS * round(as_float32(study.data[h][i]) * 2**bits) for h in HOSPITALS)
            mean = total / (RECORDS * len(HOSPITALS) * 2.0**bits)
            values[i] = as_float32(values[i] + mean)
        name = "final" if round_number == ROUNDS else f"after round {round_number}"
        out[name] = Needles().plant("model", struct.pack("<8f", *values))
    return out


# --- Who is there ----------------------------------------------------------------------------------------------------

def processes(federation: Federation) -> dict[str, int]:
    """Every process of the study by what it is."""
    out = {}
    for owner, process in federation.processes.items():
        pids = scanner.tree(process.process.pid)
        if owner == COMPUTE_OWNER:
            out |= dict(zip(["launcher", "simulated TEE", "aggregator"], pids))
        elif owner == MODEL_OWNER:
            out |= {"coordinator": pids[0]}
        else:
            out |= {f"node of {owner}": pids[0]}
            out |= {f"trainer of {owner} ({i})": pid for i, pid in enumerate(pids[1:])}
    return out


def stopped_trainer(federation: Federation, owner: str) -> int | None:
    pids = scanner.tree(federation.processes[owner].process.pid)[1:]
    return next((pid for pid in pids if scanner.state(pid) == "T"), None)


def crash(pids: dict[str, int]) -> None:
    """A crash of each, children first, as the kernel would treat a real one."""
    for pid in reversed(pids.values()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGABRT)
            os.kill(pid, signal.SIGCONT)


# --- The run ---------------------------------------------------------------------------------------------------------

class Look:
    """What is to be seen at one moment. `private`: /tmp and its like are this run's alone."""

    def __init__(self, federation: Federation, needles: Needles, models: dict[str, Needles], private: bool):
        self.federation, self.study = federation, federation.study
        self.private = private
        self.needles = needles
        self.everything = Needles(dict(needles.forms))
        for name, of_model in models.items():
            self.everything.forms |= {f"{name} {form}": raw for form, raw in of_model.forms.items()}

    def at(self, moment: str) -> dict:
        pids = processes(self.federation)
        print(f"planted: {moment}", file=sys.stderr)
        report: dict = {"memory": {}, "descriptors": {}, "models": {}}
        for name, pid in pids.items():
            found = scanner.memory(pid, self.everything)
            report["memory"][name] = sorted(found & set(self.needles.forms))
            report["models"][name] = sorted(found - set(self.needles.forms))
            report["descriptors"][name] = {file: sorted(f) for file, f in scanner.descriptors(pid, self.everything).items()}
        report["files"] = self.files()
        return report

    def files(self) -> dict[str, list[str]]:
        """Of all owners' folders, by their path from there, and of the shared folders of the machine."""
        own = f"{self.study.folder}/"
        out = {path.removeprefix(own): sorted(f) for path, f in scanner.files(self.study.folder, self.everything).items()}
        for folder in PRIVATE if self.private else []:
            out |= {path: sorted(f) for path, f in scanner.files(pathlib.Path(folder), self.everything).items() if not path.startswith(own)}
        return out


def run(study: SmallStudy, proxy: FaultyProxy, left_out: dict[str, str]) -> dict:
    report: dict = {"left_out": left_out, "moments": {}}
    with Federation(study) as federation:
        look = Look(federation, update_needles(study), model_needles(study), not any(k.startswith("private") for k in left_out))
        number = federation.submit({"rounds": ROUNDS})
        watcher = subprocess.Popen([study.tools.path("cloister"), "--json", "run", "watch", str(number), *federation._access()],
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        lines: list[str] = []
        follow = threading.Thread(target=lambda: lines.extend(iter(watcher.stdout.readline, "")), daemon=True)
        follow.start()
        alive = list(federation.processes.values())
        trainers = {h: wait_until(lambda h=h: stopped_trainer(federation, h), 60, f"{h}'s trainer stops in round {HELD}", alive) for h in HOSPITALS}

        proxy.link.hold(UP, BEFORE_HOLD)
        os.kill(trainers[PLANTED], signal.SIGCONT)
        proxy.link.wait_until(lambda link: link.up.held > 0 and link.up.passed >= link.up.limit, 60, "the upload is held")
        aggregator = processes(federation)["aggregator"]
        wait_until(lambda: "float32" in scanner.memory(aggregator, look.needles), 30, "the enclave has half of the update", alive)
        report["moments"]["uploading"] = look.at("uploading")

        proxy.link.release()
        wait_until(lambda: any(member_state(line, PLANTED, HELD) == "stored" for line in list(lines)), 60, "the enclave has added the update", alive)
        report["moments"]["alone"] = look.at("alone")

        os.kill(trainers[HOSPITALS[1]], signal.SIGCONT)
        wait_until(lambda: any(member_state(line, HOSPITALS[1], HELD) == "stored" for line in list(lines)), 60, "the enclave has added another", alive)
        report["moments"]["summed"] = look.at("summed")

        os.kill(trainers[HOSPITALS[2]], signal.SIGCONT)
        watcher.wait(120)
        follow.join()
        report["end"] = json.loads(lines[-1])
        for h in HOSPITALS:
            wait_for_event(federation, h, "run_ended", 60)
        report["moments"]["ended"] = look.at("ended")
        report["watcher"] = sorted(look.needles.found_in("".join(lines).encode()))
        crash(processes(federation))
        wait_until(lambda: not any(p.running for p in alive), 30, "all have ended")
        report["crashed"] = look.files()
    return report


def member_state(line: str, owner: str, round_number: int) -> str:
    with contextlib.suppress(json.JSONDecodeError):
        event = json.loads(line)
        if event.get("event") == "status" and event.get("round") == round_number:
            return next((m["state"] for m in event["members"] if m["owner"] == owner), "")
    return ""


def main() -> int:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--bin", type=pathlib.Path, required=True)
    bin_folder = arguments.parse_args().bin.resolve()
    left_out = separate()
    hard = resource.RLIM_INFINITY if os.geteuid() == 0 else resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))  # what follows may dump, unless it forbids that itself
    capture = scanner.Capture() if "capture" not in left_out else None
    with tempfile.TemporaryDirectory() as folder, FaultyProxy() as proxy:
        options = Options(values=VALUES, records=RECORDS, rounds=ROUNDS, round_deadline="10m", hold=dict.fromkeys(HOSPITALS, HELD), proxy={PLANTED: proxy.address})
        study = SmallStudy(pathlib.Path(folder) / "study", Tools(bin_folder), HOSPITALS, options, seed=random.SystemRandom().getrandbits(64)).build()
        report = run(study, proxy, left_out)
        if capture:
            capture.stop()
            needles = update_needles(study)
            for model in model_needles(study).values():
                needles.forms |= {f"model {raw.hex()}": raw for raw in model.forms.values()}
            report["capture"] = {"bytes": capture.bytes, "streams": len(capture.streams()), "found": sorted(capture.found(needles))}
    print(json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
