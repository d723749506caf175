#!/usr/bin/env bash
# Question: does an own kernel touch memory that is not its own, or race in shared memory? compute-sanitizer's memcheck
# and racecheck over one small call of each (benchmarks/_sanitize_calls.py). First the tool must find an error that
# was planted. A few minutes. One line a figure. PYTHON names the interpreter, SANITIZER the tool.
#
# Exit status: 0 clean, 1 an error (or a planted one that was not found), 3 not shown: no CUDA device, no tool, or a
# tool that does not work on this machine.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PYTHONPATH="src${PYTHONPATH:+:$PYTHONPATH}"
export PYTORCH_NO_CUDA_MEMORY_CACHING=1  # each tensor an allocation of its own, so that its ends are known
python="${PYTHON:-python3}"
sanitizer="${SANITIZER:-compute-sanitizer}"
found=99
status=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT

command -v "$sanitizer" >/dev/null || sanitizer=/usr/local/cuda/bin/compute-sanitizer
"$python" benchmarks/_gpu.py || exit $?
command -v "$sanitizer" >/dev/null || { echo "not shown: compute-sanitizer is not installed here."; exit 3; }

# check TOOL ARGUMENTS...: run the calls under a tool; its exit status is 99 where it found an error.
check() {
    local tool=$1
    shift
    "$sanitizer" --tool "$tool" --error-exitcode $found --target-processes application-only \
        --report-api-errors no "$python" benchmarks/_sanitize_calls.py "$@" >"$log" 2>&1
}

summary() { grep -E "(ERROR|RACECHECK) SUMMARY" "$log" | tail -n 1 | sed 's/^=* *//'; }

for tool in memcheck racecheck; do
    check $tool --plant $tool
    planted=$?
    if [ $planted != $found ]; then
        if grep -qiE "not supported|unable to|failed to (initialize|load)" "$log"; then
            echo "$tool: not shown: it does not work here: $(grep -iE 'not supported|unable|failed' "$log" | head -n 1)"
            [ $status = 1 ] || status=3
        else
            echo "$tool: did not find the planted error (exit status $planted): $(tail -n 1 "$log")"
            status=1
        fi
        continue
    fi
    echo "$tool: finds the planted error"
    check $tool
    clean=$?
    grep -E "^(not shown|failed): " "$log"
    echo "$tool: $(grep -E '^calls: ' "$log" || echo 'calls: 0'), $(summary)"
    if [ $clean != 0 ]; then
        status=1
        grep -E "^=========" "$log" | head -n 40
    fi
done
exit $status
