"""The largest orthogonality error after any step of a training with `StiefelMuon`.

    python benchmarks/orthogonality.py --dataset mnist --page docs/results/speed.md

`bsnn_mlp`, ReLU, for `--steps` steps at a constant learning rate. The error, the
largest entry of `|W^T W - 1|` over all kernels, is found after each step, in float32.
"""

import keras
from _errors import Errors
from _workers import case
from runner import Choice, Experiment, columns

from keras_bsnn import datasets, models
from keras_bsnn.optimizers import StiefelMuon


def run(args, depth, units, batch_size):
    keras.utils.set_random_seed(args.seed)
    images = datasets.IMAGE_SETS[args.dataset]
    shape = {"classes": images.classes, "input_shape": images.shape}
    model = models.bsnn_mlp(depth, units, "relu", seed=args.seed, **shape)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(StiefelMuon(args.learning_rate), loss, jit_compile=True)
    data = datasets.load(args.dataset, "train", batch_size, seed=args.seed).repeat()
    errors = Errors()
    settings = {"shuffle": False, "verbose": 0, "callbacks": [errors]}
    history = model.fit(data.take(args.steps), **settings).history
    return {
        **{"steps": len(errors.errors), "loss": history["loss"][-1]},
        **{"first_error": errors.errors[0], "last_error": errors.errors[-1]},
        "largest_error": max(errors.errors),
    }


SIZES = ["10,1024,128", "50,256,128", "200,128,128", "1000,64,128", "10000,32,32"]
EXPERIMENT = Experiment(
    __file__,
    run,
    columns(
        {
            "layers x units, batch": "{depth:,} x {units:,}, {batch_size}",
            **{"steps": "{steps:,}", "mean loss": "{loss:.2f}"},
            "after the first": "{first_error:.0e}",
            **{"after the last": "{last_error:.0e}", "largest": "{largest_error:.0e}"},
        }
    ),
    rows=lambda args: [case(text) for text in args.sizes],
    options={
        "sizes": SIZES,
        "dataset": Choice(datasets.IMAGE_SETS, "mnist"),
        **{"steps": 2000, "learning_rate": 0.1, "seed": 0},
    },
)

if __name__ == "__main__":
    EXPERIMENT.main()
