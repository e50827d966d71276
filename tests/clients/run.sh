#!/usr/bin/env bash
# run.sh: what the official clients raise for each cause, compared with docs/errors.md. Installs the clients
# once per machine. PENSTOCK names the binary; without it target/release/penstock or target/debug/penstock
# is taken. With --print the rows that the page should have are printed. Exit code 1 when one differs.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
target=${CARGO_TARGET_DIR:-$here/../../target}
penstock=${PENSTOCK:-}
for candidate in "$target/release/penstock" "$target/debug/penstock"; do
  [ -n "$penstock" ] || [ ! -x "$candidate" ] || penstock=$candidate
done
[ -x "$penstock" ] || { echo "run.sh: build penstock first, or name it in PENSTOCK" >&2; exit 1; }
venv=$(timeout --foreground -k 10 600 "$here/install.sh")
export PYTHONDONTWRITEBYTECODE=1
exec timeout --foreground -k 10 240 "$venv/bin/python" "$here/check.py" --penstock "$penstock" "$@"
