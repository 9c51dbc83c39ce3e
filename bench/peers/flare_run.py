"""NVIDIA FLARE as provisioned for a proof of concept: mTLS, a process per role, its NumPy FedAvg recipe.

Runs with FLARE's own interpreter, in a network and process namespace of its own (its server binds every interface and its daemons outlive
whoever started them): flare_run.py FOLDER PARTICIPANTS FLOATS ROUNDS SECONDS. Prints one JSON object.
"""

import datetime
import json
import os
import pathlib
import re
import shutil
import sys
import threading

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from watch import Watch  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
folder, (participants, floats, rounds, seconds) = pathlib.Path(sys.argv[1]), map(int, sys.argv[2:6])
ROLES = {"server_train": "server parent", "server.runner_process": "server job", "client_train": "client parent", "client.worker_process": "client job"}


def prepare() -> None:
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "home").mkdir(parents=True)
    os.environ.update(HOME=str(folder / "home"), NVFLARE_POC_WORKSPACE=str(folder / "poc"), PATH=f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}")
    os.chdir(folder)
    shutil.copy(HERE / "flare_client.py", folder)
    np.save(folder / "initial.npy", np.random.default_rng(0).standard_normal(floats, dtype=np.float32))


def execute() -> str:
    """Runs the job to its end; gives what failed, or nothing."""
    from nvflare.app_common.np.recipes.fedavg import NumpyFedAvgRecipe
    from nvflare.recipe import PocEnv

    failed, done = [], threading.Event()

    def go() -> None:
        try:
            recipe = NumpyFedAvgRecipe(name="identity", initial_ckpt=str(folder / "initial.npy"), min_clients=participants, num_rounds=rounds,
                                       train_script="flare_client.py")
            recipe.execute(PocEnv(num_clients=participants)).get_result(timeout=float(seconds), clean_up=False)
        except BaseException as e:  # whatever ends a recipe is this measurement's result
            failed.append(repr(e)[:400])
        done.set()

    threading.Thread(target=go, daemon=True).start()
    if not done.wait(seconds + 60):
        return f"not within {seconds} s"
    return failed[0] if failed else ""


def round_seconds() -> list[float]:
    """From the server's log: the banner of a round stands under the line with its time."""
    begun, ended, at = {}, None, None
    for log in folder.glob("poc/**/log.txt"):
        if "/site-" in str(log):
            continue
        for line in log.read_text(errors="replace").splitlines():
            if m := re.match(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),(\d{3})", line):
                at = datetime.datetime.strptime(m[1], "%Y-%m-%d %H:%M:%S").timestamp() + int(m[2]) / 1000
            if m := re.search(r"Round (\d+) started", line):
                begun.setdefault(int(m[1]), at)
            if "Finished FedAvg" in line:
                ended = ended or at
    marks = [begun[n] for n in sorted(begun)] + ([ended] if ended else [])
    return [b - a for a, b in zip(marks, marks[1:])]


def contributions() -> str:
    """What is wrong with the final model, or nothing: every round adds the mean of 1..participants."""
    for path in folder.glob("poc/**/server.npy"):
        found, first = (float(np.load(p, mmap_mode="r")[0]) for p in (path, folder / "initial.npy"))
        wanted = first + rounds * (participants + 1) / 2
        return "" if abs(found - wanted) < 1e-2 * max(1, abs(wanted)) else f"wanted {wanted} as first weight, found {found}"
    return "no final model was found"


prepare()
watch = Watch(lambda command: next((role for key, role in ROLES.items() if key in command), None), lambda: [1])
failed = execute()
peak = watch.stop()
times = round_seconds()
if len(times) == rounds:
    failed = failed or contributions()
else:
    failed = failed or f"{len(times)} of {rounds} rounds"
print(json.dumps({"failed": failed, "seconds": times, "peak": peak}), flush=True)
os._exit(0)  # its threads and daemons end with the namespace
