#!/bin/sh
# The benchmarks that JAX can run on a GPU: benchmarks/gpu.sh [FOLDER FOR RESULTS]
# PYTHON chooses the interpreter; it needs this package and jax[cuda12].
set -eu

here=$(dirname "$0")
out=${1:-"$here/results/gpu"}
python=${PYTHON:-python3}
export KERAS_BACKEND=jax
export TF_CPP_MIN_LOG_LEVEL=3
# The script and its workers, and TensorFlow alongside JAX, share the memory of the GPU.
export XLA_PYTHON_CLIENT_PREALLOCATE=false
export TF_FORCE_GPU_ALLOW_GROWTH=true

mkdir -p "$out"
"$python" "$here/depth.py" --out "$out/depth.json" --figure "$out/depth.png" \
    --contenders "ours, JAX" "ours, JAX, orthogonal" "jax.lax.scan"
"$python" "$here/retraction.py" --out "$out/retraction.json" \
    --contenders "ours, plain, JAX" "ours, every update, JAX" \
    "ours, tolerance 5e-5, JAX"
"$python" "$here/floor.py" --results "$out/depth.json" --out "$out/floor.json"
