"""The study's picture: AUC per round on everybody's test patients, with the yardsticks as lines."""

from __future__ import annotations

import pathlib

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402


def auc_per_round(rounds: list[dict], yardsticks: dict[str, float], notes: list[str], to: pathlib.Path) -> list[pathlib.Path]:
    """Writes `to`.svg and `to`.png. rounds: {"round": n, "auc": value or None} of the train rounds, in order."""
    plt.rcParams.update({"font.family": "DejaVu Sans", "svg.hashsalt": "cloister"})
    figure, axes = plt.subplots(figsize=(8, 4.6), layout="constrained")
    known = [(r["round"], r["auc"]) for r in rounds if r["auc"] is not None]
    axes.plot([x for x, _ in known], [y for _, y in known], marker="o", markersize=3.5, color="#0b5fa5", label="federated, as the enclave published it")
    colours = ["#333333", "#b3541e", "#4a7a3f", "#7a4f9e", "#a8892c", "#888888"]
    for (name, value), colour in zip(yardsticks.items(), colours):
        axes.axhline(value, color=colour, linewidth=1.1, linestyle="--" if name.startswith("pooled") else ":", label=f"{name}: {value:.3f}")
    axes.set_xlabel("train round")
    axes.set_ylabel("AUC on all hospitals' test patients")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    axes.set_title("Four hospitals train one model through an attested aggregator", fontsize=11, loc="left")
    figure.supxlabel(" · ".join(notes), fontsize=7.5, color="#555555")
    to.parent.mkdir(parents=True, exist_ok=True)
    written = []
    for kind, options in (("svg", {"metadata": {"Date": None}}), ("png", {"dpi": 150, "metadata": {"Software": None}})):
        path = to.with_suffix("." + kind)
        figure.savefig(path, **options)
        written.append(path)
    plt.close(figure)
    return written
