"""What tests of `docs/answers.md` read: the page and the committed files of runs, by no rules' code."""

import functools
import io
import json
import tarfile

import numpy as np
import pandas as pd
from helpers import ROOT
from scipy import stats

FOLDER = ROOT / "results" / "questions"
PAGE = " ".join((ROOT / "docs" / "answers.md").read_text(encoding="utf-8").split())
WITHOUT, POOLING = ["subsample", "strided", "strided_relu"], ["max", "average"]
NETWORKS = {"network": 25, "circular": 18, "followed": 15}  # of questions 1 and 3; 2; 4 and 5


@functools.cache
def table(name, part="network"):
    """Of a part's networks: from the runs, with kind and seed."""
    frames = []
    with tarfile.open(FOLDER / "runs.tar.xz") as archive:
        for member in archive.getmembers():
            if f"questions-{part}-" in member.name:
                run = json.load(archive.extractfile(member))
                network = run["experiment"]["network"]
                frame = pd.read_csv(io.StringIO(run["tables"][name]), keep_default_na=False)
                which = {"kind": network["downsampling"], "seed": network["seed"]}
                frames.append(frame.assign(**which))
    assert len(frames) == NETWORKS[part]
    return pd.concat(frames, ignore_index=True)


def told(logs, digits):
    """Of a Series by seed: as the page has it."""
    mean, half = logs.mean(), stats.t.ppf(0.975, len(logs) - 1) * stats.sem(logs)
    value, low, high = (f"{np.exp(each):.{digits}f}" for each in (mean, mean - half, mean + half))
    return f"{value} ({low} to {high})"


def by_kind(rows, column):
    """Mean log over layers: seeds × kinds."""
    rows = rows[~rows["layer"].isin(["input", "logits", "prediction"])]
    logs = np.log(rows[column].astype("float64"))
    by_layer = logs.groupby([rows["seed"], rows["kind"], rows["layer"]]).mean()
    found = by_layer.groupby(level=[0, 1]).mean().unstack()
    assert found.notna().all(axis=None)
    return found
