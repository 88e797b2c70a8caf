import csv
import dataclasses

import keras
import numpy as np
import pytest
from versions import not_on_keras_3_10

from keras_bsnn import diagnostics, models, plots
from keras_bsnn._parts import parts
from keras_bsnn.layers import BatchNormDense, DepthStack, OrthogonalDense, ROAFDense
from keras_bsnn.ops import isometry, orthogonal

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 6)).astype("float32")
Y = RNG.normal(size=(12, 6)).astype("float32")
JIT = pytest.mark.parametrize("jit", [False, True], ids=["no jit", "jit"])


def compiled(*layers, shape=(6,)):
    model = keras.Sequential([keras.Input(shape), *layers])
    model.compile("sgd", "mse")
    return model


def gradients(function, tensors):
    """Of a scalar, by what the backend offers its users."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.grad(lambda tensors: function(*tensors))(tensors)
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(tensors)
        value = function(*tensors)
    return tape.gradient(value, tensors)


def norm(x):
    return np.linalg.norm(np.asarray(x, "float64"))


@JIT
def test_values_of_a_model_known_in_closed_form(jit):
    """Two matrices and a ReLU, in float64."""
    first = keras.layers.Dense(4, use_bias=False, name="first")
    relu = keras.layers.ReLU(name="relu")
    second = keras.layers.Dense(6, use_bias=False, name="second")
    report = diagnostics.signal_report(compiled(first, relu, second), X, Y, True, jit)
    a, b = (keras.ops.convert_to_numpy(z.kernel).astype(float) for z in (first, second))
    h = X @ a
    r = np.maximum(h, 0)
    top = 2 * (r @ b - Y) / Y.size
    middle = top @ b.T
    bottom = middle * (h > 0)
    outputs = [h, r, r @ b]
    unit = [
        z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-30) for z in outputs
    ]
    cosines = [
        (u @ u.T)[~np.eye(12, dtype=bool) & np.outer(u.any(1), u.any(1))] for u in unit
    ]
    expected = {
        "mean": [z.mean() for z in outputs],
        "root_mean_square": [np.sqrt((z**2).mean()) for z in outputs],
        "second_moment": [(z**2).mean() for z in outputs],
        "cosine_similarity": [c.mean() for c in cosines],
        "gradient": [norm(bottom), norm(middle), norm(top)],
        "weight_gradient": [norm(X.T @ bottom), np.nan, norm(r.T @ top)],
        "isometry_gap": [float(isometry.isometry_gap(z)) for z in outputs],
        "orthogonality_error": [
            *(float(orthogonal.orthogonality_error(a)), np.nan),
            float(orthogonal.orthogonality_error(b)),
        ],
        "saturated": [0, (h < 0).mean(), 0],
    }
    assert report.layers == ["first", "relu", "second"]
    assert report.kinds == ["Dense", "ReLU", "Dense"]
    assert report.loss == pytest.approx(((outputs[-1] - Y) ** 2).mean(), rel=1e-5)
    for name, values in expected.items():
        np.testing.assert_allclose(
            getattr(report, name), values, 1e-4, 1e-6, err_msg=name
        )


@pytest.mark.slow
@JIT
@pytest.mark.parametrize(
    "block",
    [
        lambda: OrthogonalDense(6, "gp_tanh"),
        lambda: BatchNormDense(6, "tanh"),
        lambda: ROAFDense(6, 0.9),
        lambda: keras.layers.Dense(6, "relu"),
        lambda: keras.Sequential(
            [keras.layers.Dense(6), keras.layers.Activation("tanh")]
        ),
    ],
    ids=["orthogonal", "batch norm", "roaf", "dense", "model"],
)
def test_a_stack_is_measured_like_the_layers_it_stands_for(block, jit):
    stack = DepthStack(block(), 5)
    last = keras.layers.Dense(6)
    found = diagnostics.signal_report(compiled(stack, last), X, Y, True, jit)
    parts = [stack.layer_at(i) for i in range(5)]

    def loss(*outputs):
        """A zero is added to the output of each layer, to differentiate by."""
        h, kept = keras.ops.convert_to_tensor(X), []
        for layer, zero in zip([*parts, last], outputs, strict=True):
            h = layer(h, training=True) + zero
            kept.append(h)
        return keras.ops.mean((h - Y) ** 2), kept

    zeros = [keras.ops.zeros((12, 6)) for _ in range(6)]
    outputs = [keras.ops.convert_to_numpy(h) for h in loss(*zeros)[1]]
    expected = [norm(g) for g in gradients(lambda *z: loss(*z)[0], zeros)]
    np.testing.assert_allclose(found.gradient, expected, rtol=1e-5)
    np.testing.assert_allclose(
        found.root_mean_square, [np.sqrt((h**2).mean()) for h in outputs], rtol=1e-5
    )
    kernels = keras.ops.convert_to_numpy(stack.trainable_variables[0])
    of_kernel = [float(orthogonal.orthogonality_error(k)) for k in kernels]
    np.testing.assert_allclose(found.orthogonality_error[:5], of_kernel, atol=1e-6)
    assert found.layers[:2] == [f"{stack.name}/0", f"{stack.name}/1"]


@pytest.mark.slow
def test_the_worst_kernel_of_the_layers_of_a_stack():
    """Of those that are constrained, in a stack of stacks of models."""
    first = OrthogonalDense(6, "gp_tanh")
    block = keras.Sequential([first, keras.layers.Dense(6), OrthogonalDense(6)])
    stack = DepthStack(DepthStack(block, 3), 2)
    model = compiled(stack, keras.layers.Dense(6))
    part = next(part for part in parts(stack) if part.layer.name == first.name)
    kernels = np.array(keras.ops.convert_to_numpy(part.weights[0]))
    kernels[1, 2] *= 2
    part.weights[0].assign(kernels)
    found = diagnostics.signal_report(model, X, Y).orthogonality_error
    np.testing.assert_allclose(found[:2], [0, 3], atol=1e-5)


@pytest.mark.slow
@JIT
def test_an_embedding_has_the_gradient_of_a_product_with_one_hot_rows(jit):
    """Indices come again, so that the gradients of a row add up."""
    x = RNG.integers(0, 5, (12, 3))
    embedding, last = keras.layers.Embedding(5, 4), keras.layers.Dense(6)
    layers = [embedding, keras.layers.Flatten(), last]
    found = diagnostics.signal_report(compiled(*layers, shape=(3,)), x, Y, True, jit)
    one_hot = np.eye(5, dtype="float32")[x]

    def loss(table):
        h = keras.ops.reshape(keras.ops.matmul(one_hot, table), (12, 12))
        return keras.ops.mean((last(h) - Y) ** 2)

    (table,) = embedding.get_weights()
    (expected,) = gradients(loss, [keras.ops.convert_to_tensor(table)])
    assert found.weight_gradient[0] == pytest.approx(norm(expected), rel=1e-5)


@not_on_keras_3_10("divides no activity by the number of samples")
def test_losses_that_layers_add():
    """A regularizer of activity, which sums over a sample, and one of a kernel."""
    layer = keras.layers.Dense(
        6, use_bias=False, kernel_regularizer="l2", activity_regularizer="l2"
    )
    found = diagnostics.signal_report(compiled(layer), X, Y)
    kernel = keras.ops.convert_to_numpy(layer.kernel)
    h = X @ kernel
    rate = 0.01
    loss = np.mean((h - Y) ** 2) + rate * (np.sum(h**2) / 12 + np.sum(kernel**2))
    assert found.loss == pytest.approx(loss, rel=1e-5)
    expected = 2 * (h - Y) / Y.size + 2 * rate * h / 12
    assert found.gradient[0] == pytest.approx(norm(expected), rel=1e-5)


@pytest.mark.slow
def test_a_stack_in_half_precision_reports_the_outputs_that_it_trains_with():
    depth = 1000
    block = ROAFDense(6, 1 - 3 / depth, filter="shift", dtype="mixed_bfloat16")
    stack = DepthStack(block, depth)
    found = diagnostics.signal_report(compiled(stack, keras.layers.Dense(6)), X, Y)
    h = keras.ops.convert_to_numpy(keras.ops.cast(stack(X, training=True), "float32"))
    expected = np.sqrt(np.mean(h.astype("float64") ** 2))
    assert found.root_mean_square[depth - 1] == pytest.approx(expected, rel=0.01)


def test_gradients_of_the_weights_of_a_stack():
    stack = DepthStack(keras.layers.Dense(6, "tanh", use_bias=False), 4)
    found = diagnostics.signal_report(compiled(stack), X, Y)

    def loss(*kernels):
        h = keras.ops.convert_to_tensor(X)
        for kernel in kernels:
            h = keras.ops.tanh(h @ kernel)
        return keras.ops.mean((h - Y) ** 2)

    kernels = [*map(keras.ops.convert_to_tensor, stack.get_weights()[0])]
    expected = [norm(g) for g in gradients(loss, kernels)]
    np.testing.assert_allclose(found.weight_gradient, expected, rtol=1e-5)


def functional():
    x = inputs = keras.Input((6,), name="x")
    shared = keras.layers.Dense(6, "tanh", name="shared")
    inner = keras.Sequential([keras.layers.Dense(6, name="inner")], name="nested")
    x = keras.layers.Add(name="sum")([shared(x), inner(shared(x))])
    return keras.Model(inputs, x)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.first = keras.layers.Dense(6, "tanh", name="first")
        self.others = [keras.layers.Dense(6, name=f"other_{i}") for i in range(2)]

    def call(self, x):
        x = self.first(x)
        for layer in self.others:
            x = layer(x)
        return x


@pytest.mark.slow
@JIT
def test_a_functional_model_with_a_shared_layer_and_a_nested_one(jit):
    model = functional()
    model.compile("sgd", "mse")
    found = diagnostics.signal_report(model, X, Y, jit_compile=jit)
    assert sorted(found.layers) == ["inner", "shared", "shared (2)", "sum"]
    top = found.gradient[found.layers.index("sum")]
    error = model.predict(X, verbose=0) - Y
    assert top == pytest.approx(norm(2 * error / error.size), rel=1e-5)


@pytest.mark.slow
@JIT
def test_a_subclassed_model(jit):
    model = Subclassed()
    model.compile("sgd", "mse")
    model(X)
    found = diagnostics.signal_report(model, X, Y, jit_compile=jit)
    assert found.layers == ["first", "other_0", "other_1"]
    assert np.all(found.gradient > 0) and np.all(found.weight_gradient > 0)


def test_two_inputs_and_two_outputs():
    a, b = keras.Input((6,), name="a"), keras.Input((6,), name="b")
    both = keras.layers.Concatenate()([a, b])
    outputs = {
        "p": keras.layers.Dense(6, name="p")(both),
        "q": keras.layers.Dense(1)(a),
    }
    model = keras.Model({"a": a, "b": b}, outputs)
    model.compile("sgd", {"p": "mse", "q": "mse"})
    found = diagnostics.signal_report(model, {"a": X, "b": X}, {"p": Y, "q": Y[:, :1]})
    assert len(found.layers) == 3 and np.all(found.gradient > 0)


@pytest.mark.slow
@pytest.mark.parametrize("training", [True, False])
def test_measuring_changes_nothing(training):
    model = compiled(
        BatchNormDense(6, "tanh"),
        keras.layers.BatchNormalization(),
        keras.layers.Dropout(0.5),
        DepthStack(BatchNormDense(6, "tanh"), 3),
        keras.layers.Dense(6),
    )
    before = [keras.ops.convert_to_numpy(v) for v in model.variables]
    diagnostics.signal_report(model, X, Y, training)
    for a, b in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(a, keras.ops.convert_to_numpy(b))
    for layer in model.layers:
        assert "call" not in vars(layer)
    model.fit(X, Y, verbose=0)


def test_it_follows_the_weights():
    """Though what it compiles is kept."""
    model = compiled(keras.layers.Dense(6, use_bias=False))
    before = diagnostics.signal_report(model, X, Y).root_mean_square
    model.set_weights([3 * w for w in model.get_weights()])
    after = diagnostics.signal_report(model, X, Y).root_mean_square
    np.testing.assert_allclose(after, 3 * before, rtol=1e-5)


def test_norms_beyond_the_squares_of_float32():
    """Their squares would underflow, and overflow."""
    first = keras.layers.Dense(6, use_bias=False)
    second = keras.layers.Dense(6, use_bias=False)
    model = compiled(first, second)
    found = []
    for scale in (1e-30, 1e30):
        first.set_weights([scale * np.eye(6, dtype="float32")])
        second.set_weights([np.eye(6, dtype="float32") / scale])
        found.append(diagnostics.signal_report(model, X, Y))
    for report, scale in zip(found, (1e-30, 1e30), strict=True):
        np.testing.assert_allclose(
            report.root_mean_square[0], scale * found[0].root_mean_square[1], rtol=1e-4
        )
        np.testing.assert_allclose(
            report.gradient[0], report.gradient[1] / scale, rtol=1e-4
        )


def test_half_precision():
    with_policy = keras.dtype_policies.DTypePolicy("mixed_bfloat16")
    stack = DepthStack(OrthogonalDense(6, "gp_tanh", dtype=with_policy), 20)
    found = diagnostics.signal_report(
        compiled(stack, keras.layers.Dense(6, dtype=with_policy)), X, Y
    )
    assert np.all(np.isfinite(found.gradient)) and np.all(found.gradient > 0)


@pytest.mark.slow
def test_table_file_and_figure(tmp_path):
    from matplotlib import image

    model = models.bsnn_mlp(8, 6, input_shape=(6,), classes=6)
    model.compile("sgd", "mse")
    report = diagnostics.signal_report(model, X, Y)
    table = report.to_dict()
    assert {len(column) for column in table.values()} == {len(report.layers)}
    report.to_csv(tmp_path / "report.csv")
    with open(tmp_path / "report.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["layers"] for row in rows] == report.layers
    assert [float(row["gradient"]) for row in rows] == table["gradient"]
    trained = report.trained()
    assert set(trained.kinds) == {"Dense", "OrthogonalDense"}
    assert len(trained.gradient) == 10
    report.plot(tmp_path / "report.png")
    picture = image.imread(tmp_path / "report.png")
    assert picture.shape[0] > 400 and np.ptp(picture) > 0.9


@pytest.mark.slow
def test_printing_shows_the_verdict_and_the_worst_layers(capsys):
    model = models.bsnn_mlp(30, 6, input_shape=(6,), classes=6)
    model.compile("sgd", "mse")
    good = diagnostics.signal_report(model, X, Y)
    gap = good.isometry_gap.copy()
    gap[17] = 1e3
    print(dataclasses.replace(good, isometry_gap=gap))
    verdict, empty, title, head, *rows = capsys.readouterr().out.splitlines()
    assert verdict == good.verdict and empty == "" and "worst 5 of 36" in title
    assert head.split()[:3] == ["#", "Layer", "Kind"] and "Isometry gap" in head
    assert len(rows) == 5 and len({len(row) for row in (head, *rows)}) == 1
    numbers = [int(row.split()[0]) for row in rows]
    assert 18 in numbers and numbers == sorted(numbers)
    assert good.layers[17] in rows[numbers.index(18)] and "1.00e+03" in str(rows)
    assert len(repr(good)) < 80 and "gets through 36 layers" in repr(good)


def test_printing_where_signals_end(capsys):
    layers = [keras.layers.Dense(6, name=f"dense_{i}") for i in range(9)]
    model = compiled(*layers)
    layers[4].kernel.assign(np.full((6, 6), 3e38))
    report = diagnostics.signal_report(model, X, Y)
    print(report)
    printed = capsys.readouterr().out
    assert printed.startswith("Outputs are not finite from layer 5 (dense_4) on.")
    assert "dense_4  Dense" in printed and "does not get through" in repr(report)


def test_figure_of_norms_that_underflow(tmp_path):
    import types

    falling = types.SimpleNamespace(
        root_mean_square=np.ones(10),
        gradient=np.array([0.0, 0, *10.0 ** np.arange(-40, 0, 5)]),
    )
    plots.signals({"steady": falling, "other": falling}, tmp_path / "signals.png")
    assert (tmp_path / "signals.png").stat().st_size > 10_000


def test_what_cannot_be_measured():
    model = compiled(keras.layers.Dense(6), keras.layers.Dense(6))
    for bad in (
        keras.Sequential([keras.layers.Dense(6)]),
        keras.layers.Dense(6),
    ):
        with pytest.raises(ValueError, match=r"`model` must be a built keras\.Model"):
            diagnostics.signal_report(bad, X, Y)
    with pytest.raises(ValueError, match=r"shapes \[\(6,\)\].*Received: \[\(5,\)\]"):
        diagnostics.signal_report(model, X[:, :5], Y)
    with pytest.raises(ValueError, match=r"same number .* Received: \[11, 12\]"):
        diagnostics.signal_report(model, X[:11], Y)
    with pytest.raises(ValueError, match=r"`jit_compile` must be True.*'always'"):
        diagnostics.signal_report(model, X, Y, jit_compile="always")
    with pytest.raises(ValueError, match="have weights to train"):
        diagnostics.signal_report(compiled(keras.layers.ReLU()), X, Y)
    kernel = model.layers[1].kernel
    kernel.assign(keras.ops.full((6, 6), float("nan")))
    with pytest.raises(ValueError, match=f"finite weights: '{kernel.path}' has others"):
        diagnostics.signal_report(model, X, Y)


@pytest.mark.parametrize("loss", ["mse", keras.losses.MeanSquaredError()])
def test_a_loss_takes_the_place_of_the_compiled_one(loss):
    dense = keras.layers.Dense(6, kernel_regularizer="l2", activity_regularizer="l2")
    model = keras.Sequential([keras.Input((6,)), dense])
    found = diagnostics.signal_report(model, X, Y, loss=loss)
    assert not model.compiled
    model.compile("sgd", "mse")
    expected = diagnostics.signal_report(model, X, Y)
    np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-6)
    np.testing.assert_allclose(found.gradient, expected.gradient, rtol=1e-6)


def test_a_model_that_is_not_compiled_needs_a_loss():
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(6)])
    with pytest.raises(ValueError, match=r"`loss` must be given.*loss='mse'"):
        diagnostics.signal_report(model, X, Y)
    with pytest.raises(ValueError, match=r"`loss` must be .*Received: loss='msr'"):
        diagnostics.signal_report(model, X, Y, loss="msr")
