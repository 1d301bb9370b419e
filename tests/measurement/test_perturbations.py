"""Any deformation in any measurement: families, objects, functions, parts, noise, videos."""

import keras
import numpy as np
import pandas as pd
import pytest
from helpers import BACKEND, natural_images, numpy
from keras import layers

import deformstab as ds
from deformstab.measurement.perturbations import NOISE_KINDS, Drawn, Noise


@pytest.fixture(scope="module")
def images():
    return natural_images(12, 16)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return ds.vgg((16, 16, 3), 4, ((1, 6), (1, 8)), "average", seed=0)


class Turning:
    """An object that is no layer: half a turn, with a structure for parameters."""

    def draw(self, batch_size, seed=None):
        return {"turn": np.ones(batch_size), "other": [np.zeros((batch_size, 2))]}

    def flow(self, parameters, height, width):
        places = np.stack(np.indices((height, width)), axis=-1).astype("float32")
        one = np.array([height - 1, width - 1], "float32") - 2 * places
        return np.repeat(one[None], len(parameters["turn"]), axis=0)

    def deform(self, images, parameters):
        return keras.ops.flip(images, (1, 2))


def test_an_object_deforms(model, images):
    found = ds.measure_sensitivity(model, images, Turning(), layers="input", deformations=2)
    by_function = ds.measure_sensitivity(
        model, images, lambda x, seed: x[:, ::-1, ::-1], layers="input", deformations=2
    )
    assert found.sensitivity[0] == pytest.approx(by_function.sensitivity[0], rel=1e-6)
    places = np.stack(np.indices((16, 16)), axis=-1)
    expected = np.sqrt(np.square(15 - 2 * places).sum(axis=-1).mean())
    assert found.rms_displacement[0] == pytest.approx(expected)
    # Of a function nobody knows how far it moves pixels, nor whether it folds.
    assert by_function[["rms_displacement", "folded_fraction"]].isna().all(axis=None)


@pytest.mark.parametrize("batch_size", [3, 32])
def test_a_function_is_called_once_with_all_copies(model, images, batch_size):
    calls = []

    def shifted(copies, seed):
        calls.append((copies.shape, seed))
        return np.stack([np.roll(x, 1 + n % 2, axis=0) for n, x in enumerate(copies)])

    table = ds.measure_sensitivity(
        model, images, shifted, layers="input", deformations=2, batch_size=batch_size, seed=7
    )
    assert calls == [((24, 16, 16, 3), 7)]
    flat = images.reshape(12, -1).astype("float64")

    def distance(a, b):
        return 1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    apart = [
        distance(x.ravel().astype(float), np.roll(x, n, axis=0).ravel().astype(float))
        for x in images
        for n in (1, 2)
    ]
    pairs = [distance(flat[i], flat[j]) for i in range(12) for j in range(i + 1, 12)]
    assert table.sensitivity[0] == pytest.approx(np.mean(apart) / np.median(pairs), rel=1e-4)


@pytest.mark.parametrize(
    ("deformation", "message"),
    [
        (keras.layers.RandomRotation(0.1), "lambda images, seed: keras.layers.RandomRotation"),
        (ds.RandomDeformation, "must be a layer such as"),
        (3, "must be a layer such as"),
        (lambda images, seed: images[:, :8], "must give images of the shape that it takes"),
        (lambda images, seed: images * np.nan, "must be finite"),
    ],
)
def test_what_does_not_deform(model, images, deformation, message):
    with pytest.raises(ValueError, match=message):
        ds.measure_sensitivity(model, images, deformation)


def test_functions_have_no_flow(model, images):
    with pytest.raises(ValueError, match="a function has none"):
        ds.sensitivity_by_part(model, images, lambda x, seed: x)
    with pytest.raises(ValueError, match=r"strengths of a ds\.RandomDeformation"):
        ds.sensitivity_by_strength(model, images, [1.0], ds.RandomTranslation())


