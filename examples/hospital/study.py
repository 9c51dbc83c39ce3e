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
import datetime
import json
import pathlib
import shutil
import string

from cluster import Process, Tools, free_port
from data import COLUMNS, HOSPITALS, Cohort

TEMPLATES = pathlib.Path(__file__).resolve().parent / "templates"
PURPOSE = "Cardiac risk, data use agreement 2026-114"
MODEL_OWNER, COMPUTE_OWNER, SUBMITTER = "heartlab", "cloudco", "researcher"
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


ALGORITHM_SETTINGS = {
    "fedavg": "",
    "fedprox": "mu = { from = 0.0, to = 1.0, otherwise = 0.01 }",
    "fedadam": "server_learning_rate = { from = 0.001, to = 1.0, otherwise = 0.1 }\nbeta1 = 0.9\nbeta2 = 0.99\ntau = 0.001",
}


def fill(template: str, **values) -> str:
    return string.Template((TEMPLATES / template).read_text()).substitute({k: str(v) for k, v in values.items()})


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


class Study:
    """Builds the folders with the same commands that people use, and knows each process's command line."""

    def __init__(self, folder: pathlib.Path, tools: Tools, cohort: Cohort, options: Options | None = None):
        self.folder, self.tools, self.cohort = folder, tools, cohort
        self.options = options or Options()
        self.charter = folder / "charter.bin"
        self.ports: dict[str, int] = {}

    def owner(self, name: str) -> pathlib.Path:
        return self.folder / name

    # --- Building ----------------------------------------------------------------------------------------------------

    def build(self) -> "Study":
        if self.folder.exists():
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True)
        self.ports = {name: free_port() for name in ("aggregator", "coordinator", "launcher")}
        self._keys()
        self._binaries_and_platforms()
        self._policies()
        self._manifest()
        self._found()
        self._configurations()
        return self

    def _keys(self) -> None:
        wanted = {MODEL_OWNER: ["cto", "tls", "order"], COMPUTE_OWNER: ["operations", "tls", "grant"], SUBMITTER: ["submitter"]}
        wanted |= {o: ["dpo", "it", "tls", "witness"] for o in OWNERS}
        for owner, names in wanted.items():
            self.owner(owner).mkdir()
            for name in names:
                self.new_key(owner, name)

    def new_key(self, owner: str, name: str) -> None:
        self.tools.run("cloister", "keygen", name, "--out", self.owner(owner) / "keys")

    def key(self, owner: str, name: str) -> pathlib.Path:
        return self.owner(owner) / "keys" / f"{name}.key"

    def public(self, owner: str, name: str) -> str:
        return (self.owner(owner) / "keys" / f"{name}.pub").read_text().strip()

    def _binaries_and_platforms(self) -> None:
        store = self.owner(COMPUTE_OWNER) / "aggregators"
        store.mkdir()
        self.aggregator = store / "cloister-aggregator"
        shutil.copy2(self.tools.path("cloister-aggregator"), self.aggregator)
        self.measurement = self._measure(self.aggregator)
        self.patched = self.folder / "cloister-aggregator.patched"
        self.patched_at = patch_one_byte(self.aggregator, self.patched)
        self.patched_measurement = self._measure(self.patched)
        self.platform = self._platform(COMPUTE_OWNER)
        self.platforms = {o: self._platform(o) for o in self.options.attested}
        self.trainer = self.tools.run("cloister-trainer", "digest").stdout.split()[0]
        self.node_measurement = self._measure(pathlib.Path(self.tools.path("cloister")), "participant", "guest")

    def swap_aggregator(self) -> None:
        """What the cloud's root can do: another file under the name that the launcher measured when it started."""
        self.patched.replace(self.aggregator)

    def _measure(self, binary: pathlib.Path, *arguments: str) -> str:
        return self.tools.json("measure", binary, "--", *arguments)["measurement"]

    def _platform(self, owner: str) -> str:
        folder = self.owner(owner) / "platform"
        return self.tools.json("launcher", "identity", "--platform", folder)["identity"]

    def _policies(self) -> None:
        now = datetime.datetime.now(datetime.timezone.utc).date()
        dates = {"valid_from": now - datetime.timedelta(days=1), "valid_until": now + datetime.timedelta(days=365)}
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

    def policy(self, owner: str) -> pathlib.Path:
        return self.owner(owner) / f"{owner}.policy.toml"

    def _write_policy(self, owner: str, text: str) -> None:
        self.policy(owner).write_text(text)
        self.tools.run("cloister", "policy", "check", self.policy(owner))

    def _parties(self) -> str:
        parts = []

        def party(role: str, owner: str, at_least: int, signers: list[str], lines: dict[str, str]) -> None:
            keys = ", ".join(f'{s} = "{self.public(owner, s)}"' for s in signers)
            parts.append(f'\n[[party]]\nrole = "{role}"\nowner = "{owner}"\nsigners = {{ at_least = {at_least}, keys = {{ {keys} }} }}\n'
                         + "".join(f"{k} = {v}\n" for k, v in lines.items()))

        def pub(owner: str, name: str) -> str:
            return f'"{self.public(owner, name)}"'

        here = '"127.0.0.1"'
        party("model", MODEL_OWNER, 1, ["cto"], {"tls": pub(MODEL_OWNER, "tls"), "order": pub(MODEL_OWNER, "order"), "host": here,
                                                 "port": self.ports["coordinator"]})
        party("compute", COMPUTE_OWNER, 1, ["operations"], {"tls": pub(COMPUTE_OWNER, "tls"), "grant": pub(COMPUTE_OWNER, "grant"),
                                                            "host": here, "port": self.ports["launcher"]})
        for owner in OWNERS:
            party("data", owner, 2, ["dpo", "it"], {"tls": pub(owner, "tls"), "witness": pub(owner, "witness")})
        return "".join(parts)

    def _manifest(self) -> None:
        o = self.options
        values = dict(purpose=PURPOSE, runs=o.runs, aggregator_port=self.ports["aggregator"], 
                      manifest_measurement=self.patched_measurement if o.cloud_colludes else self.measurement,
                      trainer=self.trainer, algorithm=o.algorithm, algorithm_settings=ALGORITHM_SETTINGS[o.algorithm], rounds=o.rounds,
                      quorum=o.quorum, round_deadline=o.round_deadline, channel_deadline=o.channel_deadline, parties=self._parties())
        self.manifest = self.folder / "manifest.toml"
        # The initial weights belong to a schema that follows from the columns: written first, then named by digest.
        self.manifest.write_text(fill("manifest.toml", initial_model="sha256:" + "0" * 64,
                                      tensors='[[model.tensors]]\nname = "weight"\nshape = [1]\ndtype = "float32"\n', **values))
        made = self.tools.run("cloister-trainer", "init", "--manifest", self.manifest, "--out", self.owner(MODEL_OWNER) / "initial.model", "--json")
        made = json.loads(made.stdout)
        self.manifest.write_text(fill("manifest.toml", initial_model=made["digest"], tensors=made["tensors"], **values))

    def _found(self) -> None:
        draft = self.folder / "charter.draft"
        policies = [x for owner in [MODEL_OWNER, COMPUTE_OWNER, *OWNERS] for x in ("--policy", self.policy(owner))]
        until = (datetime.datetime.now(datetime.timezone.utc).date() + datetime.timedelta(days=300)).isoformat()
        self.tools.run("cloister", "charter", "draft", "--manifest", self.manifest, *policies, "--not-after", until, "--out", draft)
        signers = [(MODEL_OWNER, "cto"), (COMPUTE_OWNER, "operations"), *[(o, s) for o in OWNERS for s in ("dpo", "it")]]
        for owner, signer in signers:
            self.tools.run("cloister", "charter", "sign", draft, "--owner", owner, "--signer", signer, "--key", self.key(owner, signer))
        self.tools.run("cloister", "charter", "finalize", draft, "--out", self.charter)
        if self.options.founders_check:
            self.tools.run("cloister", "charter", "check", self.charter)

    # --- Configurations and command lines ----------------------------------------------------------------------------

    def _configurations(self) -> None:
        (self.owner(COMPUTE_OWNER) / "launcher.toml").write_text(self._launcher_toml())
        (self.owner(MODEL_OWNER) / "coordinator.toml").write_text(self._coordinator_toml())
        for h in HOSPITALS:
            shutil.copy2(self.cohort.files[h.owner], self.owner(h.owner) / "patients.csv")
            (self.owner(h.owner) / "participant.toml").write_text(self._participant_toml(h.owner))
        for owner in [MODEL_OWNER, COMPUTE_OWNER, *OWNERS, SUBMITTER]:
            shutil.copy2(self.charter, self.owner(owner) / "charter.bin")

    def _launcher_toml(self) -> str:
        return f"""charters = ["charter.bin"]
log = "launcher.log"
work = "instances"
grant_lifetime = "15m"
keys = {{ tls = "keys/tls.key", grant = "keys/grant.key" }}

[tee]
kind = "simulated"
program = "{self.tools.path('cloister-simulated-tee')}"
platform = "platform"

[[aggregator]]
program = "aggregators/cloister-aggregator"
"""

    def _coordinator_toml(self) -> str:
        return """database = "database"
log = "coordinator.log"
instance_idle = "30s"
keys = { tls = "keys/tls.key", order = "keys/order.key" }

[[study]]
charter = "charter.bin"
policy = "heartlab.policy.toml"
initial_model = "initial.model"
"""

    def _participant_toml(self, owner: str, policy: str | None = None) -> str:
        tee = '\n[tee]\nplatform = "platform"\n' if owner in self.options.attested else ""
        return f"""owner = "{owner}"
charter = "charter.bin"
policy = "{policy or owner + '.policy.toml'}"
keys = {{ tls = "keys/tls.key", witness = "keys/witness.key" }}

[data]
file = "patients.csv"

[ledger]
folder = "ledger"

[trainer]
program = "{self.tools.path('cloister-trainer')}"
isolation = "best-effort"           # what the kernel refuses is said in the log at every start
{tee}
[log]
file = "participant.log"
"""

    def add_outsider(self, owner: str, like: str) -> None:
        """A folder of a hospital that is not in the charter: the others' documents, keys of its own making."""
        self.owner(owner).mkdir()
        for name in ("tls", "witness"):
            self.new_key(owner, name)
        for name in ("charter.bin", "patients.csv"):
            shutil.copy2(self.owner(like) / name, self.owner(owner) / name)
        shutil.copy2(self.policy(like), self.owner(owner) / "own.policy.toml")
        (self.owner(owner) / "participant.toml").write_text(self._participant_toml(like, "own.policy.toml"))
