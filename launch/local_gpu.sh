#!/usr/bin/env bash
# Trains on all GPUs of this machine: launch/local_gpu.sh --config=voc ...
#
# Needs: pip install -e '.[cuda]'
#
# SIGTERM or Ctrl-C end it with exit code 75 once the state is saved. The same command
# goes on; so does a cron job or a systemd unit with Restart=on-failure and
# RestartPreventExitStatus=2.
set -euo pipefail
cd "$(dirname "$0")/.."

# Without a GPU this stops at once instead of training on the CPU.
export JAX_PLATFORMS="${JAX_PLATFORMS:-cuda}"

exec python -m refinenet_jax.main "$@"
