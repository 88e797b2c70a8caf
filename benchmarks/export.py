"""What exported models predict, how large they are, and how long they take.

    python benchmarks/export.py --rounds 5 --epochs 3 --page docs/results/export.md

A network of each kind is trained on scikit-learn's digits, turned into layers of Keras
alone by `to_keras`, and both are run by Keras with XLA, as SavedModels, by LiteRT and
by ONNX Runtime, in turn, in one process.
"""

import functools
import tempfile
from pathlib import Path

import keras
import numpy as np
from _latency import times_per_sample
from runner import Choice, Experiment, markdown, significant
from scipy.special import softmax

from keras_bsnn import datasets, export, models
from keras_bsnn.optimizers import StiefelMuon
from keras_bsnn.recalibration import recalibrate

IMAGE, SEQUENCE = (8, 8, 1), (64, 1)
THREADS = 2
FAMILIES = {
    "BSNN, GELU": functools.partial(models.bsnn_mlp, activation="gelu"),
    "BSNN, ReLU": functools.partial(models.bsnn_mlp, activation="relu"),
    "BSNN, gp_tanh": functools.partial(models.bsnn_mlp, activation="gp_tanh"),
    "batch norm, tanh": models.batchnorm_mlp,
    "batch norm, linear": functools.partial(models.batchnorm_mlp, activation=None),
    "roaf, ReLU": functools.partial(models.roaf_mlp, activation="relu", c=3.0),
    "recurrent roaf, ReLU": functools.partial(models.roaf_rnn, activation="relu"),
    "recurrent roaf, tanh": functools.partial(models.roaf_rnn, activation="tanh"),
}


def run(args, family):
    """A record for each runtime."""
    x, y = digits(SEQUENCE if "recurrent" in family else IMAGE)
    model = trained(family, x, y, args)
    x = np.resize(x, (args.examples, *x.shape[1:]))
    forms = {"as it is": model}
    if family != "recurrent roaf, tanh":  # for which Keras has no equivalent
        forms["to_keras"] = export.to_keras(model)
    expected = model.predict(x, batch_size=args.examples, verbose=0)
    common = {"largest_logit": largest(expected)}
    with tempfile.TemporaryDirectory() as folder:
        return [
            {
                **{"runtime": name, **common},
                **of_runtime(runtime, forms, x, expected, Path(folder), args),
            }
            for name, runtime in RUNTIMES.items()
        ]


def digits(shape):
    """All training images, standardized as `datasets.load` gives them."""
    batches = [*datasets.load("digits", "train", 100, shuffle=False)]
    x, y = (np.concatenate([np.asarray(b[i]) for b in batches]) for i in (0, 1))
    return x.reshape(-1, *shape), y


def trained(family, x, y, args):
    keras.utils.set_random_seed(0)
    if "recurrent" in family:
        model = FAMILIES[family](args.units, alpha=0.99, input_shape=(None, 1))
        optimizer = keras.optimizers.Adam(1e-3)
    else:
        model = FAMILIES[family](args.depth, args.units, input_shape=IMAGE)
        is_roaf = family.startswith("roaf")
        optimizer = keras.optimizers.Adam(0.01) if is_roaf else StiefelMuon(0.05)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, jit_compile=True)
    rows = len(x) // 64 * 64  # a batch of another size would be compiled anew
    model.fit(x[:rows], y[:rows], batch_size=64, epochs=args.epochs, verbose=0)
    recalibrate(model, x)
    return model


def of_runtime(runtime, forms, x, expected, folder, args):
    """Differences, sizes and times of the forms that it can run."""
    found, runs = {}, {size: {} for size in args.batch_sizes}
    for form, model in forms.items():
        functions, size = runtime(model, folder, [*args.batch_sizes, args.examples])
        predicted = np.asarray(functions[args.examples](x))
        found[form] = {
            "largest_difference": largest(predicted - expected),
            "of_probabilities": largest(
                softmax(predicted, axis=-1) - softmax(expected, axis=-1)
            ),
            "kilobytes": significant(size / 1000),
        }
        for size in runs:
            runs[size][form] = functions[size]
    for size, functions in runs.items():
        times = times_per_sample(functions, x[:size], args.rounds)
        for form, values in times.items():
            found[form][f"microseconds, batch {size}"] = significant(np.median(values))
        if len(forms) == 2:
            ratios = np.divide(*(times[form] for form in forms))
            found[f"ratio, batch {size}"] = significant(np.median(ratios))
    return found


