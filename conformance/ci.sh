#!/usr/bin/env bash
# The conformance stage of continuous integration: unit tests of the harness, runs that are interrupted, a
# cluster in which the base manifests of both suites become ready, both suites against Penstock, and what
# no suite looks at. `ci.sh build` builds what all that needs, and stops.
# Seven minutes once built.
# Exit code 77 when this machine cannot run it, with the reason.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/environment.sh"

cannot() {
  echo "conformance cannot run here: $*"
  exit 77
}

[ "$(uname -s)" = Linux ] || cannot 'it needs Linux'
command -v go >/dev/null || cannot 'go is missing (Go 1.21 or newer)'
[ "$(id -u)" -eq 0 ] || cannot 'making network namespaces needs root'
unshare --net --mount --pid --fork true 2>/dev/null || cannot 'new namespaces are not allowed (CAP_SYS_ADMIN is needed)'

"$here/install.sh"
[ "${1:-}" != build ] || exit 0
unshare --net ip link add probe type bridge 2>/dev/null || cannot 'no network bridge can be made (CAP_NET_ADMIN is needed)'
# Vetting would compile Kubernetes a second time; the packages under test do without it.
(cd "$here/cluster" && test -z "$(gofmt -l .)" && go test -vet=off -p 2 ./agent ./audit ./sandbox ./suite ./harness)
# Each in a cluster of its own; one that fails does not keep the others from telling more, and its logs
# are put aside before the next one takes their place.
failed=()
logs=$data/last
part() {
  "$here/run" "$@" && return
  tell "$@"
}
tell() {
  failed+=("$*")
  mkdir -p "$data/failed"
  rm -rf "$data/failed/${*: -1}"
  cp -r "$logs" "$data/failed/${*: -1}"
  echo "FAILED conformance/run $*; logs kept in $data/failed/${*: -1}"
}
# GatewayWeightedAcrossTwoInferencePools waits for chance, for minutes at times, and takes nobody's core for
# that: its suite runs beside what tests the harness, and the other one.
CONFORMANCE_LOGS=$data/gie "$here/run" run gie >"$data/gie.out" 2>&1 &
gie=$!
part interrupt
part ci
part run gateway
code=0
wait "$gie" || code=$?
cat "$data/gie.out"
[ "$code" -eq 0 ] || logs=$data/gie tell run gie
part trials
[ "${#failed[@]}" -eq 0 ] || { printf 'FAILED: conformance/run %s\n' "${failed[@]}"; exit 1; }
