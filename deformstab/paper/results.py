"""What figures and claims are made from: the preset and its tables."""

from dataclasses import dataclass

import pandas as pd

from deformstab.paper.experiments import Preset

_CHOICE = ["input_scaling", "batch_statistics", "downsampling"]


@dataclass(frozen=True)
class Results:
    """The tables of one output folder.

    Attributes:
        preset: all choices that led to them.
        tables: `sensitivity`, `smoothness`, `training`; a run that was not asked for has no rows.
    """

    preset: Preset
    tables: dict[str, pd.DataFrame]

    def sensitivity(self, study: str, phase: str, task="true_labels", metric="cosine"):
        """The sensitivities of one condition, a row a seed, kind (or σ, …) and layer."""
        return self._select("sensitivity", study=study, phase=phase, task=task, metric=metric)

    def smoothness(self, study: str, phase: str, task="true_labels"):
        """The smoothness of the 3×3 kernels of one condition: other sizes are not comparable."""
        sizes = {"kernel_height": 3, "kernel_width": 3}
        return self._select("smoothness", study=study, phase=phase, task=task, **sizes)

    def choices(self) -> pd.DataFrame:
        """What the choices move that the paper leaves open, at initialization.

        A row an input scaling, batch normalization mode and kind: `sensitivity`, of the last
        downsampling layer, cosine, one seed.
        """
        table = self._select("sensitivity", study="choices", metric="cosine")
        if table.empty:
            return table
        last = table.sort_values("layer_index").groupby(_CHOICE, sort=False).tail(1)
        return last[[*_CHOICE, "layer", "sensitivity"]].sort_index().reset_index(drop=True)

    def training(self, study: str, task="true_labels"):
        """The accuracies of one condition, a row a seed and kind (or C)."""
        return self._select("training", study=study, task=task)

    def _select(self, name, **condition) -> pd.DataFrame:
        frame = self.tables.get(name, pd.DataFrame())
        for column, value in condition.items():
            if frame.empty:
                break
            frame = frame[frame[column] == value]
        return frame.reset_index(drop=True)

    def describe(self, study: str) -> str:
        """The data, network and training of a study, for a caption."""
        preset = self.preset
        if study == "large":
            name, images, epochs = (
                preset.large_dataset,
                preset.large_train_images,
                preset.large_epochs,
            )
            blocks, size = preset.large_blocks, f" at {preset.large_image_size} px"
        else:
            tasks = study == "tasks"
            name = preset.tasks_dataset if tasks else preset.dataset
            images, epochs, blocks = preset.train_images, preset.epochs, preset.blocks
            size = f" at {preset.image_size} px"
        widths = ", ".join(f"{count}×{width}" for count, width in blocks)
        return (
            f"{name}{size}, {images} training images, {epochs} epochs, {preset.seeds} seeds, "
            f"network {widths}"
        )
