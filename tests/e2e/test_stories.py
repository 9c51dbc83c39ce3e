"""The demo's five stories over real processes: the study itself, and four refusals with their reasons."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

import data
import refusals
from cluster import Tools, read_events
from federation import Federation
from progress import Progress
from yardstick import suppressed_columns
from study import COMPUTE_OWNER, MODEL_OWNER, OWNERS, Options, Study

BIN = pathlib.Path(os.environ.get("CLOISTER_BIN", pathlib.Path(__file__).resolve().parents[2] / "build" / "release" / "bin"))
pytestmark = pytest.mark.skipif(not (BIN / "cloister-trainer").exists(), reason="built without the trainer (CLOISTER_TORCH=OFF)")


@pytest.fixture(scope="module")
def tools():
    return Tools(BIN)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """A drawn cohort of the real one's shape: the stories need no data from elsewhere."""
    folder = tmp_path_factory.mktemp("drawn cohort")  # a path with a space
    return data.Cohort(data.draw(folder), "SYNTHETIC", True)


@pytest.fixture(scope="module")
def finished(tools, cohort, tmp_path_factory):
    """A study of three rounds that ran to its end: (study, federation's events, last event)."""
    study = Study(tmp_path_factory.mktemp("a study") / "study", tools, cohort, Options(rounds=3, runs=4)).build()
    events: list[dict] = []
    with Federation(study) as federation:
        run = federation.submit({"rounds": 3, "split": 1})
        end = federation.watch(run, events.append, timeout=240)
        statistics = federation.statistics(run).read_bytes()
        model = federation.fetch(run, "model", study.folder / "final.model")
        verified = federation.receipts(run, study.folder / "receipts")
    return study, run, events, end, statistics, model, verified


def test_four_hospitals_train_one_model(finished):
    _, _, events, end, _, model, _ = finished
    assert end["state"] == "done", end
    tasks = [e["receipt"]["task"] for e in events if e["event"] == "committed"]
    assert tasks == ["statistics"] + ["train", "evaluate"] * 3
    assert model.stat().st_size > 100


def test_the_published_auc_of_every_round_reaches_the_watcher(finished):
    _, _, events, *_ = finished
    progress = Progress(3, quiet=True)
    for e in events:
        progress(e)
    assert [r["round"] for r in progress.auc] == [1, 2, 3]
    assert all(0.5 < r["auc"] <= 1 for r in progress.auc)


def test_a_column_that_too_few_hospitals_have_is_suppressed_and_leaves_the_model(finished):
    *_, statistics, _, _ = finished
    assert suppressed_columns(statistics) == ["ca"]  # three of the four drawn hospitals lack it


def test_everything_that_was_said_says_simulated(finished):
    study, *_ = finished
    for log in [study.owner(COMPUTE_OWNER) / "instances" / "aggregator.log"] + [study.owner(o) / "participant.log" for o in OWNERS]:
        events = read_events(log)
        said = [e for e in events if e.get("event") in ("round_offered", "granted", "task_done", "offer", "connected")]
        assert events and all(e.get("simulated") for e in said), log


def test_no_log_holds_a_cell_of_the_data(finished, cohort):
    """A value of one hospital's patients that stands nowhere else in the study: no log may carry it."""
    study, *_ = finished
    logs = "".join(p.read_text(errors="replace") for p in study.folder.rglob("*.log")) + "".join(p.read_text(errors="replace") for p in study.folder.rglob("*.out"))
    for owner in OWNERS:
        for row in cohort.files[owner].read_text().splitlines()[:20]:
            assert ",".join(row.split(",")[:6]) not in logs


def test_each_owner_keeps_its_keys_and_no_other_folder_holds_them(finished):
    study, *_ = finished
    for owner in [MODEL_OWNER, COMPUTE_OWNER, *OWNERS]:
        for key in (study.owner(owner) / "keys").glob("*.key"):
            assert key.stat().st_mode & 0o077 == 0
            secret = key.read_text().splitlines()[1].encode()
            for other in (p for p in study.folder.rglob("*") if p.is_file() and p != key):
                assert secret not in other.read_bytes(), f"{other} holds {key}"


def test_the_receipts_of_the_run_verify_at_the_submitters(finished):
    study, *_, verified = finished
    assert verified.returncode == 0, verified.stderr
    kept = study.folder / "receipts"
    assert len(list(kept.iterdir())) >= 7  # the signed bytes, for whoever wants to check them elsewhere


def test_the_ledger_of_a_hospital_lists_what_left_it(finished, tools):
    study, *_ = finished
    ledger = tools.json("participant", "ledger", "--config", study.owner("zurich") / "participant.toml")
    assert "train" in json.dumps(ledger) and "statistics" in json.dumps(ledger)


@pytest.mark.parametrize("story", refusals.STORIES, ids=lambda s: s.name)
def test_a_refusal_names_owner_requirement_wanted_found_and_remedy(story, tools, cohort, tmp_path):
    refused = story.tell(tmp_path / story.name, tools, cohort)
    assert refused
    for r in refused:
        for key in ("by", "owner", "requirement", "wanted", "found", "remedy"):
            assert r[key], (key, r)


def test_the_demo_writes_what_it_promises(tools, cohort, tmp_path):
    folder = next(iter(cohort.files.values())).parent
    out = tmp_path / "out put"
    environment = {**os.environ, "CLOISTER_SHARED": str(tmp_path / "nowhere"), "CLOISTER_UCI_ARCHIVE": "http://127.0.0.1:9/closed"}
    done = subprocess.run([sys.executable, str(pathlib.Path(refusals.__file__).with_name("demo.py")), "--bin", str(BIN), "--rounds", "3",
                           "--skip-refusals", "--out", str(out), "--json", str(out / "demo.json")], capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    document = json.loads((out / "demo.json").read_text())
    for key in ("federated_auc", "pooled_auc", "local_auc", "own_auc", "baseline_auc", "rounds", "refusals", "simulated", "privacy"):
        assert key in document
    assert document["synthetic"] and "SYNTHETIC" in done.stderr and "no differential privacy" in done.stderr
    for picture in document["pictures"]:
        assert pathlib.Path(picture).stat().st_size > 5000
    assert folder.exists()
