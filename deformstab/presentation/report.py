"""write_report: tables and images as one HTML file to explore in a browser, offline."""

import datetime
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from deformstab.extras import needing
from deformstab.presentation.drawing import MARKERS, PALETTE
from deformstab.presentation.report_charts import charts, runtime
from deformstab.presentation.report_data import DIMENSIONS, MEASURES, named, packed, points
from deformstab.presentation.report_images import ReportExamples
from deformstab.provenance import provenance
from deformstab.tables import write_text

MOST_BYTES = 8_000_000  # of a file that a browser opens at once, on a phone as well
# Their licences ask to be named where their code is.
_CHARTS = (
    "Vega, Vega-Lite and Vega-Embed (copyright University of Washington Interactive Data Lab and "
    "contributors, BSD-3-Clause) and D3 (copyright Mike Bostock, ISC) are part of this page"
)
_OF_IMAGES = "A bar is the 95\u00a0% interval: how far chance in the choice of images reaches."
_OF_SEEDS = "A bar is ±2 standard deviations over networks that differ in their seed only."
_PAGE = pathlib.Path(__file__).parent / "report_page"
# matplotlib's markers, by Vega's names.
_SHAPES = {"o": "circle", "s": "square", "^": "triangle-up", "D": "diamond", "v": "triangle-down"}
_SHAPES |= {"P": "cross", "X": "triangle-right"}


def write_report(
    path: str | os.PathLike,
    tables: pd.DataFrame | Mapping[str, pd.DataFrame | Sequence[pd.DataFrame]],
    *,
    examples: ReportExamples | Mapping[str, ReportExamples] | None = None,
    title: str = "Sensitivity to small deformations",
    settings: Mapping[str, Any] | None = None,
) -> pathlib.Path:
    """Writes tables as one HTML file to explore in a browser: no server, nothing is loaded.

    In it: each layer's number with its interval, networks, metrics, families and strengths to
    switch on and off, a slider through training where tables have steps, a heat map, the images
    that a layer is most and least sensitive to, all tables to search, sort and save as CSV, and
    what they were computed with. Needs the extra `report`.

    Args:
        path: of the file, which appears whole or not at all.
        tables: of `ds.measure_sensitivity`, `ds.sensitivity_by_strength`, `ds.sensitivity_by_part`,
            a `ds.SensitivityCallback`, `ds.compare_sensitivity`, `ds.measure_stability`,
            `ds.measure_equivariance` or `ds.worst_deformation`: one of them, or {name of a network:
            its table, or a list of its tables}. A column `family` or `model` tells rows of a
            concatenated table apart. Other tables with a column `layer` are listed and not drawn.
        examples: of `ds.report_examples`, or {name of a network: of it}.
        title: of the page.
        settings: what else a reader should know, {name: value}, beside versions and settings that
            the tables have.

    Returns:
        The path.

    Raises:
        ValueError: tables or examples are other things, or the file would be larger than 8 MB.
        OSError: it cannot be written.
        ImportError: the extra `report` is not installed.

    Example:

    ```python
    table = ds.measure_sensitivity(model, images)
    ds.write_report("report.html", {"random weights": table})
    ```
    """
    given = named(tables)
    shown = _examples(examples)
    if settings is not None and not isinstance(settings, Mapping):
        raise ValueError(f"settings must be a dict {{name: value}}, received {settings!r}")
    page = _rendered(given, shown, str(title), settings or {})
    size = len(page.encode())
    if size > MOST_BYTES:
        pictures = sum(len(url) for each in shown.values() for url in each.pictures.values())
        raise ValueError(
            f"the report would have {size / 1e6:.1f} MB, {pictures / 1e6:.1f} MB of them pictures; at "
            f"most {MOST_BYTES / 1e6:g}: pass fewer layers or a smaller count to ds.report_examples, "
            "or fewer tables"
        )
    write_text(page, path)
    return pathlib.Path(path)


