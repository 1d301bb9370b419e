"""README.md of an output folder: its figures, and which table, command and claims belong to each."""

import pandas as pd

from deformstab._version import __version__
from deformstab.paper.figures.catalogue import FIGURES
from deformstab.paper.pages.claims_page import SOURCE
from deformstab.paper.runs import runs
from deformstab.paper.runs.output_folder import PACKED
from deformstab.paper.runs.preset import ALL_STUDIES
from deformstab.paper.runs.presets import PRESETS
from deformstab.paper.runs.recipes import RECIPES


def _cost(results, seconds: dict) -> str:
    shares = ", ".join(f"{study} {took / 60:.1f}" for study, took in seconds.items())
    total, threads = sum(seconds.values()) / 60, results.preset.threads
    return f"Runs took {total:.1f} minutes on {threads} threads{f' ({shares})' if shares else ''}."


def commands(command: str, preset, finished) -> tuple[str, str]:
    """What gives all runs of a folder, and what gives those of its figures, in an empty one.

    Not what was typed last: a folder may be filled study by study, recipe by recipe.

    Args:
        command: what was typed, without `--studies`, `--recipes` and `--recipes_seeds`.
        preset: its choices.
        finished: experiments.
    """
    usual = PRESETS.get(preset.name, preset)
    studies = [study for study in ALL_STUDIES if any(each.study == study for each in finished)]
    if "--init_only" not in command and studies and studies != list(usual.studies):
        command = f"{command} --studies={','.join(studies)}"
    repeated = [each for each in finished if each.study == "recipes"]
    recipes = [name for name in RECIPES if any(each.choice == name for each in repeated)]
    with_recipes = command
    if recipes and recipes != list(usual.recipes):
        with_recipes += f" --recipes={','.join(recipes)}"
    seeds = len({each.seed for each in repeated})
    if recipes and seeds != usual.recipes_seeds:
        with_recipes += f" --recipes_seeds={seeds}"
    return with_recipes, command


def index_page(
    results, claims: pd.DataFrame, drawn, written, command, finished, seconds, output_dir
):
    """README.md of the folder: figure → table → command → claims, with each figure and caption.

    Args:
        results: the tables.
        claims: their verdicts.
        drawn, written: names of the figures and of the tables that are there.
        command: as for `commands`.
        finished: experiments.
        seconds: that the runs of each study took.
        output_dir: the folder, with the files of these runs.
    """
    made_by, command = commands(command, results.preset, finished)
    older = runs.without_origin(finished, output_dir)
    packed = (output_dir / PACKED).exists()
    files = f"`{PACKED}`, which a second call unpacks" if packed else "`runs/`"
    origin = f"versions, device and commit of each: `made_with` in its file in {files}"
    origin += f" ({older} of {len(finished)} files are older than that)" if older else ""
    lines = [f"# Results: {results.preset.name}", "", SOURCE + ".", ""]
    if results.preset.demonstration:
        lines += [f"> **{results.preset.demonstration}**", ""]
    lines += [
        f"Made by `{made_by}` with deformstab {__version__}. {_cost(results, seconds)} The claims and "
        "their verdicts: [claims.md](claims.md). Flags and time per run: "
        f"[provenance.json](provenance.json); {origin}.",
        "",
        "| figure | what | tables | to draw it alone | claims |",
        "|---|---|---|---|---|",
    ]
    verdicts = claims.groupby("claim")["verdict"].agg(lambda found: " / ".join(found))
    for name in drawn:
        spec = FIGURES[name]
        tables = [table for table in spec.tables if table in written]
        tables = ", ".join(f"[{table}](tables/{table}.csv)" for table in tables)
        shown = "; ".join(f"{claim}: {verdicts[claim]}" for claim in spec.claims)
        lines.append(
            f"| [{name}](#figure-{name.lower()}) | {spec.title} | {tables} "
            f"| `{command} --figures={name}` | {shown} |"
        )
    for name in drawn:
        lines += [
            "",
            f"## Figure {name}",
            "",
            f"![{FIGURES[name].title}](figures/figure_{name}.png)",
            "",
            FIGURES[name].caption(results),
        ]
    return "\n".join([*lines, ""])
