#!/usr/bin/env bash
# The conformance stage of continuous integration: unit tests of the harness, runs that are interrupted, a
# cluster in which the base manifests of both suites become ready, both suites against Penstock, and what
# no suite looks at.
# Ten minutes once built, two of them for GatewayWeightedAcrossTwoInferencePools, which waits for chance.
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
unshare --net ip link add probe type bridge 2>/dev/null || cannot 'no network bridge can be made (CAP_NET_ADMIN is needed)'
# Vetting would compile Kubernetes a second time; the packages under test do without it.
(cd "$here/cluster" && test -z "$(gofmt -l .)" && go test -vet=off -p 2 ./agent ./audit ./sandbox ./suite ./harness)
# Each in a cluster of its own; one that fails does not keep the others from telling more, and its logs
# are put aside before the next one takes their place.
failed=()
part() {
  "$here/run" "$@" && return
  failed+=("$*")
  mkdir -p "$data/failed"
  rm -rf "$data/failed/${*: -1}"
  cp -r "$data/last" "$data/failed/${*: -1}"
  echo "FAILED conformance/run $*; logs kept in $data/failed/${*: -1}"
}
part interrupt
part ci
part run gateway
part run gie
part trials
[ "${#failed[@]}" -eq 0 ] || { printf 'FAILED: conformance/run %s\n' "${failed[@]}"; exit 1; }
