"""measure_sensitivity against plain loops over pairs in float64."""

import keras
import numpy as np
import pandas as pd
import pytest
from helpers import BACKEND, loop_warp, natural_images, numpy, scipy_flow

import deformstab as ds
from deformstab.measurement.intervals import sensitivity_interval
from deformstab.measurement.sensitivity import sensitivity_table
from deformstab.measurement.stimuli import deformed_images
from deformstab.tables import SENSITIVITY_COLUMNS

ROWS = ["input", "conv1", "bn1", "relu1", "pool1", "conv2", "pool2", "average", "logits"]


def activations(model, images):
    """{layer: [images, features] in float64}, from a functional model of Keras' own making."""
    names = [layer.name for layer in model.layers]
    outputs = keras.Model(model.input, [layer.output for layer in model.layers])(
        images, training=False
    )
    return {
        name: numpy(output).reshape(len(images), -1).astype("float64")
        for name, output in zip(names, outputs)
    }


def distance(metric, a, b):
    if metric == "euclidean":
        return np.sqrt(np.sum((a - b) ** 2))
    return 1 - np.sum(a * b) / np.sqrt(np.sum(a * a) * np.sum(b * b))


def loop_sensitivity(model, images, deformed, metric):
    """{layer: [mean distance, median over pairs, their ratio, low, high]}.

    `deformed` is [deformations, images, …].
    """
    clean = activations(model, images)
    moved = [activations(model, part) for part in deformed]
    result = {}
    for name, rows in clean.items():
        count = len(rows)
        apart = np.array(
            [[distance(metric, rows[i], part[name][i]) for i in range(count)] for part in moved]
        )
        pairs = np.array([[distance(metric, a, b) for b in rows] for a in rows])
        median = np.median([pairs[i, j] for j in range(count) for i in range(j)])
        ratio = apart.mean() / median
        # The interval has tests of its own; what matters here is which image a distance is of.
        bounds = sensitivity_interval(apart.mean(axis=0), pairs)[3:]
        result[name] = [apart.mean(), median, ratio, *bounds]
    return result


def deformed_copies(deformation, images, deformations, seed):
    """[deformations, images, …]; image i has the draws i · deformations, … of one sequence."""
    draws = numpy(deformation.draw(len(images) * deformations, seed=seed))
    return [
        numpy(deformation.deform(images, draws[number::deformations]))
        for number in range(deformations)
    ]


@pytest.mark.parametrize("deformations", [1, 3])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_plain_loops_over_pairs(images, network, metric, deformations):
    deformation = ds.RandomDeformation((3, 4), (1.5, 1.0))
    table = ds.measure_sensitivity(
        network, images, deformation, metric=metric, deformations=deformations, seed=5
    )
    assert table["layer"].tolist() == ROWS
    copies = deformed_copies(deformation, images, deformations, seed=5)
    expected = loop_sensitivity(network, images, copies, metric)
    for row in table.itertuples():
        found = (
            row.distance,
            row.baseline,
            row.sensitivity,
            row.sensitivity_low,
            row.sensitivity_high,
        )
        np.testing.assert_allclose(found, expected[row.layer], rtol=1e-5, err_msg=row.layer)


def test_everything_by_other_means(images, network):
    """Spline by scipy, warp by loops, distances by loops: only the draws are the layer's."""
    deformation = ds.RandomDeformation(3, 1.0)
    table = ds.measure_sensitivity(network, images, deformation, seed=2)
    draws = numpy(deformation.draw(12, seed=2))
    flow = np.stack([scipy_flow(draw, 3, 3, 16, 16) for draw in draws])
    expected = loop_sensitivity(
        network, images, [loop_warp(images, flow).astype("float32")], "cosine"
    )
    for row in table.itertuples():
        assert row.sensitivity == pytest.approx(expected[row.layer][2], rel=1e-4)
    lengths = np.sqrt((flow**2).sum(axis=-1))
    assert table["rms_displacement"].tolist() == pytest.approx(
        [np.sqrt((lengths**2).mean())] * 9, rel=1e-5
    )


