"""`deformstab.addons` against tensorflow-addons 0.23.0 (`data/README.md`), scipy and loops."""

import functools
import inspect

import keras
import numpy as np
import pytest
from helpers import DATA
from keras import ops
from scipy.interpolate import RBFInterpolator

from deformstab.deformations import addons
from deformstab.deformations.splines import control_grid

BACKEND = keras.backend.backend()
# Without x64, JAX computes in float32 whatever comes in.
DOUBLE = keras.backend.standardize_dtype(ops.convert_to_tensor(np.zeros(1)).dtype) == "float64"
# Keras' conversion of a PyTorch tensor to NumPy 2, in the tests only.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
needs_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.function and tf.data")
needs_double = pytest.mark.skipif(not DOUBLE, reason="needs float64")


@functools.cache
def recorded(name):
    with np.load(DATA / name) as archive:
        return dict(archive)


def case(number):
    arrays = recorded("tfa_reference.npz")
    return {key[2:]: value for key, value in arrays.items() if key.startswith(f"{number}/")}


def boundary_keys(name):
    keys = recorded("tfa_boundary_reference.npz")
    calls = (key for key in keys if "_" in key and not key.endswith("/warped"))
    return [key.removesuffix("/flow") for key in calls if name(key)]


def numpy(result):
    if isinstance(result, tuple):
        return tuple(map(numpy, result))
    return ops.convert_to_numpy(result)


def interpolate_spline(*args, **kwargs):
    return numpy(addons.interpolate_spline(*args, **kwargs))


def dense_image_warp(*args, **kwargs):
    return numpy(addons.dense_image_warp(*args, **kwargs))


def sparse_image_warp(*args, **kwargs):
    return numpy(addons.sparse_image_warp(*args, **kwargs))


def scattered(rng, batch=2, count=9, queries=11, dimensions=2, values=3):
    points = rng.uniform(0, 5, (batch, count, dimensions))
    queries = rng.uniform(-1, 6, (batch, queries, dimensions))
    return points, rng.normal(0, 1, (batch, count, values)), queries


# ---- against tensorflow-addons ----


def test_signatures_are_those_of_tensorflow_addons():
    empty = inspect.Parameter.empty
    expected = {  # read from its sources
        addons.interpolate_spline: {
            "train_points": empty,
            "train_values": empty,
            "query_points": empty,
            "order": empty,
            "regularization_weight": 0.0,
            "name": "interpolate_spline",
        },
        addons.dense_image_warp: {"image": empty, "flow": empty, "name": None},
        addons.sparse_image_warp: {
            "image": empty,
            "source_control_point_locations": empty,
            "dest_control_point_locations": empty,
            "interpolation_order": 2,
            "regularization_weight": 0.0,
            "num_boundary_points": 0,
            "name": "sparse_image_warp",
        },
    }
    for function, defaults in expected.items():
        parameters = inspect.signature(function).parameters
        assert list(parameters) == list(defaults)
        assert {name: p.default for name, p in parameters.items()} == defaults


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize(
    ("key", "order", "weight", "atol"),
    [
        ("spline_order1", 1, 0.0, 1e-4),
        ("spline_order2", 2, 0.0, 5e-4),
        ("spline_order3", 3, 0.0, 2e-3),
        ("spline_order2_reg", 2, 0.1, 5e-4),
    ],
)
def test_splines_of_tensorflow_addons(number, key, order, weight, atol):
    # The tolerance is the rounding of tensorflow-addons, which solves in float32.
    c = case(number)
    values = interpolate_spline(c["points"], c["values"], c["queries"], order, weight)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, c[key], rtol=0, atol=atol)


@pytest.mark.parametrize("key", boundary_keys(lambda key: key.startswith("spline")))
def test_splines_of_every_order_and_dimension_in_float64(key):
    arrays = recorded("tfa_boundary_reference.npz")
    points_of, setting = key.split("/")
    order, weight, dtype = setting.split("_")
    if dtype == "float64" and not DOUBLE:
        pytest.skip("needs float64")
    inputs = (arrays[f"{points_of}/{name}"] for name in ("points", "values", "queries"))
    values = interpolate_spline(*(x.astype(dtype) for x in inputs), int(order), float(weight))
    assert values.dtype == dtype
    relative = {"float64": 1e-8, "float32": 1e-3}[dtype]
    np.testing.assert_allclose(values, arrays[key], rtol=0, atol=relative * abs(arrays[key]).max())


