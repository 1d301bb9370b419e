"""The worst deformation against exact maxima of toy models, and what holds by construction."""

import itertools

import keras
import numpy as np
import pandas as pd
import pytest
from helpers import BACKEND, natural_images, numpy, randomize, small_network
from keras import layers, ops

import deformstab as ds
from deformstab.backend import compiled_model_step, with_gradient
from deformstab.deformations.splines import spline_matrix
from deformstab.measurement import ascent
from deformstab.measurement import displacement_sets as sets
from deformstab.measurement.objectives import Objective
from deformstab.measurement.representations import representations
from deformstab.measurement.stimuli import deformed_images

QUICK = {"steps": 4, "starts": 3, "progress": False}


def random_form(count, seed=0):
    half = np.random.default_rng(seed).normal(size=(count, count + 3))
    return half @ half.T


# ---- the sets, and where a quadratic form is largest in them ----


@pytest.mark.parametrize("reach", [(2.0, 2.0), (2.0, 0.5), (1.0, 0.0)])
def test_the_top_of_a_form_in_the_box_is_that_of_all_vertices(reach):
    form = random_form(8)
    box = sets.Box(np.array(reach), 4)
    found = box.top_of_form(form).ravel()
    values = []
    for signs in itertools.product([-1, 1], repeat=8):
        d = np.array(signs) * np.tile(reach, 4)
        values.append(d @ form @ d)
    np.testing.assert_allclose(found @ form @ found, max(values), rtol=1e-5)
    np.testing.assert_allclose(np.abs(found), np.tile(reach, 4))


def test_more_signs_than_can_be_enumerated_are_flipped_one_by_one(monkeypatch):
    forms = [random_form(12, seed) for seed in range(20)]
    exact = [sets.Box(np.ones(2), 6).top_of_form(form).ravel() for form in forms]
    monkeypatch.setattr(sets, "_ENUMERATED", 4)
    flipped = [sets.Box(np.ones(2), 6).top_of_form(form).ravel() for form in forms]
    for form, best, found in zip(forms, exact, flipped):
        assert found @ form @ found <= best @ form @ best * (1 + 1e-6)
        for place in range(12):  # no sign gains by being flipped
            other = found.copy()
            other[place] *= -1
            assert other @ form @ other <= found @ form @ found + 1e-9
    ratios = [(a @ f @ a) / (b @ f @ b) for f, a, b in zip(forms, flipped, exact)]
    assert np.median(ratios) > 0.999


def equal_strength(points=(3, 3), size=(16, 18), reach=(2.0, 1.0)):
    deformation = ds.RandomDeformation(points, reach, dtype="float32")
    return deformation, sets.displacement_set(deformation, "rms", *size)


def test_the_top_of_a_form_at_equal_strength_is_the_generalized_eigenvalue():
    scipy = pytest.importorskip("scipy.linalg")
    _, within = equal_strength()
    form = random_form(18)
    found = within.top_of_form(form)
    weights = np.kron(within.gram, np.eye(2))
    largest = scipy.eigh(form, weights, eigvals_only=True)[-1]
    value = found.ravel() @ form @ found.ravel()
    np.testing.assert_allclose(value, within.strength**2 * largest, rtol=1e-9)
    np.testing.assert_allclose(within.rms(found), within.strength, rtol=1e-9)


def test_the_strength_is_that_of_the_draws():
    deformation, within = equal_strength()
    draws = deformation.draw(20_000, seed=0)
    flow = numpy(deformation.flow(draws, 16, 18)).astype("float64")
    np.testing.assert_allclose(np.sqrt((flow**2).sum(-1).mean()), within.strength, rtol=5e-3)
    some = numpy(draws)[:5].astype("float64")
    by_flow = np.sqrt((flow[:5] ** 2).sum(-1).mean((1, 2)))
    np.testing.assert_allclose(within.rms(some), by_flow, rtol=1e-5)
    paper = sets.displacement_set(ds.RandomDeformation(3, 2.0), "rms", 32, 32)
    np.testing.assert_allclose(paper.strength, 1.2497, atol=5e-5)  # measured by 20,000 draws


