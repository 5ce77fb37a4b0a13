#!/bin/bash
# Trains the reference checkpoint further on a machine with a GPU, PyTorch and numpy that reaches no network. In at most twelve minutes.
#
#   python -m nemoport.reference.training_pack ...                          on this machine: build/gpu-train/part-0, part-1, ...
#   bash build/gpu-train/part-1/gpu_train.sh keep                           there, once for each part but the first, in any order
#   bash build/gpu-train/part-0/gpu_train.sh run OUT [--minutes 8 ...]      there: unpacks, trains; the weights are in OUT, in parts
#   python -m nemoport.reference.training_join OUT --nemo x.nemo            on this machine; then nemoport.reference.evaluate x.nemo
#
# Options of `run` are those of nemoport.reference.further. A run that is stopped leaves its state in WORK (default /tmp/nemoport-train)
# and, in parts, in OUT: the same command goes on. On another machine these parts (state.pt.*) are carried beside a copy of this script,
# by `keep` in any number of calls. With `--device cpu` it runs where there is no card. PYTHON (default python3) has PyTorch.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=${WORK:-/tmp/nemoport-train}
mkdir -p "$work"
[ ! -e "$here"/part.tar.gz ] || tar -xzf "$here"/part.tar.gz -C "$work"
! compgen -G "$here/state.pt.??" > /dev/null || cp "$here"/state.pt.?? "$work"
[ "${1:-}" = keep ] && { ls "$work"; exit; }
[ "${1:-}" = run ] && [ -n "${2:-}" ] || { sed -n '2,12p' "$0"; exit 2; }
out=$(mkdir -p "$2" && cd "$2" && pwd)
shift 2
[ $# -gt 0 ] || set -- --minutes 8
cd "$work"
if [ -e state.pt.00 ]; then cat state.pt.?? > state.pt; rm state.pt.??; fi
export PYTHONPATH="$work/tree:$work/site" PYTHONUNBUFFERED=1 PYTHONSAFEPATH=1
exec timeout --kill-after 30 ${LIMIT:-700} "${PYTHON:-python3}" -m nemoport.reference.further "$work" --out "$out" "$@"
