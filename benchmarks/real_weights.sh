#!/usr/bin/env bash
# Question: what do thin chains buy, and cost, on weights and activations of real models?
# `make real` calls it after `make models`. A report that was finished is not measured again:
# `narrows measure` keeps every row in its store and continues where it was.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
narrows="${BIN:-.venv/bin}/narrows"
results=benchmarks/results
minilm=models/minilm/model.safetensors
minilm_inputs=models/minilm/activations.safetensors
smollm2=models/smollm2/model.safetensors
smollm2_inputs=models/smollm2/activations.safetensors
mkdir -p "$results"

# Query times key of each of 12 heads (head size 32, so W_q^T W_k has rank 32 in 384 x 384).
attention=encoder.layer.3.attention.self
"$narrows" measure --kind bilinear --heads 12 \
    --weight "$minilm:$attention.query.weight" --weight-right "$minilm:$attention.key.weight" \
    --input "$minilm_inputs:$attention.query" \
    --tokens 64..1024 --rank 4..32 --minutes 2 -o "$results/minilm-query-key-cpu.json"

# The first feed-forward layer: 384 -> 1536.
"$narrows" measure --kind linear \
    --weight "$minilm:encoder.layer.3.intermediate.dense.weight" \
    --input "$minilm_inputs:encoder.layer.3.intermediate.dense" \
    --tokens 16..4096 --rank 16..256 --minutes 2 -o "$results/minilm-feed-forward-cpu.json"

# SmolLM2-135M: 576 -> 1536.
up=model.layers.15.mlp.up_proj
"$narrows" measure --kind linear \
    --weight "$smollm2:$up.weight" --input "$smollm2_inputs:$up" \
    --tokens 16..4096 --rank 32..256 --minutes 2 -o "$results/smollm2-up-proj-cpu.json"

echo "the reports are in $results/: read one with $narrows show FILE"