def test_projections_and_steps():
    _, within = equal_strength()
    d = np.random.default_rng(0).normal(size=(6, 9, 2)) * np.linspace(0, 3, 6)[:, None, None]
    inside = within.inside(d)
    assert (within.rms(inside) <= within.strength * (1 + 1e-12)).all()
    small = within.rms(d) <= within.strength
    np.testing.assert_array_equal(inside[small], d[small])
    np.testing.assert_allclose(within.rms(within.on_edge(d))[1:], within.strength)
    assert (within.on_edge(d)[0] == 0).all()  # no direction
    # The steepest direction in the norm of the flow gains more than any other of equal norm.
    gradient = np.random.default_rng(1).normal(size=(9, 2))
    step = within.step(gradient, 0.1)
    np.testing.assert_allclose(within.rms(step), 0.1 * within.strength)
    for other in np.random.default_rng(2).normal(size=(50, 9, 2)):
        other *= within.rms(step) / within.rms(other)
        assert (other * gradient).sum() <= (step * gradient).sum()
    box = sets.Box(np.array([2.0, 1.0]), 9)
    assert (np.abs(box.inside(10 * d)) <= [2.0, 1.0]).all()


# ---- a model whose representation is linear in the displacements ----


def ramp_model(size=12):
    """Images that are planes stay planes inside under a deformation: r is linear in d."""
    inputs = keras.Input((size, size, 2))
    outputs = layers.Cropping2D(4, name="inside")(inputs)
    return keras.Model(inputs, outputs)


def planes(count=3, size=12):
    y, x = np.indices((size, size)) / size
    slopes = np.random.default_rng(0).normal(size=(count, 2, 2))
    images = np.einsum("nca,ahw->nhwc", slopes, np.stack([y, x]))
    return images.astype("float32"), slopes / size


def linear_form(slopes, control_points, size, margin=4):
    """|r(d) - r(0)|² = dᵀ A d, by the spline's matrix: A [points · 2, points · 2]."""
    matrix = spline_matrix(control_points, size, size).reshape(size, size, -1)
    matrix = matrix[margin:-margin, margin:-margin].reshape(-1, matrix.shape[-1])
    jacobian = np.einsum("up,ca->ucpa", matrix, slopes).reshape(-1, 2 * matrix.shape[1])
    return jacobian.T @ jacobian


@pytest.mark.parametrize("within", ["box", "rms"])
def test_a_representation_that_is_linear_in_the_displacements(within):
    images, slopes = planes()
    deformation = ds.RandomDeformation((2, 3), 0.5, dtype="float32")
    table, d = ds.worst_deformation(
        ramp_model(), images, "inside", deformation, within, 10, 3, metric="euclidean"
    )
    for number, each in enumerate(slopes):
        form = linear_form(each, (2, 3), 12)
        if within == "box":
            best = max(
                np.array(s) @ form @ np.array(s) for s in itertools.product([-0.5, 0.5], repeat=12)
            )
        else:
            matrix = spline_matrix((2, 3), 12, 12)
            weights = np.kron(matrix.T @ matrix / 144, np.eye(2))
            largest = np.linalg.eigvals(np.linalg.solve(weights, form)).real.max()
            best = largest * 2 * 0.25 * (matrix**2).sum() / (3 * 144)
        np.testing.assert_allclose(table["worst"][number], np.sqrt(best), rtol=1e-4)
        mine = d[number].ravel().astype("float64")
        np.testing.assert_allclose(np.sqrt(mine @ form @ mine), table["worst"][number], rtol=1e-4)
    assert (table["worst"] ** 2 >= 3 * table["mean"] ** 2 * 0.99).all() or within == "rms"


def sines(side, cutoff):
    """Flows of a diffeomorphism's coefficients, [side, side, modes]: written out."""
    ramp = np.arange(side) / (side - 1)
    found = []
    for j in range(1, cutoff + 1):
        for i in range(1, cutoff + 1):
            if i * i + j * j <= (cutoff + 0.5) ** 2:
                found.append(np.outer(np.sin(np.pi * j * ramp), np.sin(np.pi * i * ramp)))
    return np.stack(found, axis=-1)


