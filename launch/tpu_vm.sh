#!/usr/bin/env bash
# Trains on the chips of one Cloud TPU VM: launch/tpu_vm.sh --config=configs/voc.py ...
#
# Needs: pip install -e '.[tpu]'
set -euo pipefail
cd "$(dirname "$0")/.."

# A later start finds the compiled programs again.
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$HOME/.cache/refinenet_jax}"
# Without a TPU this stops at once instead of training on the CPU.
export JAX_PLATFORMS="${JAX_PLATFORMS:-tpu,cpu}"

# --config.model.dtype=bfloat16 halves the memory that features take and move.
exec python -m refinenet_jax.main "$@"
