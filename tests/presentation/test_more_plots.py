"""Heat maps, comparisons, measures, examples: the data in their artists, never pixels."""

import itertools

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from helpers import loop_warp, natural_images, small_network
from test_plots import compared, measured, names, recorded, strengths

import deformstab as ds
from deformstab.presentation.drawing import log_steps, merged
from deformstab.presentation.example_plots import arrows
from deformstab.presentation.kinds import KINDS, kind_of
from deformstab.tables import (
    COMPARISON_COLUMNS,
    EQUIVARIANCE_COLUMNS,
    PART_COLUMNS,
    SENSITIVITY_COLUMNS,
    STABILITY_COLUMNS,
    STRENGTH_COLUMNS,
    TIME_COLUMNS,
    WORST_COLUMNS,
    read_csv,
    write_csv,
)

HOSTILE = ["$a_{", "<script>alert(1)</script>", "x" * 300, "$\\frac{$", "é ω"]


def both_metrics(count, value, columns, broken=()):
    """As of measure_stability or measure_equivariance."""
    parts = []
    for metric in ("cosine", "euclidean"):
        rows = measured(count, broken).rename(
            columns=lambda name: name.replace("sensitivity", value)
        )
        parts.append(rows.assign(metric=metric))
    whole = pd.concat(parts, ignore_index=True)
    return whole.reindex(columns=list(columns)).astype({"note": "str"})


def stable(count, broken=()):
    return both_metrics(count, "relative_stability", STABILITY_COLUMNS, broken)


def moving(count, broken=()):
    return both_metrics(count, "ratio", EQUIVARIANCE_COLUMNS, broken)


def worst_of(names, images=5):
    rng = np.random.default_rng(0)
    rows = []
    for name in names:
        for image in range(images):
            mean = rng.uniform(0.1, 0.2)
            numbers = {"mean": mean, "worst": 3 * mean, "mean_sensitivity": 2 * mean}
            rows.append({"layer": name, "image": image, **numbers, "worst_sensitivity": 6 * mean})
    return pd.DataFrame(rows).reindex(columns=list(WORST_COLUMNS))


def in_parts(count):
    parts = [measured(count, factor=f).assign(part=p) for p, f in (("full", 1), ("affine", 0.5))]
    return pd.concat(parts, ignore_index=True).reindex(columns=list(PART_COLUMNS))


def axis_of(figure):
    assert isinstance(figure, matplotlib.figure.Figure)
    figure.canvas.draw()
    assert plt.get_fignums() == []
    return figure.axes[0]


# ---- heat maps ----


@pytest.mark.parametrize(
    ("rows", "by", "label"),
    [
        (strengths(5), "max_displacement", "largest displacement, px"),
        (recorded(5), "step", "optimizer step"),
        (compared(5), "model", "model"),
        (in_parts(5), "part", "part of the deformation"),
        (stable(5), "metric", "metric"),
        (
            pd.concat([measured(5).assign(family=f, rms_displacement=r) for f, r in ("ab", "cd")]),
            "family",
            "family of deformations",
        ),
    ],
)
def test_cells_are_the_numbers_of_the_table(rows, by, label):
    value = kind_of(rows).value
    ax = axis_of(ds.plot_heatmap(rows.sample(frac=1, random_state=1), title="of $5"))
    cells = ax.collections[0].get_array()
    columns = [tick.get_text() for tick in ax.get_xticklabels()]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == [f"layer{i}" for i in range(5)]
    for _, row in rows.iterrows():
        name = f"{row[by]:g}" if isinstance(row[by], (int, float)) else row[by]
        assert cells[row["layer_index"], columns.index(name)] == row[value]
    assert ax.get_xlabel().startswith(label)
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the input above
    assert ax.get_title() == r"of \$5"
    meaning = kind_of(rows).label(rows).replace("; ", "\n")
    assert ax.figure.axes[1].get_ylabel() == meaning