@pytest.mark.parametrize("family", ["shifts", "sines"])
def test_families_that_are_linear_in_their_parameters(family):
    images, slopes = planes()
    if family == "shifts":
        deformation, basis = ds.RandomTranslation(0.5), np.ones((12, 12, 1))
    else:
        deformation, basis = ds.RandomDiffeomorphism(2, 0.5), sines(12, 2)
    table, found = ds.worst_deformation(
        ramp_model(), images, "inside", deformation, "rms", 10, 3, metric="euclidean"
    )
    weights = np.kron(np.einsum("ijp,ijq->pq", basis, basis) / 144, np.eye(2))
    inside = basis[4:-4, 4:-4].reshape(-1, basis.shape[-1])
    for number, each in enumerate(slopes):
        jacobian = np.einsum("up,ca->ucpa", inside, each).reshape(-1, 2 * basis.shape[-1])
        largest = np.linalg.eigvals(np.linalg.solve(weights, jacobian.T @ jacobian)).real.max()
        np.testing.assert_allclose(table["worst"][number], 0.5 * largest**0.5, rtol=1e-3)
    np.testing.assert_allclose(table["rms_displacement"], 0.5, rtol=1e-5)
    moved = numpy(deformation.deform(images, found))[:, 4:-4, 4:-4] - images[:, 4:-4, 4:-4]
    np.testing.assert_allclose((moved**2).sum(axis=(1, 2, 3)), table["worst"] ** 2, rtol=1e-3)


def test_no_shift_moves_a_network_that_ignores_shifts(images):
    image = keras.Input(images.shape[1:])
    wrapped = layers.Lambda(lambda x: ops.concatenate([x[:, -1:], x, x[:, :1]], axis=1))(image)
    wrapped = layers.Lambda(lambda x: ops.concatenate([x[:, :, -1:], x, x[:, :, :1]], axis=2))(
        wrapped
    )
    maps = layers.Conv2D(6, 3, padding="valid", name="conv")(wrapped)
    model = keras.Model(image, layers.GlobalAveragePooling2D(name="mean")(maps))
    shifts = ds.RandomTranslation(1.25, padding="circular")
    table, _ = ds.worst_deformation(model, images[:4], "mean", shifts, "rms", **QUICK)
    assert (table["worst_sensitivity"].abs() < 1e-4).all()
    moved, _ = ds.worst_deformation(model, images[:4], "conv", shifts, "rms", **QUICK)
    assert (moved["worst_sensitivity"] > 0.01).all()


def test_ascent_alone_climbs_to_the_maximum_of_the_linear_model(monkeypatch):
    images, _ = planes()
    deformation = ds.RandomDeformation((2, 3), 0.5, dtype="float32")
    arguments = ramp_model(), images, "inside", deformation, "box", 20, 8
    exact = ds.worst_deformation(*arguments, metric="euclidean")[0]
    monkeypatch.setattr(
        ascent, "_spectral", lambda objective, within, found: 0.01 * np.ones((3, 6, 2))
    )
    climbed = ds.worst_deformation(*arguments, metric="euclidean")[0]
    np.testing.assert_allclose(climbed["search"], exact["search"], rtol=1e-3)


# ---- gradients ----


@pytest.mark.parametrize("kind", ["cosine", "euclidean", "prediction"])
def test_gradients_against_central_differences(kind):
    model, images = small_network(), natural_images(3)
    prepared = deformed_images(images, ds.RandomDeformation(3, 1.0, dtype="float32"))
    name = "logits" if kind == "prediction" else "relu1"
    (chosen,) = [x for x in representations(model, prepared) if x.name == name]
    objective = Objective(model, prepared, chosen, kind, np.arange(3))
    d = np.random.default_rng(0).uniform(-0.9, 0.9, (3, 9, 2))
    values, gradient = objective.values_and_gradients(d)
    np.testing.assert_allclose(values, objective.values(d), rtol=2e-4)

    def monotone(d):
        found = objective.values(d)
        return found**2 if kind == "euclidean" else found

    agreeing, size = 0, 4e-3
    for point, axis in itertools.product(range(9), range(2)):
        step = np.zeros_like(d)
        step[:, point, axis] = size
        slope = (monotone(d + step) - monotone(d - step)) / (2 * size)
        scale = np.abs(gradient).max(axis=(1, 2))
        agreeing += (np.abs(slope - gradient[:, point, axis]) < 0.05 * scale).sum()
    assert agreeing >= 51  # of 54: bilinear sampling, ReLU and the maximum have kinks


