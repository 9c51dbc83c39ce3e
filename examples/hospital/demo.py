"""The hospital study from end to end: four hospitals train one model through an attested aggregator, then four refusals.

    scripts/demo                              one run, a table, a picture, four refusals
    scripts/demo --seeds 20 --json out.json   twenty splits under one charter: means and standard deviations
"""

from __future__ import annotations

import argparse
import os
import pathlib
import sys
import time

import measures
import plot
import refusals
import report
from cluster import Failed, Tools
from data import ARCHIVE, HOSPITALS, Cohort, DataError, find
from federation import Federation
from progress import Progress
from study import ALGORITHM_SETTINGS, Options, Study
from yardstick import Yardstick, suppressed_columns

ROOT = pathlib.Path(__file__).resolve().parents[2]


def say(text: str = "") -> None:
    print(text, file=sys.stderr, flush=True)


def settings_of(options: Options, split: int) -> dict[str, float]:
    """What the example chooses for a run; the manifest's defaults fill the rest."""
    return {"rounds": options.rounds, "local_epochs": 4, "batch_size": 100000, "learning_rate": 0.3, "weight_decay": 0.001, "split": split}


def one_run(federation: Federation, options: Options, cohort: Cohort, split: int, out: pathlib.Path, quiet: bool) -> dict:
    """Submits a run, follows it, and measures what came out against the yardsticks."""
    settings = settings_of(options, split)
    run = federation.submit(settings, note=f"split {split}")
    progress = Progress(options.rounds, quiet=quiet)
    end = federation.watch(run, progress, timeout=900)
    if end["state"] != "done":
        raise Failed(f"run {run} {end['state']}: {end['reason']}")
    folder = out / f"run-{run}"
    folder.mkdir(parents=True, exist_ok=True)
    model = federation.fetch(run, "model", folder / "final.model")
    statistics = federation.statistics(run)  # published to the cohort: a hospital has them, the coordinator does not
    suppressed = suppressed_columns(statistics.read_bytes())
    result = Yardstick(federation.study, cohort, settings, suppressed, folder).measure(model, statistics)
    result |= {"run": run, "split": split, "rounds": progress.auc, "suppressed_columns": suppressed}
    return result


def document(cohort: Cohort, options: Options, notes: list[str]) -> dict:
    return {"study": "cardiac-risk", "data": cohort.source, "synthetic": cohort.synthetic, "simulated": True, "privacy": report.PRIVACY,
            "algorithm": options.algorithm, "notes": notes}


def single(result: dict) -> dict:
    """The JSON of one run, under the names that scripts/demo --json promises."""
    return {
        "federated_auc": result["federated"]["auc"], "federated_interval": result["federated"]["interval"],
        "pooled_auc": result["pooled"]["auc"], "pooled_interval": result["pooled"]["interval"],
        "baseline_auc": result["baseline"]["auc"], "baseline_interval": result["baseline"]["interval"],
        "local_auc": {o: e["auc"] for o, e in result["local"].items()},
        "local_interval": {o: e["interval"] for o, e in result["local"].items()},
        "own_auc": {o: {"federated": e["federated"]["auc"], "federated_interval": e["federated"]["interval"], "local": e["local"]["auc"],
                        "local_interval": e["local"]["interval"], "gain": e["gain"]} for o, e in result["own"].items()},
        "rounds": result["rounds"], "suppressed_columns": result["suppressed_columns"], "test_patients": result["test_patients"],
    }


def several(results: list[dict]) -> dict:
    """Means and standard deviations over splits; an undefined AUC is left out and counted."""
    of = lambda pick: measures.summary([pick(r) for r in results])
    return {
        "seeds": len(results),
        "federated_auc": of(lambda r: r["federated"]["auc"]),
        "pooled_auc": of(lambda r: r["pooled"]["auc"]),
        "baseline_auc": of(lambda r: r["baseline"]["auc"]),
        "local_auc": {h.owner: of(lambda r: r["local"][h.owner]["auc"]) for h in HOSPITALS},
        "own_auc": {h.owner: {k: of(lambda r: r["own"][h.owner][k]["auc"]) for k in ("federated", "local")} for h in HOSPITALS},
        "rounds": results[0]["rounds"],
        "suppressed_columns": sorted({c for r in results for c in r["suppressed_columns"]}),
        "per_seed": [{"split": r["split"], "federated_auc": r["federated"]["auc"], "pooled_auc": r["pooled"]["auc"]} for r in results],
    }