@pytest.mark.parametrize(
    "family", [ds.RandomTranslation, ds.RandomRotation, ds.RandomDiffeomorphism]
)
def test_every_measurement_takes_a_family(model, images, family):
    layer = family(rms_displacement=0.8, seed=0)
    table = ds.measure_sensitivity(model, images, layer)
    np.testing.assert_allclose(table.rms_displacement, table.rms_displacement[0])
    assert table.sensitivity.notna().all()
    row = ds.prediction_consistency(model, images, deformation=layer)
    assert row.rms_displacement[0] == table.rms_displacement[0]
    assert row.sensitivity[0] == pytest.approx(table.sensitivity.iloc[-1], rel=1e-5)
    callback = ds.SensitivityCallback(images, layer, layers="input")
    model.compile("sgd", "mse")
    model.fit(images, np.zeros((12, 4)), verbose=0, callbacks=[callback])
    assert callback.table.sensitivity[0] == pytest.approx(table.sensitivity[0], rel=1e-6)


def test_a_circular_network_ignores_circular_shifts(images):
    def circular(x):
        return keras.ops.concatenate([x[:, -1:], x, x[:, :1]], axis=1)

    inputs = keras.Input((16, 16, 3))
    x = circular(inputs)
    x = keras.ops.concatenate([x[:, :, -1:], x, x[:, :, :1]], axis=2)
    x = layers.Conv2D(8, 3, activation="relu", kernel_initializer="he_normal")(x)
    outputs = layers.GlobalAveragePooling2D(name="mean")(x)
    model = keras.Model(inputs, outputs)
    shift = ds.RandomTranslation(2.0, integer=True, padding="circular", seed=0)
    table = ds.measure_sensitivity(model, images, shift, layers="mean")
    assert table.sensitivity[0] < 1e-6


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_parts_are_measured_on_the_same_draws(model, images, metric):
    options = {"layers": ["input", "block2_downsample"], "deformations": 2, "metric": metric}
    table = ds.sensitivity_by_part(model, images, **options)
    full = ds.measure_sensitivity(model, images, **options)
    own = table[table.part == "full"].reset_index(drop=True)
    np.testing.assert_allclose(own.sensitivity, full.sensitivity, rtol=1e-5)
    np.testing.assert_allclose(own.sensitivity_low, full.sensitivity_low, rtol=1e-4)
    assert (own[["share", "share_low", "share_high"]] == 1).all(axis=None)
    # The translation part by hand: a translation by the mean of the flow.
    layer = ds.paper_deformation(images.shape)
    means = numpy(layer.flow(layer.draw(24, seed=0), 16, 16)).mean(axis=(1, 2))

    class Shifts(ds.RandomTranslation):
        def draw(self, batch_size, seed=None):
            return means

    by_hand = ds.measure_sensitivity(model, images, Shifts(), **options)
    shift = table[table.part == "translation"].reset_index(drop=True)
    np.testing.assert_allclose(shift.sensitivity, by_hand.sensitivity, rtol=1e-4)
    np.testing.assert_allclose(shift.share, by_hand.sensitivity / full.sensitivity, rtol=1e-4)
    assert ((shift.share_low < shift.share) & (shift.share < shift.share_high)).all()
    squares = table[table.layer == "input"].set_index("part").rms_displacement ** 2
    for part in ("translation", "affine"):
        both = squares[part] + squares[f"beyond_{part}"]
        assert both == pytest.approx(squares["full"], rel=1e-5)