@pytest.mark.parametrize("number", range(4))
def test_dense_warps_of_tensorflow_addons(number):
    c = case(number)
    warped = dense_image_warp(c["image"], c["flow"][: len(c["image"])])
    np.testing.assert_allclose(warped, c["warped"], rtol=0, atol=1e-6)
    if "dense" in c:  # a flow that leaves the image
        warped = dense_image_warp(c["image"], c["dense_flow"])
        np.testing.assert_allclose(warped, c["dense"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("number", range(4))
def test_sparse_warps_of_tensorflow_addons(number):
    c = case(number)
    control = control_grid(int(c["grid"]), *c["image"].shape[1:3])[None].astype("float32")
    source = control + c["displacement"]
    warped, flow = sparse_image_warp(c["image"], source, np.tile(control, (len(source), 1, 1)))
    # Pixels: tensorflow-addons' float32 rounds the flow, more so in large images; so does JAX here.
    atol = {0: 5e-5, 1: 1e-3, 2: 5e-5, 3: 5e-4}[number] * (1 if DOUBLE else 3)
    np.testing.assert_allclose(flow, c["flow"], rtol=0, atol=atol)
    np.testing.assert_allclose(warped, c["warped"], rtol=0, atol=atol)  # images lie in [0, 1]
    again = dense_image_warp(c["image"], flow)
    np.testing.assert_array_equal(again, warped)


@pytest.mark.parametrize("key", boundary_keys(lambda key: not key.startswith("spline")))
def test_boundary_points_of_tensorflow_addons(key):
    arrays = recorded("tfa_boundary_reference.npz")
    size, setting = key.split("/")
    boundary, order, weight, dtype = setting.split("_")
    image, source, dest = (
        arrays[f"{size}/{name}"].astype(dtype) for name in ("image", "source", "dest")
    )
    warped, flow = sparse_image_warp(image, source, dest, int(order), float(weight), int(boundary))
    atol = {1: 3e-4, 2: 5e-4, 3: 2e-3}[int(order)]
    if dtype == "float64" and DOUBLE:
        atol = 1e-10
        assert warped.dtype == flow.dtype == np.float64
    np.testing.assert_allclose(flow, arrays[f"{key}/flow"], rtol=0, atol=atol)
    np.testing.assert_allclose(warped, arrays[f"{key}/warped"], rtol=0, atol=atol)
    given = dense_image_warp(image, arrays[f"{key}/flow"])
    np.testing.assert_allclose(given, arrays[f"{key}/warped"], rtol=0, atol=2e-6)


# ---- against other oracles ----


@pytest.mark.parametrize(
    ("order", "kernel", "weight"),
    [
        (1, "linear", 0.0),
        (2, "thin_plate_spline", 0.0),
        (2, "thin_plate_spline", 0.3),
        (3, "cubic", 0.0),
        (3, "cubic", 0.3),
    ],
)
def test_splines_of_scipy(order, kernel, weight):
    # scipy's linear kernel is -r, which changes the sign of the weights only, unless regularized.
    points, values, queries = scattered(np.random.default_rng(order))
    ours = interpolate_spline(points, values, queries, order, weight)
    theirs = np.stack(
        [
            RBFInterpolator(p, v, kernel=kernel, degree=1, smoothing=weight)(q)
            for p, v, q in zip(points, values, queries)
        ]
    )
    # Order 1: below a distance of 1e-5 tensorflow-addons' kernel, and ours, is constant.
    atol = (1e-4 if order == 1 else 1e-10) if DOUBLE else 2e-3
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=atol)


def test_dense_warp_of_plain_loops():
    rng = np.random.default_rng(0)
    image = rng.random((2, 5, 7, 3), dtype="float32")
    flow = rng.normal(0, 3, (2, 5, 7, 2)).astype("float32")
    flow[0, 1, 2] = 100, -100
    flow[1, 3, 3] = 1, -2  # on a pixel
    expected = np.empty_like(image)
    for b, y, x in np.ndindex(2, 5, 7):
        row = np.clip(y - flow[b, y, x, 0], 0, 4)
        column = np.clip(x - flow[b, y, x, 1], 0, 6)
        top, left = min(int(row), 3), min(int(column), 5)
        down, along = row - top, column - left
        square = image[b, top : top + 2, left : left + 2]
        upper, lower = (1 - along) * square[:, 0] + along * square[:, 1]
        expected[b, y, x] = (1 - down) * upper + down * lower
    np.testing.assert_allclose(dense_image_warp(image, flow), expected, rtol=0, atol=1e-6)


# ---- properties ----


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
def test_a_spline_passes_through_its_values(order):
    points, values, _ = scattered(np.random.default_rng(order))
    at_points = interpolate_spline(points, values, points, order)
    atol = 1e-9 if DOUBLE else 1e-3 * 10 ** max(0, order - 3)
    np.testing.assert_allclose(at_points, values, rtol=0, atol=atol)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("weight", [0.0, 0.3])
@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_a_spline_reproduces_affine_functions(order, weight, dimensions):
    rng = np.random.default_rng(3)
    # On a jittered line of points: in one dimension, random ones come close to each other.
    points = (np.arange(8)[:, None] + rng.uniform(0, 0.5, (2, 8, dimensions)))[
        :, rng.permutation(8)
    ]
    points[..., 1:] = rng.uniform(0, 8, (2, 8, dimensions - 1))
    queries = rng.uniform(-2, 10, (2, 11, dimensions))
    slope, offset = rng.normal(size=(dimensions, 2)), rng.normal(size=2)
    affine = lambda x: x @ slope + offset
    found = interpolate_spline(points, affine(points), queries, order, weight)
    np.testing.assert_allclose(found, affine(queries), rtol=0, atol=1e-8 if DOUBLE else 2e-3)


def test_a_translation_of_the_plane_changes_nothing():
    points, values, queries = scattered(np.random.default_rng(0))
    there = interpolate_spline(points, values, queries, 2)
    far, atol = (2.0**20, 1e-7) if DOUBLE else (2.0**10, 2e-3)  # the points themselves are rounded
    elsewhere = interpolate_spline(points + far, values, queries + far, 2)
    np.testing.assert_allclose(elsewhere, there, rtol=0, atol=atol)


def test_zero_flow_is_the_identity_bit_for_bit():
    image = np.random.default_rng(0).random((2, 6, 5, 3), dtype="float32")
    np.testing.assert_array_equal(dense_image_warp(image, np.zeros((2, 6, 5, 2), "f4")), image)
    points = np.array([[[0, 0], [0, 4], [5, 0], [3, 3]]], "float32")
    warped, flow = sparse_image_warp(image, points, points)
    np.testing.assert_array_equal(flow, np.zeros((2, 6, 5, 2)))
    np.testing.assert_array_equal(warped, image)


def test_the_sign_of_the_flow_is_that_of_tensorflow_addons():
    # By hand: out(p) = image(p - flow(p)), so a flow of +1 in x moves content to the right.
    image = np.array([[1, 2, 3], [4, 5, 6]], "float32")[None, ..., None]
    right = np.zeros((1, 2, 3, 2), "float32")
    right[..., 1] = 1
    expected = [[1, 1, 2], [4, 4, 5]]
    np.testing.assert_array_equal(dense_image_warp(image, right)[0, ..., 0], expected)
    down = right[..., ::-1].copy()
    expected = [[1, 2, 3], [1, 2, 3]]
    np.testing.assert_array_equal(dense_image_warp(image, down)[0, ..., 0], expected)


def test_content_moves_from_the_source_to_the_destination():
    image = np.zeros((9, 9), "float32")
    image[3, 4] = 1
    corners = [[0, 0], [0, 8], [8, 0], [8, 8]]
    source, dest = [[[3, 4], *corners]], [[[5, 6], *corners]]
    warped, flow = sparse_image_warp(image, np.array(source, "f4"), np.array(dest, "f4"))
    np.testing.assert_allclose(flow[0, 5, 6], [2, 2], atol=1e-4)
    np.testing.assert_allclose(warped[5, 6], 1, atol=1e-3)
    held, flow = sparse_image_warp(
        image, np.array(source, "f4")[:, :1], np.array(dest, "f4")[:, :1], num_boundary_points=1
    )
    np.testing.assert_allclose(held, warped, atol=1e-4)  # the corners, once by hand


@pytest.mark.parametrize("boundary", [1, 2, 4])
def test_boundary_points_do_not_move(boundary):
    image = np.zeros((1, 9, 13, 1), "float32")
    source = np.array([[[3, 4], [6, 7]]], "float32")
    _, flow = sparse_image_warp(image, source, source + 1, num_boundary_points=boundary)
    rows, columns = np.linspace(0, 8, boundary + 1, dtype=int), np.linspace(0, 12, boundary + 1)
    assert len(rows) == boundary + 1
    columns = columns.astype(int)
    for edge in (flow[0, 0, columns], flow[0, -1, columns], flow[0, rows, 0], flow[0, rows, -1]):
        np.testing.assert_allclose(edge, np.zeros_like(edge), atol=1e-4)
    np.testing.assert_allclose(flow[0, [3 + 1, 6 + 1], [4 + 1, 7 + 1]], np.ones((2, 2)), atol=1e-4)


# ---- dtypes and shapes ----


@pytest.mark.parametrize("flow_dtype", ["float16", "float32", "float64", "int32"])
@pytest.mark.parametrize("image_dtype", ["float16", "float32", "float64", "uint8"])
def test_dtypes_may_differ(image_dtype, flow_dtype):
    rng = np.random.default_rng(0)
    image = (rng.random((2, 9, 11, 3)) * 200).astype(image_dtype)
    flow = rng.integers(-2, 3, (2, 9, 11, 2)).astype(flow_dtype)
    result = "float32" if image_dtype == "uint8" or not DOUBLE else image_dtype
    result = "float16" if image_dtype == "float16" else result
    warped = dense_image_warp(image, flow)
    assert warped.dtype == result
    exact = dense_image_warp(image.astype("float32"), flow.astype("float32"))
    np.testing.assert_allclose(warped, exact, rtol=1e-3)  # whole pixels: no blending

    points = np.array([[[1, 1], [1, 8], [6, 2], [5, 6]]]).astype(flow_dtype)
    warped, flow = sparse_image_warp(image, points, points + np.array(1, flow_dtype))
    assert warped.dtype == result
    assert flow.dtype == ("float64" if flow_dtype == "float64" and DOUBLE else "float32")
    np.testing.assert_allclose(flow, np.ones_like(flow), rtol=0, atol=1e-4)


def test_lists_and_mixed_points_are_taken():
    image = np.random.default_rng(0).random((1, 5, 6, 1), dtype="float32")
    source = np.array([[[0.5, 0.0], [0.0, 4.0], [4.0, 1.0], [3.0, 5.0]]], "float32")
    warped, flow = sparse_image_warp(image, source, source.astype("float64") + 0.5)
    lists = sparse_image_warp(image.tolist(), source.tolist(), (source + 0.5).tolist())
    np.testing.assert_allclose(lists[0], warped, rtol=0, atol=1e-5)
    np.testing.assert_allclose(lists[1], flow, rtol=0, atol=1e-5)


def test_images_without_batch_or_channels():
    rng = np.random.default_rng(0)
    image = rng.random((1, 6, 7, 1), dtype="float32")
    source = np.array([[[1, 1], [1, 5], [4, 2], [5, 6]]], "float32")
    dest = source + rng.uniform(-1, 1, source.shape).astype("float32")
    expected, flow = sparse_image_warp(image, source, dest)
    for part in (np.s_[0], np.s_[0, :, :, 0]):
        warped, its_flow = sparse_image_warp(image[part], source, dest)
        np.testing.assert_array_equal(warped, expected[part])
        np.testing.assert_array_equal(its_flow, flow)


def test_one_set_of_points_serves_the_whole_batch():
    rng = np.random.default_rng(0)
    image = rng.random((3, 6, 7, 2), dtype="float32")
    one = np.array([[[1, 1], [1, 5], [4, 2], [5, 6]]], "float32")
    all_the_same = np.repeat(one, 3, axis=0)
    other = one + rng.uniform(-1, 1, (3, 4, 2)).astype("float32")
    for source, dest in [(one, other), (other, one), (one, one + 0.5)]:
        repeated = [np.broadcast_to(x, all_the_same.shape) for x in (source, dest)]
        for found, expected in zip(
            sparse_image_warp(image, source, dest), sparse_image_warp(image, *repeated)
        ):
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)

    points, values, queries = scattered(rng, batch=3)
    repeat = lambda x: np.repeat(x[:1], 3, axis=0)
    for found, expected in [
        ((points[:1], values, queries), (repeat(points), values, queries)),
        ((points, values[:1], queries), (points, repeat(values), queries)),
        ((points, values, queries[:1]), (points, values, repeat(queries))),
        ((points[:1], values[:1], queries), (repeat(points), repeat(values), queries)),
    ]:
        np.testing.assert_allclose(
            interpolate_spline(*found, 2), interpolate_spline(*expected, 2), rtol=0, atol=1e-5
        )