def test_numeric_columns_are_in_order_and_by_chooses():
    rows = strengths(3, (4.0, 0.5, 2.0)).assign(rms_displacement=lambda t: 10 - t.max_displacement)
    assert [t.get_text() for t in axis_of(ds.plot_heatmap(rows)).get_xticklabels()] == [
        "0.5",
        "2",
        "4",
    ]
    ax = axis_of(ds.plot_heatmap(rows, by="rms_displacement", value="distance"))
    assert [t.get_text() for t in ax.get_xticklabels()] == ["6", "8", "9.5"]
    assert ax.figure.axes[1].get_ylabel() == "distance"
    weakest = rows[rows["max_displacement"] == 4.0]["distance"]
    np.testing.assert_array_equal(ax.collections[0].get_array()[:, 0], weakest)


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ((0, 1, 2, 4, 8, 16, 32, 64), "(spaced logarithmically)"),
        ((0, 10, 20, 30), ""),
        ((0, 10, 25), "(columns equally wide)"),
        (range(0, 101), ""),
    ],
)
def test_the_axis_says_how_steps_are_spaced(steps, words):
    ax = axis_of(ds.plot_heatmap(recorded(3, [(0, step) for step in steps])))
    assert ax.get_xlabel() == f"optimizer step {words}".strip()
    assert len(ax.get_xticklabels()) <= 26


def test_ratios_are_as_far_above_1_as_below_on_a_logarithmic_scale():
    rows = compared(4)
    mesh = axis_of(ds.plot_heatmap(rows)).collections[0]
    farthest = np.exp(np.abs(np.log(rows["ratio"])).max())
    assert mesh.norm.vmin == pytest.approx(1 / farthest)
    assert mesh.norm.vmax == pytest.approx(farthest)
    assert float(mesh.norm(1.0)) == pytest.approx(0.5)
    rows["ratio"] = [0.0, np.inf, np.nan, *rows["ratio"][3:]]
    shown = axis_of(ds.plot_heatmap(rows)).collections[0].get_array()
    assert np.ma.getmaskarray(shown)[:3, 0].all()
    assert np.ma.count_masked(shown) == 3


def test_layers_that_cannot_be_measured_are_holes():
    shown = axis_of(ds.plot_heatmap(strengths(4, broken=(1,)))).collections[0].get_array()
    np.testing.assert_array_equal(
        np.ma.getmaskarray(shown).all(axis=1), [False, True, False, False]
    )
    axis_of(ds.plot_heatmap(strengths(4, broken=range(4))))


def test_networks_of_other_layers_have_rows_of_their_own():
    rows = pd.concat([measured(3).assign(model="a"), measured(2, name="other{}").assign(model="b")])
    ax = axis_of(ds.plot_heatmap(rows))
    assert len(ax.get_yticklabels()) == 5
    assert np.ma.count_masked(ax.collections[0].get_array()) == 5


@pytest.mark.parametrize("count", [1, 61, 200])
def test_heat_maps_of_many_layers(count):
    ax = axis_of(ds.plot_heatmap(recorded(count)))
    boxes = [tick.get_window_extent() for tick in ax.get_yticklabels()]
    assert all(above.y0 >= below.y1 for above, below in itertools.pairwise(boxes))


def test_heat_maps_of_csv_files_and_own_axes(tmp_path):
    rows = strengths(3)
    write_csv(rows, tmp_path / "a.csv")
    own, ax = plt.subplots()
    assert ds.plot_heatmap(read_csv(tmp_path / "a.csv"), ax=ax) is own
    expected = ds.plot_heatmap(rows).axes[0].collections[0].get_array()
    np.testing.assert_array_equal(ax.collections[0].get_array(), expected)


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (None, {}, r"table must be one of ds\.measure_sensitivity|received None"),
        (pd.DataFrame({"a": [1]}), {}, r"compare_sensitivity.*columns layer and layer_index.*'a'"),
        (strengths(2)[:0], {}, "and 0 rows"),
        (worst_of(["a"]), {}, "table must be one of"),
        (measured(3), {}, "nothing varies.*sensitivity_by_strength"),
        (recorded(3), {"by": "strength"}, "by='strength' is no column"),
        (recorded(3), {"value": "ratio"}, "value='ratio' is no column"),
        (
            pd.concat([recorded(3), recorded(3)]),
            {"by": "step"},
            "several rows are of layer 'layer0'",
        ),
    ],
)
def test_what_is_no_heat_map(rows, options, message):
    with pytest.raises(ValueError, match=message):
        ds.plot_heatmap(rows, **options)


# ---- comparison ----