@pytest.mark.parametrize("kind", NOISE_KINDS)
@pytest.mark.parametrize("channels_first", [False, True])
def test_noise_is_as_long_as_the_change(images, kind, channels_first):
    layer = ds.RandomDeformation(3, 1.0, data_format="channels_first" if channels_first else None)
    given = images.transpose(0, 3, 1, 2) if channels_first else images
    source = Drawn.of(layer, 12, 3, seed=0)
    noise = Noise(source, kind, 5, 1 if channels_first else 3)
    some, draws = np.array([2, 7]), np.array([0, 2])
    part = keras.ops.convert_to_tensor(given[some])
    moved, noisy = (
        numpy(each.moved(part, some, draws)).reshape(2, 2, *given.shape[1:])
        for each in (source, noise)
    )
    change, added = moved - given[some][:, None], noisy - given[some][:, None]
    lengths = [np.linalg.norm(each.reshape(4, -1), axis=1) for each in (change, added)]
    np.testing.assert_allclose(*lengths, rtol=1e-5)
    one = numpy(noise.moved(part[1:], some[1:], draws[1:]))  # whatever comes with it
    if BACKEND == "torch":  # which rounds a batch of another size otherwise
        np.testing.assert_allclose(one[0], noisy[1, 1], atol=1e-6)
    else:
        np.testing.assert_array_equal(one[0], noisy[1, 1])
    axis = 2 if channels_first else 4
    if kind == "grey":
        assert np.ptp(added, axis=axis).max() < 1e-5
    if kind == "spectrum":
        axes = (3, 4) if channels_first else (2, 3)
        spectra = [np.abs(np.fft.fft2(each, axes=axes)) for each in (change, added)]
        np.testing.assert_allclose(*spectra, atol=1e-4)


def test_relative_stability_at_the_input_is_one(model, images):
    for kind in NOISE_KINDS:
        table = ds.measure_stability(model, images, layers="input", noise=kind, deformations=2)
        row = table[table.metric == "euclidean"].iloc[0]
        assert row.relative_stability == pytest.approx(1, abs=1e-5)
        assert row.relative_stability_median == pytest.approx(1, abs=1e-5)
        assert row.relative_stability_low <= row.relative_stability <= row.relative_stability_high


def test_relative_stability_by_a_plain_loop(images):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((16, 16, 3))
    conv = layers.Conv2D(4, 3, activation="relu", name="conv")
    model = keras.Model(inputs, conv(inputs))
    table = ds.measure_stability(model, images, layers="conv", deformations=2, seed=3)
    layer = ds.paper_deformation(images.shape)
    moved = numpy(layer.deform(np.repeat(images, 2, axis=0), layer.draw(24, seed=3)))
    rows = {"clean": numpy(conv(images)).reshape(12, -1).astype("float64")}
    rows["moved"] = numpy(conv(moved)).reshape(12, 2, -1)
    noisy = np.empty_like(moved)
    for image in range(12):
        for draw in range(2):
            noise = np.random.default_rng([3, image, draw]).standard_normal((16, 16, 3), "float32")
            change = moved[2 * image + draw] - images[image]
            noise *= np.linalg.norm(change) / np.linalg.norm(noise)
            noisy[2 * image + draw] = images[image] + noise
    rows["noisy"] = numpy(conv(noisy)).reshape(12, 2, -1)

    def distances(x, y):
        dots = (x * y).sum(axis=-1)
        cosine = 1 - dots / np.linalg.norm(x, axis=-1) / np.linalg.norm(y, axis=-1)
        return {"euclidean": np.square(x - y).sum(axis=-1), "cosine": cosine}

    clean = rows["clean"]
    first, second = np.triu_indices(12, 1)
    between = distances(clean[first], clean[second])
    by = {name: distances(rows[name], clean[:, None]) for name in ("moved", "noisy")}
    for metric in ("euclidean", "cosine"):
        row = table[table.metric == metric].iloc[0]
        ratio = by["moved"][metric].mean() / by["noisy"][metric].mean()
        assert row.relative_stability == pytest.approx(ratio, rel=1e-4)
        median = np.median(by["moved"][metric]) / np.median(by["noisy"][metric])
        assert row.relative_stability_median == pytest.approx(median, rel=1e-4)
        expected = by["moved"][metric].mean() / np.median(between[metric])
        assert row.sensitivity == pytest.approx(expected, rel=1e-4)
        expected = by["noisy"][metric].mean() / np.median(between[metric])
        assert row.noise_sensitivity == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("what", ["permutation", "flip"])
