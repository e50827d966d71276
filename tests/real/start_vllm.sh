#!/usr/bin/env bash
# start_vllm.sh VENV MODELS PORT CORE ADAPTER [vllm options]: one vLLM replica on loopback, in the foreground.
# It replaces this shell (exec), so the caller's process id is the replica's. Start it in a session of its
# own: the API server has two child processes, and ending the group ends all three.
# It serves the model "tiny" and one LoRA adapter, with the prefix cache on.
set -euo pipefail

venv=$1 models=$2 port=$3 core=$4 adapter=$5
shift 5

# With PYTHONDONTWRITEBYTECODE set, every start would compile vLLM's modules anew.
unset PYTHONDONTWRITEBYTECODE
# No hub look-ups, no usage reports, inner sockets on loopback too.
export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1 VLLM_HOST_IP=127.0.0.1
# GiB of KV cache and the core that the replica's arithmetic is bound to.
export VLLM_CPU_KVCACHE_SPACE=1 VLLM_CPU_OMP_THREADS_BIND=$core

# The CPU attention takes blocks of 32 tokens and multiples. The block count is kept small (8,192 tokens)
# so that usage and eviction are real: 1 GiB would hold two million tokens of this model.
options=(
  --served-model-name tiny --host 127.0.0.1 --port "$port"
  --max-model-len 2048 --max-num-seqs 8 --enforce-eager
  --block-size 32 --num-gpu-blocks-override 256 --enable-prefix-caching
  --enable-request-id-headers
  --enable-lora --max-loras 2 --max-lora-rank 8 --lora-modules "$adapter=$models/$adapter"
)
exec "$venv/bin/vllm" serve "$models/tiny" "${options[@]}" "$@"
