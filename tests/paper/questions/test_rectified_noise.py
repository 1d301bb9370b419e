"""The check of question 1's answer: networks without ReLU."""

import numpy as np
from helpers import ROOT, module_at, natural_images

import deformstab as ds
from deformstab.tables import read_csv

example = module_at(ROOT / "examples" / "rectified_noise.py")


def test_without_relu_a_network_is_linear():
    """But for its pooling: of subsampling all of it, batch normalization and bias apart."""
    images, model = natural_images(6), ds.vgg((16, 16, 3), 4, ((1, 4), (1, 6)), "subsample", seed=2)
    linear = example.without_relu(model)
    for one, other in zip(linear.get_weights(), model.get_weights()):
        np.testing.assert_array_equal(one, other)

    def of(network, x):
        return network.predict(x, verbose=0).astype("float64") - network.predict(0 * x, verbose=0)

    both = of(linear, images[:3] + images[3:])
    np.testing.assert_allclose(both, of(linear, images[:3]) + of(linear, images[3:]), atol=1e-5)
    apart = of(model, images[:3]) + of(model, images[3:])
    assert np.abs(of(model, images[:3] + images[3:]) - apart).max() > 0.01


def test_the_script_in_small(tmp_path, capsys):
    path = tmp_path / "rectified_noise.csv"
    example.main("photos", None, 1, 64, path, blocks=((1, 4), (1, 6)), measured=8)
    table = read_csv(path)
    assert len(table) == 5 * 2 * 2 * 2
    assert table["relative_stability"].gt(0).all()
    assert "subsample" in capsys.readouterr().out
    one = table.query("downsampling == 'max' and relu and metric == 'cosine'")
    data = example.datasets.load("photos", None, 32, 64, 512)
    model = ds.vgg(data.image_shape, data.classes, ((1, 4), (1, 6)), "max", seed=0)
    found = ds.measure_stability(model, data.x_test[:8], layers=ds.paper_layers(model))
    found = found[(found["metric"] == "cosine") & (found["layer"] != "input")]
    expected = np.exp(np.log(found["relative_stability"]).mean())
    (value,) = one.loc[one["statistics"] == "moving averages", "relative_stability"]
    np.testing.assert_allclose(value, expected, rtol=1e-6)