def test_a_gradient_of_what_does_not_depend_on_it_is_zero():
    model = small_network()

    def function(first, second):
        return ops.sum(ops.square(second), axis=1)

    step = compiled_model_step(
        with_gradient(function), model, ((2, 3), "float32"), ((2, 3), "float32")
    )
    values, gradient = step(ops.ones((2, 3)), 2 * ops.ones((2, 3)))
    np.testing.assert_array_equal(numpy(values), [12, 12])
    np.testing.assert_array_equal(numpy(gradient), np.zeros((2, 3)))


# ---- what holds by construction ----


@pytest.mark.parametrize("within", ["box", "rms"])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_worst_is_at_least_what_draws_give_and_is_what_it_says(images, network, metric, within):
    deformation = ds.RandomDeformation(3, 1.0, dtype="float32")
    table, d = ds.worst_deformation(
        network, images, "relu1", deformation, within, metric=metric, batch_size=5, **QUICK
    )
    assert (table["worst"] >= table["best_of_k"]).all()
    assert (table["worst"] >= table["search"]).all()
    assert (table["worst"] > table["mean"]).all()
    assert d.shape == (12, 9, 2)
    part = keras.Model(network.input, network.get_layer("relu1").output)
    clean, moved = (numpy(part(x)).reshape(12, -1) for x in (images, deformation.deform(images, d)))
    measured = numpy(getattr(ds, f"{metric}_distance")(clean, moved))
    np.testing.assert_allclose(table["worst"], measured, rtol=1e-4)
    flow = numpy(deformation.flow(d, 16, 16)).astype("float64")
    length = np.sqrt((flow**2).sum(-1))
    rms = np.sqrt((length**2).mean((1, 2)))
    np.testing.assert_allclose(table["rms_displacement"], rms, rtol=1e-5)
    np.testing.assert_allclose(table["max_displacement"], length.max((1, 2)), rtol=1e-5)
    strength = sets.displacement_set(deformation, "rms", 16, 16).strength
    if within == "box":
        assert np.abs(d).max() <= 1.0
    else:
        assert (rms <= strength * (1 + 1e-5)).all()
    sensitivity = ds.measure_sensitivity(network, images, deformation, "relu1", metric)
    np.testing.assert_allclose(table["baseline"], sensitivity["baseline"][0], rtol=1e-5)
    np.testing.assert_allclose(
        table["worst_sensitivity"], table["worst"] / table["baseline"], rtol=1e-12
    )
    passes = 3 * (3 * 4 + 1) + 2 * 18 + 2
    assert (table["passes"] == passes).all()
    draws = numpy(deformation.draw(12 * passes, seed=0)).reshape(12, passes, 9, 2)
    some = [
        numpy(getattr(ds, f"{metric}_distance")(clean, numpy(part(x)).reshape(12, -1)))
        for x in (deformation.deform(images, draws[:, k]) for k in range(16))
    ]
    np.testing.assert_allclose(table["mean"], np.mean(some, axis=0), rtol=1e-4)


def test_images_do_not_influence_each_other(images, network):
    options = {"batch_size": 4, **QUICK}
    together, d = ds.worst_deformation(network, images[:8], "conv2", **options)
    # Other images behind them: the draws of the first ones stay as they are.
    mixed = np.concatenate([images[:4], images[:3:-1]])
    apart, _ = ds.worst_deformation(network, mixed, "conv2", **options)
    np.testing.assert_allclose(apart["worst"][:4], together["worst"][:4], rtol=1e-4)
    _, same = ds.worst_deformation(network, images[:8], "conv2", **options)
    np.testing.assert_array_equal(same, d)
    one_by_one, _ = ds.worst_deformation(network, images[:8], "conv2", batch_size=1, **QUICK)
    np.testing.assert_allclose(one_by_one["worst"], together["worst"], rtol=0.02)


@pytest.mark.parametrize("within", ["box", "rms"])
@pytest.mark.parametrize("layer", ["relu1", "prediction"])
def test_no_strength_moves_nothing(images, network, layer, within):
    deformation = ds.RandomDeformation(3, 0.0, dtype="float32")
    table, d = ds.worst_deformation(network, images, layer, deformation, within, **QUICK)
    assert (d == 0).all()
    assert (table["rms_displacement"] == 0).all()
    assert not table["folded"].any()
    if layer == "prediction":
        np.testing.assert_allclose(table["worst"], table["mean"], rtol=1e-5)
        assert table["unchanged"].all()
    else:
        for name in ("mean", "best_of_k", "search", "worst"):
            assert (table[name] == 0).all(), name


