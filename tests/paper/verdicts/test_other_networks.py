"""What is said of networks that others trained, recomputed from made-up tables by plain loops."""

import math
import zlib

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from test_result_tables import made_results, small_preset

from deformstab.paper.figures import pretrained, style
from deformstab.paper.pages import claims_page, other_networks_page
from deformstab.paper.verdicts import claims
from deformstab.paper.verdicts.other_networks import EVIDENCE, measured, other_networks, title
from deformstab.paper.verdicts.result_tables import Results

SEEDS, LAYERS, KERNELS = (0, 1, 2), 5, 4
NETWORKS = {"hed": ("max pooling", False), "mine": ("", True)}  # halved by, whether it normalizes


def value(*key) -> float:
    """A positive number that only its key decides."""
    rng = np.random.default_rng(zlib.crc32(repr(key).encode()))
    return float(np.exp(0.3 * rng.normal()))


def tables(networks=NETWORKS):
    sensitivity, smoothness, rows = [], [], []
    for network, (halved, normalizes) in networks.items():
        states = [("trained", 0), *(("random", seed) for seed in SEEDS)]
        states += [("random_normalized", seed) for seed in SEEDS if normalizes]
        for state, seed in states:
            of = {"network": network, "halved": halved, "seed": seed, "state": state}
            for place in range(LAYERS + 1):
                layer = f"layer{place}" if place else "input"
                number = value("s", network, state, seed, place) if place else 0.1
                row = {"layer": layer, "layer_index": place, "sensitivity": number, "images": 9}
                sensitivity.append(of | row | {"side": 64.0 / 2 ** (place // 2)})
            for place in range(KERNELS if state != "random_normalized" else 0):
                number = value("t", network, state, seed, place)
                row = {"layer": f"conv{place}", "layer_index": place, "smoothness": number}
                smoothness.append(of | row | {"kernel_height": 3 + 2 * (place % 2)})
            right = (200, 0.865) if network == "mine" and state == "trained" else (0, np.nan)
            rows.append(of | {"layers": LAYERS + 1, "answers": right[0], "top1": right[1]})
    frames = {"sensitivity": sensitivity, "smoothness": smoothness, "networks": rows}
    return {f"pretrained_{name}": pd.DataFrame(frame) for name, frame in frames.items()}


@pytest.fixture
def results():
    return Results(small_preset(), tables())


def slope(values):
    """Least squares by the formula."""
    places = range(len(values))
    centre, mean = sum(places) / len(values), sum(values) / len(values)
    above = sum((at - centre) * (each - mean) for at, each in zip(places, values))
    return above / sum((at - centre) ** 2 for at in places)


def expected(network, quantity):
    """The log of the statistic, of each draw."""
    found = []
    for seed in SEEDS:
        if quantity.startswith("sensitivity"):
            state = "random_normalized" if quantity.endswith("normalized") else "random"
            logs = [
                math.log(value("s", network, "trained", 0, at))
                - math.log(value("s", network, state, seed, at))
                for at in range(1, LAYERS + 1)
            ]
            found.append(sum(logs) / LAYERS)
            continue
        logs = [
            math.log(value("t", network, "trained", 0, at))
            - math.log(value("t", network, "random", seed, at))
            for at in range(KERNELS)
        ]
        found.append(slope(logs) if quantity == "depth" else sum(logs) / KERNELS)
    return found


def test_statistics_are_what_loops_give(results):
    table = other_networks(results)
    keys = [(row.network, row.quantity) for row in table.itertuples()]
    usual = ["sensitivity", "smoothness", "depth"]
    assert keys == [
        *(("hed", name) for name in usual),
        *(("mine", name) for name in ["sensitivity", "sensitivity_normalized", *usual[1:]]),
    ]
    for row in table.itertuples():
        logs = np.array(expected(row.network, row.quantity))
        half = stats.t.ppf(0.975, 2) * logs.std(ddof=1) / math.sqrt(3)
        assert row.value == pytest.approx(math.exp(logs.mean()))
        assert row.low == pytest.approx(math.exp(logs.mean() - half))
        assert row.high == pytest.approx(math.exp(logs.mean() + half))
        assert row.seeds == 3


def test_equal_networks_have_factors_of_one():
    made = tables({"mine": NETWORKS["mine"]})
    for name in ("sensitivity", "smoothness"):
        frame = made[f"pretrained_{name}"]
        frame[name] = frame["layer_index"] + 1.5
    found = other_networks(Results(small_preset(), made))
    np.testing.assert_allclose(found["value"], 1, rtol=1e-12)


def test_a_layer_without_a_number_is_left_out_of_the_trend(results):
    frame = results.tables["pretrained_smoothness"]
    gone = (frame["network"] == "hed") & (frame["layer_index"] == 1)
    frame.loc[gone & (frame["state"] == "trained"), "smoothness"] = np.nan
    found = other_networks(results).set_index(["network", "quantity"])["value"]
    logs = [
        [
            math.log(value("t", "hed", "trained", 0, at) / value("t", "hed", "random", seed, at))
            for at in (0, 2, 3)
        ]
        for seed in SEEDS
    ]
    assert found["hed", "smoothness"] == pytest.approx(math.exp(np.mean(logs)))
    assert found["hed", "depth"] == pytest.approx(math.exp(np.mean([slope(x) for x in logs])))


def test_without_such_runs_there_is_nothing():
    results = made_results(small_preset())
    assert other_networks(results).empty
    assert measured(results).empty
    assert other_networks_page.section(results, other_networks(results), str) == []
    assert other_networks_page.lines_below(other_networks(results), str) == {}


def test_no_verdict_depends_on_them():
    """Rules read the paper's runs alone: with these tables beside them every row is the same."""
    without = made_results(small_preset())
    beside = Results(without.preset, without.tables | tables())
    pd.testing.assert_frame_equal(claims.evaluate(without), claims.evaluate(beside))


def test_every_line_stands_below_a_claim_and_names_each_network(results):
    rows = {(claim.id, claim.figure) for claim in claims.CLAIMS}
    assert {(each.claim, each.below) for each in EVIDENCE} <= rows
    found = other_networks_page.lines_below(other_networks(results), lambda row: f"{row.value:.4f}")
    assert len(found) == len(EVIDENCE)
    for each in EVIDENCE:
        line = found[each.claim, each.below]
        assert line.count("|") == 10  # as many cells as a claim has
        for network, text in (("hed", "hed (max pooling)"), ("mine", "; mine")):
            number = f"{math.exp(np.mean(expected(network, each.quantity))):.4f}"
            assert f"{text} {number}" in line
    table = claims_page.claims_table(claims.evaluate(results), found)
    for at, line in enumerate(table):
        if line.startswith("| ↳"):
            assert table[at - 1].split(" | ")[0].strip("| ") in {each.claim for each in EVIDENCE}
    assert len(table) == 2 + len(claims.CLAIMS) + len(EVIDENCE)


# ---- the figures ----


@pytest.mark.parametrize("target", ["2b", "4a"])
def test_figures_show_every_network_and_state(target, results):
    fig = pretrained.plot(results, target)
    name, column = ("sensitivity", "sensitivity") if target == "2b" else ("smoothness",) * 2
    frame = results.tables[f"pretrained_{name}"]
    for axis, network in zip(fig.axes, NETWORKS):
        assert title(network) in " ".join(axis.get_title(loc="left").split())
        shown = {line.get_label(): line.get_ydata() for line in axis.lines}
        trained = frame[(frame["network"] == network) & (frame["state"] == "trained")]
        random = frame[(frame["network"] == network) & (frame["state"] == "random")]
        if target == "2b":
            label, sizes = "weights that others trained", {"": trained.index}
        else:
            label = "weights that others trained, "
            sizes = {f"{k}×{k}": rows.index for k, rows in trained.groupby("kernel_height")}
        for size, index in sizes.items():
            np.testing.assert_allclose(shown[label + size], trained.loc[index, column])
        if target == "2b":
            mean = random.groupby("layer_index")[column].mean()
            np.testing.assert_allclose(shown["random weights"], mean)
            normalized = "random weights, batch normalization by the images' statistics"
            assert (normalized in shown) == NETWORKS[network][1]
            halvings = [line.get_xdata()[0] for line in axis.lines if len(line.get_xdata()) == 2]
            assert halvings == [1.5, 3.5]
        low, high = axis.get_ylim()
        for values in shown.values():
            assert low <= min(values)
            assert max(values) <= high
    style.plt.close(fig)


@pytest.mark.parametrize("target", ["2b", "4a"])
def test_captions_say_that_they_are_not_the_papers(target, results):
    text = pretrained.caption(results, target)
    assert f"In place of Figure {target}: networks that others trained" in text
    assert "not the paper's runs" in text
    assert "halves by max pooling" in text
    assert "names 86.5% of 200 photographs" in text
    assert "3 draws" in text
    # Of the images' sizes alone: a table has the sizes of maps as well.
    assert text.count("points at") == (target == "2b")
    empty = Results(small_preset(), {})
    assert "not run" in pretrained.caption(empty, target)
    style.plt.close(pretrained.plot(empty, target))
