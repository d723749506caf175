#!/usr/bin/env bash
# Question: is everything right on this NVIDIA GPU, and how fast is it? The tests marked gpu first, and only if all
# pass, the benchmarks: each writes JSON with its machine into RESULTS, in one to three minutes. `make gpu` runs it.
#
# Runs from the source tree and needs no registry. Variables:
#   PYTHON   the interpreter (python3)                RESULTS  where records go (benchmarks/results)
#   PARTS    some of the parts below, in any order    NAME     ends their names (gpu): chain-gpu.json
#   MINUTES  for the sweep (1)                        TUNE     minutes to tune this device first (none)
#   LAYERS   a folder with minilm.safetensors and smollm2.safetensors (weights and activations, from
#            `make models`): the sweep then measures two real layers too, a minute each
#
# Exit status: 0 all is well, 1 a part failed, 2 an unknown part, 3 no CUDA device or a Python package is missing.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PYTHONPATH="src${PYTHONPATH:+:$PYTHONPATH}"
known="tests chain linear attention backward scores fp8 sweep"
parts="${PARTS:-$known}"
python="${PYTHON:-python3}"
results="${RESULTS:-benchmarks/results}"
name="${NAME:-gpu}"
failed=""

is_asked() { [[ " $parts " == *" $1 "* ]]; }

# part NAME COMMAND...: run one part, say how long it took, remember that it failed, go on.
part() {
    local part=$1 began=$SECONDS
    shift
    printf '\n== %s\n' "$part"
    "$@" || failed+=" $part"
    printf '== %s: %d s\n' "$part" $((SECONDS - began))
}

# script NAME ARGUMENTS...: the benchmark of that name, where it is asked for; the last argument is its record.
script() {
    local script=$1
    shift
    is_asked "$script" || return 0
    part "$script" "$python" "benchmarks/$script.py" "$@" "$results/$script-$name.json"
}

sweep() {
    local narrows="$python -m narrows" file
    local conditions="--device cuda --dtype bfloat16 --mode eager,graph --cache hot,cold"
    $narrows measure $conditions --tokens 64..8192 --rank 16..4096 --minutes "${MINUTES:-1}" \
        -o "$results/bench-$name.json" || return
    [ -n "${LAYERS:-}" ] || return 0
    local attention=encoder.layer.3.attention.self up=model.layers.15.mlp.up_proj
    file=$LAYERS/minilm.safetensors
    $narrows measure $conditions --kind bilinear --heads 12 --tokens 64..4096 --rank 4..32 --minutes 1 \
        --weight "$file:$attention.query.weight" --weight-right "$file:$attention.key.weight" \
        --input "$file:$attention.query" -o "$results/minilm-query-key-$name.json" || return
    file=$LAYERS/smollm2.safetensors
    $narrows measure $conditions --kind linear --tokens 16..8192 --rank 32..256 --minutes 1 \
        --weight "$file:$up.weight" --input "$file:$up" -o "$results/smollm2-up-proj-$name.json"
}

tune() {
    "$python" -m narrows tune --minutes "$TUNE" && "$python" -m narrows tune --export "$results/tuned-$name.json"
}

for one in $parts; do
    if [[ " $known " != *" $one "* ]]; then
        echo "PARTS names $one; the parts are: $known." >&2
        exit 2
    fi
done
"$python" benchmarks/_gpu.py $(is_asked tests && echo --tests) || exit $?
mkdir -p "$results"

if is_asked tests; then
    part tests "$python" benchmarks/gpu_tests.py "$results/tests-$name.json"
    [ -z "$failed" ] || { echo "Nothing was measured: the tests come first." >&2; exit 1; }
fi
[ -z "${TUNE:-}" ] || part tune tune
script chain --minutes 2
script linear --minutes 1.2
script attention
script backward
script scores --seconds 40 --output
script fp8
if is_asked sweep; then part sweep sweep; fi

printf '\n'
if [ -n "$failed" ]; then
    echo "Failed:$failed. Records are in $results/."
    exit 1
fi
echo "All is well. Records are in $results/."
