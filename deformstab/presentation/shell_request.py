"""What `bin/measure_sensitivity` is asked for, checked before any work is done."""

import pathlib
from dataclasses import dataclass

from deformstab.measurement.summaries import MEASURES
from deformstab.presentation.measure_files import check_outputs
from deformstab.presentation.model_sources import ModelSource
from deformstab.presentation.shell_deformations import SPLINE, check_family, checked_strengths

CONSISTENCY = "consistency"
DRAWN = ("sensitivity", "stability", "equivariance")


@dataclass(frozen=True)
class Request:
    """The flags of the shell.

    Attributes:
        source, other: of the model, and of one to compare with it (`None`: nothing is compared).
        images: a folder or an .npz file.
        measures: of `MEASURES`.
        strengths: in pixels, or `None`.
        family, control_points, max_displacement: as for `shell_deformation`.
        labels: whether the folders of `images` are classes.
        classes: a file that says which, or `None`.
        compare_by: "layer" or "depth".
        layers, metric, deformations, seed, batch_size: as for `ds.measure_sensitivity`.
        max_images, image_seed, resize: as for `load_files`.
        output, figure, report: files to write, or `None`.
    """

    source: ModelSource
    images: str
    other: ModelSource | None = None
    measures: tuple[str, ...] = ("sensitivity",)
    strengths: list | None = None
    family: str = SPLINE
    control_points: int | None = None
    max_displacement: float | None = None
    labels: bool = False
    classes: str | None = None
    compare_by: str = "layer"
    layers: list | None = None
    metric: str = "cosine"
    deformations: int = 1
    seed: int = 0
    batch_size: int = 32
    max_images: int = 128
    image_seed: int = 0
    resize: str = "crop"
    output: str | None = None
    figure: str | None = None
    report: str | None = None

    def check(self) -> None:
        """Refuses what does not go together, and what cannot be written.

        Raises:
            ValueError, OSError, ImportError: with what to do about it.
        """
        unknown = [name for name in self.measures if name not in MEASURES]
        if unknown or not self.measures or len(set(self.measures)) < len(self.measures):
            raise ValueError(
                f"--measures is some of {', '.join(MEASURES)}, each once; received "
                f"{','.join(self.measures)!r}"
            )
        checked_strengths(self.strengths)
        given = self.control_points, self.max_displacement, self.strengths
        check_family(self.family, *given)
        if self.strengths is not None:
            self._check_strengths()
        if self.classes is not None and not self.labels:
            raise ValueError(
                f"--classes={self.classes} says which class a folder is: pass --labels=folders as well"
            )
        if self.labels and not pathlib.Path(self.images).is_dir():
            raise ValueError(
                f"--labels=folders: {self.images} is no folder of folders, one a class"
            )
        for source in filter(None, (self.source, self.other)):
            source.check()
        if self.other is None and self.compare_by != "layer":
            raise ValueError(f"--compare_by={self.compare_by}: pass --compare, another model")
        if self.figure:
            self._check_figure()
        if self.report:
            from deformstab.presentation.report import check_needs

            check_needs()
        read = [self.images, *self.source.files, *(self.other.files if self.other else ())]
        read += [self.classes] if self.classes else []
        check_outputs([*self.tables().values(), self.figure, self.report], read)

    def _check_strengths(self) -> None:
        said = ",".join(map(str, self.strengths))
        if self.other is not None:
            raise ValueError(
                f"--strengths={said} with --compare: models are compared at one strength; say it with "
                "--max_displacement, or leave one of the two flags out"
            )
        if self.measures != ("sensitivity",):
            raise ValueError(
                f"--strengths={said} with --measures={','.join(self.measures)}: over strengths it is "
                "the sensitivity that is measured; leave one of the two flags out"
            )

    def _check_figure(self) -> None:
        from deformstab.presentation.pictures import check_picture

        check_picture(self.figure)
        drawn = DRAWN if self.other is None else ("sensitivity",)
        if not set(drawn) & set(self.measures):
            raise ValueError(
                f"--figure={self.figure} draws {', '.join(drawn)}"
                f"{' of two models' if self.other else ''}, and --measures has "
                f"{','.join(self.measures)}: add one, or leave the figure out"
            )

    def tables(self) -> dict[str, str | None]:
        """What is measured → the CSV file that it goes to: the sensitivity to `output`, others beside
        it, with the measure in their names."""
        wanted = [name for name in MEASURES if name in self.measures]
        wanted += [CONSISTENCY] if self.labels else []
        if not self.output:
            return dict.fromkeys(wanted)
        path = pathlib.Path(self.output)
        beside = {name: str(path.with_stem(f"{path.stem}_{name}")) for name in wanted}
        return beside | ({"sensitivity": self.output} if "sensitivity" in wanted else {})
