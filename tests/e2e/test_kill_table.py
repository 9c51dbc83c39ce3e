"""A selection of the kill table: every named step and every fault at least once. The whole of it: scripts/faults."""

import json
import os
import time

import pytest

import kill_table
from fleet import BIN, TRAINER

pytestmark = pytest.mark.skipif(not (BIN / TRAINER).exists(), reason=f"built without {TRAINER}")

# Another selection every day; a failure prints the one that it was.
SEED = int(os.environ.get("CLOISTER_FAULT_SEED", int(time.time()) // 86_400))


def test_no_death_and_no_half_open_link_breaks_a_promise_of_a_run(tmp_path):
    cells = kill_table.selection(SEED)
    assert {step for step, _ in cells} == set(kill_table.STEPS) and {fault for _, fault in cells} == set(kill_table.FAULTS)
    table = kill_table.run(cells, tmp_path, SEED, lambda line: print(line, flush=True))
    out = BIN.parent / "kill-table"
    out.with_suffix(".md").write_text(table.markdown())
    out.with_suffix(".json").write_text(json.dumps(table.json(), indent=1))
    assert len(table.outcomes) == len(cells)
    assert not [f"seed {SEED}: {o.step} x {o.fault}: {o.broken}" for o in table.outcomes if o.broken]
    # Only the death of what holds the enclave ends a run; everything else it survives.
    for o in table.outcomes:
        if o.fault in ("participant", "trainer", "coordinator", "half-open link"):
            assert o.state == "done", o
        else:
            assert o.state == "failed" and o.reason or o.state == "done", o