def test_no_displacement_of_the_box_folds_up_to_2_73_pixels():
    deformation = ds.RandomDeformation(3, 2.73, dtype="float32")
    images = natural_images(4, 32, 32)
    model = keras.Sequential([keras.Input((32, 32, 3)), layers.Conv2D(4, 3, name="conv")])
    table, _ = ds.worst_deformation(model, images, "conv", deformation, **QUICK)
    assert not table["folded"].any()
    assert (table["max_displacement"] > 2.73).all()  # both axes: up to √2 times as far


def test_where_only_a_draw_has_a_value_its_displacements_come_with_it(images, network, monkeypatch):
    """The search finds NaN for all images: the worst is the best of the draws."""
    from deformstab.measurement import worst_case

    def nothing(objective, within, draws, *arguments):
        return ascent.Found.nothing(draws[:, 0])

    monkeypatch.setattr(worst_case, "search", nothing)
    deformation = ds.RandomDeformation(3, 1.0, dtype="float32")
    table, d = ds.worst_deformation(network, images, "relu1", deformation, **QUICK)
    assert table["search"].isna().all()
    part = keras.Model(network.input, network.get_layer("relu1").output)
    clean, moved = (numpy(part(x)).reshape(12, -1) for x in (images, deformation.deform(images, d)))
    np.testing.assert_allclose(table["worst"], numpy(ds.cosine_distance(clean, moved)), rtol=1e-4)
    assert (table["worst"] == table["best_of_k"]).all()


# ---- the prediction ----


@pytest.mark.parametrize("activation", [None, "softmax"])
def test_the_prediction(images, activation):
    model = small_network()
    if activation:
        model = keras.Model(model.input, layers.Softmax()(model.output))
    labels = numpy(model(images)).argmax(axis=1)
    labels[:4] = (labels[:4] + 1) % 5
    table, d = ds.worst_deformation(
        model,
        images,
        "prediction",
        ds.RandomDeformation(3, 1.3, dtype="float32"),
        labels=labels,
        **QUICK,
    )
    logits = numpy(small_network()(ds.RandomDeformation(3, 1.3).deform(images, d)))
    clean = numpy(small_network()(images)).argmax(axis=1)
    own = logits[np.arange(12), clean]
    logits[np.arange(12), clean] = -np.inf
    np.testing.assert_allclose(table["worst"], logits.max(axis=1) - own, rtol=1e-3, atol=1e-5)
    assert (table["worst"] >= table["best_of_k"]).all()
    np.testing.assert_array_equal(table["unchanged"], table["worst"] <= 0)
    right = table["unchanged"] & (np.arange(12) >= 4)
    np.testing.assert_array_equal(table["accuracy"], right.astype(float))
    assert (table["metric"] == "margin").all()
    unlabelled, _ = ds.worst_deformation(model, images, "prediction", **QUICK)
    assert unlabelled["accuracy"].isna().all()


def test_a_class_that_the_model_rules_out_changes_nothing(images):
    """Logits of -∞, as masks of classes give them."""

    class Masked(layers.Layer):
        def call(self, answers):
            return ops.concatenate(
                [answers[:, :2], -np.inf + 0 * answers[:, :1], answers[:, 2:]], 1
            )

    plain = small_network()
    masked = keras.Model(plain.input, Masked()(plain.output))
    found, d = ds.worst_deformation(masked, images, "prediction", **QUICK)
    expected, d_expected = ds.worst_deformation(plain, images, "prediction", **QUICK)
    assert np.isfinite(found["worst"]).all()
    pd.testing.assert_frame_equal(
        found.drop(columns="layer"), expected.drop(columns="layer"), rtol=1e-4
    )
    np.testing.assert_allclose(d, d_expected, atol=1e-4)


