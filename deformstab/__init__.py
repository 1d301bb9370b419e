"""deformstab: how stable each layer of a Keras model is to small smooth deformations."""

try:
    import keras as _keras  # noqa: F401
except ImportError as error:
    raise ImportError(
        "deformstab runs on Keras 3, which needs a backend: install one of them, for example "
        '`pip install "deformstab[tensorflow]"` (or [jax], or [torch] with KERAS_BACKEND set)'
    ) from error

from deformstab._version import __version__ as __version__
from deformstab.deformations import addons as addons
from deformstab.deformations.families import RandomDiffeomorphism as RandomDiffeomorphism
from deformstab.deformations.families import RandomRotation as RandomRotation
from deformstab.deformations.families import RandomScaling as RandomScaling
from deformstab.deformations.families import RandomTranslation as RandomTranslation
from deformstab.deformations.random_deformation import RandomDeformation as RandomDeformation
from deformstab.measurement.comparisons import compare_sensitivity as compare_sensitivity
from deformstab.measurement.consistency import prediction_consistency as prediction_consistency
from deformstab.measurement.distances import cosine_distance as cosine_distance
from deformstab.measurement.distances import euclidean_distance as euclidean_distance
from deformstab.measurement.equivariance import measure_equivariance as measure_equivariance
from deformstab.measurement.parts_of_sensitivity import sensitivity_by_part as sensitivity_by_part
from deformstab.measurement.sensitivity import measure_sensitivity as measure_sensitivity
from deformstab.measurement.shifts import shift_consistency as shift_consistency
from deformstab.measurement.smoothness import filter_smoothness as filter_smoothness
from deformstab.measurement.smoothness import (
    normalized_total_variation as normalized_total_variation,
)
from deformstab.measurement.stability import measure_stability as measure_stability
from deformstab.measurement.stimuli import paper_deformation as paper_deformation
from deformstab.measurement.strengths import sensitivity_by_strength as sensitivity_by_strength
from deformstab.measurement.worst_case import worst_deformation as worst_deformation
from deformstab.networks.downsampling import DOWNSAMPLING_KINDS as DOWNSAMPLING_KINDS
from deformstab.networks.downsampling import PAPER_KINDS as PAPER_KINDS
from deformstab.networks.initializers import SmoothedInitializer as SmoothedInitializer
from deformstab.networks.normalization import (
    reestimate_batch_normalization as reestimate_batch_normalization,
)
from deformstab.networks.swapping import SWAP_KINDS as SWAP_KINDS
from deformstab.networks.swapping import swap_downsampling as swap_downsampling
from deformstab.networks.vgg import CIFAR10_BLOCKS as CIFAR10_BLOCKS
from deformstab.networks.vgg import IMAGENET_BLOCKS as IMAGENET_BLOCKS
from deformstab.networks.vgg import paper_layers as paper_layers
from deformstab.networks.vgg import vgg as vgg
from deformstab.presentation.comparison_plots import plot_comparison as plot_comparison
from deformstab.presentation.comparison_plots import plot_measures as plot_measures
from deformstab.presentation.example_plots import plot_examples as plot_examples
from deformstab.presentation.figure_logs import figure_to as figure_to
from deformstab.presentation.heatmaps import plot_heatmap as plot_heatmap
from deformstab.presentation.plots import plot_sensitivity as plot_sensitivity
from deformstab.presentation.report import write_report as write_report
from deformstab.presentation.report_images import report_examples as report_examples
from deformstab.recording.callbacks import SensitivityCallback as SensitivityCallback


def __dir__() -> list[str]:
    """The public names: not the rooms that hold them, which importing binds here as well."""
    rooms = {"backend", "backend_tensors", "checks", "extras", "files", "locks"}
    rooms |= {"provenance", "tables"}
    rooms |= {"deformations", "networks", "measurement", "recording", "presentation", "paper"}
    return sorted(name for name in globals() if name not in rooms and name[:1] != "_")
