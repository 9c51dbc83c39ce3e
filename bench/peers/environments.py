"""The peers' virtual environments, under build/peers: made once, with the versions that the figures name."""

from __future__ import annotations

import importlib.metadata
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "peers"
VERSIONS = {"flwr": "1.42.0", "nvflare": "2.9.0"}


def say(text: str) -> None:
    print(f"peers: {text}", file=sys.stderr, flush=True)


def environment(peer: str) -> pathlib.Path:
    """The bin folder of the peer's environment, with exactly the version of VERSIONS installed."""
    version, folder = VERSIONS[peer], FOLDER / peer
    stamp = folder / ".complete"
    if not stamp.exists() or stamp.read_text() != version:
        say(f"installing {peer} {version} (a few hundred MB, once)")
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        if _pip(folder, "install", f"{peer}=={version}", check=False).returncode != 0:
            _install_with_loose_pins(folder, f"{peer}=={version}")
        stamp.write_text(version)
    return folder / "bin"


def _pip(folder: pathlib.Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess:
    argv = [folder / "bin" / "python", "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(argv, capture_output=True, text=True)
    if check and done.returncode != 0:
        raise SystemExit(f"pip {' '.join(arguments)}:\n{done.stderr[-2000:]}")
    return done


def _install_with_loose_pins(folder: pathlib.Path, package: str) -> None:
    """A declared version that the index does not have (Flower 1.42's certifi) is the one thing left open.

    Installed with --no-deps, then each declared requirement by itself: as declared where it can be met, by its bare name where not.
    """
    _pip(folder, "install", "--no-deps", package)
    site = next((folder / "lib").glob("python*/site-packages"))
    name = package.split("==")[0]
    found = next(d for d in importlib.metadata.distributions(path=[str(site)]) if d.metadata["Name"] == name)
    wanted = [r.split(";")[0].strip() for r in found.requires or [] if "extra ==" not in r]
    loose = [r for r in wanted if _pip(folder, "install", "--dry-run", "--no-deps", r, check=False).returncode != 0]
    for r in loose:
        say(f"{package} declares {r}, which the index cannot give: taking the newest it has")
    bare = [re.split("[=<>~!\\[]", r)[0] for r in loose]
    _pip(folder, "install", *[r for r in wanted if r not in loose], *bare)
