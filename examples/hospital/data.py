"""The four hospitals' data: found, downloaded, or, offline, drawn.

UCI Heart Disease (DOI 10.24432/C52P4X, CC BY 4.0), the processed files: one file is one hospital. They are looked for in
`CLOISTER_DATA`, then in the project's shared folder (`CLOISTER_SHARED`, default `../shared`), then in the folder of an earlier
download; then they are downloaded from the UCI archive; and without a network a synthetic cohort is drawn, which every output says.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
import pathlib
import random
import urllib.error
import urllib.request

COLUMNS = ["age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalach", "exang", "oldpeak", "slope", "ca", "thal", "num"]
ARCHIVE = "https://archive.ics.uci.edu/ml/machine-learning-databases/heart-disease"


@dataclasses.dataclass(frozen=True)
class Hospital:
    owner: str    # the name in manifest and policies
    name: str     # for people
    file: str
    sha256: str   # after normalising line ends to LF


HOSPITALS = [
    Hospital("cleveland", "Cleveland Clinic Foundation", "processed.cleveland.data",
             "a74b7efa387bc9d108d7d0115d831fe9b414b29ae7124f331b622b4efa0427c8"),
    Hospital("budapest", "Hungarian Institute of Cardiology, Budapest", "processed.hungarian.data",
             "d1ad108f785768cd3d7e82dc522e6f5a61eea93cccfb3a46ee8076f73fc3d796"),
    Hospital("zurich", "University Hospitals Zurich and Basel", "processed.switzerland.data",
             "834a405ccf5b66ab4056bb77794adc8df0b7125186454c0a1d002d33c6c3b314"),
    Hospital("long-beach", "V.A. Medical Center, Long Beach", "processed.va.data",
             "e7c93d8d0d2acdadfa4c5e8de768e2191e7f618b952e29623f1f0d5949ff6b8f"),
]


class DataError(Exception):
    """Data that is there and wrong: never answered by another source."""


@dataclasses.dataclass(frozen=True)
class Cohort:
    files: dict[str, pathlib.Path]  # by owner
    source: str                     # for people: where it came from
    synthetic: bool


def normalised(content: bytes) -> bytes:
    return content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def check(hospital: Hospital, content: bytes, where: str) -> bytes:
    """The content with LF line ends, when its checksum is the published file's."""
    content = normalised(content)
    found = hashlib.sha256(content).hexdigest()
    if found != hospital.sha256:
        raise DataError(f"{where}: wanted SHA-256 {hospital.sha256} (line ends normalised), found {found}; "
                        "delete the file, or point CLOISTER_DATA at an unchanged copy")
    return content


def in_folder(folder: pathlib.Path) -> dict[str, pathlib.Path] | None:
    """All four files of a folder, or None when not all are there. A file with another checksum is an error."""
    files = {h.owner: folder / h.file for h in HOSPITALS}
    if not all(f.is_file() for f in files.values()):
        return None
    for h in HOSPITALS:
        check(h, files[h.owner].read_bytes(), str(files[h.owner]))
    return files


def download(to: pathlib.Path, archive: str = ARCHIVE, timeout: float = 20.0) -> dict[str, pathlib.Path]:
    """Fetches the four files into `to`. Nothing is written before its checksum holds. Raises OSError without a network."""
    to.mkdir(parents=True, exist_ok=True)
    files = {}
    for h in HOSPITALS:
        url = f"{archive}/{h.file}"
        with urllib.request.urlopen(url, timeout=timeout) as answer:
            content = check(h, answer.read(1 << 20), url)
        part = to / (h.file + ".part")
        part.write_bytes(content)
        files[h.owner] = part.rename(to / h.file)
    return files


# What the synthetic cohort copies from the real one: how many patients, how many of them ill, which columns a hospital lacks.
# Counts: the data set's own documentation.
SHAPE = {
    "cleveland": (303, 139, set()),
    "budapest": (294, 106, {"ca", "thal"}),
    "zurich": (123, 115, {"chol", "ca"}),
    "long-beach": (200, 149, {"ca"}),
}