@pytest.mark.parametrize("deformations", [1, 3])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_the_batch_size_does_not_matter(network, metric, deformations):
    images = natural_images(35)
    tables = [
        ds.measure_sensitivity(
            network, images, metric=metric, deformations=deformations, batch_size=batch_size
        )
        for batch_size in (1, 7, 32, 128)
    ]
    numbers = list(tables[0].select_dtypes("float64"))
    for table in tables[1:]:
        np.testing.assert_allclose(table[numbers], tables[0][numbers], rtol=1e-5)


def test_the_same_seed_gives_the_same_bits(images, network):
    first, second, other = (
        ds.measure_sensitivity(network, images, ds.RandomDeformation(seed=generator), seed=seed)
        for generator, seed in ((1, 4), (2, 4), (1, 5))
    )
    assert first.equals(second)
    assert (first["sensitivity"] != other["sensitivity"]).all()


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_deformations_that_move_nothing(images, network, metric):
    table = ds.measure_sensitivity(network, images, ds.RandomDeformation(3, 0), metric=metric)
    for name in ("distance", "sensitivity", "sensitivity_low", "sensitivity_high"):
        if BACKEND == "jax":  # whose convolutions are not the same for every image of a batch
            assert np.nan_to_num(table[name]).max() < 1e-6, name
        else:
            assert (table[name] == 0).all(), name
    assert (table["baseline"] > 0).all()
    assert (table["rms_displacement"] == 0).all()
    assert (table["note"] == "").all()


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_images_that_are_all_the_same(images, network, metric):
    same = np.repeat(images[:1], 6, axis=0)
    table = ds.measure_sensitivity(network, same, metric=metric)
    assert table["layer"].tolist() == ROWS
    assert table["sensitivity"].isna().all()
    assert table["note"].str.contains("median distance between images is zero").all()


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("side", [4, 9, 16, 50])
def test_images_most_of_which_are_the_same(side, metric):
    """18 of 24: over half of the pairs are at zero, and so is their median."""
    images = natural_images(24, side, side)
    images[3:21] = images[3]
    model = keras.Sequential([keras.Input((side, side, 3)), keras.layers.Flatten()])
    table = ds.measure_sensitivity(model, images, ds.RandomDeformation(2, 0.5), metric=metric)
    assert table["sensitivity"].isna().all()
    assert table["note"].str.contains("median distance between images is zero").all()


@pytest.mark.parametrize("factor", [1e-3, 1e3])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_the_scale_of_a_representation_does_not_matter(images, metric, factor):
    inputs = keras.Input((16, 16, 3))
    scaled = keras.layers.Rescaling(factor)(inputs)
    table = ds.measure_sensitivity(keras.Model(inputs, scaled), images, metric=metric)
    np.testing.assert_allclose(table["sensitivity"][1], table["sensitivity"][0], rtol=1e-5)
    expected = 1 if metric == "cosine" else factor
    assert table["distance"][1] == pytest.approx(expected * table["distance"][0], rel=1e-5)


def test_layers_that_change_nothing_repeat_the_input(images):
    inputs = keras.Input((16, 16, 3))
    tensor = ds.RandomDeformation(3, 1.0)(keras.layers.Dropout(0.9)(inputs))
    model = keras.Model(inputs, keras.layers.Flatten()(tensor))
    table = ds.measure_sensitivity(model, images)  # in inference mode
    for column in ("distance", "baseline", "sensitivity_low"):
        assert table[column].nunique() == 1


# ---- the table ----


def test_columns_types_and_order(images, network):
    table = ds.measure_sensitivity(network, images, metric="euclidean", deformations=2)
    assert list(table.columns) == list(SENSITIVITY_COLUMNS)
    assert table.index.tolist() == list(range(9))
    assert table["layer_index"].tolist() == list(range(9))
    assert table["layer_type"].tolist() == [
        "InputLayer",
        "Conv2D",
        "BatchNormalization",
        "ReLU",
        "AveragePooling2D",
        "Conv2D",
        "MaxPooling2D",
        "GlobalAveragePooling2D",
        "Dense",
    ]
    assert (table["metric"] == "euclidean").all()
    assert (table["images"] == 12).all()
    assert (table["deformations"] == 2).all()
    for name, dtype in SENSITIVITY_COLUMNS.items():
        assert dtype == "str" or table[name].dtype == dtype


