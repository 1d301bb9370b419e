"""Whose results a folder holds."""

import contextlib
import dataclasses
import json
import pathlib

from deformstab.paper.runs.preset import NOT_COUNTED, Preset
from deformstab.paper.runs.pretrained_experiments import PRETRAINED

PROVENANCE = "provenance.json"


def refuse_other_results(output_dir: pathlib.Path, preset: Preset) -> None:
    """Refuses a folder with another configuration's results, or with anything else in it."""
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
        if not any((output_dir / "runs").glob(f"{PRETRAINED}-*.json")):
            # Choices of a study that stands apart, and of which nothing is there yet.
            changed = [name for name in changed if not name.startswith(PRETRAINED)]
        if changed:
            details = "; ".join(f"{k}: {found.get(k)} there, {wanted.get(k)} now" for k in changed)
            raise ValueError(
                f"{output_dir} holds the results of another configuration ({details}). Choose "
                "another --output_dir, take the configuration it has, or remove the folder"
            )
    elif output_dir.is_dir() and any(output_dir.iterdir()):
        raise ValueError(
            f"{output_dir} is not empty and holds no {PROVENANCE}: results would mix with what is "
            "there. Choose another --output_dir"
        )


def as_trained(output_dir, preset) -> Preset:
    """The preset of a folder, in which less may have been measured than is asked for now."""
    with contextlib.suppress(ValueError):
        refuse_other_results(output_dir, preset)
        return preset
    then = dataclasses.replace(preset, more_measures=())
    refuse_other_results(output_dir, then)
    return then
