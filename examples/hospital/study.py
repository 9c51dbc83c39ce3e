"""The hospital study's folders: every owner's own, with its keys, policy, configuration, data and log; and the founded charter.

    out/study/
      heartlab/    the model provider: coordinator.toml, policy, keys, initial model, database
      cloudco/     the cloud: launcher.toml, policy, keys, the simulated platform, the aggregator binary
      cleveland/ budapest/ zurich/ long-beach/   a hospital each: participant.toml, policy, keys, ledger, data
      researcher/  who submits runs

A refusal story changes one thing (`Options`) and builds the same study.
"""

from __future__ import annotations

import dataclasses
import pathlib
import shutil

from cluster import Tools
from data import COLUMNS, HOSPITALS, Cohort
from founding import COMPUTE_OWNER, MODEL_OWNER, SUBMITTER, Founding, fill_file, validity

TEMPLATES = pathlib.Path(__file__).resolve().parent / "templates"
PURPOSE = "Cardiac risk, data use agreement 2026-114"
OWNERS = [h.owner for h in HOSPITALS]


@dataclasses.dataclass
class Options:
    """What a story changes. The defaults are the demo's main study."""

    rounds: int = 20
    runs: int = 40
    algorithm: str = "fedavg"
    quorum: int = 4
    round_deadline: str = "60s"
    channel_deadline: str = "15s"
    attested: tuple[str, ...] = ()             # hospitals whose node and trainer run in their own simulated TEE
    demand_attested: bool = False              # the model owner's [participants]
    cloud_colludes: bool = False               # cloud and model owner name the patched aggregator, in manifest and policies
    rounds_at_most: dict[str, int] = dataclasses.field(default_factory=dict)     # by hospital
    publish_model: dict[str, str] = dataclasses.field(default_factory=dict)      # by hospital
    founders_check: bool = True                # run `charter check` before anything starts
    trainer: str = "cloister-trainer"          # or cloister-bench-trainer, where nothing needs to be learned
    hidden: tuple[int, ...] = ()               # widths of the hidden layers of an mlp; none: logistic regression


ALGORITHM_SETTINGS = {
    "fedavg": "",
    "fedprox": "mu = { from = 0.0, to = 1.0, otherwise = 0.01 }",
    "fedadam": "server_learning_rate = { from = 0.001, to = 1.0, otherwise = 0.1 }\nbeta1 = 0.9\nbeta2 = 0.99\ntau = 0.001",
}


def fill(template: str, **values) -> str:
    return fill_file(TEMPLATES / template, **values)


def patch_one_byte(genuine: pathlib.Path, patched: pathlib.Path) -> int:
    """Copies a binary with one letter of one text changed; it runs like the genuine one. Gives the byte's offset."""
    content = bytearray(genuine.read_bytes())
    at = content.find(b"cloister-aggregator")
    if at < 0:
        raise ValueError(f"{genuine}: names itself nowhere")
    content[at] ^= 0x20  # c -> C
    patched.write_bytes(content)
    patched.chmod(0o755)
    return at


class Study(Founding):
    """Builds the folders with the same commands that people use, and knows each process's command line."""

    def __init__(self, folder: pathlib.Path, tools: Tools, cohort: Cohort, options: Options | None = None):
        super().__init__(folder, tools, OWNERS)
        self.cohort = cohort
        self.options = options or Options()
        self.trainer_program = self.options.trainer
        self.founders_check = self.options.founders_check

    def _binaries_and_platforms(self) -> None:
        super()._binaries_and_platforms()
        self.patched = self.folder / "cloister-aggregator.patched"
        self.patched_at = patch_one_byte(self.aggregator, self.patched)
        self.patched_measurement = self._measure(self.patched)
        self.platforms = {o: self._platform(o) for o in self.options.attested}
        self.node_measurement = self._measure(pathlib.Path(self.tools.path("cloister")), "participant", "guest")

    def swap_aggregator(self) -> None:
        """What the cloud's root can do: another file under the name that the launcher measured when it started."""
        self.patched.replace(self.aggregator)

    def attested(self, owner: str) -> bool:
        return owner in self.options.attested

    def _policies(self) -> None:
        dates = validity()
        o = self.options
        colluders = self.patched_measurement if o.cloud_colludes else self.measurement
        self._write_policy(COMPUTE_OWNER, fill("compute.policy.toml", platform=self.platform,
                                               measurement=colluders, **dates))
        participants = "attested = false"
        if o.demand_attested:
            participants = ('attested = true\ntee = ["simulated"]\n' f'measurement = ["{self.node_measurement}"]\n'
                            'tcb = "up-to-date"\ndebug = false\nsimulated = true')
        self._write_policy(MODEL_OWNER, fill("model.policy.toml", measurement=colluders, participants=participants, runs=o.runs,
                                             submitter_key=self.public(SUBMITTER, "submitter"), **dates))
        for h in HOSPITALS:
            own = self.platforms.get(h.owner)
            node = f'\n[node]                              # its own TEE\nplatforms = ["{own}"]' if own else ""
            text = fill("data.policy.toml", owner=h.owner, name=h.name, purpose=PURPOSE, measurement=self.measurement, trainer=self.trainer,
                        columns=", ".join(f'"{c}"' for c in COLUMNS), runs_at_most=o.runs, rounds_at_most=o.rounds_at_most.get(h.owner, 200),
                        publish_model=o.publish_model.get(h.owner, "final"), node=node, **dates)
            self._write_policy(h.owner, text)

    def manifest_text(self, initial_model: str, tensors: str) -> str:
        o = self.options
        architecture = f'"mlp"\nhidden = {list(o.hidden)}' if o.hidden else '"logistic-regression"'
        return fill("manifest.toml", initial_model=initial_model, tensors=tensors, architecture=architecture, purpose=PURPOSE, runs=o.runs,
                    aggregator_port=self.ports["aggregator"], manifest_measurement=self.patched_measurement if o.cloud_colludes else self.measurement,
                    trainer=self.trainer, algorithm=o.algorithm, algorithm_settings=ALGORITHM_SETTINGS[o.algorithm], rounds=o.rounds,
                    quorum=o.quorum, round_deadline=o.round_deadline, channel_deadline=o.channel_deadline, parties=self._parties())

    def _configurations(self) -> None:
        for h in HOSPITALS:
            shutil.copy2(self.cohort.files[h.owner], self.owner(h.owner) / self.data_file)
        super()._configurations()

    def add_outsider(self, owner: str, like: str) -> None:
        """A folder of a hospital that is not in the charter: the others' documents, keys of its own making."""
        self.owner(owner).mkdir()
        for name in ("tls", "witness"):
            self.new_key(owner, name)
        for name in ("charter.bin", "patients.csv"):
            shutil.copy2(self.owner(like) / name, self.owner(owner) / name)
        shutil.copy2(self.policy(like), self.owner(owner) / "own.policy.toml")
        (self.owner(owner) / "participant.toml").write_text(self._participant_toml(like, "own.policy.toml"))
