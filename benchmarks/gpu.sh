#!/bin/sh
# What JAX can measure on one GPU in 9 minutes: benchmarks/gpu.sh [FOLDER]
#
# First whether the numbers are right, then the steps of stacks, of the optimizers and of
# the recurrent layer, next to scans by hand and to PyTorch, and to their floor; what
# tells most comes first. What is in FOLDER, by default benchmarks/results/gpu, is not
# measured anew, so that a second call measures what LIMIT, 540 seconds, cut off. PYTHON
# chooses the interpreter; it needs this package, jax[cuda12] or jax[cuda13], and torch.
# PART=convolutions measures stacks of convolutions instead, next to a scan over those of
# the device, which needs no torch. Where there is no GPU, SMALL=1 runs either at sizes
# that a CPU does in minutes.
set -eu

here=$(dirname "$0")
out=${1:-"$here/results/gpu"}
python=${PYTHON:-python3}
export KERAS_BACKEND=jax
export TF_CPP_MIN_LOG_LEVEL=3
# The script and its workers share the memory of the GPU.
export XLA_PYTHON_CLIENT_PREALLOCATE=false

if [ -n "${SMALL:-}" ]; then
    steps=5 narrow=20,16,32 wide=5,64,32 shallow=10,16,32 deep=100,16,32 widest=4,96,32
    recipe=20,16,32 recipe_wide=20,32,32 sequence=50,16,8 sequence_long=100,16,8
    images="10,8,4,8 10,16,4,8" images_deep=50,8,4,8 megabytes=16
else
    steps=30 narrow=1000,64,128 wide=300,1024,4096 shallow=100,64,128
    deep=10000,64,128 widest=20,4096,4096
    recipe=200,128,128 recipe_wide=200,1024,1024
    sequence=784,256,100 sequence_long=10000,128,20
    images="1000,32,8,128 1000,64,8,128" images_deep=10000,32,8,128 megabytes=1024
fi

end=$(($(date +%s) + ${LIMIT:-540}))

run() { # SCRIPT, and its arguments, in what is left of the time
    script=$1
    shift
    left=$((end - $(date +%s)))
    if [ "$left" -le 0 ]; then
        echo "No time is left for $script.py $*"
        return
    fi
    status=0 # 124 if the time was up; by INT, as of Ctrl-C, a script ends its workers
    timeout -s INT "$left" "$python" "$here/$script.py" --out "$out/$script.json" \
        "$@" || status=$?
    [ "$status" -eq 0 ] || [ "$status" -eq 124 ]
}

measure() { # SCRIPT, and its arguments
    run "$@" --steps "$steps" --repeats 1 --seconds 3 --timeout 80
}

stack() { # SIZE, and the contenders next to ours
    size=$1
    shift
    measure depth --figure "$out/depth.png" --cases "$size" \
        --contenders "ours, JAX" "$@"
}

recipe() { # SIZE
    measure recipe --dataset teacher --sizes "$1" --contenders \
        "SGD, no constraint, JAX" "SGD, tangent gradient, JAX" "StiefelMuon, JAX"
}

sequence() { # SIZE
    measure recurrent --cases "$1" --contenders "ROAF, JAX" "jax.lax.scan by hand" \
        "jax.lax.scan by hand, unroll=16" torch.nn.LSTM
}

convolutions() { # SIZE, and the contenders next to ours
    size=$1
    shift
    measure convolution_depth --floor --megabytes "$megabytes" --cases "$size" \
        --contenders "ours, JAX" "$@"
}

mkdir -p "$out"
if [ "${PART:-}" = convolutions ]; then
    run correctness --checks "OrthogonalConv2D, as products and as a convolution" \
        "OrthogonalConv2D, strides 2, as products and as a convolution" \
        "stack of OrthogonalConv2D, against the CPU" \
        "singular values of convolutions, StiefelMuon, float32" \
        "singular values of convolutions, SGD, mixed_bfloat16"
    scan="jax.lax.scan of convolutions"
    for size in $images; do
        convolutions "$size" "ours, no constraint, JAX" "$scan" "$scan, unroll=16" \
            "ours as a convolution, JAX"
    done
    convolutions "$images_deep" "$scan"
    exit
fi
run correctness
graph="PyTorch, CUDA graph"
stack "$narrow" jax.lax.scan "jax.lax.scan, unroll=16" "$graph"
recipe "$recipe"
sequence "$sequence"
stack "$shallow" jax.lax.scan "jax.lax.scan, unroll=16" "$graph" "PyTorch loop" \
    torch.compile
sequence "$sequence_long"
stack "$deep" jax.lax.scan "jax.lax.scan, unroll=16"
stack "$wide" jax.lax.scan "$graph"
run floor --cases "$narrow" "$wide" --results "$out/depth.json"
stack "$widest" jax.lax.scan "$graph"
recipe "$recipe_wide"
