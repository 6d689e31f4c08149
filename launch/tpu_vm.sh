#!/usr/bin/env bash
# Trains on the chips of one Cloud TPU VM: launch/tpu_vm.sh --config=voc ...
#
# Needs: pip install -e '.[tpu,gcs]'
#
# A spot VM gets SIGTERM half a minute before it goes: the state is saved, and the program
# ends with exit code 75. On the next VM the same command with the same --workdir in a
# bucket goes on.
set -euo pipefail
cd "$(dirname "$0")/.."

# Without a TPU this stops at once instead of training on the CPU.
export JAX_PLATFORMS="${JAX_PLATFORMS:-tpu,cpu}"

# --config.model.dtype=bfloat16 halves the memory that features take and move.
exec python -m refinenet_jax.main "$@"