def draw(result: dict, notes: list[str], out: pathlib.Path) -> list[pathlib.Path]:
    lines = {"pooled training": result["pooled"]["auc"]}
    lines |= {f"{h.name.split(',')[0]} alone": result["local"][h.owner]["auc"] for h in HOSPITALS}
    lines["knows only the hospital"] = result["baseline"]["auc"]
    return plot.auc_per_round(result["rounds"], {k: v for k, v in lines.items() if v is not None}, notes, out / "auc-per-round")


def arguments() -> argparse.Namespace:
    p = argparse.ArgumentParser(prog="scripts/demo", description=__doc__.split("\n")[0])
    p.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write the results as one JSON document")
    p.add_argument("--seeds", type=int, default=1, metavar="N", help="repeat with N splits into training and test patients (default 1)")
    p.add_argument("--rounds", type=int, default=20, metavar="N", help="train rounds of a run (default 20)")
    p.add_argument("--algorithm", choices=sorted(ALGORITHM_SETTINGS), default="fedavg")
    p.add_argument("--out", type=pathlib.Path, default=ROOT / "out", metavar="DIR", help="where the study's folders go (default out/)")
    p.add_argument("--skip-refusals", action="store_true", help="only the study, not the four refusals")
    p.add_argument("--bin", type=pathlib.Path, default=ROOT / "build" / "release" / "bin", help=argparse.SUPPRESS)
    return p.parse_args()


def study(a: argparse.Namespace, tools: Tools, cohort: Cohort) -> dict:
    """The study itself, and its documents in a.out."""
    options = Options(rounds=a.rounds, runs=max(4, a.seeds), algorithm=a.algorithm)
    notes = [report.PRIVACY, report.SIMULATED] + (["SYNTHETIC data"] if cohort.synthetic else [])
    say("Founding the study: keys, policies, manifest, charter")
    built = Study(a.out / "study", tools, cohort, options).build()
    say(f"  six owners and a submitter in {built.folder}: each its own key, policy and log")
    say("  charter check: all policies agree\n")
    results = []
    with Federation(built) as federation:
        for split in range(1, a.seeds + 1):
            say(f"Run with split {split}: {options.rounds} rounds of {options.algorithm}")
            results.append(one_run(federation, options, cohort, split, a.out / "study" / "results", quiet=a.seeds > 1))
            if a.seeds > 1:
                say(f"  federated {report.number(results[-1]['federated']['auc'])}, pooled {report.number(results[-1]['pooled']['auc'])}")
    pictures = draw(results[0], notes, a.out)
    say()
    if a.seeds > 1:
        summary = several(results)
        say(report.seeds_table(summary))
    else:
        summary = single(results[0])
        say(report.table(results[0]))
    if results[0]["suppressed_columns"]:
        say(f"\n  suppressed by the enclave (fewer hospitals than at_least have minimum_count values): {', '.join(results[0]['suppressed_columns'])}")
    say("\n  " + "; ".join(notes))
    say("  picture: " + ", ".join(str(p) for p in pictures))
    return document(cohort, options, notes) | summary | {"pictures": [str(p) for p in pictures]}


def main() -> int:
    a = arguments()
    tools = Tools(a.bin.resolve())
    began = time.monotonic()
    try:
        cohort = find(a.out / "data", os.environ.get("CLOISTER_UCI_ARCHIVE", ARCHIVE))
        say(f"Data: {cohort.source}\nNote: {report.PRIVACY}; {report.SIMULATED}\n")
        result = study(a, tools, cohort)
        result["refusals"] = []
        if not a.skip_refusals:
            say("\nFour refusals\n")
            for story in refusals.STORIES:
                say(story.title)
                found = story.tell(a.out / "refusals" / story.name, tools, cohort)
                for r in found:
                    say(report.refusal_text(r) + "\n")
                result["refusals"] += [r | {"story": story.name} for r in found]
    except (Failed, DataError) as e:
        say(f"\nThe demo failed: {e}\nThe logs are in {a.out}.")
        return 1
    result["seconds"] = round(time.monotonic() - began, 1)
    if a.json:
        report.write_json(a.json, result)
        say(f"JSON: {a.json}")
    say(f"Done in {result['seconds']:.0f} s. Everything is in {a.out}; {report.PRIVACY}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
