#!/usr/bin/env bash
# What is worth knowing of a GPU, in nine minutes, the most telling parts first. Each part may fail, run out of its
# time or be cut off without loss of the others: their results lie in OUT by then, as JSON, with their logs.
#
#     benchmarks/on_gpu.sh OUT [PYTHON-WITH-TRL]
#
# DEVICE=cpu is a dry run: the same commands on tiny shapes. LIMIT is the time in seconds (540).
set -u
cd "$(dirname "$0")/.." || exit 1
out=$(mkdir -p "${1:?OUT, a folder for results}" && cd "$1" && pwd) || exit 1
trl=${2:-python}
device=${DEVICE:-cuda}
end=$((SECONDS + ${LIMIT:-540}))
export BENCH_RESULTS=$out PYTHONPATH=$PWD:$PWD/convert:$PWD/cli HF_HUB_OFFLINE=1

shape=(--device "$device" --dtype bfloat16 --model-shape gemma-2-2b --d-sae 16384 --steps 8)
bare="bare transformers"
sampled=$out/models/gemma-2-2b-bfloat16
compile=--compile
if [ "$device" = cpu ]; then
    shape=(--device cpu --model-shape tiny --pairs tiny --d-sae 64 --steps 1)
    bare=plain compile= sampled=$out/models/tiny-float32
fi
shape+=(--models "$out/models")

part() { # NAME SECONDS COMMAND...: run a command within its seconds and those left in all
    local name=$1 most=$2 start=$SECONDS left=$((end - SECONDS)) code=skipped
    shift 2
    if [ "$left" -gt 5 ]; then
        timeout --kill-after=5 "$((most < left ? most : left))" "$@" >"$out/$name.log" 2>&1
        code=$?
    fi
    printf '{"part": "%s", "code": "%s", "seconds": %d}\n' "$name" "$code" $((SECONDS - start)) | tee -a "$out/parts.jsonl"
}
step() { # NAME SECONDS OPTIONS...: FPO beside transformers' bare step, with a profile on CUDA
    part "$1" "$2" python -m benchmarks.bench_step "${shape[@]}" "${@:3}" --variants fpo "$bare"
}

: >"$out/parts.jsonl"
part parity 120 python -m pytest -q -n 0 -x tests/backends/test_packed_step.py tests/backends/test_host_reads.py \
    -k "gpu or cuda"
part peers 120 python -m benchmarks.bench_peers "${shape[@]}" --python "$trl" --against "TRL precomputed"
part peers-compiled 120 python -m benchmarks.bench_peers "${shape[@]}" --python "$trl" --against "TRL precomputed" $compile
step step 60
step step-compiled 90 $compile
step step-full 60 --full
step step-checkpoint 60 --grad-checkpoint
step step-checkpoint-compiled 90 --grad-checkpoint $compile
step step-full-checkpoint 60 --full --grad-checkpoint
part shared-prompts 60 python -m benchmarks.bench_shared_prompts "${shape[@]}"
part compiled 60 python -m pytest -q -n 0 -x tests/backends/test_compiled.py
part sae 60 python -m fpo_cli sae train --model fpo/world/data/model --data fpo/world/data/pairs --layer 2 \
    --tokens 100000 --device "$device" --output "$out/sae/sae.safetensors" --json
part sampling 60 python -m fpo_cli generate --model fpo/world/data/model --prompt "Write about rain." --samples 64 \
    --device "$device" --json
# vLLM takes part where it is installed; the result says why where it does not.
part sampling-peers 150 python -m benchmarks.bench_sampling --model "$sampled" --device "$device" --batch 64 --tokens 128
part kernels 120 python -m benchmarks.bench_kernels "${shape[@]}"
rm -rf "$out/models" "$out/sae"
