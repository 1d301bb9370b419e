"""What a worst deformation makes as large as possible, image by image: a layer's distance, or the
margin of another answer over the model's own; its value and its gradient, compiled."""

import functools

import keras
import numpy as np
from keras import ops

from deformstab.backend import compiled_model_step, kept_with, with_gradient
from deformstab.measurement.displacement_sets import points_of
from deformstab.measurement.distances import cosine_distance, euclidean_distance
from deformstab.measurement.watching import watch

PREDICTION = "prediction"


class Objective:
    """Values of some images under displacements, by forward passes of one size.

    Args:
        model: any Keras model, built.
        images: `DeformedImages` of a layer with a linear field; its draws do not matter.
        representation: the layer, or the output that holds the answers.
        kind: "cosine", "euclidean" or "prediction".
        which: indices of the images, repeated ones among them where they fill up a batch.
    """

    def __init__(self, model, images, representation, kind, which):
        self.kind, self.inputs = kind, images.tensors(which)
        self.points = points_of(images.deformation)
        self.dtype = images.deformation.geometry_dtype
        self.step = functools.partial(_step, model, images, representation, kind, self.inputs)
        zero = np.zeros((len(which), self.points, 2))
        # By the deformation as well: an image that is not moved is at distance 0 from itself.
        self.target = self.zero_rows = self.rows(zero)
        self.probabilities = False
        if kind == PREDICTION:
            rows = ops.convert_to_numpy(self.zero_rows)
            self.answers = rows.argmax(axis=1)
            self.probabilities = bool(
                (rows >= 0).all() and np.allclose(rows.sum(axis=1), 1, atol=1e-3)
            )
            self.target = ops.one_hot(ops.convert_to_tensor(self.answers), rows.shape[1])
            self.broken = ~np.isfinite(rows).all(axis=1)
        else:
            squares = ops.convert_to_numpy(ops.max(ops.abs(self.zero_rows), axis=1))
            self.broken = ~np.isfinite(squares) | ((squares == 0) & (kind == "cosine"))

    def rows(self, d):
        """The representations themselves, [images, entries], a tensor."""
        return self.step("rows")(self._tensor(d), *self.inputs)

    def _tensor(self, d):
        return ops.convert_to_tensor(d.astype(self.dtype))

    def values(self, d) -> np.ndarray:
        """[images]; NaN where there is none."""
        step = self.step("values", self.probabilities)
        found = ops.convert_to_numpy(step(self._tensor(d), self.target, *self.inputs))
        return found if self.kind == PREDICTION else self._at_rest(found, d)

    def values_and_gradients(self, d):
        """([images], [images, points, 2]): of distances the gradient of something monotone in them."""
        step = self.step("gradients", self.probabilities)
        given = step(self._tensor(d), self.target, *self.inputs)
        found, gradient = map(ops.convert_to_numpy, given)
        gradient = np.where(np.isfinite(gradient), gradient, 0).astype("float64")
        if self.kind == "euclidean":
            found = np.sqrt(found)
        return (found if self.kind == PREDICTION else self._at_rest(found, d)), gradient

    def _at_rest(self, values, d):
        still = (d == 0).all(axis=(1, 2)) & ~self.broken
        return np.where(still, 0.0, np.where(self.broken, np.nan, values)).astype("float64")

    def form(self, size: float = 0.5) -> np.ndarray:
        """The quadratic form of small displacements, [images, points · 2, points · 2].

        By central differences: with J the derivative of the representation r, JᵀJ for Euclidean
        distances (of their squares), JᵀPJ / (2 |r|²) for cosine ones; P removes the direction of r.
        """
        columns = [plus - minus for plus, minus in self._both_ways(self.rows, size)]
        jacobian = ops.cast(ops.stack(columns, axis=1), "float32") / (2 * size)
        if self.kind == "cosine":
            rows = ops.cast(self.zero_rows, "float32")
            scale = ops.maximum(ops.sqrt(ops.sum(ops.square(rows), axis=1)), 1e-30)[:, None]
            rows, jacobian = rows / scale, jacobian / scale[:, None]
            along = ops.sum(jacobian * rows[:, None], axis=2, keepdims=True)
            jacobian = (jacobian - along * rows[:, None]) * 0.5**0.5
        form = ops.convert_to_numpy(jacobian @ ops.transpose(jacobian, (0, 2, 1)))
        return np.where(np.isfinite(form), form, 0).astype("float64")

    def slope(self, size: float = 0.5) -> np.ndarray:
        """The gradient of the values at rest by central differences, [images, points, 2]."""
        found = [(plus - minus) / (2 * size) for plus, minus in self._both_ways(self.values, size)]
        found = np.stack(found, axis=1)
        return np.where(np.isfinite(found), found, 0).reshape(len(found), -1, 2)

    def _both_ways(self, function, size):
        count, points = len(self.inputs[0]), self.points
        for place in range(2 * points):
            d = np.zeros((count, 2 * points))
            d[:, place] = size
            d = d.reshape(count, points, 2)
            yield function(d), function(-d)