class Marked(layers.Layer):
    """Answers, with another one for images that hold a value above 50."""

    def __init__(self, answer, **kwargs):
        super().__init__(**kwargs)
        self.answer = answer

    def call(self, image, answers):
        marked = ops.max(image, axis=(1, 2, 3), keepdims=True)[:, :, 0, 0] > 50
        return ops.where(marked, self.answer(answers), answers)


def marking(answer, activation="softmax"):
    """A classifier, and the same with another answer for marked images."""
    plain = small_network()
    answers = layers.Activation(activation)(plain.output)
    marked = Marked(answer)(plain.input, answers)
    return keras.Model(plain.input, answers), keras.Model(plain.input, marked)


SHORT = {"deformation": ds.RandomDeformation(3, 1.0, dtype="float32"), "steps": 1, "starts": 1}


@pytest.mark.parametrize(("place", "batch_size"), [(0, 6), (5, 4)])
def test_an_image_without_an_answer_does_not_turn_probabilities_into_logits(
    images, place, batch_size
):
    plain, some = marking(lambda answers: np.nan * answers)
    given = images[:6].copy()
    given[place] = 100
    table, _ = ds.worst_deformation(some, given, "prediction", **SHORT, batch_size=batch_size)
    expected, _ = ds.worst_deformation(plain, given, "prediction", **SHORT)
    others = np.arange(6) != place
    for name in ("mean", "best_of_k", "search", "worst"):
        np.testing.assert_allclose(table[name][others], expected[name][others], rtol=1e-3)
    assert table["worst"].isna()[place]


def test_whether_answers_are_probabilities_does_not_depend_on_the_batch(images):
    """Of a sum of 2 for one image: no probabilities, and margins are differences in all rows."""
    _, some = marking(lambda answers: 2 * answers)
    given = images[:6].copy()
    given[4] = 100
    tables = [
        ds.worst_deformation(some, given, "prediction", **SHORT, batch_size=size)[0]
        for size in (6, 1)
    ]
    assert (tables[0]["worst"].abs() < 2).all()
    np.testing.assert_allclose(tables[1]["mean"], tables[0]["mean"], rtol=1e-3)
    clean = numpy(some(given))
    ranked = np.sort(clean, axis=1)
    at_rest, _ = ds.worst_deformation(
        some, given, "prediction", **SHORT | {"deformation": ds.RandomDeformation(3, 0.0)}
    )
    np.testing.assert_allclose(at_rest["worst"], ranked[:, -2] - ranked[:, -1], rtol=1e-4)


# ---- what cannot be measured ----


def test_an_image_without_representation_has_a_note_and_disturbs_no_other(images):
    inputs = keras.Input((16, 16, 3))
    model = keras.Model(
        inputs, layers.ReLU(name="relu")(layers.Conv2D(3, 3, use_bias=False)(inputs))
    )
    some = images[:4].copy()
    some[2] = 0
    table, d = ds.worst_deformation(model, some, "relu", **QUICK)
    assert np.isnan(table.loc[2, ["mean", "best_of_k", "search", "worst"]].astype(float)).all()
    assert (d[2] == 0).all()
    others = table.drop(2)
    assert (others["worst"] > 0).all()
    # There is no baseline, and each row says why.
    note = ds.measure_sensitivity(model, some, layers="relu")["note"].item()
    assert (others["note"] == note).all()
    own, _, of_the_layer = table["note"][2].partition("; ")
    assert "zero or non-finite representation of the image: it" in own
    assert of_the_layer == note
    assert table[["baseline", "mean_sensitivity", "worst_sensitivity"]].isna().all(axis=None)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_no_baseline_where_a_measured_layer_has_none(images, metric):
    """All images in one direction, or so far out that float32 tells them hardly apart."""
    image = keras.Input((16, 16, 3))
    means = layers.Dense(1, use_bias=False)(layers.GlobalAveragePooling2D()(image))
    numbers = layers.Lambda(lambda x: ops.abs(x) + (0.1 if metric == "cosine" else 1e6))(means)
    model = keras.Model(image, layers.Dense(7, use_bias=False, name="up")(numbers))
    table, _ = ds.worst_deformation(model, images, "up", metric=metric, **QUICK)
    row = ds.measure_sensitivity(model, images, layers="up", metric=metric)
    assert row["note"].item() != ""
    assert (table["note"] == row["note"].item()).all()
    assert table[["baseline", "mean_sensitivity", "worst_sensitivity"]].isna().all(axis=None)


