#!/usr/bin/env bash
# Question: do two real models go all the way: compress, check, from_pretrained, generate? Folders go into OUT (build),
# what compressing took and what the checks measured as JSON into RESULTS (benchmarks/results). About 30 minutes on 2
# cores; `make narrow` runs it. A second run goes on with what was calibrated, so its times of compressing are not
# those of a first one: remove OUT/work-* before.
#
# Exit status: 0 all is well, else that of the first command that failed (1: a budget is broken).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
narrows="${BIN:-.venv/bin}/narrows"
python="${BIN:-.venv/bin}/python"
out="${OUT:-build}"
results="${RESULTS:-benchmarks/results}"
text=models/texts/wikipedia.jsonl
export HF_HUB_OFFLINE=1
mkdir -p "$out" "$results"

echo "== SmolLM2-135M: 90 % of the numbers of its block linears"
"$python" benchmarks/compressing.py "$results/smollm2-compress-cpu.json" models/smollm2 "$out/smollm2-narrow" \
    --texts $text --budget keep=0.9 --work "$out/work-smollm2"
"$narrows" check "$out/smollm2-narrow" --against models/smollm2 --workload prefill:512x1 --workload decode:512x1 \
    -o "$results/smollm2-check-cpu.json"
"$python" examples/load_and_write.py "$out/smollm2-narrow" "The strait between the two islands is"

echo "== all-MiniLM-L6-v2: 80 % of the numbers of its block linears"
"$python" benchmarks/compressing.py "$results/minilm-compress-cpu.json" models/minilm "$out/minilm-narrow" \
    --texts $text --budget keep=0.8 --context 256 --work "$out/work-minilm"
"$narrows" check "$out/minilm-narrow" --against models/minilm --pairs models/texts/wordsim353.tsv \
    --workload prefill:256x8 -o "$results/minilm-check-cpu.json"
