# Sourced by scripts/demo and scripts/test: brings this machine to where the build can start. Every step is skipped when
# nothing changed, and says what it does when it does something.

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build="$root/build/release"
venv="$root/.venv"

# Debian 12's names. What each is for: docs/decisions.md, "Libraries".
packages=(build-essential cmake ninja-build ccache git ca-certificates pkg-config
  libboost1.81-dev libssl-dev libprotobuf-dev protobuf-compiler libfmt-dev libtomlplusplus-dev libcli11-dev nlohmann-json3-dev
  libsoci-dev libsqlite3-dev libseccomp-dev libgtest-dev libgmock-dev
  python3 python3-venv procps)

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
die() { printf '%s\n' "$*" >&2; exit 1; }

setup_packages() {
  local missing=() p
  if ! command -v dpkg-query >/dev/null; then
    say "This is no Debian: it is up to you that the equivalents of these are installed: ${packages[*]}"
    return
  fi
  for p in "${packages[@]}"; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || missing+=("$p")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  local as=()
  if [ "$(id -u)" -ne 0 ]; then
    if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
      as=(sudo)
    else
      die "These Debian packages are missing, and neither root nor sudo is at hand. Run this line as root, then start again:
  apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
    fi
  fi
  say "Installing ${#missing[@]} Debian packages: ${missing[*]}"
  "${as[@]}" apt-get update -qq >&2 || say "apt-get update failed; going on with the package lists that are here"
  "${as[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >"${TMPDIR:-/tmp}/cloister-apt.$$" 2>&1 ||
    { tail -n 20 "${TMPDIR:-/tmp}/cloister-apt.$$" >&2; die "apt-get could not install them (above)."; }
  rm -f "${TMPDIR:-/tmp}/cloister-apt.$$"
}

# The pinned torch wheel gives libtorch to the trainer; Matplotlib draws the demo's picture; pytest runs the end-to-end tests.
setup_python() {
  local wanted stamp="$venv/.requirements"
  wanted=$(cat "$root/scripts/lib/requirements.txt")
  if [ -x "$venv/bin/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then return; fi
  local python=/usr/bin/python3
  [ -x "$python" ] || python=python3
  say "Making the virtual environment .venv with $(tr '\n' ' ' <"$root/scripts/lib/requirements.txt")(a few hundred MB, once)"
  rm -rf "$venv"
  "$python" -m venv "$venv"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$root/scripts/lib/requirements.txt" >&2 ||
    die "pip could not install them (above). Is a package index reachable? PIP_INDEX_URL, PIP_FIND_LINKS and a proxy work as usual."
  printf '%s' "$wanted" >"$stamp"
}

# configure PRESET [OPTION...]
configure() {
  local preset=$1
  shift
  if [ ! -f "$root/build/$preset/build.ninja" ]; then say "Configuring build/$preset"; fi
  local log="$root/build/$preset.configure.log"
  mkdir -p "$root/build"
  (cd "$root" && cmake --preset "$preset" "$@" >"$log" 2>&1) || { tail -n 30 "$log" >&2; die "CMake could not configure build/$preset (above)."; }
}

# compile PRESET [TARGET...]: quiet when there is nothing to do, a counter that moves when there is.
compile() {
  local preset=$1
  shift
  local targets=()
  [ $# -eq 0 ] || targets=(--target "$@")
  local jobs
  jobs=$(nproc)
  say "Building build/$preset with $jobs jobs"
  (cd "$root" && NINJA_STATUS='[%f/%t, %es] ' cmake --build "build/$preset" -j "$jobs" "${targets[@]}" >&2) || die "The build failed (above)."
}

setup() {
  setup_packages
  setup_python
  # Two clones of one state share their objects: paths in the cache are relative to the clone.
  if command -v ccache >/dev/null; then export CMAKE_CXX_COMPILER_LAUNCHER=ccache CCACHE_BASEDIR="$root" CCACHE_NOHASHDIR=1; fi
}
