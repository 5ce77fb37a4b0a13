#!/bin/bash
# What fp16 and int8-static do on a GPU, on a machine with CUDA, PyTorch, numpy and onnx that reaches no network. In at most ten minutes.
#
#   python bench/gpu_pack.py --reference BUILD --full BUILD      on this machine: build/gpu/part-0, part-1, ...
#   bash build/gpu/part-0/gpu.sh keep                            there, once for each part, in any order
#   bash build/gpu/part-1/gpu.sh run OUT                         there, with the last part: joins all, runs, writes OUT/gpu.md
#
# WORK (default /tmp/nemoport-gpu) is where parts are kept between calls. Further arguments of `run` are those of gpu_run.py; with
# `--provider cpu` it runs the same code on a machine without a card.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=${WORK:-/tmp/nemoport-gpu}
mkdir -p "$work"
cp "$here"/all.tar.xz.* "$work"/
[ "${1:-}" = keep ] && { ls -l "$work"; exit 0; }
[ "${1:-}" = run ] && [ -n "${2:-}" ] || { sed -n '2,10p' "$0"; exit 2; }
out=$(mkdir -p "$2" && cd "$2" && pwd)
shift 2
cat "$work"/all.tar.xz.* | tar -xJ -C "$work"
cd "$work/gpu"
export PYTHONPATH="$work/gpu/site:$work/gpu/tree:$work/gpu" PYTHONUNBUFFERED=1
[ -d full ] && python3 gpu_full.py full
# The libraries of CUDA that PyTorch brought, for onnxruntime's provider.
libraries=$(python3 -c 'import glob, site; print(":".join(p for s in site.getsitepackages() for p in glob.glob(s + "/nvidia/*/lib")))')
export LD_LIBRARY_PATH="$libraries:${LD_LIBRARY_PATH:-}"
timeout 540 python3 gpu_run.py "$work/gpu" --out "$out" "$@"
