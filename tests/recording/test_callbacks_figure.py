"""The figure of a training on its way to TensorBoard, or to a function of the user's."""

import io

import numpy as np
import pytest
from PIL import Image
from test_callbacks import fit, quick_network

import deformstab as ds
from deformstab.presentation.pictures import as_bytes


def images_in(folder):
    """{step: (tag, picture)} of TensorBoard's files, as TensorBoard reads them."""
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")
    found = {}
    for file in sorted(folder.iterdir()):
        for event in loader.EventFileLoader(str(file)).Load():
            for value in event.summary.value:
                width, height, picture = value.tensor.string_val
                with Image.open(io.BytesIO(picture)) as image:
                    assert image.size == (int(width), int(height))
                    found[event.step] = value.tag, np.asarray(image)
    return found


@pytest.mark.parametrize("plot", ["lines", "heatmap"])
def test_tensorboard_has_the_figure_after_each_measurement(images, tmp_path, plot):
    pytest.importorskip("tensorboard")
    figure = ds.figure_to(tmp_path, plot)
    callback = ds.SensitivityCallback(
        images, layers=["input", "last"], steps=[2, 5], figure=figure, measures=("sensitivity",)
    )
    fit(quick_network(), [callback], epochs=2)
    found = images_in(tmp_path / "sensitivity")
    assert list(found) == [0, 2, 5] == callback.table["step"].unique().tolist()
    so_far = callback.table[callback.table["step"] <= 2]
    expected = ds.plot_sensitivity(so_far)
    if plot == "heatmap":
        expected = ds.plot_heatmap(so_far, by="step")
    with Image.open(io.BytesIO(as_bytes(expected, "png", 100))) as image:
        tag, picture = found[2]
        assert tag == "sensitivity"
        np.testing.assert_array_equal(picture, np.asarray(image))


def test_a_function_of_the_users_gets_the_figure_and_the_step(images):
    class Run:
        """As of Weights & Biases."""

        def __init__(self):
            self.logged = []

        def log(self, values):
            self.logged.append(values)

    run, drawn = Run(), []

    def plot(table):
        drawn.append(table.copy())
        return ds.plot_sensitivity(table, "mine")

    figure = ds.figure_to(lambda figure, step: run.log({"picture": figure, "step": step}), plot)
    options = {"layers": ["input", "last"], "measures": ("sensitivity",), "figure": figure}
    model, callback = quick_network(), ds.SensitivityCallback(images, **options)
    fit(model, [callback], epochs=1)
    fit(model, [callback], epochs=2, initial_epoch=1)
    assert [values["step"] for values in run.logged] == [0, 3, 6]
    assert [len(table) for table in drawn] == [2, 4, 6]
    assert [len(values["picture"].axes[0].lines) for values in run.logged] == [1, 2, 3]
    assert drawn[-1].equals(callback.table)


def test_what_is_no_place_or_picture_is_refused(images):
    with pytest.raises(ValueError, match=r"ds\.figure_to\('logs'\).*received 'logs'"):
        ds.SensitivityCallback(images, figure="logs")
    with pytest.raises(ValueError, match=r"folder of TensorBoard's or a function.*received 3"):
        ds.figure_to(3)
    with pytest.raises(ValueError, match=r"lines, heatmap or a function, received 'pie'"):
        ds.figure_to(print, "pie")