def check_needs() -> None:
    """Refuses a report, before the work whose result it is for, without what it needs.

    Raises:
        ImportError: the extra `report` is not installed.
    """
    with needing("report", "reports"):
        import jinja2  # noqa: F401
        import vl_convert  # noqa: F401


def _examples(examples) -> dict[str, ReportExamples]:
    if examples is None:
        return {}
    found = dict(examples) if isinstance(examples, Mapping) else {"": examples}
    for each in found.values():
        if not isinstance(each, ReportExamples):
            raise ValueError(
                "examples must be what ds.report_examples returns, or {name of a network: of it}; "
                f"received {each!r}"
            )
    return {str(name): each for name, each in found.items()}


def _rendered(given, shown, title, settings) -> str:
    with needing("report", "reports"):
        import jinja2
    loader = jinja2.FileSystemLoader(_PAGE)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}  # their order is ours
    drawn = points(given)
    data = {
        "measures": MEASURES,
        "dimensions": list(DIMENSIONS),
        "points": packed(drawn),
        "charts": charts(),
        "colours": list(PALETTE),
        "shapes": [_SHAPES[each] for each in MARKERS],
        "examples": {
            name: {"layers": each.layers, "pictures": each.pictures} for name, each in shown.items()
        },
        "tables": _texts(given),
    }
    return environment.get_template("page.html").render(
        title=title,
        data=data,
        runtime=runtime(),
        summary=_summary(given, drawn),
        bars=_OF_SEEDS if all("seeds" in table for _, table in given) else _OF_IMAGES,
        provenance=_provenance(given, shown, settings),
    )


def _texts(given) -> list[dict]:
    """Each table as the text of its CSV file, with a name."""
    found = []
    for number, (name, table) in enumerate(given, start=1):
        label = f"{number}. {name or 'table'} ({len(table)} rows)"
        file = f"{number}-{''.join(c if c.isalnum() else '-' for c in name)[:60] or 'table'}.csv"
        text = table.to_csv(index=False, lineterminator="\n")
        found.append({"name": label, "file": file, "text": text})
    return found


def _summary(given, drawn) -> str:
    networks = {each for each in drawn["network"] if each}
    layers = {str(each) for _, table in given for each in table["layer"]}
    counts = [
        (len(networks), "network"),
        (len(layers), "layer"),
        (drawn["step"].nunique() if "step" in drawn else 0, "moment of training"),
    ]
    parts = []
    for count, word in counts:
        plural = word.replace("moment", "moments") if " " in word else f"{word}s"
        if count > 1 or word == "layer":
            parts.append(f"{count} {word if count == 1 else plural}")
    return ", ".join(parts)


def _provenance(given, shown, settings) -> list[tuple[str, str]]:
    """(what, its value) as text, the reader's own settings first."""
    found = [(str(name), str(value)) for name, value in settings.items()]
    for number, (name, table) in enumerate(given, start=1):
        parts = []
        for column in ("metric", "images", "deformations", "rms_displacement", "folded_fraction"):
            values = list(table[column].dropna().unique()) if column in table else []
            texts = [f"{each:.4g}" if isinstance(each, float) else str(each) for each in values[:4]]
            if texts:
                parts.append(f"{column} {', '.join(texts)}{', …' if len(values) > 4 else ''}")
        found.append((f"table {number}{f', {name}' if name else ''}", "; ".join(parts) or "–"))
    for name, each in shown.items():
        text = "; ".join(f"{key} {value}" for key, value in each.settings.items())
        found.append((f"images shown{f', {name}' if name else ''}", text))
    origin = provenance()
    now = datetime.datetime.now(datetime.UTC)
    found.append(("written", now.strftime("%Y-%m-%d %H:%M UTC")))
    for key in ("backend", "python", "system", "machine", "devices", "git_commit", "command"):
        value = origin[key]
        text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
        found.append((key.replace("_", " "), text))
    versions = ", ".join(f"{name} {value}" for name, value in origin["versions"].items())
    return [*found, ("versions", versions), ("charts", _CHARTS)]
