#!/usr/bin/env bash
# Trains on all hosts of a TPU slice, from any machine that has gcloud:
#
#   GROUP=NAME ZONE=ZONE launch/tpu_pod.sh --config=voc --workdir=gs://BUCKET/voc ...
#
# GROUP is the managed instance group of Compute Engine that holds the slice. For a slice
# made the older way, with `gcloud compute tpus tpu-vm create`, say TPU=NAME instead.
#
# Each host needs this folder at FOLDER (default: refinenet_jax in the home folder), with
# pip install -e '.[tpu,gcs]' in an environment that a login finds. The hosts find each
# other: JAX asks the metadata of the slice.
#
# When hosts are taken away or one of them ends with 75, all are started again, as soon as
# the group is whole. Ctrl-C or SIGTERM end the program on all hosts with its state saved;
# the same command goes on.
set -euo pipefail

: "${ZONE:?the zone of the slice is missing: ZONE=us-east5-a}"
GROUP="${GROUP:-}"
TPU="${TPU:-}"
if [ -z "$GROUP$TPU" ] || { [ -n "$GROUP" ] && [ -n "$TPU" ]; }; then
  echo "error: give either GROUP=NAME (an instance group) or TPU=NAME" >&2
  exit 2
fi
PAUSE="${PAUSE:-30}" # seconds between two starts
command="cd $(printf %q "${FOLDER:-refinenet_jax}") && launch/tpu_vm.sh$(printf ' %q' "$@")"

hosts() { # prints a name for each host of the slice
  gcloud compute instance-groups managed list-instances "$GROUP" --zone="$ZONE" \
    --format='value(instance.basename())'
}

everywhere() { # COMMAND: runs it on all hosts at once; prints the exit codes
  local host
  local -a ours=()
  if [ -n "$TPU" ]; then
    gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all \
      --command="$1" >&2 &
    ours+=($!)
  else
    for host in $(hosts); do
      gcloud compute ssh "$host" --zone="$ZONE" --command="$1" >&2 &
      ours+=($!)
    done
  fi
  for process in "${ours[@]}"; do
    local code=0
    wait "$process" || code=$?
    echo "$code"
  done
}

stop() {
  trap '' INT TERM
  echo "ending the program on all hosts" >&2
  everywhere 'pkill -TERM -f refinenet_jax.main' >/dev/null
  exit 75
}
trap stop INT TERM

while true; do
  if [ -n "$GROUP" ]; then
    gcloud compute instance-groups managed wait-until "$GROUP" --zone="$ZONE" --stable >&2
  fi
  # In the background, so that a signal is heard at once.
  codes=$(mktemp)
  everywhere "$command" >"$codes" &
  wait $!
  ended=$(sort -u "$codes")
  rm "$codes"
  case "$ended" in
    0) exit 0 ;;
    *) # 2 and 1 are faults that come again; 75, and 255 of ssh, are not
      if grep -qx 2 <<<"$ended"; then exit 2; fi
      if grep -qx 1 <<<"$ended"; then exit 1; fi
      ;;
  esac
  echo "the hosts ended with $(tr '\n' ' ' <<<"$ended")and start again in $PAUSE s" >&2
  sleep "$PAUSE" &
  wait $!
done
