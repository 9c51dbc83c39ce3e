"""Nobody else reads: one hospital's data and update are a planted pattern, and in a real run it is found where it belongs and
nowhere else (planted.py runs, scanner.py looks; test_scanner.py shows that the scanner finds what is there).

The forms: float32 and int64 ring (weighted or not) as bytes, the data's text, and each of them in hex and in Base64 at its three
alignments. Claims as docs/threat-model.md has them.
"""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from founding import COMPUTE_OWNER, MODEL_OWNER

HERE = pathlib.Path(__file__).resolve().parent
BIN = pathlib.Path(os.environ.get("CLOISTER_BIN", HERE.parents[1] / "build" / "release" / "bin"))
PLANTED = "north"
UPDATE_FORMS = {"float32", "text", "ring", "weighted ring"}


@pytest.fixture(scope="module")
def report():
    if os.geteuid() != 0:
        pytest.skip("needs root: other processes' memory, and a capture of loopback")
    done = subprocess.run([sys.executable, str(HERE / "planted.py"), "--bin", str(BIN)], stdout=subprocess.PIPE, text=True, timeout=580)
    assert done.returncode == 0
    return json.loads(done.stdout)


def own(process: str) -> bool:
    return process.startswith((f"node of {PLANTED}", f"trainer of {PLANTED}"))


def moments(report):
    return report["moments"].items()


def is_of_update(form: str) -> bool:
    return form.split(" in ")[0] in UPDATE_FORMS


def test_the_run_ends_as_it_should(report):
    assert report["end"]["state"] == "done", report["end"]
    for what, why in report["left_out"].items():
        print(f"left out: {what}: {why}")


# --- Where it must be: the scanner works ------------------------------------------------------------------------------

def test_the_hospitals_own_processes_and_the_enclave_hold_the_update_in_mid_round(report):
    for moment in ("uploading", "alone"):
        seen = report["moments"][moment]["memory"]
        assert "float32" in seen["aggregator"]
        assert "float32" in seen[f"node of {PLANTED}"]
        trainers = [forms for name, forms in seen.items() if name.startswith(f"trainer of {PLANTED}")]
        assert any({"float32", "text"} <= set(forms) for forms in trainers), trainers


def test_the_hospitals_own_folder_holds_its_data_and_the_stored_update(report):
    files = report["moments"]["alone"]["files"]
    assert files[f"{PLANTED}/patients.csv"] == ["text"]
    assert any(path.startswith(f"{PLANTED}/ledger/updates/") for path in files), files


# --- Where it must not be ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize("process", ["coordinator", "launcher", "simulated TEE", "node of south", "node of east"])
def test_no_other_partys_process_holds_it_at_any_moment(report, process):
    for moment, seen in moments(report):
        assert seen["memory"][process] == [], (moment, process)


def test_no_other_hospitals_trainer_holds_it(report):
    for moment, seen in moments(report):
        others = {name: forms for name, forms in seen["memory"].items() if name.startswith("trainer") and not own(name)}
        assert not any(others.values()), (moment, others)


def test_the_enclave_keeps_no_update_once_it_was_added_and_nothing_of_it_once_the_run_is_over(report):
    assert report["moments"]["summed"]["memory"]["aggregator"] == []  # two contributors: what is left is their sum
    assert report["moments"]["ended"]["memory"]["aggregator"] == []


def test_the_enclave_has_it_in_no_form_but_values_and_sum(report):
    for moment, seen in moments(report):
        assert set(seen["memory"]["aggregator"]) <= {"float32", "ring", "weighted ring"}, moment


def test_no_open_file_of_another_process_holds_it_named_or_not(report):
    for moment, seen in moments(report):
        for process, files in seen["descriptors"].items():
            held = {file: forms for file, forms in files.items() if any(map(is_of_update, forms))}
            assert own(process) or not held, (moment, process, held)


@pytest.mark.parametrize("moment", ["uploading", "alone", "summed", "ended", "crashed"])
def test_no_file_holds_it_but_the_hospitals_data_and_its_stored_update(report, moment):
    files = report["crashed"] if moment == "crashed" else report["moments"][moment]["files"]
    held = {path for path, forms in files.items() if any(map(is_of_update, forms))}
    stored = {path for path in held if path.startswith(f"{PLANTED}/ledger/updates/")}
    assert held - stored == {f"{PLANTED}/patients.csv"}, held  # no log, receipt, record, database, spill or core file
    if moment in ("ended", "crashed"):
        assert not stored  # a committed update is deleted


def test_nothing_of_it_goes_over_the_network_in_the_clear(report):
    if "capture" not in report:
        pytest.skip(f"no capture: {report['left_out']}")
    assert report["capture"]["bytes"] > 3 * 3 * 2 * 1_000_000  # it saw the models and updates of all hospitals
    assert report["capture"]["found"] == []


def test_the_submitter_who_watches_sees_nothing_of_it(report):
    assert report["watcher"] == []


# --- The model --------------------------------------------------------------------------------------------------------

def holders(report, model: str) -> set[str]:
    return {process for _, seen in moments(report) for process, forms in seen["models"].items() if any(f.startswith(model) for f in forms)}


def test_the_compute_owners_processes_and_folder_never_hold_a_model(report):
    for moment, seen in moments(report):
        assert seen["models"]["launcher"] == [] and seen["models"]["simulated TEE"] == [], moment
        assert not any(path.startswith(f"{COMPUTE_OWNER}/") for path in seen["files"]), (moment, seen["files"])
        for process in ("launcher", "simulated TEE"):
            assert seen["descriptors"][process] == {}, moment
    assert not any(path.startswith(f"{COMPUTE_OWNER}/") for path in report["crashed"])


def test_the_coordinator_holds_the_initial_and_the_published_model_and_none_between(report):
    assert "coordinator" in holders(report, "initial") | holders(report, "final")
    assert "coordinator" not in holders(report, "after round 1") | holders(report, "after round 2")
    for files in [seen["files"] for _, seen in moments(report)] + [report["crashed"]]:
        of_coordinator = {form.split(" model")[0] for path, forms in files.items() if path.startswith(f"{MODEL_OWNER}/") for form in forms}
        assert of_coordinator <= {"initial", "final"}, files
    assert "aggregator" in holders(report, "after round 1")  # the scanner would have known it
    assert f"node of {PLANTED}" in holders(report, "after round 2")