def _step(model, images, representation, kind, inputs, what, probabilities=False):
    """A compiled step for these sizes, kept with the model."""
    sizes = tuple((tuple(x.shape), keras.backend.standardize_dtype(x.dtype)) for x in inputs)
    batch = len(inputs[0])
    deformation, pack, place = images.deformation, images.pack, images.place
    config = {**deformation.get_config(), "name": type(deformation).__name__, "seed": None}
    named = representation.name, representation.features, representation.rows, representation.order
    key = (
        "worst",
        what,
        probabilities,
        kind,
        place,
        str(images.structure),
        sizes,
        named,
        str(config),
    )

    def rows(d, *tensors):
        tensors, found = list(tensors), []
        parameters = ops.reshape(d, (batch, *deformation.field.shape))
        tensors[place] = ops.cast(deformation.deform(tensors[place], parameters), "float32")

        def visit(call):
            if call.name == representation.name:
                found.append(representation.flat_rows(call.output, batch))
            return bool(found)

        watch(model, pack(tensors), tensors[place], visit)
        return found[0]

    def objective(d, target, *tensors):
        moved = rows(d, *tensors)
        if kind == PREDICTION:
            return _margin(moved, target, probabilities)
        if what == "values":
            return (cosine_distance if kind == "cosine" else euclidean_distance)(moved, target)
        return (_half_chord if kind == "cosine" else _square)(moved, target)

    def make():
        d = (batch, points_of(deformation), 2), deformation.geometry_dtype
        if what == "rows":
            return compiled_model_step(rows, model, d, *sizes)
        dtype = "float64" if representation.itemsize == 8 else "float32"
        target = (batch, representation.features), dtype
        if kind == PREDICTION:
            target = target[0], "float32"
        function = objective if what == "values" else with_gradient(objective)
        return compiled_model_step(function, model, d, target, *sizes)

    return kept_with(model, key, make)


def _half_chord(rows, target):
    """The cosine distance, |x̂ - ŷ|² / 2; its gradient is 0 where a row is zero."""

    def unit(x):
        scale = ops.stop_gradient(ops.max(ops.abs(x), axis=1, keepdims=True))
        x = x / ops.where(scale > 0, scale, ops.ones_like(scale))
        square = ops.sum(ops.square(x), axis=1, keepdims=True)
        return x / ops.sqrt(ops.where(square > 0, square, ops.ones_like(square))), square > 0

    (rows, there), (target, _) = unit(rows), unit(target)
    chord = 0.5 * ops.sum(ops.square(rows - target), axis=1)
    return ops.where(there[:, 0], chord, ops.full_like(chord, np.nan))


def _square(rows, target):
    """The squared distance: uphill where the distance is, with a gradient at 0."""
    return ops.sum(ops.square(rows - target), axis=1)


def _margin(rows, target, probabilities):
    """The best other answer over the one that `target` marks, in logits."""
    rows = ops.cast(rows, target.dtype)
    if probabilities:
        rows = ops.log(ops.maximum(rows, 1e-30))
    own = ops.sum(rows * target, axis=1)
    others = ops.where(target > 0, ops.full_like(rows, -np.inf), rows)
    return ops.max(others, axis=1) - own