# ---- gradients ----


def gradients(function, *arrays):
    """The gradients of a scalar function, by the backend's own differentiation."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        tensors = [tf.constant(x) for x in arrays]
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            result = function(*tensors)
        return numpy(tuple(tape.gradient(result, tensors)))
    if BACKEND == "jax":
        import jax

        tensors = tuple(map(ops.convert_to_tensor, arrays))
        return numpy(jax.grad(function, tuple(range(len(arrays))))(*tensors))
    tensors = [ops.convert_to_tensor(x).requires_grad_() for x in arrays]
    function(*tensors).backward()
    return numpy(tuple(x.grad for x in tensors))


def finite_differences(function, *arrays, step=1e-6):
    results = []
    for number, array in enumerate(arrays):
        slopes = np.empty_like(array)
        for index in np.ndindex(array.shape):
            ends = []
            for shift in (step, -step):
                moved = [x.copy() for x in arrays]
                moved[number][index] += shift
                ends.append(float(numpy(function(*moved))))
            slopes[index] = (ends[0] - ends[1]) / (2 * step)
        results.append(slopes)
    return results


def weighted_sum(result, seed=7):
    weights = np.random.default_rng(seed).normal(size=tuple(result.shape))
    weights = ops.cast(ops.convert_to_tensor(weights), result.dtype)
    return ops.sum(result * weights)


@needs_double
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_gradients_of_a_spline(order):
    points, values, queries = scattered(np.random.default_rng(order), 1, 6, 3, values=2)
    if order > 1:  # order 1 has a kink there
        queries[0, 0] = points[0, 0]
    weight = np.array(0.1)
    function = lambda p, v, q, w: weighted_sum(addons.interpolate_spline(p, v, q, order, w))
    arrays = points, values, queries, weight
    for found, expected in zip(gradients(function, *arrays), finite_differences(function, *arrays)):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * abs(expected).max())


@needs_double
def test_gradients_of_a_dense_warp():
    rng = np.random.default_rng(0)
    image, flow = rng.random((1, 3, 4, 2)), rng.uniform(-2, 2, (1, 3, 4, 2))
    function = lambda i, f: weighted_sum(addons.dense_image_warp(i, f))
    for found, expected in zip(
        gradients(function, image, flow), finite_differences(function, image, flow)
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


@needs_double
def test_gradients_of_a_sparse_warp():
    rng = np.random.default_rng(1)
    image = rng.random((1, 5, 6, 1))
    dest = np.array([[[1.2, 1.1], [1.3, 3.7], [3.4, 2.2]]])
    source = dest + rng.uniform(-0.5, 0.5, dest.shape)
    function = lambda i, s, d: sum(
        map(weighted_sum, addons.sparse_image_warp(i, s, d, num_boundary_points=1))
    )
    arrays = image, source, dest
    for found, expected in zip(gradients(function, *arrays), finite_differences(function, *arrays)):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradients_are_finite_where_points_coincide(order, dtype):
    points, values, _ = (x.astype(dtype) for x in scattered(np.random.default_rng(0), 1, 6))
    points[0, 1] = points[0, 0]  # a regularized spline takes two values at one point
    function = lambda p, v, q: weighted_sum(addons.interpolate_spline(p, v, q, order, 0.5))
    for gradient in gradients(function, points, values, points.copy()):
        assert np.isfinite(gradient).all()


def test_gradients_are_finite_at_zero_flow_and_outside():
    image = np.random.default_rng(0).random((1, 4, 5, 1), dtype="float32")
    function = lambda i, f: weighted_sum(addons.dense_image_warp(i, f))
    for reach in (0, 100, -100):
        flow = np.full((1, 4, 5, 2), reach, "float32")
        assert all(np.isfinite(gradient).all() for gradient in gradients(function, image, flow))


# ---- eager, tf.function, tf.data, jit ----


def warp_arguments(batch=3):
    rng = np.random.default_rng(0)
    image = rng.random((batch, 9, 12, 2), dtype="float32")
    dest = np.tile(control_grid(3, 7, 9)[None] + 1.2, (batch, 1, 1)).astype("float32")
    return image, dest + rng.uniform(-1, 1, dest.shape).astype("float32"), dest


@needs_tensorflow
@pytest.mark.parametrize("jit", [None, True])
def test_a_graph_gives_the_same_with_every_size_unknown(jit):
    import tensorflow as tf

    arguments = warp_arguments()
    function = functools.partial(addons.sparse_image_warp, num_boundary_points=2)
    shapes = [(None, None, None, None), (None, None, 2), (None, None, 2)]
    signature = [tf.TensorSpec(shape, "float32") for shape in shapes]
    graph = tf.function(function, signature if jit is None else None, jit_compile=jit)
    for found, expected in zip(numpy(graph(*arguments)), sparse_image_warp(*arguments, 2, 0.0, 2)):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)

    points, values, queries = scattered(np.random.default_rng(0))
    shapes = [(None, None, 2), (None, None, 3), (None, None, None)]
    signature = [tf.TensorSpec(shape, "float64") for shape in shapes]
    graph = tf.function(lambda p, v, q: addons.interpolate_spline(p, v, q, 3), signature)
    np.testing.assert_allclose(
        numpy(graph(points, values, queries)), interpolate_spline(points, values, queries, 3)
    )


@needs_tensorflow
def test_inside_tf_data_before_and_after_batching():
    import tensorflow as tf

    arguments = warp_arguments()
    expected = sparse_image_warp(*arguments, num_boundary_points=1)
    warp = lambda *batch: addons.sparse_image_warp(*batch, num_boundary_points=1)
    dataset = tf.data.Dataset.from_tensor_slices(arguments)
    one = lambda image, source, dest: warp(image, source[None], dest[None])
    for batches in (dataset.batch(2).map(warp), dataset.map(one).batch(2)):
        warped, flow = zip(*batches.as_numpy_iterator())
        np.testing.assert_allclose(np.concatenate(warped), expected[0], rtol=0, atol=1e-6)
        flow = np.concatenate(flow).reshape(expected[1].shape)
        np.testing.assert_allclose(flow, expected[1], rtol=0, atol=1e-5)


@needs_tensorflow
def test_a_flow_of_another_size_is_refused_in_a_graph_too():
    import tensorflow as tf

    signature = [tf.TensorSpec((None, None, None, 1)), tf.TensorSpec((None, None, None, 2))]
    graph = tf.function(addons.dense_image_warp, signature)
    with pytest.raises(tf.errors.InvalidArgumentError):
        graph(np.zeros((3, 4, 5, 1), "float32"), np.zeros((1, 4, 5, 2), "float32"))


def test_inside_a_compiled_keras_model():
    class Warp(keras.layers.Layer):
        def call(self, image):
            source = np.array([[[1, 1], [1, 5], [4, 2]]], "float32")
            return addons.sparse_image_warp(image, source, source + 1)[0]

    image = np.random.default_rng(0).random((3, 6, 7, 2), dtype="float32")
    inputs = keras.Input((6, 7, 2))
    model = keras.Model(inputs, Warp()(inputs))
    expected = np.pad(image, ((0, 0), (1, 0), (1, 0), (0, 0)), mode="edge")[:, :6, :7]
    np.testing.assert_allclose(model.predict(image, verbose=0), expected, rtol=0, atol=1e-4)


# ---- errors ----


def zeros(*shape):
    return np.zeros(shape, "float32")


POINTS = scattered(np.random.default_rng(0))


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        ("interpolate_spline", (*POINTS, 0), "order must be .* at least 1; received order 0"),
        ("interpolate_spline", (*POINTS, -1), "received order -1"),
        ("interpolate_spline", (*POINTS, 1.5), "received order 1.5"),
        ("interpolate_spline", (*POINTS, "2"), "received order '2'"),
        ("interpolate_spline", (*POINTS, 2, -0.1), "at least 0.*regularization_weight -0.1"),
        ("interpolate_spline", (*POINTS, 2, float("nan")), "regularization_weight nan"),
        ("interpolate_spline", (zeros(9, 2), *POINTS[1:], 2), r"points \(9, 2\)"),
        ("interpolate_spline", (POINTS[0], zeros(2, 8, 1), POINTS[2], 2), r"values \(2, 8, 1\)"),
        ("interpolate_spline", (*POINTS[:2], zeros(2, 5, 3), 2), r"queries \(2, 5, 3\)"),
        ("interpolate_spline", (*POINTS[:2], zeros(3, 5, 2), 2), "batches equal or one"),
        ("interpolate_spline", (zeros(1, 2, 2), zeros(1, 2, 1), zeros(1, 5, 2), 2), "add some"),
        ("dense_image_warp", (zeros(4, 5, 1), zeros(4, 5, 2)), r"image \(4, 5, 1\)"),
        ("dense_image_warp", (zeros(1, 4, 5, 1), zeros(1, 4, 5, 3)), r"flow \(1, 4, 5, 3\)"),
        ("dense_image_warp", (zeros(1, 4, 5, 1), zeros(1, 5, 4, 2)), "same sizes"),
        ("dense_image_warp", (zeros(3, 4, 5, 1), zeros(1, 4, 5, 2)), "same sizes"),
        ("dense_image_warp", (zeros(1, 1, 5, 1), zeros(1, 1, 5, 2)), "at least 2"),
        ("sparse_image_warp", (zeros(5), zeros(1, 4, 2), zeros(1, 4, 2)), r"image \(5,\)"),
        ("sparse_image_warp", (zeros(4, 5), zeros(4, 2), zeros(4, 2)), r"source \(4, 2\)"),
        ("sparse_image_warp", (zeros(4, 5), zeros(1, 4, 2), zeros(1, 3, 2)), "equally many"),
        ("sparse_image_warp", (zeros(4, 5), zeros(1, 4, 3), zeros(1, 4, 3)), r"\(1, 4, 3\)"),
        ("sparse_image_warp", (zeros(4, 5), zeros(3, 4, 2), zeros(3, 4, 2)), "or of one"),
        ("sparse_image_warp", (zeros(4, 5), *[zeros(1, 4, 2)] * 2, 2, 0.0, -1), "points -1"),
        ("sparse_image_warp", (zeros(4, 5), *[zeros(1, 4, 2)] * 2, 0), "received order 0"),
        ("sparse_image_warp", (zeros(4, 5), *[zeros(1, 2, 2)] * 2), "more points than dimensions"),
    ],
)
def test_errors_say_what_was_received(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        getattr(addons, function)(*arguments)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: addons.interpolate_spline(x, x, x, 2),
        lambda x: addons.dense_image_warp(x[..., None], x[..., None]),
        lambda x: addons.sparse_image_warp(x[..., None], x, x),
    ],
)
def test_symbolic_tensors_are_refused_with_what_to_do(call):
    with pytest.raises(ValueError, match=r"symbolic tensor of a functional model.*inside a layer"):
        call(keras.Input((4, 2)))


@needs_tensorflow
@pytest.mark.parametrize("shape", [(6, 7), (6, 7, 3), (2, 6, 7, 3)])
def test_images_of_unknown_rank_are_warped_as_those_of_known_rank(shape):
    """As functions of Python give them inside `tf.data`; tensorflow-addons took them."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    image = rng.random(shape).astype("float32")
    source = rng.uniform(0, 5, (1, 5, 2)).astype("float32")
    dest = source + rng.normal(size=source.shape).astype("float32")
    unknown = [tf.TensorSpec(None, "float32")] * 3
    warped, flow = tf.function(addons.sparse_image_warp, unknown)(image, source, dest)
    expected = addons.sparse_image_warp(image, source, dest)
    np.testing.assert_allclose(warped, expected[0], rtol=0, atol=1e-6)
    np.testing.assert_allclose(flow, expected[1], rtol=0, atol=1e-6)


@needs_tensorflow
def test_dense_warps_and_splines_of_unknown_rank():
    import tensorflow as tf

    rng = np.random.default_rng(0)
    image, flow = (rng.normal(size=(2, 6, 7, n)).astype("float32") for n in (3, 2))
    unknown = [tf.TensorSpec(None, "float32")] * 2
    warped = tf.function(addons.dense_image_warp, unknown)(image, flow)
    np.testing.assert_allclose(warped, addons.dense_image_warp(image, flow), rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="set_shape"):  # as tensorflow-addons: it must know them
        tf.function(
            lambda p: addons.interpolate_spline(p, p, p, 2), [tf.TensorSpec(None, "float32")]
        ).get_concrete_function()


@needs_tensorflow
def test_unknown_numbers_of_dimensions_are_refused():
    import tensorflow as tf

    shapes = [(1, 5, None), (1, 5, 1), (1, 7, None)]
    function = lambda p, v, q: addons.interpolate_spline(p, v, q, 2)
    with pytest.raises(ValueError, match="set_shape"):
        tf.function(function, [tf.TensorSpec(shape) for shape in shapes]).get_concrete_function()
