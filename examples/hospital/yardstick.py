"""What the federated model is held against. Only the example may do this: it holds all four files at once, as no owner does.

- pooled training: the same model, columns and settings on all records in one place;
- each hospital's own model: its own records, its own statistics;
- a baseline that knows only the hospital: the share of ill patients among its training records.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import pathlib
import struct

import measures
from data import HOSPITALS, Cohort
from study import Study


@dataclasses.dataclass
class Scores:
    """Test patients: whose, ill or not, and what a model says. Equal lengths; file order within a hospital."""

    owner: list[str]
    label: list[int]
    score: list[float]

    def entry(self) -> dict:
        interval = measures.interval(self.label, self.score)
        return {"auc": measures.auc(self.label, self.score), "interval": interval, "patients": len(self.label)}

    def of(self, owner: str) -> "Scores":
        keep = [i for i, o in enumerate(self.owner) if o == owner]
        return Scores([owner] * len(keep), [self.label[i] for i in keep], [self.score[i] for i in keep])


def is_test(split: int, row: int) -> bool:
    """SHA-256("cloister split 1" || u64 split || u64 row) divisible by three (participant/data has the same rule)."""
    digest = hashlib.sha256(b"cloister split 1" + struct.pack(">QQ", split, row)).digest()
    return int.from_bytes(digest, "big") % 3 == 0


def read_scores(path: pathlib.Path, files: dict[str, pathlib.Path]) -> Scores:
    by_file = {str(f): owner for owner, f in files.items()}
    out = Scores([], [], [])
    with open(path, newline="") as f:
        for row in csv.DictReader(f):
            out.owner.append(by_file[row["file"]])
            out.label.append(int(row["label"]))
            out.score.append(float(row["score"]))
    return out


def suppressed_columns(statistics: bytes) -> list[str]:
    """The columns that the enclave suppressed, read from the published statistics (docs/formats.md, "Statistics")."""
    at = 0

    def take(form: str):
        nonlocal at
        (value,) = struct.unpack_from(">" + form, statistics, at)
        at += struct.calcsize(">" + form)
        return value

    def field() -> bytes:
        nonlocal at
        length = take("I")
        at += length
        return statistics[at - length:at]

    if field() != b"cloister statistics 1":
        raise ValueError("no statistics of version 1")
    take("Q")
    out = []
    for _ in range(take("I")):
        name, _kind, suppressed = field().decode(), take("B"), take("B")
        at += 8 + 8 + 9 + 9  # contributors, count, mean, variance
        for _ in range(take("I")):
            field()
            at += 1 + 8 + 8 + 8
        if suppressed:
            out.append(name)
    return out


class Yardstick:
    """Runs cloister-trainer by hand on the cohort's files, with the settings of one run."""

    def __init__(self, study: Study, cohort: Cohort, settings: dict[str, float], suppressed: list[str], folder: pathlib.Path):
        self.study, self.cohort, self.settings, self.suppressed, self.folder = study, cohort, settings, suppressed, folder
        folder.mkdir(parents=True, exist_ok=True)

    def _common(self) -> list[str]:
        files = [str(self.cohort.files[h.owner]) for h in HOSPITALS]
        return ["--manifest", str(self.study.manifest), "--score", *files]

    def federated(self, model: pathlib.Path, statistics: pathlib.Path) -> Scores:
        out = self.folder / "federated.csv"
        self.study.tools.run("cloister-trainer", "score", *self._common(), "--model", model, "--statistics", statistics,
                             "--set", f"split={self.settings['split']:g}", "--out", out)
        return read_scores(out, self.cohort.files)

    def trained_on(self, owners: list[str], name: str) -> Scores:
        """A model trained in one place on these hospitals' training records, as long as the federation trains."""
        out = self.folder / f"{name}.csv"
        chosen = [x for k, v in self.settings.items() for x in ("--set", f"{k}={v:g}")]
        suppress = ["--suppress", ",".join(self.suppressed)] if self.suppressed else []
        self.study.tools.run("cloister-trainer", "local", *self._common(), "--data", *[self.cohort.files[o] for o in owners],
                             *chosen, *suppress, "--out", out, timeout=600)
        return read_scores(out, self.cohort.files)

    def baseline(self, like: Scores) -> Scores:
        """Knows only which hospital a patient is in."""
        share = {}
        for h in HOSPITALS:
            rows = self.cohort.files[h.owner].read_text().splitlines()
            train = [float(r.split(",")[-1]) > 0 for i, r in enumerate(rows) if not is_test(int(self.settings["split"]), i)]
            share[h.owner] = sum(train) / len(train)
        return Scores(like.owner, like.label, [share[o] for o in like.owner])

    def measure(self, model: pathlib.Path, statistics: pathlib.Path) -> dict:
        """Everything that the study reports for one split (report.table has the shape)."""
        federated = self.federated(model, statistics)
        pooled = self.trained_on([h.owner for h in HOSPITALS], "pooled")
        local = {h.owner: self.trained_on([h.owner], h.owner) for h in HOSPITALS}
        own = {}
        for h in HOSPITALS:
            a, b = federated.of(h.owner).entry(), local[h.owner].of(h.owner).entry()
            gain = None if a["auc"] is None or b["auc"] is None else a["auc"] - b["auc"]
            own[h.owner] = {"federated": a, "local": b, "gain": gain}
        return {"federated": federated.entry(), "pooled": pooled.entry(), "local": {o: s.entry() for o, s in local.items()},
                "baseline": self.baseline(federated).entry(), "own": own, "test_patients": len(federated.label)}