def draw(to: pathlib.Path, seed: int = 7) -> dict[str, pathlib.Path]:
    """A synthetic cohort of the real one's shape: same columns, sizes and gaps; nobody's data."""
    to.mkdir(parents=True, exist_ok=True)
    files = {}
    for k, h in enumerate(HOSPITALS):
        patients, ill, gaps = SHAPE[h.owner]
        rng = random.Random(seed * 1000 + k)
        rows = [record(rng, sick, gaps) for sick in [True] * ill + [False] * (patients - ill)]
        rng.shuffle(rows)
        files[h.owner] = to / h.file
        files[h.owner].write_text("".join(",".join(r) + "\n" for r in rows))
    return files


def record(rng: random.Random, sick: bool, gaps: set[str]) -> list[str]:
    s = 1.0 if sick else -1.0
    logistic = lambda x: 1 / (1 + math.exp(-x))
    pick = lambda weights: rng.choices(range(len(weights)), weights)[0]
    row = {
        "age": round(rng.gauss(53 + 3 * s, 9)),
        "sex": int(rng.random() < logistic(0.9 + 0.5 * s)),
        "cp": 1 + pick([1, 3, 3, 2] if not sick else [1, 1, 2, 8]),
        "trestbps": round(rng.gauss(132 + 1.5 * s, 18)),
        "chol": round(rng.gauss(246 + 5 * s, 55)),
        "fbs": int(rng.random() < 0.16),
        "restecg": pick([6, 2, 2]),
        "thalach": round(rng.gauss(140 - 8 * s, 24)),
        "exang": int(rng.random() < logistic(-0.5 + 0.8 * s)),
        "oldpeak": round(max(0.0, rng.gauss(0.9 + 0.45 * s, 0.9)), 1),
        "slope": 1 + pick([5, 4, 1] if not sick else [2, 6, 1]),
        "ca": pick([8, 2, 1, 1] if not sick else [3, 3, 3, 2]),
        "thal": [3, 6, 7][pick([8, 1, 2] if not sick else [3, 1, 6])],
        "num": rng.randint(1, 4) if sick else 0,
    }
    cells = {c: str(v) for c, v in row.items()}
    for c in COLUMNS[3:-1]:
        if c in gaps or rng.random() < 0.04:
            cells[c] = "?"
    return [cells[c] for c in COLUMNS]


def find(cache: pathlib.Path, archive: str = ARCHIVE, environment=os.environ, root: pathlib.Path | None = None) -> Cohort:
    """The first source that has the data (see the module's text). `cache`: where downloads and drawn cohorts are kept."""
    root = root or pathlib.Path(__file__).resolve().parents[2]
    if "CLOISTER_DATA" in environment:
        folder = pathlib.Path(environment["CLOISTER_DATA"])
        files = in_folder(folder)
        if files is None:
            raise DataError(f"CLOISTER_DATA={folder}: wanted {', '.join(h.file for h in HOSPITALS)} in it")
        return Cohort(files, f"UCI Heart Disease, from {folder}", False)
    shared = pathlib.Path(environment.get("CLOISTER_SHARED", root.parent / "shared")) / "data" / "heart-disease"
    for folder, words in ((shared, "from the shared folder"), (cache / "uci", "downloaded earlier")):
        if files := in_folder(folder):
            return Cohort(files, f"UCI Heart Disease, {words}", False)
    try:
        return Cohort(download(cache / "uci", archive), "UCI Heart Disease, downloaded from the UCI archive", False)
    except (urllib.error.URLError, OSError, TimeoutError) as e:
        reason = getattr(e, "reason", e)
        return Cohort(draw(cache / "synthetic"), f"SYNTHETIC cohort, nobody's data (the UCI archive could not be reached: {reason})", True)
