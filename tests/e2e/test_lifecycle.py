"""What changes while a study runs: a charter's successor, a hospital's keys, the aggregator's build, a launcher that stops, a late hospital.

Real processes; the trainer learns nothing, so that a round takes as long as its messages and disks do.
"""

import datetime
import json
import os
import pathlib
import shutil
import signal

import pytest

import data
from cluster import Tools, read_events, wait_until
from federation import Federation
from founding import COMPUTE_OWNER, MODEL_OWNER, SUBMITTER
from study import OWNERS, Options, Study

BIN = pathlib.Path(os.environ.get("CLOISTER_BIN", pathlib.Path(__file__).resolve().parents[2] / "build" / "release" / "bin"))
pytestmark = pytest.mark.skipif(not (BIN / "cloister-bench-trainer").exists(), reason="built without the bench's trainer")
PARTIES = [MODEL_OWNER, COMPUTE_OWNER, *OWNERS]


def options(**changes) -> Options:
    return Options(**{"rounds": 60, "runs": 4, "round_deadline": "20s", "channel_deadline": "5s", "trainer": "cloister-bench-trainer", **changes})


@pytest.fixture
def cohort(tmp_path):
    return data.Cohort(data.draw(tmp_path / "data"), "SYNTHETIC", True)


def rounds_committed(federation: Federation, owner: str) -> int:
    """That this hospital has seen, over all runs."""
    return sum(e.get("event") == "committed" for e in read_events(federation.log(owner)))


def committed(federation: Federation, owner: str, rounds: int) -> None:
    wait_until(lambda: rounds_committed(federation, owner) >= rounds, 60, f"{owner}: {rounds} rounds are committed",
               [p for p in federation.processes.values() if p.running])


def watch(federation: Federation, run: int) -> tuple[dict, list[dict]]:
    """The run's last event, and the receipts of all its rounds."""
    events: list[dict] = []
    end = federation.watch(run, events.append, timeout=180)
    return end, [e["receipt"] for e in events if e["event"] == "committed"]


def state_of(receipt: dict, owner: str) -> str:
    return {m["owner"]: m["state"] for m in receipt["members"]}.get(owner, "contributed")


class Succession:
    """A second charter of the same study: the first one's texts with what is replaced in the manifest, signed by all and their witnesses."""

    def __init__(self, study: Study, name: str, replace: dict[str, str]):
        self.study, self.name = study, name
        self.charter = study.folder / f"{name}.charter.bin"
        text = study.manifest.read_text()
        for old, new in replace.items():
            assert old in text
            text = text.replace(old, new)
        manifest = study.folder / f"{name}.manifest.toml"
        manifest.write_text(text)
        self.draft = study.folder / f"{name}.draft"
        policies = [x for owner in PARTIES for x in ("--policy", study.policy(owner))]
        until = (datetime.datetime.now(datetime.timezone.utc).date() + datetime.timedelta(days=300)).isoformat()
        study.tools.run("cloister", "charter", "draft", "--manifest", manifest, *policies, "--previous", study.charter,
                        "--not-after", until, "--out", self.draft)

    def sign(self) -> "Succession":
        """As every owner's signers."""
        run = self.study.tools.run
        for owner, signer in [(MODEL_OWNER, "cto"), (COMPUTE_OWNER, "operations"), *[(o, s) for o in OWNERS for s in ("dpo", "it")]]:
            run("cloister", "charter", "sign", self.draft, "--owner", owner, "--signer", signer, "--key", self.study.key(owner, signer))
        return self

    def agree(self) -> "Succession":
        """As the old charter's witnesses; from here on it is founded."""
        run = self.study.tools.run
        for owner in OWNERS:
            run("cloister", "charter", "sign", self.draft, "--owner", owner, "--witness", "--key", self.study.key(owner, "witness"))
        run("cloister", "charter", "finalize", self.draft, "--out", self.charter)
        run("cloister", "charter", "check", self.charter)
        return self

    def take_up(self, federation: Federation) -> None:
        """Every owner's side of the change-over: its file, its configuration, its process. The coordinator keeps both charters."""
        study = self.study
        for owner in [*PARTIES, SUBMITTER]:
            shutil.copy2(self.charter, study.owner(owner) / "charter2.bin")
        config = study.owner(MODEL_OWNER) / "coordinator.toml"
        config.write_text(config.read_text() + '\n[[study]]\ncharter = "charter2.bin"\npolicy = "heartlab.policy.toml"\ninitial_model = "initial.model"\n')
        restart(federation, MODEL_OWNER)
        for owner in OWNERS:
            reconfigure(study, owner, '"charter.bin"', '"charter2.bin"')
            restart(federation, owner)
        study.charter = self.charter


