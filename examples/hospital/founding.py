"""A study's folders and its founded charter, made with the same commands that people use; what every study has, whoever its owners are.

Shared by the hospital study (study.py) and the benchmarks (bench/). One model owner, one compute owner, any number of data owners.
"""

from __future__ import annotations

import datetime
import json
import pathlib
import shutil
import string

from cluster import Tools, free_port

MODEL_OWNER, COMPUTE_OWNER, SUBMITTER = "heartlab", "cloudco", "researcher"


def fill_file(template: pathlib.Path, **values) -> str:
    return string.Template(template.read_text()).substitute({k: str(v) for k, v in values.items()})


def validity() -> dict[str, datetime.date]:
    """From yesterday for a year: what the templates of the policies ask for."""
    now = datetime.datetime.now(datetime.timezone.utc).date()
    return {"valid_from": now - datetime.timedelta(days=1), "valid_until": now + datetime.timedelta(days=365)}


class Founding:
    """Folders of all owners under `folder`; `build` fills them. A study says what its policies and its manifest are.

    signers: names of the keys with which every data owner signs; all of them must.
    trainer: the training program of the build.
    """

    signers: tuple[str, ...] = ("dpo", "it")
    trainer_program: str = "cloister-trainer"
    data_file: str = "patients.csv"
    founders_check: bool = True  # run `charter check` before anything starts

    def __init__(self, folder: pathlib.Path, tools: Tools, owners: list[str]):
        self.folder, self.tools, self.owners = folder, tools, owners
        self.charter = folder / "charter.bin"
        self.manifest = folder / "manifest.toml"
        self.ports: dict[str, int] = {}

    def owner(self, name: str) -> pathlib.Path:
        return self.folder / name

    # --- Building ----------------------------------------------------------------------------------------------------

    def build(self):
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

    def _policies(self) -> None:
        """Writes every owner's policy with `_write_policy`."""
        raise NotImplementedError

    def manifest_text(self, initial_model: str, tensors: str) -> str:
        """The manifest with this digest of the initial model and these [[model.tensors]]."""
        raise NotImplementedError

    def _keys(self) -> None:
        wanted = {MODEL_OWNER: ["cto", "tls", "order"], COMPUTE_OWNER: ["operations", "tls", "grant"], SUBMITTER: ["submitter"]}
        wanted |= {o: [*self.signers, "tls", "witness"] for o in self.owners}
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
        self.platform = self._platform(COMPUTE_OWNER)
        self.trainer = self.tools.run(self.trainer_program, "digest").stdout.split()[0]

    def _measure(self, binary: pathlib.Path, *arguments: str) -> str:
        return self.tools.json("measure", binary, "--", *arguments)["measurement"]

    def _platform(self, owner: str) -> str:
        folder = self.owner(owner) / "platform"
        return self.tools.json("launcher", "identity", "--platform", folder)["identity"]

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
        for owner in self.owners:
            party("data", owner, len(self.signers), list(self.signers), {"tls": pub(owner, "tls"), "witness": pub(owner, "witness")})
        return "".join(parts)

    def _manifest(self) -> None:
        # The initial weights belong to a schema that follows from the columns: written first, then named by digest.
        any_tensor = '[[model.tensors]]\nname = "weight"\nshape = [1]\ndtype = "float32"\n'
        self.manifest.write_text(self.manifest_text("sha256:" + "0" * 64, any_tensor))
        made = self.tools.run(self.trainer_program, "init", "--manifest", self.manifest, "--out", self.owner(MODEL_OWNER) / "initial.model", "--json")
        made = json.loads(made.stdout)
        self.manifest.write_text(self.manifest_text(made["digest"], made["tensors"]))

    def _found(self) -> None:
        draft = self.folder / "charter.draft"
        policies = [x for owner in [MODEL_OWNER, COMPUTE_OWNER, *self.owners] for x in ("--policy", self.policy(owner))]
        until = (datetime.datetime.now(datetime.timezone.utc).date() + datetime.timedelta(days=300)).isoformat()
        self.tools.run("cloister", "charter", "draft", "--manifest", self.manifest, *policies, "--not-after", until, "--out", draft)
        signers = [(MODEL_OWNER, "cto"), (COMPUTE_OWNER, "operations"), *[(o, s) for o in self.owners for s in self.signers]]
        for owner, signer in signers:
            self.tools.run("cloister", "charter", "sign", draft, "--owner", owner, "--signer", signer, "--key", self.key(owner, signer))
        self.tools.run("cloister", "charter", "finalize", draft, "--out", self.charter)
        if self.founders_check:
            self.tools.run("cloister", "charter", "check", self.charter)

    # --- Configurations ----------------------------------------------------------------------------------------------

    def _configurations(self) -> None:
        (self.owner(COMPUTE_OWNER) / "launcher.toml").write_text(self._launcher_toml())
        (self.owner(MODEL_OWNER) / "coordinator.toml").write_text(self._coordinator_toml())
        for owner in self.owners:
            (self.owner(owner) / "participant.toml").write_text(self._participant_toml(owner))
        for owner in [MODEL_OWNER, COMPUTE_OWNER, *self.owners, SUBMITTER]:
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
        tee = '\n[tee]\nplatform = "platform"\n' if self.attested(owner) else ""
        return f"""owner = "{owner}"
charter = "charter.bin"
policy = "{policy or owner + '.policy.toml'}"
keys = {{ tls = "keys/tls.key", witness = "keys/witness.key" }}

[data]
file = "{self.data_file}"

[ledger]
folder = "ledger"

[trainer]
program = "{self.tools.path(self.trainer_program)}"
isolation = "best-effort"           # what the kernel refuses is said in the log at every start
{tee}
[log]
file = "participant.log"
"""

    def attested(self, owner: str) -> bool:
        """Does this owner's node run in its own simulated TEE, with the platform in its folder?"""
        return False
