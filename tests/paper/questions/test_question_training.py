"""What is measured for questions 4 to 6, against plain loops."""

import keras
import numpy as np
import pandas as pd
import pytest

import deformstab as ds
from deformstab.measurement.worst_case import worst_deformations
from deformstab.paper.questions import logits, moving, worst


@pytest.fixture(scope="module")
def measured():
    """(network, images, deformation, table by layer, displacements)."""
    model = ds.vgg((16, 16, 3), 4, ((1, 4), (1, 6)), "average", seed=1)
    images = np.random.default_rng(0).random((6, 16, 16, 3), "float32") * 2 - 1
    deformation = ds.RandomDeformation(3, 1.0, seed=0)
    return model, images, deformation, *worst.by_layer(model, images, deformation)


def test_worst_deformations_of_every_layer(measured):
    model, _, deformation, table, displacements = measured
    layers = [*ds.paper_layers(model), "prediction"]
    for _, rows in table.groupby("within", sort=False):
        assert list(rows["layer"]) == layers
        assert (rows["worst"] >= rows[["mean", "best_of_k", "search"]].max(axis=1) - 1e-9).all()
        paper = rows[rows["layer"] != "prediction"]
        np.testing.assert_allclose(paper["ratio"], paper["worst"] / paper["mean"])
        assert (paper["ratio"] > 1).all()
        assert paper[["unchanged", "unchanged_by_chance"]].isna().all().all()
        predicts = rows[rows["layer"] == "prediction"]
        assert np.isnan(predicts["ratio"].item())
        assert predicts["unchanged"].item() <= predicts["unchanged_by_chance"].item()
    assert list(displacements) == layers
    reach = deformation.expected_rms(16, 16)
    for found in displacements.values():
        mean_square, _ = deformation.flow_statistics(found, 16, 16)
        assert (np.sqrt(mean_square) <= reach * (1 + 1e-5)).all()


def test_layers_together_are_what_each_is_alone(measured):
    model, images, deformation, table, displacements = measured
    options = {"steps": worst.STEPS, "starts": worst.STARTS, "batch_size": 64, "progress": False}
    for layer in (*ds.paper_layers(model)[::3], "prediction"):
        alone, found = ds.worst_deformation(model, images, layer, deformation, "rms", **options)
        (row,) = table.query("within == 'rms' and layer == @layer").to_dict("records")
        for name in ("mean", "best_of_k", "search", "worst", "mean_sensitivity"):
            np.testing.assert_allclose(row[name], alone[name].mean(), rtol=1e-5)
        np.testing.assert_allclose(displacements[layer], found, atol=1e-6)


def test_a_layer_that_is_named_twice_has_two_tables(measured):
    model, images, deformation, *_ = measured
    options = {"steps": 1, "starts": 1, "progress": False}
    layers = ["block1_conv1", "block1_conv1"]
    once, again = worst_deformations(model, images, layers, deformation, "rms", **options)
    pd.testing.assert_frame_equal(once[0], again[0])


def test_a_row_counts_images_that_could_be_measured():
    columns = ["mean", "best_of_k", "search", "worst"]
    numbers = pd.DataFrame([[1.0, 2, 3, 3], [2, 4, 5, 5], [np.nan] * 4], columns=columns)
    numbers[["mean_sensitivity", "worst_sensitivity"]] = numbers[["mean", "worst"]] / 10
    table = numbers.assign(folded=[True, False, True], note=["", "", "black"])
    row = worst._row(table)
    assert (row["mean"], row["worst"], row["images"], row["folded"]) == (1.5, 4.0, 2, 0.5)
    assert row["ratio"] == pytest.approx(4 / 1.5)
    assert row["note"] == "black"
    assert (row["mean_sensitivity"], row["worst_sensitivity"]) == pytest.approx((0.15, 0.4))
    still = worst._row(table.assign(**dict.fromkeys(columns, 0.0)))
    assert np.isnan(still["ratio"])
    row = worst._row(table.assign(unchanged=[True, False, True], best_of_k=[-1.0, 0.0, np.nan]))
    assert (row["unchanged"], row["unchanged_by_chance"]) == (0.5, 1.0)