def reconfigure(study: Study, owner: str, old: str, new: str) -> None:
    config = study.owner(owner) / "participant.toml"
    text = config.read_text()
    assert old in text
    config.write_text(text.replace(old, new))


def restart(federation: Federation, owner: str) -> None:
    process = federation.processes[owner]
    before = sum(e.get("event") == "listening" for e in read_events(process.log))
    process.process.terminate()
    process.wait(20)
    process.start()
    if owner == MODEL_OWNER:
        wait_until(lambda: sum(e.get("event") == "listening" for e in read_events(process.log)) > before, 30, f"{owner} listens again", [process])


def test_a_successor_is_signed_and_a_hospital_changes_its_keys_while_a_run_is_under_way(cohort, tmp_path):
    study = Study(tmp_path / "study", Tools(BIN), cohort, options(runs=2)).build()
    keys = study.owner("zurich") / "new keys"
    for name in ("tls", "witness"):
        study.tools.run("cloister", "keygen", name, "--out", keys)
    new = {name: (keys / f"{name}.pub").read_text().strip() for name in ("tls", "witness")}
    succession = Succession(study, "second", {study.public("zurich", name): new[name] for name in new}).sign()
    with Federation(study) as federation:
        under_way = federation.submit()
        committed(federation, "zurich", 2)
        succession.agree()
        for owner in OWNERS:
            wait_until(lambda owner=owner: any(e.get("event") == "succession" for e in read_events(federation.log(owner))), 30, f"{owner} knows")
        after = federation.submit({"rounds": 1})

        # The old key and the old charter carry the run under way to its end; a new run under it has nobody left.
        end, receipts = watch(federation, under_way)
        assert end["state"] == "done", end
        assert len(receipts) == 121 and all(state_of(receipts[-1], o) == "contributed" for o in OWNERS)
        end, receipts = watch(federation, after)
        assert end["state"] == "failed" and receipts == [], end
        assert "has succeeded; order new runs under the successor" in end["reason"], end
        refused = federation.wait_for_refusal("zurich", "charter")
        assert refused["wanted"] == "the charter in force here" and refused["found"].startswith("one that sha256:"), refused

        # Under the successor the old key is a stranger's, refused by name; the new one is admitted, to the run that is under way by then.
        succession.take_up(federation)
        before = rounds_committed(federation, "cleveland")
        run = federation.submit({"rounds": 6})
        refused = federation.wait_for_refusal("aggregator", "parties.tls_key")
        assert refused["found"] == study.public("zurich", "tls"), refused
        wait_until(lambda: "does not know this side's key" in federation.processes["zurich"].tail(20), 30, "its own command line says so")
        committed(federation, "cleveland", before + 1)  # a round goes by without it
        reconfigure(study, "zurich", '"keys/tls.key", witness = "keys/witness.key"', '"new keys/tls.key", witness = "new keys/witness.key"')
        restart(federation, "zurich")
        end, receipts = watch(federation, run)
        assert end["state"] == "done", end
        assert state_of(receipts[0], "zurich") == "absent" and state_of(receipts[-1], "zurich") == "contributed"

        # One ledger counts over both charters: two runs are spent, though each charter covers two.
        ledger = study.tools.json("participant", "ledger", "--config", study.owner("zurich") / "participant.toml")
        charged = {r["charter"] for r in ledger["runs"] if r["rounds"]}
        assert len(charged) == 2, ledger
        end, _ = watch(federation, federation.submit({"rounds": 1}))
        assert end["state"] == "failed" and "study.runs.at_most: wanted at most 2, found run 3 of this study" in end["reason"], end


class TwoBuilds(Study):
    """Every policy lists two builds of the aggregator, and the launcher has both; the manifest names the first."""

    listed_by_all = True

    def _binaries_and_platforms(self) -> None:
        super()._binaries_and_platforms()
        self.next = self.aggregator.with_name("cloister-aggregator.next")
        self.next.write_bytes(self.aggregator.read_bytes() + b"\n")  # the measurement is of the whole file
        self.next.chmod(0o755)
        self.next_measurement = self._measure(self.next)

    def _policies(self) -> None:
        first = self.measurement
        self.measurement = f'{first}", "{self.next_measurement}' if self.listed_by_all else first
        super()._policies()
        self.measurement = first

    def _launcher_toml(self) -> str:
        return super()._launcher_toml() + '\n[[aggregator]]\nprogram = "aggregators/cloister-aggregator.next"\n'