def test_intervals_hold_the_value_and_can_be_left_out(images, network):
    table = ds.measure_sensitivity(network, images)
    assert (table["sensitivity_low"] < table["sensitivity"]).all()
    assert (table["sensitivity"] < table["sensitivity_high"]).all()
    without = ds.measure_sensitivity(network, images, intervals=False)
    bounds = ["sensitivity_low", "sensitivity_high"]
    assert without[bounds].isna().all(axis=None)
    assert without.drop(columns=bounds).equals(table.drop(columns=bounds))
    few = ds.measure_sensitivity(network, images[:3])
    assert few["sensitivity"].notna().all()
    assert few[bounds].isna().all(axis=None)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # PyTorch's
def test_displacement_and_folding_are_those_of_the_draws(images, network):
    deformation = ds.RandomDeformation((3, 4), (4.0, 3.0))
    with pytest.warns(UserWarning, match="deformations fold") as warned:
        table = ds.measure_sensitivity(network, images, deformation, deformations=2, seed=3)
    flows = [scipy_flow(draw, 3, 4, 16, 16) for draw in numpy(deformation.draw(24, seed=3))]
    folded = []
    for flow in flows:
        down = flow[1:, :-1] - flow[:-1, :-1] + (1, 0)
        right = flow[:-1, 1:] - flow[:-1, :-1] + (0, 1)
        determinant = down[..., 0] * right[..., 1] - down[..., 1] * right[..., 0]
        folded.append(determinant.min() <= 0)
    assert 0 < np.mean(folded) < 1
    assert (table["folded_fraction"] == np.mean(folded)).all()
    rms = np.sqrt(np.mean([(flow**2).sum(axis=-1).mean() for flow in flows]))
    np.testing.assert_allclose(table["rms_displacement"], rms, rtol=1e-5)
    assert any(f"{np.mean(folded):.1%}" in str(warning.message) for warning in warned)


# ---- the default deformation ----


@pytest.mark.parametrize(
    ("shape", "grid", "reach"),
    [
        ((32, 32), 3, 2),  # CIFAR-10 in the paper
        ((16, 16), 3, 1),
        ((64, 64), 3, 4),
        ((48, 64), 3, 3),
        ((224, 224), 5, 10),  # ImageNet in the paper
        ((65, 65), 5, 65 * 10 / 224),
        ((112, 224), 5, 5),
        ((32, 65), 5, 32 * 10 / 224),
    ],
)
def test_the_papers_deformation_by_size(shape, grid, reach):
    deformation = ds.paper_deformation((10, *shape, 3))
    assert deformation.control_points == (grid, grid)
    assert deformation.max_displacement == pytest.approx((reach, reach))
    assert deformation.interpolation == "bilinear"
    keras.config.set_image_data_format("channels_first")
    assert ds.paper_deformation((10, 3, *shape)).control_points == (grid, grid)


def test_the_default_is_the_papers_deformation(images, network):
    explicit = ds.measure_sensitivity(network, images, ds.RandomDeformation(3, 1.0))
    assert ds.measure_sensitivity(network, images).equals(explicit)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "float16"])
def test_the_default_does_not_depend_on_the_policy(images, network, policy):
    expected = ds.measure_sensitivity(network, images)
    keras.config.set_dtype_policy(policy)
    assert ds.measure_sensitivity(network, images).equals(expected)


def test_two_metrics_in_one_measurement_give_the_rows_of_each_one_after_the_other(network, images):
    metrics = ("euclidean", "cosine")
    both = sensitivity_table(network, deformed_images(images), None, metrics, return_distances=True)
    alone = [
        ds.measure_sensitivity(network, images, metric=x, return_distances=True) for x in metrics
    ]
    for found, expected in zip(both, zip(*alone)):
        expected = pd.concat(expected, ignore_index=True)
        pd.testing.assert_frame_equal(found, expected, check_exact=True)
