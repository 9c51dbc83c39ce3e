"""AUC and its intervals, in plain NumPy: the example's own yardstick, independent of the code that it judges."""

from __future__ import annotations

import numpy as np


def auc(labels, scores) -> float | None:
    """Area under the ROC curve: the chance that an ill patient scores above a healthy one, ties counted half (Mann-Whitney).

    labels: 0 or 1, shape [n]; scores: any real, shape [n]. None when one class is missing.
    """
    labels = np.asarray(labels).astype(bool)
    scores = np.asarray(scores, dtype=float)
    n1, n0 = int(labels.sum()), int((~labels).sum())
    if n1 == 0 or n0 == 0:
        return None
    order = np.argsort(scores, kind="mergesort")
    ranks = np.empty(len(scores))
    ranks[order] = np.arange(1, len(scores) + 1)
    _, group, count = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.bincount(group, ranks) / count)[group]  # the mean rank of each tie
    return float((ranks[labels].sum() - n1 * (n1 + 1) / 2) / (n1 * n0))


def interval(labels, scores, draws: int = 1000, seed: int = 1) -> tuple[float, float] | None:
    """The 95 % bootstrap interval of the AUC over patients (percentiles; draws with one class are left out)."""
    labels, scores = np.asarray(labels), np.asarray(scores)
    if auc(labels, scores) is None:
        return None
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(draws):
        pick = rng.integers(0, len(labels), len(labels))
        if (v := auc(labels[pick], scores[pick])) is not None:
            values.append(v)
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def summary(values) -> dict:
    """Mean, standard deviation (n - 1) and count of the defined ones; null where nothing is defined."""
    defined = np.array([v for v in values if v is not None], dtype=float)
    return {
        "mean": float(defined.mean()) if len(defined) else None,
        "sd": float(defined.std(ddof=1)) if len(defined) > 1 else None,
        "defined": int(len(defined)),
        "of": len(values),
    }
