# Where the harness keeps what it builds: outside the clone, so that the next one finds it. Sourced by
# the scripts beside it.
cache=${PENSTOCK_CACHE:-$HOME/.cache/penstock}
data=$cache/conformance
bin=$data/bin
# One set of build settings for all that is built or checked here: others would compile it all anew.
export GOCACHE=${PENSTOCK_GOCACHE:-$cache/go-build} CGO_ENABLED=0 GOFLAGS=-trimpath
export PATH=$PATH:/usr/local/go/bin:/usr/sbin:/sbin
