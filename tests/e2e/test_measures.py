"""The yardstick itself: AUC against its definition, intervals that cover, undefined is null."""

import numpy as np

import measures


def test_the_auc_is_the_share_of_pairs_in_order_with_ties_counted_half():
    rng = np.random.default_rng(3)
    for n in (2, 7, 50):
        labels = np.array([0, 1] + list(rng.integers(0, 2, n - 2)))
        scores = np.round(rng.random(n), 1)
        pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a in scores[labels == 1] for b in scores[labels == 0]]
        assert abs(measures.auc(labels, scores) - np.mean(pairs)) < 1e-12


def test_one_class_has_no_auc_and_no_interval():
    assert measures.auc([1, 1, 1], [0.1, 0.2, 0.3]) is None
    assert measures.interval([0, 0], [0.1, 0.2]) is None


def test_the_interval_holds_the_value_and_narrows_with_more_patients():
    rng = np.random.default_rng(5)

    def width(n):
        labels = rng.integers(0, 2, n)
        scores = labels + rng.normal(0, 1.5, n)
        low, high = measures.interval(labels, scores, draws=300)
        assert low <= measures.auc(labels, scores) <= high
        return high - low

    assert width(2000) < width(80)


def test_a_summary_counts_only_what_is_defined():
    s = measures.summary([0.5, None, 0.7])
    assert s["defined"] == 2 and s["of"] == 3 and abs(s["mean"] - 0.6) < 1e-12
    assert measures.summary([None])["mean"] is None
