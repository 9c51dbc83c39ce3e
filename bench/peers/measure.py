#!/usr/bin/env python3
"""Measures the peers on a case that scripts/bench also measures us on.

    measure.py CASE [CASE...] [--only flwr|nvflare]

Sets them up in virtual environments under build/peers first. Prints JSON lines
{peer, version, case, metric, value, unit, note} on standard output, progress on standard error. A peer that fails says so in a line of
metric "failed". Nobody trains: a participant answers with the model plus a constant of its own, and the final model is checked for all of them.
"""

from __future__ import annotations

import argparse
import pathlib
import shutil
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import flower  # noqa: E402
import flare  # noqa: E402
from cases import CASES, emit  # noqa: E402
from environments import VERSIONS, environment, say  # noqa: E402
from watch import free  # noqa: E402

MEASURE = {"flwr": flower.measure, "nvflare": flare.measure}
# At their peak, as bytes for each byte of the model and participant, measured before: what does not fit is not begun.
NEEDS = {"flwr": 12.0, "nvflare": 9.0}


def measure(peer: str, name: str) -> None:
    case = CASES[name]
    needed = int(NEEDS[peer] * 4 * case.floats * (1 if case.participants == 1 else case.participants / 2))
    if free() < needed:
        emit(peer, VERSIONS[peer], case, "failed", None, "", f"not begun: wants about {needed >> 30} GiB of free memory, found {free() >> 30}")
        return
    bin = environment(peer)
    say(f"{peer} {VERSIONS[peer]}: {name}, {case.rounds[peer]} rounds of {case.participants} participants")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="peer-"))
    try:
        MEASURE[peer](bin, folder / peer, case)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="+", choices=list(CASES), metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--only", choices=list(MEASURE), help="one peer")
    chosen = parser.parse_args()
    for name in chosen.cases:
        for peer in [chosen.only] if chosen.only else MEASURE:
            measure(peer, name)


if __name__ == "__main__":
    main()
