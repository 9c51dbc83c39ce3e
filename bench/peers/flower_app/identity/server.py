"""FedAvg as Flower has it, with a clock: writes seconds per round and the first weight of the final model."""

import json
import pathlib
import time

import numpy as np
from flwr.app import Array, ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()
TENSORS = 16  # of about equal length; a single huge tensor is how the largest case is sent


class Timed(FedAvg):
    """Notes when each round begins and the first weight of each aggregate."""

    def __init__(self, **options):
        super().__init__(**options)
        self.begun, self.first = [], None

    def configure_train(self, *arguments, **named):
        self.begun.append(time.monotonic())
        return super().configure_train(*arguments, **named)

    def aggregate_train(self, *arguments, **named):
        arrays, metrics = super().aggregate_train(*arguments, **named)
        if arrays is not None:
            self.first = float(next(iter(arrays.values())).numpy()[0])
        return arrays, metrics


@app.main()
def main(grid: Grid, context: Context) -> None:
    c = context.run_config
    participants, floats, rounds = int(c["participants"]), int(c["floats"]), int(c["num-server-rounds"])
    tensors = 1 if floats > 100_000_000 else TENSORS
    sizes = [floats // tensors + (i < floats % tensors) for i in range(tensors)]
    random = np.random.default_rng(0)
    initial = ArrayRecord({f"t{i}": Array(random.standard_normal(n, dtype=np.float32)) for i, n in enumerate(sizes)})
    wanted = float(next(iter(initial.values())).numpy()[0]) + rounds * (participants + 1) / 2
    strategy = Timed(fraction_train=1.0, fraction_evaluate=0.0, min_train_nodes=participants, min_available_nodes=participants)
    strategy.start(grid=grid, initial_arrays=initial, num_rounds=rounds)
    marks = [*strategy.begun, time.monotonic()]
    found = {"seconds": [b - a for a, b in zip(marks, marks[1:])], "first": strategy.first, "wanted": wanted}
    out = pathlib.Path(str(c["out"]))
    aside = out.with_suffix(".part")
    aside.write_text(json.dumps(found))
    aside.rename(out)
