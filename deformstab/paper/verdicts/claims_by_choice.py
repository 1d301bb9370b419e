"""What the claims would have been: after less training, and under choices the paper leaves open.

`at_step`, `with_recipe` and `with_variant` give `Results` in which the networks that claims are about
are replaced or measured otherwise; the claims are then evaluated as ever.
"""

import dataclasses

import pandas as pd

from deformstab.paper.runs.runs import RUN_COLUMNS
from deformstab.paper.verdicts import claims
from deformstab.paper.verdicts.result_tables import Results
from deformstab.paper.verdicts.statistics import POOLING

_NETWORK = list(RUN_COLUMNS)
_SHOWN = [
    "claim",
    "figure",
    "statistic",
    "claimed",
    "value",
    "low",
    "high",
    "seeds",
    "p",
    "verdict",
]
# Of networks that learn the true labels of the main study, and of those compared with them.
_OF_RECIPES = {
    ("pooling-stabilizes-init", "2c"),
    ("training-changes-stability", "2d"),
    ("kinds-converge", "2d"),
    ("training-smooths", "4b"),
    ("smoothness-converges", "4b"),
    ("depth-trend", "4b"),
}
_OF_VARIANTS = {(id, figure) for id, figure in _OF_RECIPES if figure[0] == "2"}
_OF_LABELS = {("labels-decide-smoothness", "4c"), ("labels-decide-stability", "5b")}
_OF_TASKS = {("stronger-task-smoother", "3b")}
_OF_TRAINING = (_OF_RECIPES | _OF_LABELS) - {("pooling-stabilizes-init", "2c")}


def claims_over_training(results: Results) -> pd.DataFrame:
    """The claims about trained networks of the main study, had training stopped earlier.

    Returns:
        A row a claim and step that was tracked, and the last one of all: `step`, the columns of the
        claims. The rows of one claim are one path, not so many tests: `p` is that of each row alone,
        and `verdict` adjusts it for the claims of one step only.
    """
    path = results.tables.get("trajectory", pd.DataFrame())
    if path.empty:
        return path
    path = path[path["study"] == "main"]
    if path.empty:
        return pd.DataFrame()
    found = []
    last = _networks(results, study="main")["steps"].max()
    for step in sorted({*path["step"], last}):
        found.append(_evaluate(at_step(results, step), _OF_TRAINING).assign(step=step))
    table = pd.concat(found, ignore_index=True)
    return table[["step", *_SHOWN]]


def claims_by_choice(results: Results) -> pd.DataFrame:
    """The claims about sensitivity and smoothness under each choice that the paper leaves open.

    Returns:
        A row a choice and claim: `choice`, the columns of the claims (`p` of each row alone, `verdict`
        adjusted for the claims of one choice).
        "as stated" is what the claims are judged by; "as stated, seeds 0, 1, …" comes before the
        recipes that have those seeds.
    """
    main = _networks(results, study="main", task="true_labels")
    found = []

    def add(choice, alternative, which):
        found.append(_evaluate(alternative, which).assign(choice=choice))

    recipes = _complete(_networks(results, study="recipes"), results.preset)
    variants = results.tables.get("variants", pd.DataFrame())
    if main.empty:
        return pd.DataFrame()
    labels = _OF_LABELS if "random_labels" in results.preset.main_tasks else set()
    add("as stated", results, _claims_of(recipes) | _OF_RECIPES | labels)
    for variant in variants["variant"].unique() if len(variants) else ():
        add(variant, with_variant(results, variant), _OF_VARIANTS)
    for choice, table in _other_measures(results.tables["sensitivity"]):
        tables = {**results.tables, "sensitivity": table}
        add(choice, dataclasses.replace(results, tables=tables), _OF_VARIANTS)
    kinds = results.preset.downsampling
    if len(results.tables.get("trajectory", ())):
        choice, first = "statistics re-estimated at the start", from_first_step(results)
        add(choice, first, _OF_VARIANTS)
        for kind in POOLING if len(kinds) > 2 and set(POOLING) <= set(kinds) else ():
            add(f"{choice}, without {kind}", _without_kind(first, kind), _OF_VARIANTS)
    for kind in kinds if len(kinds) > 2 else ():
        add(f"without {kind}", _without_kind(results, kind), _OF_RECIPES | labels)
    for seeds, networks in recipes.groupby(_seeds_of(recipes), sort=False) if len(recipes) else ():
        stated = f"as stated, seeds {', '.join(map(str, seeds))}"
        add(stated, _with_seeds(results, seeds), _claims_of(networks))
        for choice, those in networks.groupby("choice", sort=False):
            add(choice, _with_seeds(with_recipe(results, choice), seeds), _claims_of(those))
    return pd.concat(found, ignore_index=True)[["choice", *_SHOWN]]


