"""Rules of the house that no compiler checks: includes go one way, files stay readable, nothing names a machine.

Prints every breach as file:line: what, and exits 1 when there is one. Run by scripts/format and by ctest (tests/house).
"""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]

# What a folder may include besides itself (CONTRIBUTING.md: base <- attest <- protocols, base <- aggregation, then the programs).
LOW = {"base"}
MAY_INCLUDE = {
    "base": LOW,
    "attest": LOW,
    "aggregation": LOW,
    "protocols": LOW | {"attest"},
    "aggregation/enclave": LOW | {"attest", "protocols", "aggregation"},
    "launcher": LOW | {"attest", "protocols", "aggregation"},
    "coordinator": LOW | {"attest", "protocols", "aggregation"},
    "participant": LOW | {"attest", "protocols", "aggregation", "participant/data"},
    "participant/data": LOW | {"attest", "aggregation"},
    "participant/trainer": LOW | {"attest", "aggregation", "participant/data"},
    "cli": LOW | {"attest", "protocols", "aggregation", "launcher", "coordinator", "participant", "participant/data"},
}
FOLDERS = sorted(MAY_INCLUDE, key=len, reverse=True)


def module_of(path: str) -> str | None:
    return next((f for f in FOLDERS if path.startswith(f + "/")), None)


def breaches(path: str, text: str):
    lines = text.splitlines()
    module = module_of(path)
    for n, line in enumerate(lines, 1):
        if m := re.match(r'\s*#include "([^"]+)"', line):
            to = module_of(m[1])
            if module and to and to != module and to not in MAY_INCLUDE[module]:
                yield n, f"{module}/ may not include {to}/ ({m[1]})"
        if re.search(r"\b(TODO|FIXME|XXX)\b", line):
            yield n, "an unfinished thing: finish it or say it in docs"
        if len(line) > 160 and not path.startswith("tests/"):  # a table of cases may be wide
            yield n, f"a line of {len(line)} characters"
        if path.endswith((".cpp", ".hpp", ".py")) and re.search(r"sleep_for|time\.sleep\(|[^a-z_]usleep\(", line):
            yield n, "waits by sleeping: wait for an event with a deadline"
        if re.search(r"co_await [^;]*\([^;]*( \? |[(,] *\{[^}])", line):
            yield n, "a conditional or a braced temporary inside co_await: GCC 12 destroys it twice; name it first"
    if len(lines) > 650 and path.endswith((".cpp", ".hpp", ".py")):
        yield len(lines), f"{len(lines)} lines: does it still have one reason to exist?"


def main() -> int:
    names = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "*.cpp", "*.hpp", "*.py"], cwd=ROOT, check=True,
                           capture_output=True, text=True).stdout.split("\n")
    bad = 0
    for name in filter(None, names):
        if not (ROOT / name).exists() or name == "scripts/lib/lint.py":
            continue
        for line, what in breaches(name, (ROOT / name).read_text()):
            print(f"{name}:{line}: {what}")
            bad += 1
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
