#!/usr/bin/env bash
# Trains on all GPUs of this machine: launch/local_gpu.sh --config=configs/voc.py ...
#
# Needs: pip install -e '.[cuda]'
set -euo pipefail
cd "$(dirname "$0")/.."

# A later start finds the compiled programs again.
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$HOME/.cache/refinenet_jax}"
# Without a GPU this stops at once instead of training on the CPU.
export JAX_PLATFORMS="${JAX_PLATFORMS:-cuda}"

exec python -m refinenet_jax.main "$@"