def test_transfer_by_a_plain_loop(measured):
    model, images, deformation, table, displacements = measured
    found = worst.transfer(model, images, deformation, displacements)
    layers = ds.paper_layers(model)
    outputs = [model.input, *(model.get_layer(name).output for name in layers[1:])]
    extractor = keras.Model(model.inputs, outputs)
    before = extractor.predict(images, verbose=0)
    answers = model.predict(images, verbose=0).argmax(axis=-1)
    for source, given in displacements.items():
        moved = keras.ops.convert_to_numpy(deformation.deform(images, given))
        rows = found[found["source"] == source]
        assert list(rows["layer"]) == layers
        after = extractor.predict(moved, verbose=0)
        for name, one, other in zip(layers, before, after):
            distances = []
            for x, y in zip(one.reshape(len(one), -1), other.reshape(len(other), -1)):
                x, y = x.astype("float64"), y.astype("float64")
                distances.append(1 - x @ y / np.linalg.norm(x) / np.linalg.norm(y))
            (distance,) = rows.loc[rows["layer"] == name, "distance"]
            assert distance == pytest.approx(np.mean(distances), rel=1e-4)
        stays = (model.predict(moved, verbose=0).argmax(axis=-1) == answers).mean()
        assert set(rows["unchanged"]) == {stays}
    # A layer's own worst is what the search found.
    own = found[found["source"] == found["layer"]].set_index("layer")["distance"]
    of_search = table[table["within"] == "rms"].set_index("layer")["worst"]
    np.testing.assert_allclose(own, of_search[own.index], rtol=1e-4)


def test_given_displacements_are_of_so_many_images():
    given = worst.Given(ds.RandomDeformation(3, 1.0), np.zeros((4, 9, 2), "float32"))
    assert given.draw(4).shape == (4, 9, 2)
    with pytest.raises(ValueError, match="displacements of 4 images, not of 8"):
        given.draw(8)


def test_what_was_followed_is_a_row_a_step_and_layer():
    rows = [
        {
            **{"step": step, "layer": layer, "layer_index": place, "accuracy_train": step / 10},
            **{"quantity": quantity, "value": 100 * step + 10 * place + number},
        }
        for step in (0, 1, 4)
        for place, layer in enumerate(("input", "conv"))
        for number, quantity in enumerate((*moving.QUANTITIES, "smoothness", "moving_ratio_cosine"))
    ]
    table = moving.followed(pd.DataFrame(rows).sample(frac=1, random_state=0), last=4)
    assert list(table["phase"]) == ["initial"] * 2 + ["tracked"] * 2 + ["trained"] * 2
    assert list(table["layer"]) == ["input", "conv"] * 3
    for row in table.itertuples():
        base = 100 * row.step + 10 * row.layer_index
        for number, quantity in enumerate(moving.QUANTITIES):
            assert getattr(row, quantity) == base + number
    ratio = table["moves_with_euclidean"] / table["stays_euclidean"]
    pd.testing.assert_series_equal(table["ratio_euclidean"], ratio, check_names=False)


def test_logits_by_both_families_at_one_strength(measured):
    model, images, deformation, *_ = measured
    table = logits.by_family(model, images, deformation)
    assert sorted(set(table["family"])) == ["diffeomorphism", "spline"]
    assert set(table["layer"]) == {"logits"}
    strength = table.groupby("family")["rms_displacement"].first()
    # 24 draws each; twice or half the strength would be seen.
    assert strength["diffeomorphism"] == pytest.approx(strength["spline"], rel=0.3)
    reach = deformation.expected_rms(16, 16)
    family = ds.RandomDiffeomorphism(logits.CUTOFF, reach, seed=0)
    expected = ds.measure_stability(model, images, family, ["logits"], intervals=False)
    found = table[table["family"] == "diffeomorphism"]
    np.testing.assert_allclose(found["relative_stability"], expected["relative_stability"])
