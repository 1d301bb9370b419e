"""Whose results a folder holds."""

import contextlib
import dataclasses
import json
import lzma
import pathlib
import tarfile

from deformstab.paper.runs.preset import APART, NOT_COUNTED, Preset
from deformstab.paper.runs.pretrained_experiments import PRETRAINED
from deformstab.paper.runs.question_experiments import QUESTIONS
from deformstab.tables import write_bytes

PROVENANCE = "provenance.json"
PACKED = "runs.tar.xz"  # the files of `runs/`, where a folder is kept small
# Choices that only the study of open questions reads, and those that it and its like do not.
_OF_QUESTIONS = ("shuffles", "searched_images", "circular_downsampling", "circular_seeds")
_OF_FIGURES = ("track", "variants", "more_measures", "main_tasks")


def refuse_other_results(output_dir: pathlib.Path, preset: Preset) -> None:
    """Refuses a folder with another configuration's results, or with anything else in it.

    In a folder that is not refused, packed runs are unpacked, as they are finished.

    Raises:
        ValueError: such a folder, or a damaged file of provenance or of packed runs.
    """
    path = output_dir / PROVENANCE
    wanted = preset.configuration()
    if path.exists():
        try:
            written = json.loads(path.read_text(encoding="utf-8"))
            # A choice that there was not yet when they were computed was what its default is.
            found = Preset("", backend=written["backend"]).configuration()
            found |= written["configuration"]
            found = {name: found[name] for name in found if name not in NOT_COUNTED}
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} cannot be read ({error!r}); choose another output_dir or remove it"
            ) from error
        changed = sorted(k for k in wanted.keys() | found.keys() if wanted.get(k) != found.get(k))
        changed = [name for name in changed if _decides_a_run(name, output_dir)]
        if changed:
            details = "; ".join(f"{k}: {found.get(k)} there, {wanted.get(k)} now" for k in changed)
            raise ValueError(
                f"{output_dir} holds the results of another configuration ({details}). Choose "
                "another --output_dir, take the configuration it has, or remove the folder"
            )
        _unpack(output_dir)
    elif output_dir.is_dir() and any(output_dir.iterdir()):
        raise ValueError(
            f"{output_dir} is not empty and holds no {PROVENANCE}: results would mix with what is "
            "there. Choose another --output_dir"
        )


@contextlib.contextmanager
def _packed_runs(output_dir: pathlib.Path):
    """The open archive and its files of runs by name; without an archive nothing, of none."""
    path = output_dir / PACKED
    if not path.exists():
        yield None, {}
        return
    try:
        with tarfile.open(path) as archive:
            files = [member for member in archive if member.isfile()]
            names = [pathlib.PurePosixPath(member.name).name for member in files]
            yield archive, {n: m for n, m in zip(names, files) if n.endswith(".json")}
    except (tarfile.TarError, lzma.LZMAError, EOFError) as error:
        raise ValueError(
            f"{path} cannot be unpacked ({error!r}): fetch it again; without it, the runs that it "
            "holds are run again"
        ) from error


def _unpack(output_dir: pathlib.Path) -> None:
    """Writes the packed files of runs that are not there; those that are there stay as they are."""
    with _packed_runs(output_dir) as (archive, packed):
        for name, member in packed.items():
            if not (output_dir / "runs" / name).exists():
                write_bytes(archive.extractfile(member).read(), output_dir / "runs" / name)


def _decides_a_run(choice: str, output_dir: pathlib.Path) -> bool:
    """Whether a choice is one of runs that are there, as far as it is of some studies only."""
    with _packed_runs(output_dir) as (_, packed):
        names = {*packed, *(path.name for path in (output_dir / "runs").glob("*.json"))}
    studies = {name.split("-")[0] for name in names}
    if choice.startswith(PRETRAINED):
        return PRETRAINED in studies
    if choice in _OF_QUESTIONS:
        return QUESTIONS in studies
    if choice in _OF_FIGURES:
        return bool(studies - {*APART})
    return True


def as_trained(output_dir, preset) -> Preset:
    """The preset of a folder, in which other things may have been measured than are asked for now."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        text = (output_dir / PROVENANCE).read_text(encoding="utf-8")
        measured = json.loads(text)["configuration"].get("more_measures", ())
        preset = dataclasses.replace(preset, more_measures=tuple(measured))
    refuse_other_results(output_dir, preset)
    return preset


def runs_drawn(output_dir: pathlib.Path) -> set[str]:
    """The names of the runs that were in the folder when its figures were drawn last."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        text = (output_dir / PROVENANCE).read_text(encoding="utf-8")
        return set(json.loads(text)["seconds_per_run"])
    return set()
