"""What figures and claims are made from: the preset and its tables."""

import dataclasses
from dataclasses import dataclass

import pandas as pd

from deformstab.paper.data import datasets
from deformstab.paper.runs.preset import Preset
from deformstab.paper.runs.runs import RUN_COLUMNS

_CHOICE = ["input_scaling", "batch_statistics", "downsampling"]


@dataclass(frozen=True)
class Results:
    """The tables of one output folder.

    Attributes:
        preset: all choices that led to them.
        tables: those of `runs.TABLES`; a run that was not asked for has no rows.
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

    def of_kinds(self, kinds) -> "Results":
        """The same results with only the networks of some kinds of downsampling."""
        tables = {
            name: table[table["downsampling"].isin(kinds)] if "downsampling" in table else table
            for name, table in self.tables.items()
        }
        return dataclasses.replace(self, tables=tables)

    def with_accuracies(self, name: str) -> pd.DataFrame:
        """A table, and in rows of trained networks their accuracies, as the files have them."""
        table, training = (self.tables.get(each, pd.DataFrame()) for each in (name, "training"))
        if table.empty or training.empty:
            return table
        names = ["accuracy_train", "accuracy_test"]
        known = training[[*RUN_COLUMNS, *names]].assign(phase="trained")
        return table.merge(known, on=[*RUN_COLUMNS, "phase"], how="left", validate="many_to_one")

    def describe(self, study: str) -> str:
        """The data, network and training of a study, for a caption."""
        preset = self.preset
        name, data_dir = preset.dataset, preset.data_dir
        size, blocks = preset.image_size, preset.blocks
        images, epochs = preset.train_images, preset.epochs
        if study == "tasks":
            name, data_dir = preset.tasks_dataset, preset.tasks_data_dir
        if study == "large":
            name, data_dir = preset.large_dataset, preset.large_data_dir
            size, blocks = preset.large_image_size, preset.large_blocks
            images, epochs = preset.large_train_images, preset.large_epochs
        images = self._count("training", "train_images", study, images)
        widths = ", ".join(f"{count}×{width}" for count, width in blocks)
        trained = f"{images} training images, {epochs} epochs" if epochs else "not trained"
        if epochs and preset.stop_accuracy:
            trained = (
                f"{images} training images, trained to an accuracy of {preset.stop_accuracy:g} on "
                f"them ({preset.random_stop_accuracy:g} with random labels), at most {epochs} epochs"
            )
        return (
            f"{datasets.title(name, data_dir)} at {size} px, {trained}, {self.seeds(study)} seeds, "
            f"network {widths}"
        )

    def describe_photographs(self) -> str:
        """The photographs that networks were measured on that others trained."""
        table = self.tables.get("pretrained_sensitivity", pd.DataFrame())
        count = int(table["images"].max()) if len(table) else self.preset.measured_images
        if self.preset.pretrained_images is None:
            return f"{count} random crops of ten bundled photographs"
        return f"{count} photographs of {datasets.title('folder', self.preset.pretrained_images)}"

    def seeds(self, study: str) -> int:
        """How many seeds of a study have all its networks; before there are runs, are to have."""
        rows = self._select("training", study=study)
        rows = self._select("sensitivity", study=study) if rows.empty else rows
        if rows.empty:
            return self.preset.seeds
        networks = rows[[*RUN_COLUMNS]].drop_duplicates()
        whole = len(networks.drop(columns="seed").drop_duplicates())
        return int((networks.groupby("seed").size() == whole).sum())

    def measured_images(self, study: str) -> int:
        """How many images the sensitivities of a study were measured on."""
        return self._count("sensitivity", "images", study, self.preset.measured_images)

    def _count(self, table, column, study, asked):
        """What the runs had; before there are runs, what they are to have."""
        rows = self._select(table, study=study)
        return asked if rows.empty else int(rows[column].max())

    def _select(self, name, **condition) -> pd.DataFrame:
        frame = self.tables.get(name, pd.DataFrame())
        for column, value in condition.items():
            if frame.empty:
                break
            frame = frame[frame[column] == value]
        return frame.reset_index(drop=True)
