"""A bounded soak: what grows in two hundred rounds of twenty participants that are cut and restarted all the time? (scripts/soak is the long form.)"""

import os
import pathlib
import sys

from conftest import ROOT

sys.path.insert(0, str(ROOT / "bench"))

import soak  # noqa: E402
from cluster import Tools  # noqa: E402


def test_memory_and_descriptors_stay_flat_while_connections_come_and_go():
    result = soak.cuts(Tools(pathlib.Path(os.environ["CLOISTER_BIN"])), participants=20, wanted=200, per_second=10, seed=20261123, every=0.05)
    assert result["cuts"] > 0 and result["restarts"] > 0, result
    assert set(result["roles"]) == {"aggregator", "participants"}
    assert all(role["flat"] for role in result["roles"].values()), result["roles"]


def test_what_grows_is_not_called_flat():
    steady = [{"seconds": float(i), "aggregator": {"rss": 20 << 20, "fds": 30}} for i in range(40)]
    assert soak.judge(steady)["aggregator"]["flat"]
    leaking = [s | {"aggregator": {"rss": (20 << 20) + i * (512 << 10), "fds": 30}} for i, s in enumerate(steady)]
    assert not soak.judge(leaking)["aggregator"]["flat"]
    opening = [s | {"aggregator": {"rss": 20 << 20, "fds": 30 + i}} for i, s in enumerate(steady)]
    assert not soak.judge(opening)["aggregator"]["flat"]
    # What is filled once, in the first half, is no growth.
    warming = [s | {"aggregator": {"rss": (20 << 20) + min(i, 15) * (1 << 20), "fds": 30}} for i, s in enumerate(steady)]
    assert soak.judge(warming)["aggregator"]["flat"]
