#!/usr/bin/env bash
# Question: what do thin chains buy, and cost, on one NVIDIA GPU in bfloat16: eager and in a graph, hot and cold?
# Runs from the source tree with the machine's own python3 (PYTHON names another). LAYERS is a folder with
# minilm.safetensors and smollm2.safetensors (weights and activations, from `make models`); without it only
# the made weights are measured. MINUTES is for the first run; the others take 1 each.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PYTHONPATH="src${PYTHONPATH:+:$PYTHONPATH}"
narrows="${PYTHON:-python3} -m narrows"
results="${RESULTS:-benchmarks/results}"
name="${NAME:-gpu}"
conditions="--device cuda --dtype bfloat16 --mode eager,graph --cache hot,cold"

$narrows measure $conditions --tokens 64..8192 --rank 16..4096 --minutes "${MINUTES:-5}" -o "$results/bench-$name.json"

if [ -n "${LAYERS:-}" ]; then
    attention=encoder.layer.3.attention.self
    file=$LAYERS/minilm.safetensors
    $narrows measure $conditions --kind bilinear --heads 12 --tokens 64..4096 --rank 4..32 --minutes 1 \
        --weight "$file:$attention.query.weight" --weight-right "$file:$attention.key.weight" \
        --input "$file:$attention.query" -o "$results/minilm-query-key-$name.json"
    up=model.layers.15.mlp.up_proj
    file=$LAYERS/smollm2.safetensors
    $narrows measure $conditions --kind linear --tokens 16..8192 --rank 32..256 --minutes 1 \
        --weight "$file:$up.weight" --input "$file:$up" -o "$results/smollm2-up-proj-$name.json"
fi