def largest(x):
    return significant(np.abs(x).max())


# Functions that predict, by batch size, and the bytes that a model takes in a runtime.


def in_keras(model, folder, batch_sizes):
    import tensorflow as tf

    path = folder / f"{model.name}.keras"
    model.save(path)
    predict = tf.function(
        lambda x: model(x, training=False), autograph=False, jit_compile=True
    )
    return dict.fromkeys(batch_sizes, predict), path.stat().st_size


def in_saved_model(model, folder, batch_sizes):
    import tensorflow as tf

    path = folder / model.name
    export.saved_model(model, path)
    served = tf.saved_model.load(path)

    def serve(x):
        return served.serve(x)  # a method of it would not keep it alive

    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return dict.fromkeys(batch_sizes, serve), size


def in_litert(model, folder, batch_sizes):
    """A file of any batch size, or one for each, where LiteRT must know it."""
    if any(type(layer) is keras.layers.SimpleRNN for layer in model.layers):
        paths = {n: folder / f"{model.name}_{n}.tflite" for n in batch_sizes}
        for size, path in paths.items():
            export.litert(model, path, batch_size=size)
    else:
        paths = dict.fromkeys(batch_sizes, folder / f"{model.name}.tflite")
        export.litert(model, paths[batch_sizes[0]])
    functions = {size: litert_function(path) for size, path in paths.items()}
    return functions, paths[batch_sizes[0]].stat().st_size


def litert_function(path):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=THREADS)
    (given,) = interpreter.get_input_details()
    (found,) = interpreter.get_output_details()
    shapes = []

    def predict(x):
        if x.shape not in shapes:
            interpreter.resize_tensor_input(given["index"], x.shape)
            interpreter.allocate_tensors()
            shapes[:] = [x.shape]
        interpreter.set_tensor(given["index"], x)
        interpreter.invoke()
        return interpreter.get_tensor(found["index"])

    return predict


def in_onnx(model, folder, batch_sizes):
    import onnxruntime

    path = folder / f"{model.name}.onnx"
    export.onnx(model, path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(path, options)
    (given,) = session.get_inputs()

    def predict(x):
        return session.run(None, {given.name: x})[0]

    return dict.fromkeys(batch_sizes, predict), path.stat().st_size


RUNTIMES = {
    "Keras, XLA": in_keras,
    "SavedModel": in_saved_model,
    "LiteRT": in_litert,
    "ONNX Runtime": in_onnx,
}


def table(records):
    """Pairs of numbers: as it is, and of layers of Keras alone."""
    times = [key for key in records[0]["as it is"] if key.startswith("microseconds")]
    sizes = [key.rpartition(" ")[2] for key in times]
    heads = ["", "runtime", "difference of logits", "of probabilities", "size in kB"]
    for size in sizes:
        heads += [f"µs per example, batch {size}", "faster"]
    lines = []
    for row in records:
        keys = ("largest_difference", "of_probabilities", "kilobytes")
        lines.append([row["family"], row["runtime"], *(pair(row, key) for key in keys)])
        for size in sizes:
            ratio = row.get(f"ratio, batch {size}")
            lines[-1] += [pair(row, f"microseconds, batch {size}")]
            lines[-1] += [f"{ratio:,g}" if ratio else ""]
    return markdown(heads, lines, left=2)


def pair(row, key):
    forms = (row[form] for form in ("as it is", "to_keras") if form in row)
    return " / ".join(f"{form[key]:,g}" for form in forms)


if __name__ == "__main__":
    Experiment(
        __file__,
        run,
        table,
        rows={"family": "families"},
        options={
            "families": Choice(FAMILIES),
            **{"depth": 200, "units": 128, "epochs": 5, "examples": 1000},
            **{"batch_sizes": [1, 256], "rounds": 7},
        },
    ).main()