def test_a_comparison_shows_both_networks_and_the_paired_ratio():
    rows = compared(6, ["blur"])
    rows["sensitivity"], rows["reference_sensitivity"] = np.arange(6) + 1.0, np.arange(6) + 2.0
    rows["ratio"] = [1, 0.5, 0.9, 2, 1.1, np.nan]
    rows["ratio_low"], rows["ratio_high"] = rows["ratio"] * 0.8, rows["ratio"] * 1.2
    figure = ds.plot_comparison(rows[::-1], "a $ b")
    axis_of(figure)
    above, below = figure.axes
    reference, own = above.lines
    np.testing.assert_array_equal(reference.get_ydata(), rows["reference_sensitivity"])
    np.testing.assert_array_equal(own.get_ydata(), rows["sensitivity"])
    assert [t.get_text() for t in above.get_legend().get_texts()] == ["max (reference)", "blur"]
    assert below.get_yscale() == "log"
    bars = below.collections[0].get_segments()
    expected = rows[["ratio_low", "ratio_high"]].to_numpy()[:5]
    np.testing.assert_array_equal([bar[:, 1] for bar in bars if len(bar)][:5], expected)
    filled, open_ = below.lines[-2:]
    assert filled.get_xdata().tolist() == [1, 3]  # whose interval leaves out 1
    assert open_.get_markerfacecolor() == "white"
    assert set(open_.get_xdata()) >= {0, 2, 4}
    assert "lower is more stable" in above.get_ylabel()
    assert "below 1: more stable" in below.get_ylabel()
    assert names(below) == [f"layer{i}" for i in range(6)]
    assert [t.get_color() != "black" for t in below.get_xticklabels()] == [False] * 5 + [True]


def test_a_comparison_of_the_library_on_axes_of_ones_own(network, images):
    other = small_network(seed=1)
    table = ds.compare_sensitivity({"a": network, "b": other}, images)
    own, axes = plt.subplots(2, 1)
    assert ds.plot_comparison(table, axes=axes) is own
    own.canvas.draw()
    assert names(axes[1])[0] == "input"
    with pytest.raises(ValueError, match="axes must be 2, one a panel, received 1"):
        ds.plot_comparison(table, axes=axes[:1])


@pytest.mark.parametrize("rows", [None, measured(3), compared(2)[:0]])
def test_what_is_no_comparison(rows):
    with pytest.raises(
        ValueError, match=r"table must be a table of ds\.compare_sensitivity.*ratio_low"
    ):
        ds.plot_comparison(rows)


# ---- measures ----


def test_measures_share_their_layers():
    tables = measured(5), stable(5, (1,)), moving(3), worst_of(["layer1", "layer4", "elsewhere"])
    figure = ds.plot_measures(*tables, title="all $")
    axis_of(figure)
    panels = figure.axes
    assert len(panels) == 4
    assert names(panels[-1]) == [*(f"layer{i}" for i in range(5)), "elsewhere"]
    np.testing.assert_array_equal(panels[0].lines[0].get_ydata(), tables[0]["sensitivity"])
    for panel, table, value in ((1, tables[1], "relative_stability"), (2, tables[2], "ratio")):
        drawn = [line for line in panels[panel].lines if line.get_linestyle() != "--"]
        for line, (_, rows) in zip(drawn, table.groupby("metric"), strict=True):
            np.testing.assert_array_equal(np.ma.filled(line.get_ydata(), np.nan), rows[value])
        assert [t.get_text() for t in panels[panel].get_legend().get_texts()] == [
            "cosine",
            "euclidean",
        ]
        assert panels[panel].get_yscale() == "log"
    mean, worst = panels[3].containers
    for container, value in ((mean, "mean_sensitivity"), (worst, "worst_sensitivity")):
        medians = tables[3].groupby("layer", sort=False)[value].median()
        np.testing.assert_allclose(container.lines[0].get_ydata(), medians)
        ((_, low), (_, high)) = container.lines[2][0].get_segments()[0]
        quartiles = np.quantile(tables[3].query("layer == 'layer1'")[value], [0.25, 0.75])
        np.testing.assert_allclose([low, high], quartiles)
    for panel in panels:
        assert "lower is more stable" in panel.get_ylabel() or "below 1" in panel.get_ylabel()
    assert all(tick.get_color() == "black" for tick in panels[-1].get_xticklabels())


def test_ratios_of_rounding_errors_do_not_stretch_the_axis():
    rows = moving(4)
    rows.loc[rows["layer_index"] == 0, ["ratio", "ratio_low", "ratio_high"]] = 1e-14
    ax = axis_of(ds.plot_measures(equivariance=rows))
    assert ax.get_ylim()[0] > 1e-4


