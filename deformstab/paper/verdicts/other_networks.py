"""What networks that others trained say of the claims about ImageNet: evidence beside the claims.

No verdict follows from it, and no rule of `claims` reads it: these are other networks than the
paper's, trained by others on other data, one of each. What is left to chance here is the draw of
random weights that each is compared with; intervals are over these draws and no more.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from deformstab.measurement.intervals import mean_interval
from deformstab.paper.pretrained import catalogue


@dataclass(frozen=True)
class Evidence:
    """A statistic beside a claim.

    Attributes:
        claim, below: of the row in `claims.CLAIMS` that it stands below: its id and its figure.
        figure: the panel of the paper that it is about.
        statistic, claimed: as in `claims`.
        quantity: which of the values of `_values` it is.
    """

    claim: str
    below: str
    figure: str
    statistic: str
    claimed: str
    quantity: str


EVIDENCE = (
    Evidence(
        "training-changes-stability",
        "2d",
        "2b",
        "sensitivity, trained / random weights (claimed of networks with pooling)",
        "> 1",
        "sensitivity",
    ),
    Evidence(
        "training-smooths", "4b", "4a", "TV/‖W‖₁, trained / random weights", "< 1", "smoothness"
    ),
    Evidence(
        "depth-trend",
        "4a",
        "4a",
        "factor of TV/‖W‖₁ (over that of random weights in the same layer) from layer to layer",
        "< 1",
        "depth",
    ),
)


def other_networks(results) -> pd.DataFrame:
    """The statistics of every network that was measured with its weights and with random ones.

    Returns:
        A row a network and quantity: `network`, `halved`, `quantity` ("sensitivity", the same with
        batch normalization of random weights by the measured images' statistics
        "sensitivity_normalized", "smoothness", "depth"), `value`, a factor, the geometric mean over
        random draws (of means over layers, the input left out), `low` and `high`, Student's 95 %
        interval of its log over these draws, and `seeds`, their number.
    """
    rows = []
    for network, halved in _networks(results):
        for quantity, logs in _values(results, network):
            if len(logs):
                value, low, high = (float(np.exp(number)) for number in mean_interval(logs))
                row = {"network": network, "halved": halved, "quantity": quantity}
                rows.append({**row, "value": value, "low": low, "high": high, "seeds": len(logs)})
    return pd.DataFrame(rows)


def measured(results) -> pd.DataFrame:
    """The networks that were measured with their weights, a row each: `pretrained_networks`."""
    table = results.tables.get("pretrained_networks", pd.DataFrame())
    return table[table["state"] == "trained"].reset_index(drop=True) if len(table) else table


def title(network: str) -> str:
    """What figures and pages call a network."""
    known = catalogue.PACKAGED.get(network)
    return known.title if known else network


def _networks(results):
    table = measured(results)
    return zip(table["network"], table["halved"]) if len(table) else ()


def _values(results, network):
    """(quantity, Series seed → log of the statistic)."""
    for name, state in (
        ("sensitivity", "random"),
        ("sensitivity_normalized", "random_normalized"),
    ):
        trained, random = _logs(results, "sensitivity", network, state)
        yield name, (trained - random).mean(axis=1)
    trained, random = _logs(results, "smoothness", network, "random")
    change = (trained - random).dropna(axis=1)
    yield "smoothness", change.mean(axis=1)
    if len(change) and change.shape[1] > 1:
        slopes = np.polyfit(np.arange(change.shape[1]), change.to_numpy().T, 1)[0]
        yield "depth", pd.Series(slopes, index=change.index)


def _logs(results, quantity, network, state) -> tuple[pd.Series, pd.DataFrame]:
    """Logs of the trained network [layers], and of random ones [seeds, layers]; the input left out."""
    table = results.tables[f"pretrained_{quantity}"]
    table = table[(table["network"] == network) & (table["layer"] != "input")]
    table = table.assign(value=np.log(table[quantity]))
    trained = table[table["state"] == "trained"].set_index("layer_index")["value"]
    random = table[table["state"] == state]
    return trained, random.pivot(index="seed", columns="layer_index", values="value")