def test_an_orthogonal_map_of_pixels_is_as_stable_as_the_input(images, what):
    order = np.random.default_rng(0).permutation(16 * 16 * 3) if what == "permutation" else None
    inputs = keras.Input((16, 16, 3))
    flat = layers.Flatten()(keras.ops.flip(inputs, 2) if order is None else inputs)
    outputs = flat if order is None else keras.ops.take(flat, order, axis=1)
    table = ds.measure_stability(
        keras.Model(inputs, layers.Rescaling(1.0, name="last")(outputs)), images
    )
    last = table[(table.layer == "last") & (table.metric == "euclidean")]
    assert last.relative_stability.item() == pytest.approx(1, abs=1e-5)


def test_a_blur_passes_the_share_of_noise_that_its_weights_say(images):
    """White noise of length n behind a circular filter h has the mean square n² Σh²."""
    inputs = keras.Input((16, 16, 3))
    wrapped = keras.ops.concatenate([inputs[:, -1:], inputs, inputs[:, :1]], axis=1)
    wrapped = keras.ops.concatenate([wrapped[:, :, -1:], wrapped, wrapped[:, :, :1]], axis=2)
    blur = layers.DepthwiseConv2D(3, use_bias=False, name="blur")
    model = keras.Model(inputs, blur(wrapped))
    weights = np.outer([1, 2, 1], [1, 2, 1]) / 16
    blur.set_weights([np.repeat(weights[:, :, None], 3, axis=2)[..., None]])
    table = ds.measure_stability(model, images, layers=["input", "blur"], deformations=20)
    table = table[table.metric == "euclidean"].set_index("layer")

    def median(x):
        flat = x.reshape(12, -1).astype("float64")
        first, second = np.triu_indices(12, 1)
        return np.median(np.square(flat[first] - flat[second]).sum(axis=1))

    noise = table.noise_sensitivity * [median(images), median(numpy(model(images)))]
    assert noise["blur"] / noise["input"] == pytest.approx((weights**2).sum(), rel=0.02)
    assert (weights**2).sum() == pytest.approx(0.1406, abs=1e-4)


@pytest.mark.skipif(BACKEND == "jax", reason="JAX's seeds are not negative, and are refused")
def test_negative_seeds(model, images):
    tables = [ds.measure_stability(model, images, layers="input", seed=s) for s in (-1, -1, 0)]
    assert tables[0].equals(tables[1])
    assert tables[0].sensitivity[0] != tables[2].sensitivity[0]


def test_scale_and_bias_leave_relative_stability(images):
    inputs = keras.Input((16, 16, 3))
    conv = layers.Conv2D(4, 3, name="conv")(inputs)
    after = layers.Rescaling(-3.0, 5.0, name="after")(conv)
    table = ds.measure_stability(keras.Model(inputs, after), images, layers=["conv", "after"])
    found = table[table.metric == "euclidean"].relative_stability
    assert found.iloc[0] == pytest.approx(found.iloc[1], rel=1e-4)


def test_a_constant_layer_has_a_note_and_no_ratio(images):
    inputs = keras.Input((16, 16, 3))
    model = keras.Model(inputs, layers.Rescaling(0.0, 1.0, name="constant")(inputs))
    table = ds.measure_stability(model, images, layers="constant")
    assert table.relative_stability.isna().all()
    assert table.note.str.contains("constant").all()


def test_no_strength_moves_nothing(model, images):
    table = ds.measure_stability(model, images, ds.RandomDeformation(3, 0.0), layers="input")
    assert (table.sensitivity == 0).all()
    assert (table.noise_sensitivity == 0).all()
    assert table.note.str.contains("there is no ratio").all()
    with pytest.raises(ValueError, match="unknown noise 'white'; the known ones are gaussian"):
        ds.measure_stability(model, images, noise="white")