def test_some_measures_on_axes_of_ones_own():
    own, axes = plt.subplots(1, 2)
    assert ds.plot_measures(stability=stable(3), worst=worst_of(["layer0"]), axes=axes) is own
    own.canvas.draw()
    assert names(axes[0]) == names(axes[1]) == ["layer0", "layer1", "layer2"]


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({}, r"pass at least one table: sensitivity=ds\.measure_sensitivity"),
        ({"sensitivity": stable(3)[:0]}, r"sensitivity must be a table of ds\.measure_sensitivity"),
        (
            {"stability": measured(3)},
            r"stability must be .*ds\.measure_stability.*relative_stability",
        ),
        (
            {"equivariance": stable(3)},
            r"equivariance must be .*ds\.measure_equivariance.*moves_with",
        ),
        ({"worst": measured(3)}, r"worst must be .*ds\.worst_deformation.*worst_sensitivity"),
        ({"sensitivity": strengths(3)}, "sensitivity has several rows for one layer and metric"),
        ({"worst": (worst_of(["a"]), 0)}, "worst must be"),
    ],
)
def test_what_are_no_measures(tables, message):
    with pytest.raises(ValueError, match=message):
        ds.plot_measures(**tables)


@pytest.mark.parametrize("draw", ["heatmap", "comparison", "measures", "sensitivity"])
def test_hostile_names_are_text(draw):
    def renamed(rows):
        return rows.assign(layer=[HOSTILE[i] for i in rows["layer_index"]])

    figure = {
        "heatmap": lambda: ds.plot_heatmap(
            pd.concat([renamed(measured(5)).assign(model=name) for name in HOSTILE])
        ),
        "comparison": lambda: ds.plot_comparison(
            renamed(compared(5, HOSTILE[:2])).assign(reference=HOSTILE[3])
        ),
        "measures": lambda: ds.plot_measures(
            renamed(measured(5)), renamed(stable(5)), worst=worst_of(HOSTILE), title=HOSTILE[0]
        ),
        "sensitivity": lambda: ds.plot_sensitivity(renamed(measured(5))),
    }[draw]()
    figure.canvas.draw()  # parses what would be mathematics
    axes = figure.axes
    shown = axes[0].get_yticklabels() if draw == "heatmap" else axes[-1].get_xticklabels()
    found = [text.get_text().replace(r"\$", "$") for text in shown]
    assert found == [n if len(n) < 49 else f"…{n[-47:]}" for n in HOSTILE]
    assert figure.axes[0].get_window_extent().width > 100


# ---- examples ----


@pytest.fixture
def deformation():
    return ds.RandomDeformation(3, 2.0, seed=0)


@pytest.mark.parametrize("least", [False, True])
@pytest.mark.parametrize("flow", ["arrows", "grid"])
def test_examples_are_the_images_that_move_the_layer_most(
    network, images, deformation, least, flow
):
    draws = {"deformations": 3, "seed": 5}
    figure = ds.plot_examples(
        network, images, "conv2", deformation, count=3, least=least, flow=flow, **draws
    )
    axes = np.array(axis_of(figure).figure.axes).reshape(3, 3)
    _, distances = ds.measure_sensitivity(
        network, images, deformation, "conv2", return_distances=True, **draws
    )
    by_image = distances.pivot(index="image", columns="deformation", values="distance")
    extreme = by_image.min(axis=1) if least else by_image.max(axis=1)
    expected = extreme.sort_values(ascending=least).head(3)
    displacements = deformation.draw(3 * len(images), seed=5)
    for row, (image, distance) in zip(axes, expected.items()):
        assert row[0].get_title() == f"image {image}"
        assert f"distance {distance:.3g}" in row[1].get_title()
        draw = int(np.argmin(by_image.loc[image]) if least else np.argmax(by_image.loc[image]))
        number = 3 * image + draw
        field = np.asarray(deformation.flow(displacements[number : number + 1], 16, 16))
        warped = loop_warp(images[image : image + 1], field)[0]
        np.testing.assert_allclose(row[0].images[0].get_array(), images[image] / 2 + 0.5, atol=1e-6)
        np.testing.assert_allclose(row[1].images[0].get_array(), warped / 2 + 0.5, atol=1e-5)
        rms = np.sqrt((field**2).sum(-1).mean())
        assert row[2].get_title() == f"flow: {rms:.3g} px, root mean square"
        assert row[2].collections
    assert ("least" in figure.get_suptitle()) == least


