"""A request of the shell from its beginning to its end: what `bin/measure_sensitivity` calls."""

import pandas as pd

from deformstab.measurement.input_range import range_notes
from deformstab.presentation.shell_measures import Loaded, load, measured, strongest
from deformstab.presentation.shell_request import CONSISTENCY, Request
from deformstab.tables import write_csv

_SHOWN = {  # of a table, beside the layer and the note
    "sensitivity": ["layer_type", "sensitivity", "sensitivity_low", "sensitivity_high"],
    "stability": [
        *("metric", "relative_stability", "relative_stability_low", "relative_stability_high")
    ],
    "equivariance": ["metric", "ratio", "ratio_low", "ratio_high"],
    "smoothness": ["kernel_height", "kernel_width", "smoothness"],
}


def run(request: Request, show=print) -> dict[str, pd.DataFrame]:
    """Checks, measures, prints, and writes.

    Args:
        request: what is asked for.
        show: called with what to print.

    Returns:
        {what was measured: its table}.

    Raises:
        ValueError, OSError, ImportError: anything that is not as described, before the measurement
            begins; and what could not be written, at the end.
    """
    request.check()
    loaded = load(request, show)
    strange = _strange(request, loaded)
    for name, notes in strange.items():
        for layer, note in notes.items():
            show(f"note: {name}, {layer}: {note} (--preprocessing says which)")
    tables = measured(request, loaded)
    if "sensitivity" in tables and request.other is None:
        tables["sensitivity"] = noted(tables["sensitivity"], *strange.values())
    for name, table in tables.items():  # first: writing may fail yet
        if len(tables) > 1:
            show(f"\n{name}")
        show(shown(name, table))
    written = [
        (path, lambda path, table=tables[name]: write_csv(table, path))
        for name, path in request.tables().items()
    ]
    written.append((request.figure, lambda path: _draw(request, tables, path)))
    written.append((request.report, lambda path: _report(request, loaded, tables, path)))
    failed = []
    for path, write in written:
        try:
            if path:
                write(path)
        except OSError as error:
            failed.append(str(error))
    if failed:
        raise OSError("; ".join(failed))
    return tables


def _strange(request, loaded) -> dict[str, dict]:
    """Of each model what looks as if images were in another range than those of its training."""
    sources = [request.source, request.other]
    return {
        name: {} if source.weights == "none" else range_notes(model, loaded.files.images)
        for source, (name, model) in zip(sources, loaded.models.items())
    }


def noted(table: pd.DataFrame, notes: dict[str, str]) -> pd.DataFrame:
    """A table with notes of `range_notes` behind those that it has."""
    pairs = zip(table["note"], (notes.get(layer, "") for layer in table["layer"]))
    return table.assign(note=["; ".join(filter(None, pair)) for pair in pairs])


def shown(name: str, table: pd.DataFrame) -> str:
    """A table as the shell prints it."""
    if name == CONSISTENCY:
        return "\n".join(map(_answers, table.to_dict("records")))
    if not len(table):
        return "none of these layers is a convolution"
    over = next((each for each in ("max_displacement", "strength") if each in table), None)
    if over is not None:
        return _by_strength(table, over)
    if "reference" in table:
        columns = _of_comparison(table)
    else:
        columns = ["layer", *_SHOWN[name], "note"]
    return table[columns].to_string(index=False)


def _of_comparison(table) -> list[str]:
    value = next(each.removeprefix("reference_") for each in table if each.startswith("reference_"))
    return ["layer", f"reference_{value}", value, "ratio", "ratio_low", "ratio_high", "note"]


def _by_strength(table, over) -> str:
    """A row a layer, a column a strength."""
    wide = table.pivot(index="layer_index", columns=over, values="sensitivity")
    wide.columns = [f"{strength:g} px" for strength in wide.columns]
    layers = table.drop_duplicates("layer_index").set_index("layer_index")
    wide.insert(0, "layer", layers["layer"])
    return wide.assign(note=layers["note"]).to_string(index=False)


def _answers(row) -> str:
    """What a row about a classifier's answers says."""
    before = f"{row['model']}: " if "model" in row else ""
    before += f"{row['strength']:g} px: " if "strength" in row else ""
    if row["note"]:
        return f"{before}{row['note']}"

    def interval(name):
        return f"{row[name]:.3f} ({row[f'{name}_low']:.3f} to {row[f'{name}_high']:.3f})"

    return (
        f"{before}consistency {interval('consistency')}: a deformed image keeps its class so often\n"
        f"{before}accuracy {interval('accuracy')}, of deformed images "
        f"{row['deformed_accuracy']:.3f}; {row['images']} images, 95 % intervals"
    )


def _draw(request, tables, path) -> None:
    from deformstab.presentation.comparison_plots import plot_comparison, plot_measures
    from deformstab.presentation.pictures import save_picture
    from deformstab.presentation.plots import plot_sensitivity

    title = request.source.name
    drawn = {name: tables[name] for name in tables if name in _SHOWN and name != "smoothness"}
    if request.other is not None:
        figure = plot_comparison(tables["sensitivity"], f"{request.other.name} against {title}")
    elif list(drawn) == ["sensitivity"]:
        figure = plot_sensitivity(drawn["sensitivity"], title)
    else:
        figure = plot_measures(**drawn, title=title)
    save_picture(figure, path)


def _report(request, loaded: Loaded, tables, path) -> None:
    from deformstab.presentation.report import write_report
    from deformstab.presentation.report_images import report_examples

    examples = {
        name: report_examples(
            model,
            loaded.files.images,
            request.layers,
            strongest(request, loaded.files),
            2,
            metric=request.metric,
            deformations=request.deformations,
            batch_size=request.batch_size,
            seed=request.seed,
            value_range=loaded.files.preparation.undone,
        )
        for name, model in loaded.models.items()
    }
    several = request.other is not None
    some = [table for table in tables.values() if len(table)]
    write_report(
        path,
        {"" if several else request.source.name: some},
        examples=examples,
        title=" against ".join(reversed(loaded.models)),
        settings={
            "model": request.source.name,
            **({"compared with it": request.other.name} if several else {}),
            "images": request.images,
            "prepared as": loaded.files.preparation.words,
        },
    )
