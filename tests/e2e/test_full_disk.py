"""A hospital's disk that is full: nothing is answered that is not recorded, the reason names path and cause, and with space again the
restarted node goes on. The hospital's ledger lies on a file system of a few hundred KiB, which a file of the test's fills.
"""

import ctypes
import os
import pathlib
import subprocess
import sys

import pytest

from cluster import Tools, read_events, wait_until
from federation import Federation
from founding import MODEL_OWNER
from small_study import Options, SmallStudy, rounds_committed, wait_for_event

BIN = pathlib.Path(os.environ.get("CLOISTER_BIN", pathlib.Path(__file__).resolve().parents[2] / "build" / "release" / "bin"))
HOSPITALS = ["north", "south", "east", "west"]  # three of four witnesses are enough
POOR = "north"
SIZE = "1m"


@pytest.fixture
def small_disk(request):
    """mount(folder) puts a file system of SIZE there; taken away at the end."""
    libc = ctypes.CDLL(None, use_errno=True)
    mounted = []

    def mount(folder: pathlib.Path) -> pathlib.Path:
        folder.mkdir(exist_ok=True)
        if libc.mount(b"tmpfs", str(folder).encode(), b"tmpfs", 0, f"size={SIZE},mode=0700".encode()) != 0:
            pytest.skip(f"cannot mount a small file system here: {os.strerror(ctypes.get_errno())}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        libc.umount2(str(folder).encode(), 2)


def fill(folder: pathlib.Path) -> pathlib.Path:
    """Leaves not one block."""
    filler = folder / "somebody else's file"
    with open(filler, "ab", 0) as f:
        for size in (4096, 1):
            try:
                while True:
                    f.write(b"x" * size)
            except OSError:
                pass
    return filler


def ledger(study, owner: str) -> str:
    return study.tools.run("cloister", "--json", "participant", "ledger", "--config", study.owner(owner) / "participant.toml").stdout


def test_a_full_disk_stops_a_hospital_with_path_and_reason_and_space_lets_it_go_on(tmp_path, small_disk):
    options = Options(values=1000, rounds=400, quorum=3, round_deadline="30s", channel_deadline="5s")
    study = SmallStudy(tmp_path / "study", Tools(BIN), HOSPITALS, options).build()
    disk = small_disk(study.owner(POOR) / "ledger")
    with Federation(study) as federation:
        run = federation.submit({"rounds": 400})
        poor = federation.processes[POOR]
        wait_until(lambda: rounds_committed(federation, POOR) >= 2, 120, "two rounds are committed", list(federation.processes.values()))
        filler = fill(disk)
        assert poor.wait(120) == 1
        assert "No space left on device" in poor.tail(3) and str(disk) in poor.tail(3), poor.tail(3)
        # What it answered is what it has recorded: the others' rounds go on without it.
        before = rounds_committed(federation, "south")
        wait_until(lambda: rounds_committed(federation, "south") >= before + 2, 120, "the others go on",
                   [p for owner, p in federation.processes.items() if owner != POOR])

        filler.unlink()
        signed = rounds_committed(federation, POOR)
        poor.start()
        wait_until(lambda: rounds_committed(federation, POOR) >= signed + 2, 120, "it takes part again", list(federation.processes.values()))
        assert f'"run": {run}' in ledger(study, POOR) or f'"run":{run}' in ledger(study, POOR)
        refused = [e for e in read_events(federation.log(POOR)) if e.get("event") == "equivocation"]
        assert not refused