def measurements_seen(federation: Federation, owner: str) -> list[str]:
    return [e["measurement"] for e in read_events(federation.log(owner)) if e.get("event") == "connected"]


def test_a_federation_changes_over_to_another_build_of_the_aggregator(cohort, tmp_path):
    study = TwoBuilds(tmp_path / "study", Tools(BIN), cohort, options()).build()
    assert study.next_measurement != study.measurement
    with Federation(study) as federation:
        end, _ = watch(federation, federation.submit({"rounds": 2}))
        assert end["state"] == "done", end
        assert set(measurements_seen(federation, "budapest")) == {study.measurement}
        Succession(study, "upgrade", {study.measurement: study.next_measurement}).sign().agree().take_up(federation)
        end, receipts = watch(federation, federation.submit({"rounds": 2}))
        assert end["state"] == "done", end
        assert all(state_of(receipts[-1], o) == "contributed" for o in OWNERS)
        for owner in OWNERS:
            assert measurements_seen(federation, owner)[-1] == study.next_measurement


def test_a_build_that_the_policies_do_not_list_is_refused_by_every_owners_name(cohort, tmp_path):
    class OldPolicies(TwoBuilds):
        listed_by_all = False

    study = OldPolicies(tmp_path / "study", Tools(BIN), cohort, options()).build()
    succession = Succession(study, "upgrade", {study.measurement: study.next_measurement})
    checked = study.tools.json("charter", "check", succession.draft, expect=3)
    refused = [f for f in checked["decision"]["findings"] if not f["met"] and f["requirement"] == "aggregator.measurement"]
    assert {f["owner"].split()[0] for f in refused} == set(PARTIES), refused
    for f in refused:
        assert f["found"] == study.next_measurement and study.measurement in f["wanted"], f


def test_a_launcher_that_stops_lets_its_grant_run_out_and_no_new_round_begins(cohort, tmp_path):
    study = Study(tmp_path / "study", Tools(BIN), cohort, options(rounds=190, round_deadline="6s")).build()
    config = study.owner(COMPUTE_OWNER) / "launcher.toml"
    config.write_text(config.read_text().replace('"15m"', '"4s"'))
    with Federation(study) as federation:
        run = federation.submit()
        committed(federation, "cleveland", 2)
        launcher = federation.processes[COMPUTE_OWNER].process
        launcher.send_signal(signal.SIGSTOP)
        try:
            slow = federation.processes["zurich"].process  # so that the run is not over before the grant
            slow.send_signal(signal.SIGSTOP)
            wait_until(lambda: any(e.get("event") == "grant_expired" for e in read_events(federation.aggregator_log)), 30, "the grant runs out")
            slow.send_signal(signal.SIGCONT)
            end, receipts = watch(federation, run)
        finally:
            launcher.send_signal(signal.SIGCONT)
        assert end["state"] == "failed" and "the launch grant expired and was not renewed" in end["reason"], end
        offered = [e["round"] for e in read_events(federation.aggregator_log) if e.get("event") == "round_offered"]
        assert max(offered) <= len(receipts) + 1


def test_a_hospital_that_starts_in_mid_run_is_absent_before_and_contributes_from_the_next_round_on(cohort, tmp_path):
    study = Study(tmp_path / "study", Tools(BIN), cohort, options(rounds=20, round_deadline="4s")).build()
    with Federation(study) as federation:
        late = federation.processes["long-beach"]
        late.end()
        run = federation.submit()
        committed(federation, "cleveland", 1)
        late.start()
        end, receipts = watch(federation, run)
        assert end["state"] == "done", end
        states = [state_of(r, "long-beach") for r in receipts]
        assert states[0] == "absent" and states[-1] == "contributed", states
        reasons = [m["reason"] for m in receipts[0]["members"] if m["owner"] == "long-beach"]
        assert reasons and reasons[0], receipts[0]


def test_withdrawals_below_at_least_fail_the_run_with_the_reason_at_the_command_line(cohort, tmp_path):
    study = Study(tmp_path / "study", Tools(BIN), cohort, options(rounds=190)).build()
    with Federation(study) as federation:
        run = federation.submit()
        committed(federation, "cleveland", 2)
        for owner in ("zurich", "budapest"):
            study.tools.run("cloister", "participant", "withdraw", "--config", study.owner(owner) / "participant.toml", "--reason", "a new board")
        end, receipts = watch(federation, run)
        assert end["state"] == "failed", end
        assert "study.participants.at_least: wanted 3 contributors" in end["reason"], end
        assert federation.show(run)["reason"] == end["reason"]
        assert receipts and "a new board" not in json.dumps([receipts, end])
