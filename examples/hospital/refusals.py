"""Four stories in which somebody is refused, each over the same real processes as the study, each with its full reason."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Callable

from cluster import Failed, Process, Tools, wait_until
from data import Cohort
from federation import Federation
from study import COMPUTE_OWNER, OWNERS, Options, Study


@dataclasses.dataclass(frozen=True)
class Story:
    name: str
    title: str
    tell: Callable[[pathlib.Path, Tools, Cohort], list[dict]]


def small(**changes) -> Options:
    return Options(rounds=2, runs=4, round_deadline="20s", channel_deadline="5s", **changes)


def patched_aggregator(folder: pathlib.Path, tools: Tools, cohort: Cohort) -> list[dict]:
    """The cloud's root swaps the file after the launcher measured it, and the patched aggregator asks its TEE for the genuine
    measurement: the launcher refuses what the TEE measured. Then cloud and model owner collude: their policies and
    the manifest name the patched build, it is started and granted; and every hospital refuses it by its own policy."""
    honest = Study(folder / "honest-cloud", tools, cohort, small()).build()
    with Federation(honest) as federation:
        honest.swap_aggregator()
        run = federation.submit()
        end = federation.watch(run, lambda _: None, timeout=120)
        refused = [federation.wait_for_refusal(COMPUTE_OWNER, "aggregator.measurement")]
        expect(end["state"] == "failed", f"the run ended as {end['state']}")
        expect(refused[0]["found"] == honest.patched_measurement, f"found {refused[0]['found']}")
    colluding = Study(folder / "colluding-cloud", tools, cohort, small(cloud_colludes=True, founders_check=False)).build()
    colluding.swap_aggregator()
    with Federation(colluding) as federation:
        federation.submit()
        by_hospitals = [federation.wait_for_refusal(owner, "aggregator.measurement") for owner in OWNERS]
    for r in by_hospitals:
        expect(r["found"] == colluding.patched_measurement, f"found {r['found']}")
    return refused + by_hospitals


def stranger(folder: pathlib.Path, tools: Tools, cohort: Cohort) -> list[dict]:
    """A hospital with a key of its own making dials the enclave of a study whose charter does not name it."""
    study = Study(folder, tools, cohort, small()).build()
    with Federation(study) as federation:
        federation.submit({"rounds": 2})
        wait_until(lambda: federation.aggregator_log.exists(), 60, "an instance runs", list(federation.processes.values()))
        outsider = study.owner("munich")
        study.add_outsider("munich", like="zurich")
        process = Process("participant munich", [tools.path("cloister"), "participant", "run", "--config", "participant.toml", "--once"], outsider,
                          outsider / "participant.log").start()
        refused = [federation.wait_for_refusal("aggregator", "parties.tls_key")]
        wait_until(lambda: "does not know this side's key" in process.tail(), 20, "the outsider's own command line says why")
        process.end()
    return refused


def overspending(folder: pathlib.Path, tools: Tools, cohort: Cohort) -> list[dict]:
    """One hospital allows one train round and never publishes the model; the study wants more."""
    options = small(rounds_at_most={"zurich": 1}, publish_model={"zurich": "never"}, founders_check=False)
    study = Study(folder, tools, cohort, options).build()
    checked = tools.json("charter", "check", study.charter, expect=3)
    refused = [{"by": "charter check", **{k: f[k] for k in ("owner", "requirement", "wanted", "found", "remedy")}}
               for f in checked["decision"]["findings"] if not f["met"] and f["owner"].startswith("zurich")]
    expect({"study.rounds.at_most", "study.publish.model"} <= {r["requirement"] for r in refused}, f"charter check found {refused}")
    with Federation(study) as federation:  # the check is skipped
        federation.submit()
        refused.append(federation.wait_for_refusal("zurich", "study.publish.model"))        # the hospital's own gate
        refused.append(federation.wait_for_refusal("aggregator", "study.rounds.at_most"))   # and the enclave, for the hospital
        expect(refused[-1]["owner"].startswith("zurich"), f"refused for {refused[-1]['owner']}")
    return refused


def unattested(folder: pathlib.Path, tools: Tools, cohort: Cohort) -> list[dict]:
    """The model owner demands attested participants. Three hospitals run in their own simulated TEE, one does not."""
    inside = tuple(o for o in OWNERS if o != "long-beach")
    options = small(attested=inside, demand_attested=True, quorum=3, founders_check=False)
    study = Study(folder, tools, cohort, options).build()
    with Federation(study) as federation:
        run = federation.submit()
        sent = {"long-beach": 0}

        def count(event: dict) -> None:
            for m in event.get("members") or []:
                if m["owner"] == "long-beach":
                    sent["long-beach"] = max(sent["long-beach"], m.get("bytes_out", 0))

        end = federation.watch(run, count, timeout=240)
        expect(end["state"] == "done", f"the attested hospitals' run ended as {end['state']}: {end['reason']}")
        expect(sent["long-beach"] == 0, f"long-beach was sent {sent['long-beach']} bytes")
        refused = [federation.wait_for_refusal("aggregator", "participants.attested")]
    return [refused[0] | {"bytes_of_weights": sent["long-beach"], "others": "trained on"}]


def expect(true: bool, otherwise: str) -> None:
    if not true:
        raise Failed(otherwise)


STORIES = [
    Story("patched-aggregator", "1. An aggregator patched by one byte, which asks for the genuine measurement", patched_aggregator),
    Story("stranger", "2. A hospital that is not in the charter", stranger),
    Story("overspending", "3. A run that would spend more rounds, and publish more, than one hospital allows", overspending),
    Story("unattested", "4. The model owner demands attested participants, and one hospital is not", unattested),
]
