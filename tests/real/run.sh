#!/usr/bin/env bash
# run.sh [check.py options]: the whole real-server run, from nothing to a verdict.
# Installs vLLM and the official clients once per machine, makes the tiny model, starts two replicas and
# `penstock run` in front of them, runs check.py, and ends every process that it started, whatever happens.
# PENSTOCK names the binary; without it target/release/penstock or target/debug/penstock is taken.
# Exit code 1 when a check failed.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${PENSTOCK_CACHE:-$HOME/.cache/penstock}
target=${CARGO_TARGET_DIR:-$here/../../target}

find_penstock() {
  local candidate
  for candidate in ${PENSTOCK:+"$PENSTOCK"} "$target/release/penstock" "$target/debug/penstock"; do
    if [ -x "$candidate" ]; then
      realpath "$candidate"
      return
    fi
  done
  echo "run.sh: no penstock binary; build it (cargo build --release) or name it in PENSTOCK" >&2
  return 1
}

# check.py ends its processes itself; this is for the case that it died first. A group's number may have
# been given to another process since: only groups that still run vLLM or penstock are ended.
end_groups() {
  local group
  [ -f "$logs/groups" ] || return 0
  while read -r group; do
    if pgrep -ig "$group" 'vllm|penstock' >/dev/null; then
      kill -KILL -- "-$group" 2>/dev/null || true
    fi
  done <"$logs/groups"
}

penstock=$(find_penstock)
logs=${PENSTOCK_REAL_LOGS:-$(mktemp -d "${TMPDIR:-/tmp}/penstock-real.XXXXXX")}
mkdir -p "$logs"
: >"$logs/groups"
trap end_groups EXIT
trap 'exit 1' INT TERM HUP
echo "real-server run of $penstock, logs in $logs"

# -k: what ignores SIGTERM is killed a little later. --foreground: no process group of its own, so that a
# caller's timeout reaches what runs here too.
venv=$(timeout --foreground -k 10 2400 "$here/install.sh")
models=$cache/tiny-model-1
if [ ! -d "$models" ]; then
  timeout --foreground -k 10 300 "$venv/bin/python" "$here/make_tiny_model.py" "$models" >"$logs/model.log" 2>&1 ||
    { tail -5 "$logs/model.log" >&2; exit 1; }
fi
export PYTHONDONTWRITEBYTECODE=1
timeout --foreground -k 30 1500 "$venv/bin/python" "$here/check.py" \
  --venv "$venv" --models "$models" --logs "$logs" --penstock "$penstock" "$@"