def test_arrows_point_from_where_a_part_was_to_where_it_is():
    image = np.zeros((1, 9, 12, 1))
    image[0, 4, 6] = 1
    flow = np.zeros((1, 9, 12, 2))
    flow[..., 0], flow[..., 1] = 1, -2  # out(p) = image(p + (1, -2)): the content moves by (-1, 2)
    moved = loop_warp(image, flow)
    assert np.argwhere(moved[0, ..., 0] == 1).tolist() == [[3, 8]]
    found = arrows(flow[0])
    inside = found[(found[:, 2] < 8) & (found[:, 3] > 1)]
    np.testing.assert_array_equal(inside[:, 2:] - inside[:, :2], [[-1, 2]] * len(inside))
    assert found.min() >= 0  # beyond the edge the nearest pixel of it
    assert (found[:, :2].max(axis=0) <= (8, 11)).all()


@pytest.mark.parametrize(
    ("scale", "shift", "given"),
    [(0.5, 0.5, None), (127.5, 127.5, None), (3, 1, (-2, 4)), (40, 9, None)],
)
def test_black_and_white_are_found_or_given(network, images, scale, shift, given):
    scaled = (scale * images + shift).astype("float32")
    figure = ds.plot_examples(network, scaled, "conv1", count=1, value_range=given)
    number = int(figure.axes[0].get_title().split()[1])
    shown = figure.axes[0].images[0].get_array()
    if scale == 40:  # unknown: from the darkest to the lightest
        low, high = scaled.min(), scaled.max()
        np.testing.assert_allclose(shown, (scaled[number] - low) / (high - low), atol=1e-6)
    else:
        np.testing.assert_allclose(shown, images[number] / 2 + 0.5, atol=1e-5)


def test_a_function_has_no_flow_to_draw(network, images):
    figure = ds.plot_examples(network, images, "conv1", lambda x, seed: x[:, ::-1], count=2)
    assert figure.axes[2].get_title() == "flow not known"
    number = int(figure.axes[0].get_title().split()[1])
    np.testing.assert_allclose(
        figure.axes[1].images[0].get_array(), images[number, ::-1] / 2 + 0.5, atol=1e-6
    )


def test_examples_on_axes_of_ones_own_and_fewer_images_than_asked_for(network):
    own, axes = plt.subplots(4, 3)
    images = natural_images(3)
    assert ds.plot_examples(network, images, "conv1", axes=axes, title="$x") is own
    own.canvas.draw()
    assert [bool(ax.images) for ax in axes[:, 0]] == [True] * 3 + [False]
    assert not axes[3, 0].axison


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "conv*"}, "layer must be a single layer, received 'conv.*', which are 2"),
        ({"layer": "nothing"}, "nothing"),
        ({"count": 0}, "count must be an int of at least 1"),
        ({"flow": "field"}, "flow must be one of arrows, grid, received 'field'"),
        ({"value_range": (1, 0)}, "value_range must be two numbers"),
        ({"value_range": "white"}, "value_range must be two numbers"),
        ({"axes": np.empty((2, 3), object)}, r"axes must have shape \(4, 3\)"),
    ],
)
def test_what_are_no_examples(network, images, options, message):
    with pytest.raises(ValueError, match=message):
        ds.plot_examples(network, images, **{"layer": "conv1"} | options)


def test_a_layer_that_cannot_be_measured_has_no_examples(network):
    network.get_layer("conv1").set_weights(
        [0 * w for w in network.get_layer("conv1").get_weights()]
    )
    with pytest.raises(ValueError, match="layer 'conv1' has no distances: "):
        ds.plot_examples(network, natural_images(4), "conv1")


# ---- what they share ----


def test_kinds_of_tables():
    tables = compared(2), moving(2), stable(2), measured(2)
    assert tuple(kind_of(table) for table in tables) == KINDS
    for columns in (
        COMPARISON_COLUMNS,
        EQUIVARIANCE_COLUMNS,
        STABILITY_COLUMNS,
        PART_COLUMNS,
        {**STRENGTH_COLUMNS, **SENSITIVITY_COLUMNS},
        {**TIME_COLUMNS, **SENSITIVITY_COLUMNS},
    ):
        assert kind_of(pd.DataFrame(columns=list(columns))) is not None
    assert kind_of(worst_of(["a"])) is None
    assert kind_of("table.csv") is None


def test_orders_are_merged_as_far_as_they_agree():
    assert merged([["a", "c", "e"], ["a", "b", "c", "d"], ["0", "e", "f"]]) == list("0abcdef")
    assert merged([]) == []
    assert merged([["b", "a"], ["a", "b"]]) == ["b", "a"]


def test_steps_that_are_spaced_logarithmically():
    assert log_steps([0, 1, 2, 4, 8, 64])
    assert not log_steps(range(1, 200))
    assert not log_steps([0, 5])
