#!/bin/bash
# What a GPU does with the step, in at most six minutes: the tests that need one, then times and memory as JSON.
#   bash benchmarks/gpu.sh [PYTHON] > gpu.json        without a GPU: {"run": false, ...}
set -eu
cd "$(dirname "$0")/.."
python="${1:-.venv/bin/python}"
if "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  timeout 120 "$python" -m pytest -q -m gpu tests/train/test_gpu.py >&2
fi
exec timeout 240 "$python" benchmarks/gpu_step.py --images 32 --seconds 25
