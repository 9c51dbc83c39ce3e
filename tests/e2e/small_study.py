"""A founded study without learning, of any number of hospitals: one train task a round, an update of any size.

The trainer is `cloister-planted-trainer`, whose update is its data: the first record's numbers, over and over
(tests/support/planted_trainer.cpp). For tests that are about everything but the model.
"""

from __future__ import annotations

import dataclasses
import pathlib
import random

from cluster import Tools, read_events, wait_until
from federation import Federation
from founding import COMPUTE_OWNER, MODEL_OWNER, Founding, validity

COLUMNS = [f"v{i}" for i in range(8)]
PURPOSE = "A test of what others can read"
VALUE_BOUND, WEIGHT_AT_MOST = 16, 1000


def drawn_values(source: random.Random) -> list[float]:
    """Eight numbers with six digits each, within the study's value bound."""
    return [float(f"{source.uniform(1, 9.5) * source.choice((-1, 1)):.6f}") for _ in COLUMNS]


@dataclasses.dataclass
class Options:
    """What a test changes."""

    values: int = 1000                 # float32 of the model
    rounds: int = 1000                 # the most that a run may have
    quorum: int = 0                    # 0: all hospitals
    at_least: int = 2
    runs: int = 10
    connections: int = 32
    memory: str = "1 GiB"
    round_deadline: str = "60s"
    channel_deadline: str = "10s"
    publish_model: str = "final"
    records: int = 5                   # of each hospital: the weight of its update
    hold: dict[str, int] = dataclasses.field(default_factory=dict)    # hospital -> round in which its trainer stops itself
    proxy: dict[str, str] = dataclasses.field(default_factory=dict)   # hospital -> host:port of the proxy that it dials through


class SmallStudy(Founding):
    signers = ("dpo",)
    trainer_program = "cloister-planted-trainer"
    founders_check = False

    def __init__(self, folder: pathlib.Path, tools: Tools, owners: list[str], options: Options | None = None, seed: int | None = None):
        super().__init__(folder, tools, owners)
        self.options = options or Options()
        source = random.Random(seed)
        self.data = {o: drawn_values(source) for o in owners}

    def _policies(self) -> None:
        dates = validity()
        listed = ", ".join(f'"{o}"' for o in self.owners)
        valid = f'valid = {{ from = {dates["valid_from"]}, until = {dates["valid_until"]} }}\n'
        enclave = (f'[aggregator]\ntee = ["simulated"]\nmeasurement = ["{self.measurement}"]\ntcb = "up-to-date"\n'
                   'debug = false\nsimulated = true\nrenew = "1h"\n')
        study = (f'[study]\nparticipants = {{ at_least = {self.options.at_least}, among = [{listed}] }}\n'
                 f'runs = {{ at_most = {self.options.runs} }}\nrounds = {{ at_most = {self.options.rounds} }}\n')
        publish = f'publish = {{ model = "{self.options.publish_model}", evaluate = "never", statistics = "never" }}\n'
        self._write_policy(COMPUTE_OWNER, f'role = "compute"\nowner = "{COMPUTE_OWNER}"\nsigners = {{ at_least = 1, among = ["operations"] }}\n{valid}'
                           f'{enclave}platforms = ["{self.platform}"]\n[launch]\nmodel_owners = ["{MODEL_OWNER}"]\nconnect = [{listed}]\n'
                           f'memory = {{ at_most = "16 GiB" }}\nconnections = {{ at_most = 4096 }}\nduration = {{ at_most = "12h" }}\n')
        self._write_policy(MODEL_OWNER, f'role = "model"\nowner = "{MODEL_OWNER}"\nsigners = {{ at_least = 1, among = ["cto"] }}\n{valid}{enclave}'
                           f'[participants]\nattested = false\n[submitters]\n'
                           f'researcher = {{ key = "{self.public("researcher", "submitter")}", runs_at_most = {self.options.runs} }}\n{study}{publish}')
        columns = ", ".join(f'"{c}"' for c in [*COLUMNS, "answer"])
        for owner in self.owners:
            self._write_policy(owner, f'role = "data"\nowner = "{owner}"\nsigners = {{ at_least = 1, among = ["dpo"] }}\n{valid}purpose = "{PURPOSE}"\n'
                               f'{enclave}[data]\nset = "ward-{owner}"\ncolumns = [{columns}]\nrecords = {{ at_most = 1000 }}\n'
                               f'[tasks]\ntrain = {{ trainer = ["{self.trainer}"], algorithms = ["fedavg"] }}\n{study}{publish}[privacy]\nunit = "none"\n')

    def manifest_text(self, initial_model: str, tensors: str) -> str:
        o = self.options
        quorum = o.quorum or len(self.owners)
        columns = "".join(f'  {{ name = "{c}", kind = "number" }},\n' for c in COLUMNS)
        return f"""format = 1
study = "ward"
purpose = "{PURPOSE}"
runs = {{ at_most = {o.runs} }}
[aggregator]
host = "127.0.0.1"
port = {self.ports["aggregator"]}
measurement = "{self.measurement}"
memory = "{o.memory}"
connections = {o.connections}
duration = "4h"
[model]
architecture = "mlp"
hidden = [{o.values}]
initial = "{initial_model}"
{tensors}
[data]
columns = [
{columns}]
label = {{ column = "answer", positive = ["1"] }}
[training]
trainer = "{self.trainer}"
algorithm = "fedavg"
value_bound = {VALUE_BOUND}.0
weight_at_most = {WEIGHT_AT_MOST}
[settings]
rounds = {{ from = 1, to = {o.rounds}, otherwise = 1 }}
quorum = {{ from = {quorum}, to = {quorum}, otherwise = {quorum} }}
local_epochs = 1
batch_size = 1
learning_rate = 0.1
[publish]
model = "{o.publish_model}"
evaluate = "never"
statistics = "never"
[round]
deadline = "{o.round_deadline}"
[channel]
deadline = "{o.channel_deadline}"
{self._parties()}"""

    def _configurations(self) -> None:
        super()._configurations()
        for owner in self.owners:
            self.write_data(owner)

    def write_data(self, owner: str) -> None:
        hold = self.options.hold.get(owner)
        head = ",".join([*COLUMNS, "answer", *([f"hold_{hold}"] if hold else [])])
        row = self.row(owner) + ",1" + (",0" if hold else "")
        (self.owner(owner) / self.data_file).write_text("\n".join([head] + [row] * self.options.records) + "\n")

    def row(self, owner: str) -> str:
        """The text of each of its records: its numbers."""
        return ",".join(f"{v:.6f}" for v in self.data[owner])

    def _participant_toml(self, owner: str, policy: str | None = None) -> str:
        text = super()._participant_toml(owner, policy)
        proxy = self.options.proxy.get(owner)
        return f'proxy = "{proxy}"\n{text}' if proxy else text



def rounds_committed(federation: Federation, owner: str, run: int | None = None) -> int:
    return sum(e.get("event") == "committed" and run in (None, e.get("run")) for e in read_events(federation.log(owner)))


def wait_for_event(federation: Federation, owner: str, event: str, seconds: float, **fields) -> dict:
    """The first such event with these fields in that owner's log."""
    def look():
        return next((e for e in read_events(federation.log(owner)) if e.get("event") == event and all(e.get(k) == v for k, v in fields.items())), None)

    return wait_until(look, seconds, f"{owner} logs {event} {fields or ''}", list(federation.processes.values()))


__all__ = ["COLUMNS", "COMPUTE_OWNER", "MODEL_OWNER", "Options", "SmallStudy", "drawn_values", "rounds_committed", "wait_for_event"]
