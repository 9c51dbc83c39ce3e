"""What happens when a process dies in mid-run: nothing hangs, nothing counts twice, and every owner's command line says why."""

import os
import pathlib
import re
import signal
import subprocess

import pytest

import data
from cluster import Tools, read_events, wait_until
from federation import Federation
from study import COMPUTE_OWNER, MODEL_OWNER, OWNERS, Options, Study

BIN = pathlib.Path(os.environ.get("CLOISTER_BIN", pathlib.Path(__file__).resolve().parents[2] / "build" / "release" / "bin"))
pytestmark = pytest.mark.skipif(not (BIN / "cloister-trainer").exists(), reason="built without the trainer (CLOISTER_TORCH=OFF)")


@pytest.fixture
def study(tmp_path):
    cohort = data.Cohort(data.draw(tmp_path / "data"), "SYNTHETIC", True)
    return Study(tmp_path / "study", Tools(BIN), cohort, Options(rounds=60, runs=4, round_deadline="20s", channel_deadline="5s")).build()


def committed(federation, rounds):
    """Waits until the first hospital has seen this many rounds committed."""
    log = federation.log(OWNERS[0])
    wait_until(lambda: sum(e.get("event") == "committed" for e in read_events(log)) >= rounds, 60, f"{rounds} rounds are committed",
               list(federation.processes.values()))


def instance_pid(federation) -> int:
    """The simulated TEE's child: the aggregator itself."""
    launcher = federation.processes[COMPUTE_OWNER].process.pid
    tee = subprocess.run(["ps", "-o", "pid=", "--ppid", str(launcher)], capture_output=True, text=True).stdout.split()
    return int(subprocess.run(["ps", "-o", "pid=", "--ppid", tee[0]], capture_output=True, text=True).stdout.split()[0])


def test_an_aggregator_that_dies_ends_its_run_as_failed_with_the_reason_everywhere(study):
    with Federation(study) as federation:
        run = federation.submit()
        committed(federation, 3)
        os.kill(instance_pid(federation), signal.SIGKILL)
        end = federation.watch(run, lambda _: None, timeout=120)
        assert end["state"] == "failed" and end["reason"], end
        assert federation.show(run)["reason"] == end["reason"]
        assert "failed" in federation.processes[MODEL_OWNER].tail(30)
        wait_until(lambda: "is gone" in federation.processes[COMPUTE_OWNER].tail(30), 30, "the launcher's command line says why")
        for owner in OWNERS:  # a reset, where bytes were under way, or an end of the stream
            process = federation.processes[owner]
            wait_until(lambda p=process: re.search("cut the connection|connection was cut", p.tail(30)), 30, f"{owner}'s command line says why", [process])


def test_a_coordinator_killed_in_mid_run_picks_it_up_and_finishes(study):
    with Federation(study) as federation:
        run = federation.submit({"rounds": 40})
        committed(federation, 3)
        federation.processes[MODEL_OWNER].kill()
        federation.processes[MODEL_OWNER].start()
        wait_until(lambda: sum(e.get("event") == "listening" for e in read_events(federation.log(MODEL_OWNER))) >= 2, 30, "it listens again")
        end = federation.watch(run, lambda _: None, timeout=180)
        assert end["state"] == "done", end
        receipts = federation.show(run)
        assert receipts["round"] >= 80


def test_a_hospital_killed_in_mid_run_comes_back_and_is_counted_once_a_round(study):
    with Federation(study) as federation:
        run = federation.submit({"rounds": 40})
        committed(federation, 3)
        federation.processes["zurich"].kill()
        federation.processes["zurich"].start()
        events = []
        end = federation.watch(run, events.append, timeout=240)
        assert end["state"] == "done", end
        receipts = [e["receipt"] for e in events if e["event"] == "committed"]
        assert [r["round"] for r in receipts] == list(range(1, len(receipts) + 1))
        for r in receipts:
            assert [m["owner"] for m in r["members"]].count("zurich") == 1
        last = {m["owner"]: m["state"] for m in receipts[-1]["members"]}
        assert last["zurich"] == "contributed"


def test_a_withdrawn_hospital_is_not_in_the_next_cohort(study):
    with Federation(study) as federation:
        run = federation.submit({"rounds": 40})
        committed(federation, 3)
        study.tools.run("cloister", "participant", "withdraw", "--config", study.owner("long-beach") / "participant.toml", "--reason", "new management")
        events = []
        end = federation.watch(run, events.append, timeout=240)
        assert end["state"] == "done", end
        members = {m["owner"]: m["state"] for m in [e["receipt"] for e in events if e["event"] == "committed"][-1]["members"]}
        assert members["long-beach"] == "withdrawn"
