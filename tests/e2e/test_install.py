"""`cmake --install` gives a tree that works by itself, and scripts give what they promise from any folder."""

import os
import pathlib
import re
import subprocess

import pytest

BIN = pathlib.Path(os.environ.get("CLOISTER_BIN", pathlib.Path(__file__).resolve().parents[2] / "build" / "release" / "bin"))


@pytest.fixture(scope="module")
def prefix(tmp_path_factory):
    to = tmp_path_factory.mktemp("an installed tree")
    done = subprocess.run(["cmake", "--install", str(BIN.parent), "--prefix", str(to)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return to


def run(prefix, *argv):
    return subprocess.run([str(prefix / "bin" / argv[0]), *argv[1:]], capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"}, cwd=prefix)


def test_every_program_starts_from_the_installed_tree(prefix):
    assert re.match(r"cloister \d+\.\d+\.\d+", run(prefix, "cloister", "--version").stdout)
    for program in ("cloister-aggregator", "cloister-simulated-tee"):
        assert (prefix / "bin" / program).is_file()
    assert "measure" in run(prefix, "cloister", "--help").stdout
    assert len(run(prefix, "cloister", "measure", str(prefix / "bin" / "cloister-aggregator")).stdout.split()[0]) >= 96


@pytest.mark.skipif(not (BIN / "cloister-trainer").exists(), reason="built without the trainer (CLOISTER_TORCH=OFF)")
def test_the_installed_trainer_finds_its_libraries(prefix):
    done = run(prefix, "cloister-trainer", "digest")
    assert done.returncode == 0 and done.stdout.startswith("sha256:"), done.stderr
    built = subprocess.run([str(BIN / "cloister-trainer"), "digest"], capture_output=True, text=True)
    assert done.stdout == built.stdout  # charters name it by digest: installing changes no byte


def test_the_aggregator_alone_says_that_a_tee_must_start_it(prefix):
    done = run(prefix, "cloister-aggregator")
    assert done.returncode == 2


def test_wrong_use_has_its_own_exit_code(prefix):
    assert run(prefix, "cloister", "charter", "chek").returncode == 2
    assert run(prefix, "cloister").returncode == 2
