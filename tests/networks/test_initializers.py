"""SmoothedInitializer against explicit convolutions, and what smoothing must and must not do."""

import json

import keras
import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
from helpers import BACKEND, natural_images, numpy

import deformstab as ds

SHAPES = [(3, 3, 4, 5), (5, 3, 2, 3), (2, 2, 3, 3), (1, 4, 2, 2), (1, 1, 3, 4), (7, 7, 1, 2)]
BLOCKS = ((1, 6), (1, 6))


def base(shape, seed=1):
    return numpy(keras.initializers.RandomNormal(seed=seed)(shape))


def smoothed(shape, sigma, seed=1, **kwargs):
    initializer = ds.SmoothedInitializer(sigma, keras.initializers.RandomNormal(seed=seed))
    return numpy(initializer(shape, **kwargs))


def normalized(kernel):
    return kernel / np.linalg.norm(kernel)


@pytest.mark.parametrize("shape", SHAPES)
def test_zero_is_the_base_initializer_bit_for_bit(shape):
    np.testing.assert_array_equal(smoothed(shape, 0), base(shape))
    np.testing.assert_array_equal(smoothed(shape, 0.0), base(shape))


@pytest.mark.parametrize("sigma", [0.3, 1, 2.5])
@pytest.mark.parametrize("shape", SHAPES)
def test_an_explicit_convolution_with_zeros_outside(shape, sigma):
    kernel = base(shape).astype("float64")
    reach = max(shape[:2])
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    gaussian = np.exp(-(y**2 + x**2) / (2 * sigma**2))
    expected = np.empty_like(kernel)
    for channels in np.ndindex(shape[2:]):
        expected[(..., *channels)] = scipy.signal.convolve2d(
            kernel[(..., *channels)], gaussian, mode="same", boundary="fill"
        )
    found = smoothed(shape, sigma)
    np.testing.assert_allclose(normalized(found), normalized(expected), rtol=0, atol=1e-6)


@pytest.mark.parametrize("sigma", [0.5, 1.5])
def test_the_gaussian_filter_of_scipy(sigma):
    kernel = base((5, 4, 3, 2)).astype("float64")
    expected = scipy.ndimage.gaussian_filter(
        kernel, (sigma, sigma, 0, 0), mode="constant", truncate=10
    )
    found = smoothed((5, 4, 3, 2), sigma)
    np.testing.assert_allclose(normalized(found), normalized(expected), rtol=0, atol=1e-6)


@pytest.mark.parametrize("sigma", [1e-3, 0.5, 1, 10, np.inf])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_norm_of_the_kernel_is_kept(shape, sigma):
    found = np.linalg.norm(smoothed(shape, sigma).astype("float64"))
    assert found == pytest.approx(np.linalg.norm(base(shape).astype("float64")), rel=1e-6)


def test_filters_get_smoother_with_sigma():
    sigmas = [0, 0.25, 0.5, 0.75, 1, 2, 4, 16]
    values = [ds.normalized_total_variation(smoothed((3, 3, 8, 8), sigma)) for sigma in sigmas]
    assert (np.diff(values) < 0).all()
    assert values[-1] < 0.05 * values[0]


@pytest.mark.parametrize("sigma", [1e6, 1e300, np.inf])
def test_an_endless_sigma_leaves_constants(sigma):
    kernel = smoothed((3, 4, 5, 6), sigma)
    constant = np.broadcast_to(kernel.mean(axis=(0, 1)), kernel.shape)
    np.testing.assert_allclose(kernel, constant, rtol=1e-5, atol=1e-8)
    # They stand in the proportions of the base filters' sums.
    np.testing.assert_allclose(
        normalized(kernel[0, 0]), normalized(base(kernel.shape).sum(axis=(0, 1))), atol=1e-5
    )


@pytest.mark.parametrize("sigma", [1e-300, 5e-324])
def test_a_tiny_sigma_changes_nothing(sigma):
    np.testing.assert_allclose(smoothed((3, 3, 2, 2), sigma), base((3, 3, 2, 2)), rtol=1e-6)


def test_a_kernel_of_zeros_stays_zero():
    assert not numpy(ds.SmoothedInitializer(1.0, "zeros")((3, 3, 2, 2))).any()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_dtype_as_asked_for(dtype):
    for sigma in (0, 1.0):
        kernel = ds.SmoothedInitializer(sigma, seed=0)((3, 3, 2, 2), dtype=dtype)
        assert keras.backend.standardize_dtype(kernel.dtype) == dtype


