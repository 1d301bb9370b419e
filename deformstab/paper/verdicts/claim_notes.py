"""What a claim's trainings say of its verdict: notes beside it, and whether they can be trusted."""

import pandas as pd

from deformstab.networks.downsampling import PAPER_KINDS


def join(*notes) -> str:
    return "; ".join(note for note in notes if note)


def training(results, trained) -> pd.DataFrame:
    """The trainings that a claim is built on: `Claim.trained`."""
    found = [pd.DataFrame()]
    for study, task, *only in trained:
        table = results.training(study, task)
        if only and len(table):
            table = table[table["downsampling"].isin(only)]
        found.append(table)
    return pd.concat(found)


def accuracy_gap(table: pd.DataFrame) -> float:
    """The largest difference between training accuracy in inference mode and with batch statistics."""
    if table.empty:
        return 0.0
    return (table["accuracy_batch_statistics"] - table["accuracy_train"]).abs().max()


def unfinished(table: pd.DataFrame, preset) -> str:
    """How many networks stopped at the last epoch, short of the accuracy they were trained for."""
    if table.empty:
        return ""
    targets = table["task"].map({"random_labels": preset.random_stop_accuracy})
    aimed = table[targets.fillna(preset.stop_accuracy) > 0]
    count = int((~aimed["fits"].astype(bool)).sum()) if len(aimed) else 0
    return f"{count} of {len(aimed)} networks stopped before they fitted" if count else ""


def kinds(results, trained) -> str:
    """Of which kinds of downsampling a claim about more of them is judged, if not of all."""
    for study, task, *only in trained:
        wanted = only or PAPER_KINDS
        table = results.training(study, task)
        found = set(table["downsampling"]) if study == "main" and len(table) else set(wanted)
        if not found >= set(wanted):
            return f"of {', '.join(kind for kind in wanted if kind in found)} only"
    return ""
