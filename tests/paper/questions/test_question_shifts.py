"""What shifts and parts of deformations do, and noise beside them: against the library by hand."""

import numpy as np
import pandas as pd
import pytest
from helpers import natural_images, needs_tensorflow

import deformstab as ds
from deformstab.deformations.parts import FlowPart
from deformstab.paper.questions import noise, shifts

pytestmark = needs_tensorflow  # the reproduction's
IMAGES = natural_images(6, 16, 16)
DEFORMATION = ds.RandomDeformation(3, 1.0, seed=0)


@pytest.fixture(scope="module")
def model():
    return ds.vgg((16, 16, 3), 4, ((1, 6), (1, 8)), "aps", seed=0, padding="circular")


@pytest.fixture(scope="module")
def table(model):
    return shifts.by_change(model, IMAGES, DEFORMATION)


def test_every_change_is_there_of_every_layer_and_by_both_metrics(table, model):
    changes = list(
        table[["change", "outside"]].drop_duplicates().itertuples(index=False, name=None)
    )
    assert sorted(changes) == sorted(shifts.CHANGES)
    counts = table.groupby(["change", "outside", "metric"]).size()
    assert len(counts) == 2 * len(shifts.CHANGES)
    assert counts.eq(len(ds.paper_layers(model)) + 1).all()
    assert table["sensitivity"].notna().all()


def test_the_deformation_with_edges_repeated_is_the_library_s(table, model):
    expected = ds.sensitivity_by_part(
        model, IMAGES, DEFORMATION, [*ds.paper_layers(model), "logits"]
    )
    found = table[(table["outside"] == "edge") & (table["metric"] == "cosine")]
    assert list(found["change"]) == list(expected["part"])
    np.testing.assert_allclose(found["sensitivity"], expected["sensitivity"], rtol=1e-6)


def test_shifts_are_as_far_as_they_say(table):
    rms = table.groupby("change")["rms_displacement"].first()
    assert rms["whole pixel"] == 1
    assert rms["fraction"] == pytest.approx(DEFORMATION.expected_rms(16, 16), rel=1e-4)
    assert rms["translation"] < rms["full"]


def test_an_adaptive_circular_network_answers_alike_for_rolls_and_not_for_the_rest(table, model):
    logits = table[table["layer"] == "logits"].set_index(["change", "outside", "metric"])
    assert logits.loc[("whole pixel", "circular", "cosine"), "sensitivity"] < 1e-9
    others = logits.drop("whole pixel", level="change")["sensitivity"]
    assert (others > 1e-4).all()
    assert shifts.consistency(model, IMAGES, np.zeros(6, int))["consistency"].item() == 1


def test_what_goes_round_comes_in_at_the_other_side():
    class Moved:
        def draw(self, batch_size, seed=None):
            return np.zeros((batch_size, 1), "float32")

        def flow(self, parameters, height, width):
            flow = np.array([0, 1], "float32")
            return np.broadcast_to(flow, (len(parameters), height, width, 2))

    moved = shifts.GoingRound(Moved())
    for each in (moved, FlowPart(moved, "full")):
        found = np.array(each.deform(IMAGES, each.draw(len(IMAGES))))
        np.testing.assert_array_equal(found, np.roll(IMAGES, -1, axis=2))


def test_noise_beside_deformations_is_the_library_s(model):
    found = noise.beside_noise(model, IMAGES, DEFORMATION)
    layers = [*ds.paper_layers(model), "logits"]
    for name, rows in found.groupby("noise"):
        expected = ds.measure_stability(model, IMAGES, DEFORMATION, layers, name, 4)
        expected = expected.drop(columns=[c for c in expected if c not in rows])
        pd.testing.assert_frame_equal(rows.reset_index(drop=True), expected)
    first = found[(found["layer"] == "input") & (found["metric"] == "euclidean")]
    np.testing.assert_allclose(first["relative_stability"], 1, rtol=1e-5)
