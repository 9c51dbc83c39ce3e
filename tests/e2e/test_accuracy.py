"""What the study promises of its model, over real runs: close to pooled training, and above every hospital's own model.

Three splits here; `scripts/demo --seeds 20` reports twenty.
"""

import os
import pathlib

import numpy as np
import pytest

import data
import demo
from cluster import Tools
from data import HOSPITALS
from federation import Federation
from study import Options, Study

BIN = pathlib.Path(os.environ.get("CLOISTER_BIN", pathlib.Path(__file__).resolve().parents[2] / "build" / "release" / "bin"))
ROOT = pathlib.Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(not (BIN / "cloister-trainer").exists(), reason="built without the trainer (CLOISTER_TORCH=OFF)")


def several(cohort, folder, splits=3):
    options = Options(rounds=20, runs=splits)
    study = Study(folder / "study", Tools(BIN), cohort, options).build()
    with Federation(study) as federation:
        return demo.several([demo.one_run(federation, options, cohort, split, folder / "results", quiet=True) for split in range(1, splits + 1)])


def test_four_real_hospitals_together_match_pooled_training_and_beat_each_alone(tmp_path):
    shared = pathlib.Path(os.environ.get("CLOISTER_SHARED", ROOT.parent / "shared")) / "data" / "heart-disease"
    files = data.in_folder(shared)
    if files is None:
        pytest.skip("skipped, data not found")
    summary = several(data.Cohort(files, "UCI Heart Disease", False), tmp_path)
    federated, pooled = summary["federated_auc"]["mean"], summary["pooled_auc"]["mean"]
    assert abs(federated - pooled) <= 0.01, (federated, pooled)
    assert federated >= 0.87
    for h in HOSPITALS:
        assert federated > summary["local_auc"][h.owner]["mean"], h.owner
    assert summary["suppressed_columns"] == ["ca"]


def test_a_drawn_cohort_does_the_same_without_data_from_elsewhere(tmp_path):
    summary = several(data.Cohort(data.draw(tmp_path / "drawn"), "SYNTHETIC", True), tmp_path, splits=2)
    federated, pooled = summary["federated_auc"]["mean"], summary["pooled_auc"]["mean"]
    assert abs(federated - pooled) <= 0.02, (federated, pooled)
    assert federated > summary["baseline_auc"]["mean"]
    assert all(federated >= summary["local_auc"][h.owner]["mean"] - 0.02 for h in HOSPITALS)
    assert np.isfinite(federated)