def test_the_default_base_is_the_papers():
    shape = (3, 3, 64, 64)
    kernel = numpy(ds.SmoothedInitializer(0, seed=0)(shape))
    assert kernel.std() == pytest.approx(1 / np.sqrt(9 * 64), rel=0.02)
    beyond = np.abs(kernel) > 2 / np.sqrt(9 * 64) / 0.879626 * (1 + 1e-6)
    assert beyond.mean() < (1e-4 if BACKEND == "torch" else 1e-9)  # Keras cuts nearly all there
    np.testing.assert_array_equal(numpy(ds.SmoothedInitializer(0, seed=0)(shape)), kernel)
    assert (numpy(ds.SmoothedInitializer(0, seed=1)(shape)) != kernel).mean() > 0.99


# ---- configuration ----


def test_config_round_trips():
    initializer = ds.SmoothedInitializer(0.7, keras.initializers.HeNormal(seed=4))
    expected = numpy(initializer((3, 3, 2, 2)))
    config = json.loads(json.dumps(initializer.get_config()))
    assert config["sigma"] == 0.7
    for again in (
        ds.SmoothedInitializer.from_config(config),
        keras.initializers.deserialize(keras.initializers.serialize(initializer)),
        initializer.clone(),
    ):
        assert again.get_config() == initializer.get_config()
        np.testing.assert_array_equal(numpy(again((3, 3, 2, 2))), expected)


def test_a_layer_saves_it(tmp_path):
    layer = keras.layers.Conv2D(2, 3, kernel_initializer=ds.SmoothedInitializer(1.0, seed=2))
    model = keras.Sequential([keras.Input((8, 8, 3)), layer])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras").layers[0].kernel_initializer
    assert isinstance(loaded, ds.SmoothedInitializer)
    np.testing.assert_array_equal(numpy(loaded((3, 3, 3, 2))), np.asarray(layer.kernel))


# ---- in the paper's networks ----


def network(sigma=None, seed=0):
    initializer = None if sigma is None else ds.SmoothedInitializer(sigma)
    return ds.vgg((16, 16, 3), 4, BLOCKS, "strided", kernel_initializer=initializer, seed=seed)


def test_vgg_smooths_its_convolutions_and_nothing_else():
    plain, zero, smooth = network(), network(0.0), network(1.0)
    for rough, same, found in zip(plain.weights, zero.weights, smooth.weights):
        rough, same, found = (np.asarray(variable) for variable in (rough, same, found))
        np.testing.assert_array_equal(same, rough)
        if rough.ndim < 4:
            np.testing.assert_array_equal(found, rough)
            continue
        truncate = 20  # deviations: beyond any kernel here
        expected = scipy.ndimage.gaussian_filter(
            rough.astype("float64"), (1, 1, 0, 0), mode="constant", truncate=truncate
        )
        np.testing.assert_allclose(normalized(found), normalized(expected), rtol=0, atol=1e-6)
    kernels = [np.asarray(v) for v in smooth.weights if v.path.endswith("kernel")]
    assert len({kernel.tobytes() for kernel in kernels}) == len(kernels)


def test_its_seed_counts_inside_vgg():
    first, second, other = (
        np.asarray(
            ds.vgg(
                (16, 16, 3), 4, BLOCKS, kernel_initializer=ds.SmoothedInitializer(1.0, seed=seed)
            ).weights[0]
        )
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, second)
    assert (first != other).all()


@pytest.mark.parametrize("sigma", [None, 1.0])
def test_sensitivity_at_initialization_does_not_depend_on_the_scale_of_kernels(sigma):
    """Which makes the choice of the norm harmless, as the docstrings claim."""
    images, model = natural_images(6), network(sigma)
    before = ds.measure_sensitivity(model, images, intervals=False)
    for variable in model.weights:
        if variable.path.endswith("kernel"):
            variable.assign(0.13 * np.asarray(variable))
    after = ds.measure_sensitivity(model, images, intervals=False)
    assert before["sensitivity"].notna().all()
    np.testing.assert_allclose(after["sensitivity"], before["sensitivity"], rtol=1e-5)


# ---- bad input ----


@pytest.mark.parametrize("sigma", [-0.1, np.nan, -np.inf, True, None, "1", (1, 2)])
def test_impossible_sigmas(sigma):
    with pytest.raises(ValueError, match=r"sigma must be a number .* at least 0, received"):
        ds.SmoothedInitializer(sigma)


@pytest.mark.parametrize("shape", [(3,), (3, 3), (3, 3, 4), (3, 3, 3, 4, 4)])
def test_kernels_of_other_ranks(shape):
    with pytest.raises(ValueError, match=r"\[height, width, in, out\].*received shape \(3,"):
        ds.SmoothedInitializer(1.0)(shape)


def test_a_seed_beside_an_initializer_of_its_own():
    with pytest.raises(ValueError, match=r"seed is for the default initializer"):
        ds.SmoothedInitializer(1.0, "he_normal", seed=1)
