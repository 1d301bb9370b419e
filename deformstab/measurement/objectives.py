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
        probabilities: of "prediction", whether the answers are (`gives_probabilities`).
    """

    def __init__(self, model, images, representation, kind, which, probabilities=False):
        self.kind, self.inputs = kind, images.tensors(which)
        self.points = points_of(images.deformation)
        self.dtype = images.deformation.geometry_dtype
        self.step = functools.partial(_step, model, images, self.inputs)
        self.representation, self.probabilities = representation, probabilities
        zero = np.zeros((len(which), self.points, 2))
        # By the deformation as well: an image that is not moved is at distance 0 from itself.
        self.target = self.zero_rows = self.rows(zero)
        if kind == PREDICTION:
            rows = ops.convert_to_numpy(self.zero_rows)
            # A class of -∞ is one that the model rules out; NaN is the largest of its row.
            self.broken, self.answers = ~np.isfinite(rows.max(axis=1)), rows.argmax(axis=1)
            self.target = ops.one_hot(ops.convert_to_tensor(self.answers), rows.shape[1])
        else:
            squares = ops.convert_to_numpy(ops.max(ops.abs(self.zero_rows), axis=1))
            self.broken = ~np.isfinite(squares) | ((squares == 0) & (kind == "cosine"))

    @property
    def sought(self):
        """(representation, kind, whether it gives probabilities)."""
        return self.representation, self.kind, self.probabilities

    def rows(self, d):
        """The representations themselves, [images, entries], a tensor."""
        plain = self.representation, "", False  # one step for all kinds
        (rows,) = self.step("rows", plain)(self._tensor(d), *self.inputs)
        return rows

    def _tensor(self, d):
        return ops.convert_to_tensor(d.astype(self.dtype))

    def values(self, d) -> np.ndarray:
        """[images]; NaN where there is none."""
        (found,) = values_of([self], d)
        return found

    def values_and_gradients(self, d):
        """([images], [images, points, 2]): of distances the gradient of something monotone in them."""
        step = self.step("gradients", self.sought)
        given = step(self._tensor(d), self.target, *self.inputs)
        found, gradient = map(ops.convert_to_numpy, given)
        gradient = np.where(np.isfinite(gradient), gradient, 0).astype("float64")
        if self.kind == "euclidean":
            found = np.sqrt(found)
        return self._of_images(found, d), gradient

    def _of_images(self, values, d):
        """NaN where nothing is there to compare with, and 0 where nothing moved."""
        still = (d == 0).all(axis=(1, 2)) & (self.kind != PREDICTION)
        return np.where(self.broken, np.nan, np.where(still, 0.0, values)).astype("float64")

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


def gives_probabilities(model, images, representation, batches) -> bool:
    """Whether the answers for images are probabilities: none below 0, each row of sum 1.

    Of all images that have a finite answer, before the search: a batch by itself, or one image with
    NaN, could decide otherwise, and margins of logits and of logarithms would stand in one table.

    Args:
        model, images, representation: as for `Objective`.
        batches: a list of what it takes as `which`.
    """
    for which in batches:
        rest = Objective(model, images, representation, PREDICTION, which)
        rows = ops.convert_to_numpy(rest.zero_rows)[~rest.broken]
        if not ((rows >= 0).all() and np.allclose(rows.sum(axis=1), 1, atol=1e-3)):
            return False
    return True


def values_of(objectives, d) -> list[np.ndarray]:
    """Values under displacements of several objectives of the same images, by one forward pass.

    Args:
        objectives: of one model, made with the same images.
        d: [images, points, 2].

    Returns:
        [images] of each; NaN where there is none.
    """
    first = objectives[0]
    step = first.step("values", *(each.sought for each in objectives))
    given = step(first._tensor(d), *(each.target for each in objectives), *first.inputs)
    found = map(ops.convert_to_numpy, given)
    return [each._of_images(values, d) for each, values in zip(objectives, found)]


def _step(model, images, inputs, what, *sought):
    """A compiled step for these sizes and what is sought of them, kept with the model."""
    sizes = tuple((tuple(x.shape), keras.backend.standardize_dtype(x.dtype)) for x in inputs)
    batch = len(inputs[0])
    deformation, pack, place = images.deformation, images.pack, images.place
    config = {**deformation.get_config(), "name": type(deformation).__name__, "seed": None}
    named = tuple((x.name, x.features, x.rows, x.order, *others) for x, *others in sought)
    key = "worst", what, named, place, str(images.structure), sizes, str(config)

    def rows(d, *tensors):
        tensors, found = list(tensors), {x.name: x for x, *_ in sought}
        missing = set(found)
        parameters = ops.reshape(d, (batch, *deformation.field.shape))
        tensors[place] = ops.cast(deformation.deform(tensors[place], parameters), "float32")

        def visit(call):
            if call.name in missing:
                missing.remove(call.name)
                found[call.name] = found[call.name].flat_rows(call.output, batch)
            return not missing

        watch(model, pack(tensors), tensors[place], visit)
        return [found[x.name] for x, *_ in sought]

    def values(d, *given):
        targets, tensors = given[: len(sought)], given[len(sought) :]
        moved = rows(d, *tensors)
        return [_value(*each, what) for each in zip(moved, targets, sought)]

    def make():
        d = (batch, points_of(deformation), 2), deformation.geometry_dtype
        if what == "rows":
            return compiled_model_step(rows, model, d, *sizes)
        function = values if what == "values" else with_gradient(lambda *all: values(*all)[0])
        targets = [((batch, x.features), _target_dtype(x, kind)) for x, kind, _ in sought]
        return compiled_model_step(function, model, d, *targets, *sizes)

    return kept_with(model, key, make)


def _target_dtype(representation, kind) -> str:
    double = representation.itemsize == 8 and kind != PREDICTION
    return "float64" if double else "float32"


def _value(rows, target, sought, what):
    """[images]: the value, or where a gradient is asked for, something monotone in it."""
    _, kind, probabilities = sought
    if kind == PREDICTION:
        return _margin(rows, target, probabilities)
    if what == "values":
        return (cosine_distance if kind == "cosine" else euclidean_distance)(rows, target)
    return (_half_chord if kind == "cosine" else _square)(rows, target)


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
    own = ops.sum(ops.where(target > 0, rows, ops.zeros_like(rows)), axis=1)
    others = ops.where(target > 0, ops.full_like(rows, -np.inf), rows)
    return ops.max(others, axis=1) - own
