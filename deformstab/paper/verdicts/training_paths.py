"""When filters become smooth during training, and whether the way there is monotone.

The paper's open question. A path is what was tracked of a network's layer: its value at steps 1, 2,
3, 4, 6, 8, 11, … and at the end. That of smoothness begins at initialization (step 0). That of
sensitivity does not: batch normalization has its first moving averages then (0 and 1), and
re-estimated ones ever after, which alone moves sensitivities by up to half.
"""

import numpy as np
import pandas as pd

from deformstab.paper.runs.runs import RUN_COLUMNS

_LAYER = [*RUN_COLUMNS, "quantity", "layer_index", "layer"]


def full_paths(results) -> pd.DataFrame:
    """The trajectories with both ends: the last step is the trained network.

    Returns:
        `RUN_COLUMNS`, quantity, layer_index, layer, step, value, accuracy_train (NaN at step 0), in
        the order of steps within a path, both quantities from step 0; empty if nothing was tracked.
    """
    tracked = results.tables.get("trajectory", pd.DataFrame())
    if tracked.empty:
        return pd.DataFrame()
    training = results.tables["training"]
    last = training[[*RUN_COLUMNS, "steps", "accuracy_train"]].rename(columns={"steps": "step"})
    networks = tracked[list(RUN_COLUMNS)].drop_duplicates()
    ends = []
    for quantity in ("sensitivity", "smoothness"):
        table = results.tables[quantity]
        if quantity == "sensitivity":
            table = table[table["metric"] == "cosine"]
        else:
            table = table[(table["kernel_height"] == 3) & (table["kernel_width"] == 3)]
        table = table.merge(networks, on=list(RUN_COLUMNS)).assign(quantity=quantity)
        table = table.rename(columns={quantity: "value"})[[*_LAYER, "phase", "value"]]
        initial = table[table["phase"] == "initial"].assign(step=0, accuracy_train=np.nan)
        trained = table[table["phase"] == "trained"].merge(last, on=list(RUN_COLUMNS))
        ends += [initial, trained]
    found = pd.concat([*ends, tracked], ignore_index=True)[
        [*_LAYER, "step", "value", "accuracy_train"]
    ]
    # The last step may have been tracked too; its statistics come from fewer images.
    found = found.drop_duplicates([*_LAYER, "step"])
    return found.sort_values([*_LAYER, "step"], ignore_index=True)


def path_shapes(results) -> pd.DataFrame:
    """The shape of each path, of the logarithms of the values.

    Returns:
        A row a network, quantity and layer: the `first`, `lowest`, `highest` and `last` value;
        `change`, log(last / first); `length`, the sum of the absolute changes between tracked
        steps; `monotonicity`, change / length: -1 for a path that only falls, 1 for one that only
        rises, near 0 for one that comes back; `half_step` and `half_accuracy`, the first tracked
        step after which half of the change is never lost again, and the training accuracy then.
    """
    paths = full_paths(results)
    if paths.empty:
        return paths
    rows = []
    paths = paths[(paths["step"] > 0) | (paths["quantity"] == "smoothness")]
    for key, path in paths.groupby(_LAYER, sort=False):
        rows.append(dict(zip(_LAYER, key)) | _shape(path))
    return pd.DataFrame(rows)


def mean_path(paths) -> pd.Series:
    """The geometric mean over seeds of one layer's paths, step → value, and its end.

    At the steps at which all networks were still training; last, at the geometric mean of their
    last steps, the mean of what they ended as.
    """
    logs = np.log(paths.pivot(index="step", columns="seed", values="value"))
    common = logs.dropna()
    ends = paths.loc[paths.groupby("seed")["step"].idxmax()]
    end = round(np.exp(np.log(ends["step"]).mean()))
    common = common[common.index < end]
    means = [*common.mean(axis=1), np.log(ends["value"]).mean(skipna=False)]
    return pd.Series(np.exp(means), index=[*common.index, end])


def half_way(values) -> int:
    """The place in a path after which half of its change is never lost again."""
    logs = np.log(np.asarray(values))
    change = logs[-1] - logs[0]
    progress = (logs - logs[0]) / change if change else np.ones(len(logs))
    short = np.flatnonzero(~(progress >= 0.5))  # NaN counts as not there yet
    return min(short[-1] + 1, len(logs) - 1) if len(short) else 0


def _shape(path) -> dict:
    logs = np.log(path["value"].to_numpy())
    change, length = logs[-1] - logs[0], np.abs(np.diff(logs)).sum()
    half = half_way(path["value"])
    known = np.isfinite(change)  # a layer that was dead at either end has no way between
    return {
        "first": path["value"].iloc[0],
        "lowest": path["value"].min(),
        "highest": path["value"].max(),
        "last": path["value"].iloc[-1],
        "change": change,
        "length": length,
        "monotonicity": change / length if length else np.nan,
        "half_step": float(path["step"].iloc[half]) if known else np.nan,
        "half_accuracy": path["accuracy_train"].iloc[half] if known else np.nan,
    }