@pytest.mark.parametrize("batch_size", [2, 32])
def test_a_video_has_one_deformation_a_clip(images, batch_size):
    clips = images.reshape(4, 3, 16, 16, 3)
    inputs = keras.Input((3, 16, 16, 3))
    conv = layers.Conv2D(4, 3, name="conv")
    model = keras.Model(inputs, layers.TimeDistributed(conv, name="each")(inputs))
    table, long = ds.measure_sensitivity(
        model,
        clips,
        ds.RandomDeformation(3, 1.0),
        layers=["input", "each"],
        deformations=2,
        batch_size=batch_size,
        return_distances=True,
    )
    layer = ds.RandomDeformation(3, 1.0)
    draws = numpy(layer.draw(8, seed=0)).reshape(4, 2, 9, 2)
    for clip in range(4):
        for draw in range(2):
            moved = numpy(layer.deform(clips[clip], np.repeat(draws[clip, draw][None], 3, axis=0)))
            a, b = clips[clip].ravel().astype(float), moved.ravel().astype(float)
            expected = 1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b)
            own = long[(long.layer == "input") & (long.image == clip) & (long.deformation == draw)]
            assert own.distance.item() == pytest.approx(expected, rel=1e-3)
    assert table.sensitivity.notna().all()
    assert ds.measure_stability(model, clips, layers="each").relative_stability.notna().all()
    for measure in (ds.measure_equivariance, lambda *x: ds.worst_deformation(*x, "each")):
        with pytest.raises(ValueError, match=r"and no videos; received shape \(4, 3, 16"):
            measure(model, clips)


# ---- mixed precision ----


class Scaled(ds.RandomDeformation):
    """A user's class, whose configuration does not say all."""

    factor = 1.0

    def draw(self, batch_size, seed=None):
        return self.factor * super().draw(batch_size, seed)


FAMILIES = {
    "spline": lambda: ds.RandomDeformation(3, 1.0),
    "nearest": lambda: ds.RandomDeformation(3, 1.0, interpolation="nearest"),
    "diffeomorphism": lambda: ds.RandomDiffeomorphism(rms_displacement=0.5),
    "shift": lambda: ds.RandomTranslation(1.0, padding="circular"),
    "rotation": lambda: ds.RandomRotation(1.0),
    "own": lambda: Scaled(3, 1.0),
}
MEASURES = {
    "sensitivity": lambda *args: ds.measure_sensitivity(*args, metric="euclidean"),
    "stability": ds.measure_stability,
    "equivariance": ds.measure_equivariance,
    "parts": ds.sensitivity_by_part,
    "consistency": lambda m, x, d: ds.prediction_consistency(m, x, deformation=d),
    "comparison": lambda m, x, d: ds.compare_sensitivity({"a": m, "b": m}, x, d),
}


@pytest.mark.parametrize(
    ("family", "measure", "policy"),
    [
        *((family, "sensitivity", "mixed_bfloat16") for family in FAMILIES),
        *(("spline", measure, "float16") for measure in MEASURES),
    ],
)
def test_a_deformation_of_16_bits_is_measured_as_one_of_32(model, images, family, measure, policy):
    """The images it is compared with are not rounded."""
    deformation = FAMILIES[family]()
    keras.config.set_dtype_policy(policy)
    half = FAMILIES[family]()
    deformation.factor = half.factor = 0.5
    expected, found = (MEASURES[measure](model, images, each) for each in (deformation, half))
    pd.testing.assert_frame_equal(found, expected, check_exact=True)
    assert half.compute_dtype != "float32"  # the layer itself is as it was


def test_strengths_and_worst_cases_of_a_deformation_of_16_bits(model, images):
    options = {"layers": "input", "progress": False}
    whole, half = (ds.RandomDeformation(3, 1.0, dtype=each) for each in ("float32", "bfloat16"))
    found, expected = (
        ds.sensitivity_by_strength(model, images, [0.0, 0.5], each, **options)
        for each in (half, whole)
    )
    assert found.distance[0] == 0  # nothing moves
    pd.testing.assert_frame_equal(found, expected, check_exact=True)
    (found, moved), (expected, as_moved) = (
        ds.worst_deformation(model, images, "input", each, steps=1, starts=1, progress=False)
        for each in (half, whole)
    )
    pd.testing.assert_frame_equal(found, expected, check_exact=True)
    np.testing.assert_array_equal(moved, as_moved)
