"""What is compared with what: the rows of the tables."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Comparison:
    """One case, timed side by side.

    Attributes:
        name: of the case.
        candidates: label → (module:function, arguments), the first one is what the others are
            compared with: their time over its time.
        goals: label → (at least or at most, a number) for that ratio, where there is one.
        images: a call.
        slow: labels whose calls take long: one call a round.
        most_rounds: of a comparison that takes minutes.
    """

    name: str
    candidates: dict
    goals: dict = field(default_factory=dict)
    images: int = 1
    slow: tuple = ()
    most_rounds: int = 1000


def _deformation(name, images, side, points, reach, goals, without=()):
    case = {"images": images, "side": side, "points": points, "reach": reach}
    functions = {
        "deformstab, compiled": "compiled",
        "deformstab, eager": "eager",
        "deformstab, tf.data": "in_tf_data",
        "tensorflow-addons": "tensorflow_addons",
        "Keras RandomElasticTransform": "keras_elastic",
        "kornia": "kornia",
        "albumentations": "albumentations",
        "OpenCV remap, flow known": "opencv_remap",
        "images read and written once": "scaled",
    }
    chosen = {label: f for label, f in functions.items() if label not in without}
    candidates = {label: (f"deformations:{f}", case) for label, f in chosen.items()}
    slow = ("tensorflow-addons", "Keras RandomElasticTransform", "kornia", "albumentations")
    slow = tuple(label for label in slow if label in chosen)
    return Comparison(name, candidates, goals, images, slow)


def _families(name, images, side, points, reach):
    """The other families beside the spline, at its RMS displacement."""
    case = {"images": images, "side": side, "points": points, "reach": reach}
    candidates = {"RandomDeformation": ("deformations:compiled", case)}
    for family in ("Diffeomorphism", "Translation", "Rotation", "Scaling"):
        arguments = {**case, "name": f"Random{family}"}
        candidates[f"Random{family}"] = ("deformations:family", arguments)
    goals = {label: ("most", 1.3) for label in list(candidates)[1:]}
    return Comparison(f"families, {name}", candidates, goals, images)


_LARGE = {"images": 32, "side": 224, "points": 5, "reach": 10.0}
_CIFAR = {"name": "cifar", "images": 128, "side": 32}
_STABILITY = {**_CIFAR, "what": "measure_stability"}
_EQUIVARIANCE = {**_CIFAR, "what": "measure_equivariance"}
_VGG16 = {"name": "VGG16", "images": 128, "side": 224}
_PAPERS = {"images": 1024, "blocks": [[2, 32], [2, 64], [2, 128], [2, 256]]}
_OURS = {"deformstab, eager": ("most", 1.25), "deformstab, tf.data": ("most", 1.2)}

COMPARISONS = [
    _deformation(
        *("128 × 32×32×3, 3×3 points", 128, 32, 3, 2.0),
        {
            **_OURS,
            "tensorflow-addons": ("least", 6),
            "Keras RandomElasticTransform": ("least", 20),
            "OpenCV remap, flow known": ("least", 1),
        },
    ),
    _deformation(
        *("32 × 224×224×3, 5×5 points", 32, 224, 5, 10.0),
        {
            **_OURS,
            "tensorflow-addons": ("least", 9),
            "Keras RandomElasticTransform": ("least", 25),
            "kornia": ("least", 20),
            "albumentations": ("least", 8),
            "OpenCV remap, flow known": ("least", 1 / 1.4),
        },
    ),
    _deformation(
        *("1 × 2048×2048×3, 5×5 points", 1, 2048, 5, 40.0),
        {"albumentations": ("least", 10)},
        without=("tensorflow-addons", "Keras RandomElasticTransform", "kornia"),
    ),
    _families("128 × 32×32×3", 128, 32, 3, 2.0),
    _families("32 × 224×224×3", 32, 224, 5, 10.0),
    Comparison(
        "gradient, 32 × 224×224×3",
        {
            "the loss alone": ("deformations:loss_alone", _LARGE),
            "loss and gradient": ("deformations:gradient", _LARGE),
            "by images only": ("deformations:gradient", {**_LARGE, "by": ["images"]}),
            "by displacements only": ("deformations:gradient", {**_LARGE, "by": ["displacements"]}),
            "loss and gradient, all in XLA": ("deformations:gradient", {**_LARGE, "xla": True}),
            "derived by TensorFlow, all in XLA": (
                "deformations:gradient",
                {**_LARGE, "xla": True, "derived": True},
            ),
        },
        {"loss and gradient": ("most", 5)},
        32,
    ),
    Comparison(
        "measure_sensitivity, the paper's CIFAR-10 network, 128 images",
        {
            "without intervals": ("measurements:sensitivity", {**_CIFAR, "intervals": False}),
            "with intervals": ("measurements:sensitivity", _CIFAR),
            "compiled forward pass": ("measurements:forward", _CIFAR),
            "distances of all pairs alone": ("measurements:pairs", _CIFAR),
            "their products of matrices alone": (
                "measurements:pairs",
                {**_CIFAR, "exact": False},
            ),
            "model.predict": ("measurements:predict", _CIFAR),
            "by hand, with scikit-learn": ("measurements:by_hand", _CIFAR),
            "a measurement of the callback": ("measurements:callback", _CIFAR),
        },
        {
            "compiled forward pass": ("least", 1 / 1.7),
            "by hand, with scikit-learn": ("least", 1 / 0.6),
        },
        256,
    ),
    Comparison(
        "other measures, the paper's CIFAR-10 network, 128 images, 1 deformation",
        {
            "measure_sensitivity": ("measurements:sensitivity", {**_CIFAR, "intervals": False}),
            "measure_stability": ("measurements:measure", {**_STABILITY, "deformations": 1}),
            "measure_stability, spectrum": (
                "measurements:measure",
                {**_STABILITY, "deformations": 1, "noise": "spectrum"},
            ),
            "measure_equivariance": ("measurements:measure", _EQUIVARIANCE),
            "sensitivity_by_part": (
                "measurements:measure",
                {**_CIFAR, "what": "sensitivity_by_part", "deformations": 1},
            ),
        },
        {"measure_stability": ("most", 2.2), "measure_equivariance": ("most", 2.5)},
        256,
    ),
    Comparison(
        "other measures, the paper's CIFAR-10 network, 128 images, 4 deformations",
        {
            "measure_sensitivity": (
                "measurements:measure",
                {**_CIFAR, "what": "measure_sensitivity", "deformations": 4},
            ),
            "measure_stability": ("measurements:measure", _STABILITY),
            "measure_equivariance": ("measurements:measure", {**_EQUIVARIANCE, "deformations": 4}),
        },
        {"measure_stability": ("most", 2.2), "measure_equivariance": ("most", 2.5)},
        640,
    ),
    Comparison(
        "measure_sensitivity, VGG16 at 224², 128 images, every layer",
        {
            "with intervals": ("measurements:sensitivity", _VGG16),
            "model.predict": ("measurements:predict", _VGG16),
        },
        {"model.predict": ("least", 1 / 1.2)},
        256,
        ("with intervals", "model.predict"),
        3,
    ),
    Comparison(
        "training a narrow network, an epoch of 1,024 images",
        {
            "reproduction": ("measurements:reproduction", {"images": 1024}),
            "model.fit": ("measurements:keras_fit", {"images": 1024}),
            "a loop of one's own": ("measurements:bare_loop", {"images": 1024}),
        },
        {"model.fit": ("least", 0.97), "a loop of one's own": ("least", 0.97)},
        1024,
    ),
    Comparison(
        "training the paper's CIFAR-10 network, an epoch of 1,024 images",
        {
            "reproduction": ("measurements:reproduction", _PAPERS),
            "reproduction, bfloat16": (
                "measurements:reproduction",
                {**_PAPERS, "precision": "mixed_bfloat16"},
            ),
            "model.fit": ("measurements:keras_fit", _PAPERS),
            "model.fit, 16 steps a call": ("measurements:keras_fit", {**_PAPERS, "steps": 16}),
            "a loop of one's own": ("measurements:bare_loop", _PAPERS),
            "a loop of one's own, XLA": ("measurements:bare_loop", {**_PAPERS, "xla": True}),
        },
        {"model.fit": ("least", 0.97), "a loop of one's own": ("least", 0.97)},
        1024,
    ),
    Comparison(
        "import",
        {
            "keras, pandas, deformstab": (
                "measurements:imports",
                {"modules": "keras, pandas, deformstab"},
            ),
            "keras, pandas": ("measurements:imports", {"modules": "keras, pandas"}),
        },
        slow=("keras, pandas, deformstab", "keras, pandas"),
    ),
]
