#!/usr/bin/env bash
# Installs the official OpenAI and Anthropic clients into a virtual environment outside the clone, once per
# machine, at the versions that tests/real pins, and prints the environment's path.
# The marker file is written last: an environment without it is thrown away and made anew.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
pins=$here/../real/constraints.txt
cache=${PENSTOCK_CACHE:-$HOME/.cache/penstock}
venv=$cache/clients
wanted=$(cat "$pins" "$here/install.sh" | sha256sum | cut -d' ' -f1)

mkdir -p "$cache"
exec 9>"$cache/clients.lock"
flock -w 600 9
if [ ! -f "$venv/installed" ] || [ "$(cat "$venv/installed")" != "$wanted" ]; then
  echo "install.sh: installing the official clients into $venv" >&2
  rm -rf "$venv"
  python3 -m venv "$venv"
  "$venv/bin/pip" install -q --disable-pip-version-check -c "$pins" openai anthropic >&2
  echo "$wanted" >"$venv/installed"
fi
echo "$venv"
