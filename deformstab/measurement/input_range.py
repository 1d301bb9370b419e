"""range_notes: signs that a model's images are in another range than those that it was trained on.

Rules and bounds were chosen on networks that others trained (EfficientNet-Lite0 and mini-Xception of
their packages, VGG16's convolutions of HED), on networks trained here with and without batch
normalization, and on untrained ones: each in its own range, in -1…1, 0…1 and 0…255, and as caffe and
torch have it. What is off by a factor of 100 (0…255 in place of -1…1) shows where a network has batch
normalization, ReLU6 or a scaling of its own; what is off by as much the other way also by a softmax.
What is off by two (0…1 in place of -1…1) does not show: the variance that batch normalization sees is
then 0.2 to 0.5 times that of training, and was 0.85 to 1.4 times in the right range.
"""

import keras
import numpy as np
from keras import ops

from deformstab.backend import variable_to_numpy
from deformstab.measurement.watching import OUTPUT, watch

_IMAGES = 16
_FIRST = 3  # so many activations are looked at
_VARIANCE = 30.0  # times that of training; 0.85 to 1.4 if right, 14,000 and more for 0…255 in -1…1
_AT_LIMIT = 0.25  # of units at ReLU6's limit: at most 0.04 in the first layer if right, 0.36 if not
_AT_BOTH_LIMITS = 0.5  # of units of a sigmoid or tanh
_DEAD = 0.9  # of channels; at most 0.27 if right
_SPREAD = 0.02  # of outputs over images, over that within an image; at least 0.2 if right
_SOFTMAX_SPREAD = (
    0.1  # of log probabilities over images; 1.4 and more if right and trained, 0.03 if not
)
_CONTRAST = 0.1  # of what a scaling by 1/255 gives, whose images are then below 25 of 255
_ASK = "are images in the range it was trained on?"
_LIMITS = {  # of activations: (low, high)
    "relu6": (None, 6.0),
    "sigmoid": (0.0, 1.0),
    "hard_sigmoid": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
}


def range_notes(model: keras.Model, images: np.ndarray) -> dict[str, str]:
    """Signs that images are in another range than a model was trained on.

    Args:
        model: any Keras model of one input, built.
        images: [images, height, width, channels], as for `ds.measure_sensitivity`; the first 16 are
            looked at.

    Returns:
        {layer, by its name in tables: what is strange about it}. Empty where nothing is.

    Example:

    ```python
    from deformstab.measurement.input_range import range_notes

    print(range_notes(model, images))
    ```
    """
    images = np.asarray(images[:_IMAGES], "float32")
    found, seen = {}, {"activations": 0, "statistics": 0, "last": ""}

    def visit(call):
        note = ""
        if call.output is None:
            return False
        if call.name.split("/")[0] == OUTPUT and call.layer is None:
            note = _constant(call.output)
        elif call.layer is not None:
            note = _of_layer(call, seen)
        # The output of a model is in a table as that of the layer that gave it.
        name = seen["last"] if call.repeats else call.name
        seen["last"] = call.name
        if note:
            found[name] = "; ".join(
                filter(
                    None, [found.get(name), f"{note}{'' if note.endswith(' and') else ':'} {_ASK}"]
                )
            )
        return False

    tensor = ops.convert_to_tensor(images)
    watch(model, tensor, tensor, visit)
    return found


def _of_layer(call, seen) -> str:
    layer = call.layer
    if isinstance(layer, keras.layers.Rescaling):
        return _scaled(layer, call.output)
    if isinstance(layer, (keras.layers.BatchNormalization, keras.layers.Normalization)):
        seen["statistics"] += 1
        return _normalized(layer, call.arguments) if seen["statistics"] == 1 else ""
    kind = _activation(layer)
    if kind and len(getattr(call.output, "shape", ())) == 4 and min(call.output.shape[1:3]) > 1:
        seen["activations"] += 1
        if seen["activations"] <= _FIRST:
            return _saturated(kind, layer, ops.convert_to_numpy(call.output))
    return ""


def _scaled(layer, output) -> str:
    """Of a network that scales images itself: whether they are scaled already."""
    scale = np.max(np.abs(layer.scale))
    low, high = (float(ops.convert_to_numpy(f(output))) for f in (ops.min, ops.max))
    if scale > 0.02 or high - low > _CONTRAST:
        return ""
    return f"it scales images by {scale:.3g} itself, to no more than {low:.3g} to {high:.3g}"


def _normalized(layer, arguments) -> str:
    """The variance of what comes in, over that which was seen in training; the median of channels."""
    (given, *_), _ = arguments if arguments[0] else ((arguments[1].get("inputs"),), {})
    batch = isinstance(layer, keras.layers.BatchNormalization)
    variance = layer.moving_variance if batch else layer.variance
    mean = layer.moving_mean if batch else layer.mean
    if given is None or variance is None or len(given.shape) != 4:
        return ""
    variance, mean = (_numbers(each).ravel() for each in (variance, mean))
    if (variance == 1).all() and (mean == 0).all():  # as it begins: nothing was seen
        return ""
    axis = layer.axis if isinstance(layer.axis, int) else layer.axis[0]
    others = tuple(each for each in range(4) if each != axis % 4)
    now = ops.convert_to_numpy(given).astype("float64").var(axis=others)
    if now.shape != variance.shape:
        return ""
    ratio = np.median((now + 1e-30) / (variance + 1e-30))
    if 1 / _VARIANCE <= ratio <= _VARIANCE:
        return ""
    return (
        f"the variance of what it normalizes is {ratio:.2g} times that which it has from training"
    )


def _numbers(value) -> np.ndarray:
    known = isinstance(value, keras.Variable)
    return (variable_to_numpy if known else ops.convert_to_numpy)(value).astype("float64")


def _activation(layer) -> str:
    """The name of a layer's activation, as far as it is looked at, or ""."""
    if isinstance(layer, keras.layers.ReLU):
        return "relu" if layer.max_value is None else "relu6"
    name = getattr(getattr(layer, "activation", None), "__name__", "")
    return name if name == "relu" or name in _LIMITS else ""


def _saturated(kind, layer, output) -> str:
    if kind in ("relu", "relu6"):
        channels = output.reshape(-1, output.shape[-1])
        dead = (channels <= 0).all(axis=0).mean()
        if dead > _DEAD:
            return f"{dead:.0%} of its channels are zero for all images"
    if kind == "relu":
        return ""
    low, high = _LIMITS[kind]
    high = getattr(layer, "max_value", None) or high
    near = 0.01 * (high - (low or 0))
    if low is None:
        share, bound = (output >= high - near).mean(), _AT_LIMIT
    else:
        share, bound = ((output >= high - near) | (output <= low + near)).mean(), _AT_BOTH_LIMITS
    return f"{share:.0%} of its units are at their limit" if share > bound else ""


def _constant(output) -> str:
    """How much outputs vary over images: of a softmax their logarithms, of others relative to how much
    they vary within an image, since logits have no scale before training."""
    values = ops.convert_to_numpy(output).astype("float64")
    values = values.reshape(len(values), -1)
    if not np.isfinite(values).all() or values.shape[1] < 2:
        return ""
    softmax = (values >= 0).all() and np.allclose(values.sum(axis=1), 1, atol=1e-3)
    if softmax:
        values = np.log(values + 1e-30)
    between = np.sqrt(values.var(axis=0).mean())
    bound = _SOFTMAX_SPREAD if softmax else _SPREAD * np.sqrt(values.var(axis=1).mean())
    return "" if between > bound else "it answers nearly alike for all images (or is it untrained?)"
