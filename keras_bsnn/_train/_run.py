"""A run of the command, from the data to the record of the result."""

import json
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import keras

from keras_bsnn import _errors, datasets
from keras_bsnn._record import environment
from keras_bsnn._requirements import extra
from keras_bsnn._train import _networks, _results
from keras_bsnn._train._arguments import (
    check_folder,
    checkpoint,
    settings,
    with_defaults,
)
from keras_bsnn.callbacks import RecalibrateBatchNorm, Retract

SPLITS = {"train": "train[:90%]", "validation": "train[90%:]", "test": "test"}
LARGEST_EVALUATION_BATCH = 500


def run(args: Namespace, parser: ArgumentParser) -> None:
    """Runs the command; what the arguments make impossible ends it before training."""
    start = time.perf_counter()
    with _errors.in_one_line(parser):
        data, model = prepared(with_defaults(args))
    (args.out / "settings.json").write_text(json.dumps(settings(args), indent=1))
    fit(model, data, args)
    networks = {"ours": model}
    if args.baseline:
        networks["plain"] = _fitted_plain_network(data, args)
    result = _results.measured(networks, data, SPLITS)
    result["largest_difference"] = _results.saved(model, data["test"], args.out)
    _results.draw(result, args.out / "signals.png")
    _results.show(result, args)
    record = {
        **environment(),
        "settings": vars(args),
        "seconds": round(time.perf_counter() - start),
        "result": _results.summary(result),
    }
    text = json.dumps(record, indent=1, default=str)
    (args.out / "result.json").write_text(f"{text}\n")


def prepared(args: Namespace) -> tuple[dict[str, Any], keras.Model]:
    """The data, and the network to be trained on them."""
    with extra("plots"):  # now, and not when it is trained
        import matplotlib.figure  # noqa: F401
    check_folder(args)
    keras.utils.set_random_seed(args.seed)
    data = load_splits(args)
    optimizer = _networks.optimizer(len(data["fit"]), args)
    return data, _networks.compiled(_networks.deep_network(args), optimizer, args)


def load_splits(args: Namespace) -> dict[str, Any]:
    """The shuffled training batches, and each split once and whole."""
    data = {"fit": _batches(args)}
    for name, split in SPLITS.items():
        images = len(datasets.load(args.dataset, split, 1, shuffle=False))
        batch = max(
            size
            for size in range(1, LARGEST_EVALUATION_BATCH + 1)
            if images % size == 0
        )
        data[name] = datasets.load(args.dataset, split, batch, shuffle=False)
    return data


def _batches(args: Namespace, **kwargs: Any) -> Any:
    """The shuffled training batches."""
    split, size = SPLITS["train"], args.batch_size
    return datasets.load(args.dataset, split, size, augment=args.augment, **kwargs)


def fit(model: keras.Model, data: dict[str, Any], args: Namespace) -> None:
    """Trains the network, from where a run that was killed has stopped."""
    backup, steps = checkpoint(args), len(data["fit"])
    # From 0 on, but in a run that was killed.
    batches = _batches(args, seed=args.seed, start=backup.batches)
    history, network = args.out / "history.csv", _networks.MODELS[args.model]
    if args.resume:
        _keep_epochs(history, backup.batches // steps)
    model.fit(
        batches,
        validation_data=data["validation"],
        shuffle=False,  # the pipeline does
        steps_per_epoch=steps,
        epochs=args.epochs,
        callbacks=[
            keras.callbacks.CSVLogger(history, append=args.resume),
            keras.callbacks.TerminateOnNaN(),
            SayWhere(),
            Retract(),
            *([RecalibrateBatchNorm(data["train"])] * network.is_normalized),
            backup,
        ],
    )


class SayWhere(keras.callbacks.Callback):
    """Says after which epoch a resumed run goes on."""

    def on_train_begin(self, logs: Any = None) -> None:
        self.is_first = True

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if self.is_first and epoch > 0:
            print(f"Resumed: epochs 1 to {epoch} are done, going on with {epoch + 1}.")
        self.is_first = False


def _keep_epochs(history: Path, count: int) -> None:
    """Drops the row of an epoch that was logged, but is not in the checkpoint."""
    rows = history.read_text().splitlines(keepends=True)
    history.write_text("".join(rows[: 1 + count]))


def _fitted_plain_network(data: dict[str, Any], args: Namespace) -> keras.Model:
    print("The same with a plain activation, Glorot weights, and Adam:")
    plain = _networks.plain_network(args)
    plain = _networks.compiled(plain, keras.optimizers.Adam(), args, is_plain=True)
    plain.fit(data["fit"], epochs=args.epochs, shuffle=False, verbose=2)
    return plain
