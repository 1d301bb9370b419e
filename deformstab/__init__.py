"""deformstab: how stable each layer of a Keras model is to small smooth deformations."""

try:
    import keras as _keras  # noqa: F401
except ImportError as error:
    raise ImportError(
        "deformstab runs on Keras 3, which needs a backend: install one of them, for example "
        '`pip install "deformstab[tensorflow]"` (or [jax], or [torch] with KERAS_BACKEND set)'
    ) from error

from deformstab import addons as addons
from deformstab._version import __version__ as __version__
from deformstab.callbacks import SensitivityCallback as SensitivityCallback
from deformstab.comparisons import compare_sensitivity as compare_sensitivity
from deformstab.comparisons import sensitivity_by_strength as sensitivity_by_strength
from deformstab.consistency import prediction_consistency as prediction_consistency
from deformstab.deformation import RandomDeformation as RandomDeformation
from deformstab.distances import cosine_distance as cosine_distance
from deformstab.distances import euclidean_distance as euclidean_distance
from deformstab.downsampling import DOWNSAMPLING_KINDS as DOWNSAMPLING_KINDS
from deformstab.initializers import SmoothedInitializer as SmoothedInitializer
from deformstab.models import CIFAR10_BLOCKS as CIFAR10_BLOCKS
from deformstab.models import IMAGENET_BLOCKS as IMAGENET_BLOCKS
from deformstab.models import paper_layers as paper_layers
from deformstab.models import vgg as vgg
from deformstab.normalization import (
    reestimate_batch_normalization as reestimate_batch_normalization,
)
from deformstab.plots import plot_sensitivity as plot_sensitivity
from deformstab.sensitivity import measure_sensitivity as measure_sensitivity
from deformstab.smoothness import filter_smoothness as filter_smoothness
from deformstab.smoothness import normalized_total_variation as normalized_total_variation
from deformstab.stimuli import paper_deformation as paper_deformation
from deformstab.swapping import SWAP_KINDS as SWAP_KINDS
from deformstab.swapping import swap_downsampling as swap_downsampling
