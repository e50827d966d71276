# The contributor's menu. Each recipe is one command that also works without just.

# List the recipes
default:
    @just --list

# Compile everything, tests and tools included
check:
    cargo check --workspace --all-targets

# Run the tests, of one crate if named
test crate="":
    cargo test {{ if crate == "" { "--workspace" } else { "-p " + crate } }}

# What a reviewer's machine says: clippy without a warning, formatting
lint:
    cargo clippy --workspace --all-targets -- -D warnings
    cargo fmt --all --check

# Format the code
fmt:
    cargo fmt --all

# Build the API documentation
docs:
    cargo doc --workspace --no-deps

# Penstock, the bare floor and its peers in one run: CPU, memory, instructions
floor:
    cargo build --release -p penstock
    cargo run --profile floor -q -p bench -- run --penstock target/release/penstock

# The same with options, for example: just bench --only 1k,paced --pairs 20
bench *ARGS:
    cargo build --release -p penstock
    cargo run --profile floor -q -p bench -- run --penstock target/release/penstock {{ ARGS }}

# The tests of the simulator
sim:
    cargo test -p sim

# The real binary end to end
e2e:
    cargo test -p penstock

# A hostile mix for SECONDS: memory must not grow, nothing may be left behind
soak SECONDS="600":
    PENSTOCK_SOAK_SECONDS={{ SECONDS }} cargo test --release -p penstock --test it soak:: -- --nocapture

# HTTP/2 as strict as h2spec (needs it: go install github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible)
h2spec:
    cargo build -p penstock
    conformance/h2spec.sh target/debug/penstock

# Against real model servers
real:
    tests/real/run.sh

# What the official clients raise for each cause, compared with docs/errors.md
clients *ARGS:
    tests/clients/run.sh {{ ARGS }}

# All drills of docs/promises.md in full, or of the modules named: what was measured beside what is promised
promises *MODULES:
    bench/promises.py {{ MODULES }}

# Fuzz one target (needs cargo-fuzz and a nightly toolchain)
fuzz TARGET *ARGS:
    cargo +nightly fuzz run {{ TARGET }} {{ ARGS }}

# Keep a Kubernetes cluster running, without containers, until Ctrl-C
cluster *ARGS:
    conformance/run up {{ ARGS }}

# kubectl in the cluster that `just cluster` keeps
kubectl *ARGS:
    conformance/run kubectl {{ ARGS }}

# Any command in that cluster's network, for example: just in-cluster curl http://10.240.0.10
in-cluster *ARGS:
    conformance/run inside {{ ARGS }}

# Upstream conformance suites: just conformance [gie|gateway] [--test NAME] [--peer envoy-gateway]; one test
# runs in the cluster that `just cluster` keeps, if there is one
conformance *ARGS:
    conformance/run run {{ ARGS }}

# What no suite tests: upstream's guides, outages under load, the documentation: just trials [--test NAME] [--long]
trials *ARGS:
    conformance/run trials {{ ARGS }}

# How fast many routes are served, and what they cost
scale:
    conformance/run scale

# What continuous integration runs
ci:
    .ci/run