def at_step(results: Results, step: int) -> Results:
    """The results if training had ended after a step, where it had not ended before."""
    over = results.tables["training"]
    over = over.loc[over["steps"] <= step, _NETWORK]
    path = results.tables["trajectory"]
    path = path[path["step"] <= step]
    path = path[path["step"] == path.groupby(_NETWORK)["step"].transform("max")]
    path = _without(path, over)
    tables = dict(results.tables)
    for name in ("sensitivity", "smoothness"):
        values = path.loc[path["quantity"] == name, [*_NETWORK, "layer", "value"]]
        initial = tables[name][tables[name]["phase"] == "initial"]
        if name == "sensitivity":
            initial = initial[initial["metric"] == "cosine"]
        now = initial.merge(values, on=[*_NETWORK, "layer"])
        now = now.assign(phase="trained", **{name: now["value"]}).drop(columns="value")
        trained = tables[name][tables[name]["phase"] == "trained"]
        ended = trained.merge(over, on=_NETWORK)
        tables[name] = pd.concat([initial, now, ended], ignore_index=True)
    # The accuracies of the end say nothing of this step.
    training = tables["training"].assign(accuracy_train=float("nan"), fits=True)
    return Results(results.preset, {**tables, "training": training})


def from_first_step(results: Results) -> Results:
    """The results if training were counted from its first step on.

    At initialization batch normalization has the moving averages 0 and 1; after one step, which
    changes the weights very little, they are re-estimated, over fewer images than in the trained
    network (`TRACKED_IMAGES`).
    """
    first = at_step(results, 1).tables["sensitivity"]
    first = first[first["phase"] == "trained"].assign(phase="initial")
    table = results.tables["sensitivity"]
    trained = table[(table["phase"] == "trained") & (table["metric"] == "cosine")]
    table = pd.concat([first, trained], ignore_index=True)
    return dataclasses.replace(results, tables={**results.tables, "sensitivity": table})


def with_recipe(results: Results, choice: str) -> Results:
    """The results if the networks that a recipe is about had been trained by it."""

    def replaced(table):
        if table.empty:
            return table
        recipe = table[(table["study"] == "recipes") & (table["choice"] == choice)]
        studies = recipe["task"].map({"deformed_classes": "tasks"})
        return recipe.assign(study=studies.fillna("main"))

    return _replace(results, replaced)


def with_variant(results: Results, variant: str) -> Results:
    """The results if sensitivity had been measured in another way."""
    tables = dict(results.tables)
    found = tables["variants"]
    measured = found[found["variant"] == variant].drop(columns="variant")
    tables["sensitivity"] = measured.assign(metric="cosine", images=0)
    return Results(results.preset, tables)


def _with_seeds(results, seeds) -> Results:
    return _replace(
        results, lambda table: table[table["seed"].isin(seeds)] if len(table) else table
    )


def _other_measures(table):
    """(choice, sensitivities) of the same measurements, summarized otherwise."""
    cosine = table[table["metric"] == "cosine"]
    yield "Euclidean distance", table[table["metric"] == "euclidean"].assign(metric="cosine")
    yield "distance, not over its baseline", cosine.assign(sensitivity=cosine["distance"])
    last = cosine.groupby("study")["layer_index"].transform("max")
    yield "last layer only", cosine[cosine["layer_index"] == last]


def _without_kind(results, kind) -> Results:
    """Which kind it is that decides a claim."""
    return _replace(
        results, lambda table: table[table["downsampling"] != kind] if len(table) else table
    )


def _replace(results, function) -> Results:
    names = ("sensitivity", "smoothness", "training")
    changed = {name: function(results.tables[name]) for name in names}
    return dataclasses.replace(results, tables={**results.tables, **changed})


def _networks(results, **condition) -> pd.DataFrame:
    table = results.tables.get("training", pd.DataFrame())
    for column, value in condition.items():
        table = table[table[column] == value] if len(table) else table
    return table


def _complete(networks, preset) -> pd.DataFrame:
    """Those of recipes of which at least two seeds are done: all kinds, or all strengths of task."""
    if networks.empty:
        return networks
    by_seed = networks.groupby(["choice", "seed"])["choice"].transform("size")
    strengths, kinds = len(preset.class_displacements), len(preset.downsampling)
    is_task = networks["task"] == "deformed_classes"
    networks = networks[by_seed == is_task.map({True: strengths, False: kinds})]
    return networks[networks.groupby("choice")["seed"].transform("nunique") > 1]


def _seeds_of(recipes) -> pd.Series:
    """Of each network, the seeds that its recipe has."""
    seeds = recipes.groupby("choice")["seed"].agg(lambda found: tuple(sorted(set(found))))
    return recipes["choice"].map(seeds)


def _claims_of(recipes) -> set:
    tasks = set(recipes["task"]) if len(recipes) else set()
    about = {"deformed_classes": _OF_TASKS, "true_labels": _OF_RECIPES}
    return set().union(*(about[task] for task in tasks))


def _without(table, networks) -> pd.DataFrame:
    """The rows of all networks but some."""
    marked = table.merge(networks, on=_NETWORK, how="left", indicator="found")
    return marked[marked["found"] == "left_only"].drop(columns="found")


def _evaluate(results, which) -> pd.DataFrame:
    chosen = [each for each in claims.CLAIMS if (each.id, each.figure) in which]
    return claims.evaluate(results, chosen)
