"""What the study says in the end: a table for people, one JSON document for machines. Both repeat what protects the study and what does not."""

from __future__ import annotations

import json
import pathlib

from data import HOSPITALS

PRIVACY = 'unit = "none": no differential privacy protects this study'
SIMULATED = "simulated TEE: nothing isolates the host"


def number(value: float | None, digits: int = 3) -> str:
    return "undefined" if value is None else f"{value:.{digits}f}"


def with_interval(entry: dict) -> str:
    if entry["auc"] is None:
        return "undefined (one class)"
    low, high = entry["interval"]
    return f"{entry['auc']:.3f}  [{low:.3f}, {high:.3f}]"


def table(result: dict) -> str:
    """The study's table: everybody's test patients, then each hospital's own."""
    lines = [f"AUC on everybody's test patients ({result['test_patients']} patients, 95 % bootstrap interval)", ""]
    rows = [("federated, four hospitals", result["federated"]), ("pooled training (yardstick only)", result["pooled"])]
    rows += [(f"{h.name}, own model alone", result["local"][h.owner]) for h in HOSPITALS]
    rows += [("knows only the hospital", result["baseline"])]
    width = max(len(name) for name, _ in rows) + 2
    lines += [f"  {name:<{width}}{with_interval(entry)}" for name, entry in rows]
    lines += ["", "AUC on each hospital's own test patients: who gains, who does not", "",
              f"  {'hospital':<{width}}{'federated':<26}{'own model alone':<26}gain"]
    for h in HOSPITALS:
        own = result["own"][h.owner]
        gain = "-" if own["gain"] is None else f"{own['gain']:+.3f}"
        lines.append(f"  {h.name:<{width}}{with_interval(own['federated']):<26}{with_interval(own['local']):<26}{gain}")
    return "\n".join(lines)


def seeds_table(summary: dict) -> str:
    def cell(entry: dict) -> str:
        if entry["mean"] is None:
            return "undefined"
        spread = "" if entry["sd"] is None else f" ± {entry['sd']:.3f}"
        part = "" if entry["defined"] == entry["of"] else f"  (defined in {entry['defined']} of {entry['of']})"
        return f"{entry['mean']:.3f}{spread}{part}"

    names = [("federated, four hospitals", summary["federated_auc"]), ("pooled training (yardstick only)", summary["pooled_auc"])]
    names += [(f"{h.name}, own model alone", summary["local_auc"][h.owner]) for h in HOSPITALS]
    names += [("knows only the hospital", summary["baseline_auc"])]
    width = max(len(n) for n, _ in names) + 2
    lines = [f"AUC on everybody's test patients, mean ± standard deviation over {summary['seeds']} splits", ""]
    lines += [f"  {n:<{width}}{cell(e)}" for n, e in names]
    lines += ["", "AUC on each hospital's own test patients", "", f"  {'hospital':<{width}}{'federated':<34}own model alone"]
    for h in HOSPITALS:
        own = summary["own_auc"][h.owner]
        lines.append(f"  {h.name:<{width}}{cell(own['federated']):<34}{cell(own['local'])}")
    return "\n".join(lines)


def refusal_text(refusal: dict) -> str:
    """A refusal with its full reason, as the refusing process logged it."""
    return (f"    refused by {refusal['by']}, for {refusal['owner']}\n"
            f"      requirement  {refusal['requirement']}\n"
            f"      wanted       {refusal['wanted']}\n"
            f"      found        {refusal['found']}\n"
            f"      remedy       {refusal['remedy']}")


def write_json(path: pathlib.Path, document: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
