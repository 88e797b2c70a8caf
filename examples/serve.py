"""Serves a network of `keras-bsnn train`: draw a digit, see its class and the signal.

    keras-bsnn demo --out runs/demo
    python examples/serve.py runs/demo

At first it exports `model.keras` as a SavedModel in `runs/demo/serving`, which takes
pixels and has a second output: the signal in each layer. This SavedModel is all that it
serves from. `pip install '.[serve]'` brings what it needs; MNIST will do as well.

    GET  /         the page to draw on
    GET  /model    what the model takes, and its certificate
    POST /predict  {"pixels": ...}, from 0 to 255, light ink on a dark ground: an image,
                   (height, width), or several, (images, height, width). The answer has
                   `class`, `probabilities` and `signal`, the root mean square of each
                   layer's output, with the same first axis.

What is not as it must be gets status 400 or 413, and an `error` that says why.
"""

import argparse
import contextlib
import json
import socket
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_bsnn import datasets, export
from keras_bsnn._requirements import extra
from keras_bsnn.layers import DepthStack

with extra("serve"):
    import uvicorn
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.exceptions import HTTPException
    from starlette.responses import FileResponse, JSONResponse
    from starlette.routing import Route

HOST = "127.0.0.1"  # seen from this machine only
PAGE = Path(__file__).with_suffix(".html")
LARGEST_BODY = 2**20  # bytes
MOST_IMAGES = 64  # in a request: the output of every layer is in memory at once


def main():
    parser = argument_parser()
    args = parser.parse_args()
    try:
        model = ServedModel(exported(args.run))
        listener = socket.create_server((HOST, args.port))
    except (ValueError, OSError, OverflowError) as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")
    print(f"http://{HOST}:{listener.getsockname()[1]} (Ctrl-C ends it)", flush=True)
    server = uvicorn.Server(uvicorn.Config(service(model), log_level="warning"))
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listener])


def argument_parser():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="folder that `keras-bsnn train` left")
    parser.add_argument("--port", type=int, default=8000, help="0: any that is free")
    return parser


def exported(run):
    """The folder in `run` of the SavedModel with a signal, which is made if need be."""
    folder = run / "serving"
    if folder.exists():
        return folder
    for name in ("settings.json", "model.keras"):
        if not (run / name).exists():
            raise ValueError(f"{run} has no {name}: keras-bsnn train writes one")
    settings = json.loads((run / "settings.json").read_text())
    image_set = datasets.IMAGE_SETS[settings["dataset"]]
    if image_set.shape[-1] != 1:
        raise ValueError(f"{run} must be of images of one channel to draw")
    model = with_signal(keras.models.load_model(run / "model.keras"))
    export.saved_model(model, folder, preprocessing=standardization(image_set))
    return folder


def standardization(image_set):
    """From pixels to what `datasets.load` makes of them."""
    (mean,), (std,) = image_set.mean, image_set.std
    scaling = keras.layers.Rescaling(1 / (255 * std), -mean / std)
    return keras.Sequential([keras.Input(image_set.shape), scaling])


def with_signal(model):
    """A Sequential model, as one of probabilities and of the signal in its stack."""
    x = inputs = keras.Input(model.input_shape[1:])
    for layer in model.layers:
        if isinstance(layer, DepthStack):
            outputs = observable(layer)(x)  # (batch, depth, units)
            signal = keras.ops.sqrt(keras.ops.mean(keras.ops.square(outputs), axis=-1))
            x = outputs[:, -1]
        else:
            x = layer(x)
    return keras.Model(
        inputs, {"probabilities": keras.ops.softmax(x), "signal": signal}
    )


def observable(stack):
    """An equal stack that returns the output of every layer."""
    found = DepthStack.from_config({**stack.get_config(), "return_sequences": True})
    found.build(stack.get_build_config()["input_shape"])
    found.set_weights(stack.get_weights())
    return found


class ServedModel:
    """A SavedModel that is what its certificate says."""

    def __init__(self, folder):
        self.certificate = export.verify(folder)
        self.saved_model = tf.saved_model.load(folder)
        signature = self.saved_model.signatures["serving_default"]
        (pixels,) = signature.structured_input_signature[1].values()
        self.size = tuple(pixels.shape[1:3])
        blank = self(np.zeros((1, *self.size)))  # the first call takes longest
        self.layers = blank["signal"].shape[-1]
        self.classes = blank["probabilities"].shape[-1]

    def __call__(self, images):
        """Arrays by name, of pixels of shape `(images, height, width)`."""
        found = self.saved_model.serve(images[..., None].astype("float32"))
        found = {name: values.numpy() for name, values in found.items()}
        return {"class": found["probabilities"].argmax(axis=-1), **found}


def service(model):
    """The three answers, as an ASGI application."""

    async def page(request):
        return FileResponse(PAGE)

    async def describe(request):
        facts = {n: getattr(model, n) for n in ("size", "layers", "classes")}
        return JSONResponse({**facts, "certificate": model.certificate})

    async def predict(request):
        pixels = pixels_in(await body_of(request), model.size)
        found = await run_in_threadpool(model, pixels.reshape(-1, *model.size))
        if pixels.ndim == 2:
            found = {name: values[0] for name, values in found.items()}
        return JSONResponse({name: values.tolist() for name, values in found.items()})

    async def refuse(request, error):
        return JSONResponse({"error": error.detail}, error.status_code)

    return Starlette(
        routes=[
            Route("/", page),
            Route("/model", describe),
            Route("/predict", predict, methods=["POST"]),
        ],
        exception_handlers={HTTPException: refuse},
    )


async def body_of(request):
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_BODY:
            raise HTTPException(413, f"The body must be at most {LARGEST_BODY} bytes.")
    return body


def pixels_in(body, size):
    """The array in a request, of shape `size` or `(images, *size)`."""
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"The body must be JSON: {error}") from error
    if not isinstance(request, dict) or "pixels" not in request:
        raise HTTPException(400, 'The body must be an object: {"pixels": [[...], ...]}')
    try:
        pixels = np.asarray(request["pixels"])
    except ValueError as error:
        raise HTTPException(400, f"`pixels` must be an array: {error}") from error
    if problem := problem_of(pixels, size):
        raise HTTPException(400, problem)
    return pixels


def problem_of(pixels, size):
    """What the array is instead of pixels, in words; `None` if all is well."""
    shape = pixels.shape
    if pixels.dtype.kind not in "iuf":
        return f"`pixels` must be numbers. Received: {pixels.dtype}"
    if shape != size and shape[1:] != size:
        return (
            f"`pixels` must be an image of shape {size}, or several. Received: {shape}"
        )
    if shape != size and shape[0] > MOST_IMAGES:
        return f"`pixels` must be at most {MOST_IMAGES} images. Received: {shape[0]}"
    low, high = pixels.min(), pixels.max()
    if not (low >= 0 and high <= 255):  # so that NaN is none of it
        return f"`pixels` must be from 0 to 255. Received: from {low} to {high}"
    return None


if __name__ == "__main__":
    main()