class Fragile(layers.Layer):
    """Answers by a pixel in the middle: NaN above 10, the second class below -10, else the first."""

    def call(self, image):
        pixel = image[:, 8, 8, :1]
        first = ops.where(pixel > 10, np.nan, ops.where(pixel < -10, 0.0, 2.0))
        return ops.concatenate([first, ops.ones_like(first), ops.zeros_like(first)], axis=1)


def test_an_answer_with_nan_is_neither_unchanged_nor_right():
    given = np.zeros((6, 16, 16, 3), "float32")
    given[[1, 2], 8, 9] = 600  # under shifts to one side NaN
    given[[2, 3], 8, 7] = -600  # under shifts to the other another answer
    given[[4, 5], 8, 8] = 600  # NaN as it is, and something else under some
    given[5, 8, 7] = -600
    model = keras.Sequential([keras.Input((16, 16, 3)), Fragile()])
    deformation = ds.RandomDeformation(3, 1.0, dtype="float32")
    labels = np.zeros(6, int)
    table, d = ds.worst_deformation(model, given, "prediction", deformation, labels=labels, **QUICK)
    assert table["unchanged"].tolist() == [True, *[False] * 5]
    np.testing.assert_array_equal(table["accuracy"], [1, np.nan, 0, 0, np.nan, np.nan])
    np.testing.assert_array_equal(table["worst"], [-1, -1, 1, 1, np.nan, np.nan])
    np.testing.assert_array_equal(table["mean"].isna(), [False, True, True, False, True, True])
    own = "no finite answer for the image"
    some = f"{own} under some of the deformations that were tried"
    assert table["note"].tolist() == ["", some, some, "", own, own]
    assert (d[4:] == 0).all()
    assert (
        ds.worst_deformation(model, given, "prediction", deformation, **QUICK)[0]["accuracy"]
        .isna()
        .all()
    )


def test_a_representation_that_only_some_deformations_break_has_a_note():
    given = natural_images(4)
    given[1, 8, 7:9], given[1, 8, 9] = 0, 600
    image = keras.Input((16, 16, 3))
    broken = layers.Lambda(lambda x: ops.where(x[:, 8:9, 8:9] > 10, np.nan, x), name="broken")
    model = keras.Model(image, broken(image))
    deformation = ds.RandomDeformation(3, 1.0, dtype="float32")
    table, _ = ds.worst_deformation(model, given, "broken", deformation, **QUICK)
    assert "under some of the deformations" in table["note"][1]
    assert table["worst"].notna().all()
    assert not table["note"].drop(1).str.contains("under some").any()


def test_channels_first_and_mixed_precision(images):
    keras.config.set_dtype_policy("mixed_float16")
    table, d = ds.worst_deformation(small_network(), images, "conv1", **QUICK)
    assert (table["worst"] > table["mean"]).all()
    assert np.isfinite(d).all()
    keras.config.set_dtype_policy("float32")
    expected, _ = ds.worst_deformation(small_network(), images, "input", **QUICK)
    keras.config.set_image_data_format("channels_first")
    model = keras.Sequential([keras.Input((3, 16, 16)), layers.Flatten()])
    table, _ = ds.worst_deformation(model, images.transpose(0, 3, 1, 2), "input", **QUICK)
    np.testing.assert_allclose(table["worst"], expected["worst"], rtol=1e-3)


def test_of_several_inputs_one_is_deformed(images):
    image, factor = keras.Input((16, 16, 3), name="image"), keras.Input((1,), name="factor")
    flat = layers.Flatten()(layers.Conv2D(2, 3, name="conv")(image))
    model = keras.Model({"image": image, "factor": factor}, flat * factor)
    randomize(model)
    given = {"image": images, "factor": np.linspace(1, 2, 12)[:, None].astype("float32")}
    table, _ = ds.worst_deformation(model, given, "output", metric="euclidean", **QUICK)
    plain, _ = ds.worst_deformation(model, given, "conv", metric="euclidean", **QUICK)
    np.testing.assert_allclose(table["worst"] / given["factor"][:, 0], plain["worst"], rtol=2e-2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer": "nowhere"}, "unknown layers"),
        ({"layer": None}, "single layer"),
        ({"layer": "*1"}, "single layer"),
        ({"within": "ball"}, "within must be one of box, rms, received 'ball'"),
        ({"deformation": 2.0}, "must be a ds.RandomDeformation"),
        ({"deformation": ds.RandomDeformation(3, 1.0, "nearest")}, "bilinear"),
        ({"deformation": ds.RandomDeformation(17, 0.1)}, "at most 256 control points"),
        ({"deformation": ds.RandomDiffeomorphism()}, 'fill no box: pass within="rms"'),
        ({"deformation": ds.RandomTranslation()}, 'fill no box: pass within="rms"'),
        (
            {"deformation": ds.RandomTranslation(1, integer=True), "within": "rms"},
            "follow linearly",
        ),
        ({"deformation": ds.RandomRotation(), "within": "rms"}, "follow linearly"),
        ({"deformation": lambda images, seed: images, "within": "rms"}, "follow linearly"),
        ({"steps": 0}, "steps must be an int"),
        ({"starts": 1.5}, "starts must be an int"),
        ({"metric": "margin"}, "unknown metric"),
    ],
)
def test_refused(images, network, arguments, message):
    given = {"layer": "relu1", **arguments}
    with pytest.raises(ValueError, match=message):
        ds.worst_deformation(network, images, **given)


@pytest.mark.parametrize(
    ("layer", "arguments", "message"),
    [
        ("prediction", {"labels": np.zeros(3, int)}, "labels"),
        ("relu1", {"memory_limit": 2}, "over 1000 passes .* give at least"),
    ],
)
def test_refused_before_the_search(images, network, monkeypatch, layer, arguments, message):
    from deformstab.measurement import worst_case

    def searching(*arguments):
        raise AssertionError("the search began")

    monkeypatch.setattr(worst_case, "random_draws", searching)
    with pytest.raises(ValueError, match=message):
        ds.worst_deformation(network, images, layer, **arguments)


def test_a_memory_limit_that_is_given_serves(images, network):
    with pytest.raises(ValueError, match="give at least") as refused:
        ds.worst_deformation(network, images, "relu1", memory_limit=2)
    least = int(str(refused.value).split("at least ")[1].split(",")[0])
    table, _ = ds.worst_deformation(network, images[:3], "relu1", **SHORT, memory_limit=least)
    assert table["baseline"].notna().all()


@pytest.mark.skipif(BACKEND == "jax", reason="its seeds are uint32, and others are refused")
def test_negative_seeds(images, network):
    options = {**QUICK, "starts": 2, "steps": 1, "deformation": SHORT["deformation"]}
    first, again = (
        ds.worst_deformation(network, images[:3], "relu1", **options, seed=-1) for _ in range(2)
    )
    assert first[0].equals(again[0])
    np.testing.assert_array_equal(first[1], again[1])
    other, _ = ds.worst_deformation(network, images[:3], "relu1", **options, seed=1)
    assert (first[0]["mean"] != other["mean"]).all()


@pytest.mark.parametrize("within", ["box", "rms"])
def test_more_deformations_than_passes(images, network, within):
    """The mean is over as many as asked for, the best still of as many as `passes`."""
    deformation, given = SHORT["deformation"], images[:3]
    options = {**SHORT, "within": within, "metric": "euclidean"}
    table, _ = ds.worst_deformation(network, given, "relu1", **options, deformations=60)
    passes = table["passes"][0]
    assert passes == 1 * 4 + 2 * 18 + 2
    part = keras.Model(network.input, network.get_layer("relu1").output)
    clean = numpy(part(given)).reshape(3, -1)
    draws = numpy(deformation.draw(3 * 60, seed=0)).reshape(3, 60, 9, 2).astype("float64")
    edge = sets.displacement_set(deformation, within, 16, 16).on_edge(draws)

    def distances(d):
        moved = (
            numpy(part(deformation.deform(given, d[:, k].astype("float32")))) for k in range(60)
        )
        return np.stack([np.linalg.norm(x.reshape(3, -1) - clean, axis=1) for x in moved], axis=1)

    np.testing.assert_allclose(table["mean"], distances(draws).mean(axis=1), rtol=1e-4)
    best = distances(edge)[:, :passes].max(axis=1)
    np.testing.assert_allclose(table["best_of_k"], best, rtol=1e-4)
