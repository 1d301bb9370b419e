"""plot_sensitivity: what it draws is what the tables say; artists, never pixels."""

import itertools

import keras
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from helpers import natural_images
from keras import layers

import deformstab as ds
from deformstab.presentation.pictures import check_picture, save_picture
from deformstab.presentation.plots import plot_sensitivity
from deformstab.tables import (
    COMPARISON_COLUMNS,
    CONSISTENCY_COLUMNS,
    SENSITIVITY_COLUMNS,
    SMOOTHNESS_COLUMNS,
    STRENGTH_COLUMNS,
    TIME_COLUMNS,
    read_csv,
    table,
    write_csv,
)


def measured(count, broken=(), factor=1.0, intervals=True, name="layer{}"):
    """As of measure_sensitivity; `broken` layers could not be measured."""
    values = factor * np.random.default_rng(count).uniform(0.5, 1, count)
    values[list(broken)] = np.nan
    columns = {
        "layer": [name.format(i) for i in range(count)],
        "layer_index": range(count),
        "layer_type": "Dense",
        "metric": "euclidean",
        "distance": values,
        "baseline": 1.0,
        "sensitivity": values,
        "sensitivity_low": values - 0.1 if intervals else np.nan,
        "sensitivity_high": values + 0.3 if intervals else np.nan,
        "images": 9,
        "deformations": 1,
        "rms_displacement": 1.0,
        "folded_fraction": 0.0,
        "note": ["why" if i in broken else "" for i in range(count)],
    }
    return table(columns, SENSITIVITY_COLUMNS)


def strengths(count, values=(1.0, 2.0, 4.0), **options):
    parts = [measured(count, factor=v, **options).assign(max_displacement=v) for v in values]
    columns = [*STRENGTH_COLUMNS, *SENSITIVITY_COLUMNS]
    return pd.concat(parts, ignore_index=True)[columns]


def recorded(count, times=((0, 0), (1, 40), (2, 80)), **options):
    parts = [
        measured(count, factor=1 / (1 + number), **options).assign(epoch=epoch, step=step)
        for number, (epoch, step) in enumerate(times)
    ]
    columns = [*TIME_COLUMNS, *SENSITIVITY_COLUMNS]
    return pd.concat(parts, ignore_index=True)[columns]


def compared(count, models=("blur", "average"), broken=()):
    parts = []
    for number, model in enumerate(models):
        ratios = measured(count, broken, factor=1 + number)
        ratios = ratios.rename(columns=lambda name: name.replace("sensitivity", "ratio"))
        parts.append(ratios.assign(model=model, reference="max"))
    return table(pd.concat(parts, ignore_index=True), COMPARISON_COLUMNS)


KINDS = {
    "measured": measured,
    "strengths": strengths,
    "recorded": recorded,
    "compared": compared,
}


def lines(axis):
    """The data of each line that has markers: (x, y)."""
    return [line.get_data() for line in axis.lines if line.get_marker() == "o"]


def labels(axis):
    return [text.get_text() for text in axis.get_legend().get_texts()]


def names(axis):
    return [tick.get_text() for tick in axis.get_xticklabels()]


def draw(rows, title=""):
    """The figure's axes; that it can be written is part of every test."""
    figure = ds.plot_sensitivity(rows, title)
    assert isinstance(figure, matplotlib.figure.Figure)
    figure.canvas.draw()
    return figure.axes


def assert_line(found, rows, x, y):
    np.testing.assert_array_equal(found[0], rows[x])
    np.testing.assert_array_equal(np.ma.filled(found[1], np.nan), rows[y])


# ---- one measurement ----


@pytest.mark.parametrize("broken", [(), (0,), (1, 2, 5), range(6)])
def test_a_measurement_is_a_line_and_a_band(broken):
    rows = measured(6, broken)
    (axis,) = draw(rows[::-1], "of something")  # the order of rows does not matter
    (line,) = lines(axis)
    assert_line(line, rows, "layer_index", "sensitivity")
    assert names(axis) == rows["layer"].tolist()
    assert axis.get_title() == "of something"
    assert axis.get_ylabel() == "normalized sensitivity (euclidean)\nlower is more stable"
    assert axis.get_ylim()[0] == 0
    low, high = axis.get_xlim()
    assert low < 0 < 5 < high
    grey = [tick.get_color() != "black" for tick in axis.get_xticklabels()]
    assert grey == [i in broken for i in range(6)]
    corners = {tuple(v) for path in axis.collections[0].get_paths() for v in path.vertices}
    for row in rows.drop(index=list(broken)).itertuples():
        assert (row.layer_index, row.sensitivity_low) in corners
        assert (row.layer_index, row.sensitivity_high) in corners


def test_a_layer_between_gaps_has_an_interval_that_can_be_seen():
    rows = measured(7, broken=(0, 2, 5))  # alone: 1 and 6
    (axis,) = draw(rows)
    bars = axis.collections[1].get_segments()
    expected = rows.loc[[1, 6], ["sensitivity_low", "sensitivity_high"]].to_numpy()
    np.testing.assert_array_equal([bar[:, 1] for bar in bars], expected)
    assert [bar[0, 0] for bar in bars] == [1, 6]


def test_one_layer():
    (axis,) = draw(measured(1))
    assert names(axis) == ["layer0"]
    assert len(axis.collections[1].get_segments()) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [60, 61, 300])
def test_hundreds_of_layers_have_names_that_can_be_read(kind, count):
    axis = draw(KINDS[kind](count))[0]
    shown = names(axis)
    assert 30 <= len(shown) <= 60
    assert shown[0] == "layer0"
    for tick, name in zip(axis.get_xticks(), shown):
        assert name == f"layer{tick:.0f}"
    boxes = [tick.get_window_extent() for tick in axis.get_xticklabels()]
    assert all(left.x1 <= right.x0 for left, right in itertools.pairwise(boxes))
    assert len(lines(axis)[0][0]) == count


@pytest.mark.parametrize("kind", KINDS)
def test_long_names_leave_room_for_the_data(kind):
    rows = KINDS[kind](5)
    rows["layer"] = [f"backbone/{'stage/' * 12}block{i}" for i in rows["layer_index"]]
    axis = draw(rows)[0]
    assert axis.get_window_extent().height > 150
    assert names(axis) == [f"…{name[-47:]}" for name in rows["layer"][:5]]
    assert axis.yaxis.label.get_window_extent().height < axis.figure.bbox.height


def test_a_table_without_intervals(tmp_path):
    rows = measured(4, intervals=False)
    (axis,) = draw(rows)
    assert_line(lines(axis)[0], rows, "layer_index", "sensitivity")


# ---- several ----


def test_every_profile_has_a_name_unless_they_are_many():
    few, many = [1.0, 2, 3, 4, 5, 6, 7, 8, 9, 10], list(range(1, 31))
    assert labels(draw(strengths(3, few))[0]) == [f"{value:g}" for value in few]
    some = labels(draw(strengths(3, many))[0])
    assert (len(some), some[0], some[-1]) == (6, "1", "30")


@pytest.mark.parametrize("broken", [(), (1, 4)])
@pytest.mark.parametrize(
    ("rows", "over", "axis_label", "legend"),
    [
        (strengths, "max_displacement", "largest displacement, px", "strength, px"),
        (recorded, "step", "optimizer step", "epoch"),
    ],
)
def test_several_measurements_over_layers_and_over_what_varies(
    rows, over, axis_label, legend, broken
):
    rows = rows(9, broken=broken)
    profile, course, bar = draw(rows.sample(frac=1, random_state=0), "of something")
    assert profile.figure.get_suptitle() == "of something"
    values = sorted(rows[over].unique())
    assert len(lines(profile)) == len(values)
    for line, value in zip(lines(profile), values):
        assert_line(line, rows[rows[over] == value], "layer_index", "sensitivity")
    assert len(lines(course)) == 9
    for place, line in enumerate(lines(course)):
        assert_line(line, rows[rows["layer_index"] == place], over, "sensitivity")
    assert profile.get_legend().get_title().get_text() == legend
    assert labels(profile) == (["0", "1", "2"] if over == "step" else ["1", "2", "4"])
    assert course.get_xlabel() == axis_label
    assert names(profile) == [f"layer{i}" for i in range(9)]
    grey = [tick.get_color() != "black" for tick in profile.get_xticklabels()]
    assert grey == [i in broken for i in range(9)]
    assert [tick.get_text() for tick in bar.get_yticklabels()] == ["first", "last"]
    colours = [line.get_color() for line in course.lines]
    assert len({tuple(colour) for colour in colours}) == 9
    for axis in (profile, course):
        assert axis.get_ylim()[0] == 0


def test_colours_of_the_bar_are_those_of_the_lines():
    _, course, _ = draw(recorded(11))
    bar = course.figure.axes[2]._colorbar
    expected = [line.get_color() for line in course.lines]
    np.testing.assert_allclose(bar.mappable.to_rgba(np.linspace(0, 1, 11)), expected)


@pytest.mark.parametrize("rows", [strengths, recorded])
@pytest.mark.parametrize("count", [1, 2, 8])
def test_few_layers_are_named(rows, count):
    profile, course = draw(rows(count, name="a long name of a layer {}"))
    assert labels(course) == [f"a long name of a layer {i}" for i in range(count)]
    assert course.get_window_extent().width > 250
    legend = course.get_legend().get_window_extent()
    assert legend.x0 >= course.get_window_extent().x1  # it hides nothing
    assert legend.x1 <= course.figure.bbox.x1 + 1
    assert profile.get_legend().get_window_extent().x0 >= profile.get_window_extent().x1


@pytest.mark.parametrize("rows", [strengths(5, (2.0,)), recorded(5, [(0, 0)])])
def test_a_single_measurement_is_drawn_with_its_interval(rows):
    (axis,) = draw(rows)
    assert_line(lines(axis)[0], rows, "layer_index", "sensitivity")
    assert axis.collections


def test_some_of_many_measurements_are_named():
    rows = recorded(3, [(i, 10 * i) for i in range(101)])
    profile, course = draw(rows)
    assert len(lines(profile)) == 101
    assert labels(profile) == ["0", "20", "40", "60", "80", "100"]
    assert len(lines(course)) == 3


def test_steps_within_an_epoch_are_named_by_step():
    rows = recorded(3, [(0, 0), (0, 1), (0, 2), (0, 4), (1, 8), (1, 1234567)])
    profile, course = draw(rows)
    assert profile.get_legend().get_title().get_text() == "optimizer step"
    assert labels(profile) == ["0", "1", "2", "4", "8", "1234567"]
    assert course.get_xscale() == "symlog"  # zero has its place


@pytest.mark.parametrize(
    ("times", "scale"),
    [
        ([(0, 0), (1, 100), (2, 200)], "linear"),
        ([(i, i) for i in range(40)], "linear"),
        ([(0, 0), (0, 1), (0, 2), (0, 64)], "symlog"),
        ([(0, 0), (1, 40)], "linear"),
    ],
)
def test_steps_that_are_log_spaced_have_a_logarithmic_axis(times, scale):
    assert draw(recorded(2, times))[1].get_xscale() == scale


def test_two_measurements_at_one_place_stay_two_lines():
    """Reaches (y, x) with the same larger one; a step that did not count."""
    rows = pd.concat([strengths(4, (2.0,)), strengths(4, (2.0, 3.0))], ignore_index=True)
    rows["sensitivity"] = np.arange(12.0)
    profile, _ = draw(rows)
    found = [y.tolist() for _, y in lines(profile)]
    assert found == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert labels(profile) == ["2", "2", "3"]
    profile, _ = draw(recorded(4, [(0, 0), (1, 0), (2, 7)]))
    assert len(lines(profile)) == 3


# ---- models ----


@pytest.mark.parametrize("broken", [(), (0, 2)])
def test_ratios_of_models(broken):
    rows = compared(5, broken=broken)
    (axis,) = draw(rows, "of something")
    assert axis.get_yscale() == "log"
    assert axis.lines[0].get_ydata() == [1, 1]  # what the same sensitivity would be
    assert labels(axis) == ["blur", "average"]
    for line, model in zip(lines(axis), ("blur", "average")):
        assert_line(line, rows[rows["model"] == model], "layer_index", "ratio")
    corners = {
        tuple(v) for each in axis.collections[::2] for p in each.get_paths() for v in p.vertices
    }
    for row in rows[rows["ratio"].notna()].itertuples():
        if row.layer_index > 2:
            assert {(row.layer_index, row.ratio_low), (row.layer_index, row.ratio_high)} <= corners
    assert axis.get_ylabel().startswith("sensitivity / that of max\nbelow 1: more stable")
    assert axis.get_title() == "of something"
    assert axis.get_legend().get_window_extent().x0 >= axis.get_window_extent().x1
    grey = [tick.get_color() != "black" for tick in axis.get_xticklabels()]
    assert grey == [i in broken for i in range(5)]


@pytest.mark.parametrize("spread", [0.001, 0.03, 0.3, 1, 3, 10])
def test_ticks_of_ratios_can_be_read(spread):
    rows = compared(20, ["other"])
    ratios = np.exp(spread * np.random.default_rng(0).normal(size=20))
    rows = rows.assign(ratio=ratios, ratio_low=ratios / 1.01, ratio_high=ratios * 1.01)
    (axis,) = draw(rows)
    low, high = axis.get_ylim()
    ticks = [t for t in axis.yaxis.get_major_ticks() if low <= t.get_loc() <= high]
    assert 2 <= len(ticks) <= 14
    for tick in ticks:
        assert float(tick.label1.get_text().replace("−", "-")) == pytest.approx(
            tick.get_loc(), rel=1e-5
        )
    boxes = [tick.label1.get_window_extent() for tick in ticks]
    boxes.sort(key=lambda box: box.y0)
    assert all(below.y1 <= above.y0 for below, above in itertools.pairwise(boxes))
    assert not [t for t in axis.yaxis.get_minor_ticks() if t.label1.get_text()]


def test_ratios_that_have_no_logarithm_are_gaps():
    rows = compared(5, ["other"])
    rows["ratio"] = [1.0, 0.0, 2.0, np.inf, np.nan]
    (axis,) = draw(rows)
    (line,) = lines(axis)
    np.testing.assert_array_equal(line[1], [1, np.nan, 2, np.nan, np.nan])
    assert axis.get_ylim()[0] > 0.1
    assert axis.get_ylim()[1] < 10


def test_many_models_each_have_a_colour_and_a_name():
    models = [f"a model with a long name {i}" for i in range(6)]
    (axis,) = draw(compared(4, models))
    assert labels(axis) == models
    assert len({line.get_color() for line in axis.lines[1:]}) == 6
    assert axis.get_legend().get_window_extent().x1 <= axis.figure.bbox.x1 + 1
    assert axis.get_window_extent().width > 200


# ---- tables of all sources ----


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", ["whole", "broken", "nothing", "no intervals"])
def test_tables_from_csv_files(tmp_path, kind, case):
    rows = KINDS[kind](4, broken={"broken": (1,), "nothing": range(4)}.get(case, ()))
    if case == "no intervals":
        bounds = [name for name in rows if name.endswith(("_low", "_high"))]
        rows[bounds] = np.nan
    write_csv(rows, tmp_path / "table.csv")
    found, expected = draw(read_csv(tmp_path / "table.csv")), draw(rows)
    assert len(found) == len(expected)
    for axis, other in zip(found, expected):
        assert names(axis) == names(other)
        for mine, theirs in zip(lines(axis), lines(other)):
            np.testing.assert_array_equal(mine, theirs)


def test_names_that_are_numbers_survive_a_csv_file(tmp_path):
    rows = compared(3, ["1", "2"])
    rows["layer"] = rows["layer_index"].astype(str)
    write_csv(rows, tmp_path / "table.csv")
    (axis,) = draw(read_csv(tmp_path / "table.csv"))
    assert labels(axis) == ["1", "2"]
    assert names(axis) == ["0", "1", "2"]


def test_the_table_is_left_as_it_was():
    for make in KINDS.values():
        rows = make(3)
        before = rows.copy()
        draw(rows)
        assert rows.equals(before)


@pytest.mark.parametrize("kind", KINDS)
def test_some_layers_of_a_table(kind):
    rows = KINDS[kind](9)
    some = rows[rows["layer_index"].isin([2, 5, 6])]
    axis = draw(some)[0]
    assert names(axis) == ["layer2", "layer5", "layer6"]
    assert axis.get_xticks().tolist() == [2, 5, 6]


def test_tables_of_the_library_itself():
    images = natural_images(6, 8, 8)
    dense = layers.Dense(2, name="logits")
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.Flatten(name="flat"), dense])
    model.compile("sgd", "mse")
    rows = ds.measure_sensitivity(model, images)
    assert_line(lines(draw(rows)[0])[0], rows, "layer_index", "sensitivity")
    rows = ds.sensitivity_by_strength(model, images, [0.5, 1.0])
    assert len(lines(draw(rows)[0])) == 2
    rows = ds.compare_sensitivity({"a": model, "b": model}, images)
    assert labels(draw(rows)[0]) == ["b"]
    callback = ds.SensitivityCallback(images, layers=["input", "logits"])
    model.fit(images, np.zeros((6, 2)), epochs=2, verbose=0, callbacks=[callback])
    profile, course = draw(callback.table)
    assert (len(lines(profile)), len(lines(course))) == (3, 2)


@pytest.mark.parametrize(
    "columns", [SENSITIVITY_COLUMNS, {**TIME_COLUMNS, **SENSITIVITY_COLUMNS}, COMPARISON_COLUMNS]
)
def test_empty_tables(columns):
    with pytest.raises(ValueError, match=r"table must be one of .*with rows.* and 0 rows"):
        ds.plot_sensitivity(table((), columns))


@pytest.mark.parametrize(
    "columns",
    [
        SMOOTHNESS_COLUMNS,
        CONSISTENCY_COLUMNS,
        ["layer", "layer_index", "sensitivity"],
        ["max_displacement", "layer", "layer_index", "sensitivity"],
        ["step", *SENSITIVITY_COLUMNS],
        [name for name in COMPARISON_COLUMNS if name != "reference"],
        ["a"],
        [],
    ],
)
def test_tables_of_something_else(columns):
    rows = pd.DataFrame([dict.fromkeys(columns, 1)])
    with pytest.raises(ValueError, match="table must be one of measure_sensitivity"):
        ds.plot_sensitivity(rows)


@pytest.mark.parametrize("thing", [None, "table.csv", (measured(2), measured(2)), {"layer": [1]}])
def test_what_is_no_table(thing):
    with pytest.raises(ValueError, match="table must be one of measure_sensitivity"):
        ds.plot_sensitivity(thing)


# ---- whose figure it is ----


@pytest.mark.parametrize("rows", ["profile", "course"])
def test_pyplot_does_not_know_the_figure(rows):
    table = measured(3)
    if rows == "course":
        table = pd.concat([table.assign(epoch=n, step=n) for n in range(3)])
    figures = [plot_sensitivity(table) for _ in range(25)]
    assert plt.get_fignums() == []
    assert len({id(figure) for figure in figures}) == 25


def test_a_notebook_shows_it_as_a_picture():
    assert plot_sensitivity(measured(3))._repr_png_().startswith(b"\x89PNG")


def test_axes_of_ones_own_are_drawn_on():
    table = measured(3)
    own, (first, second) = plt.subplots(1, 2)
    assert plot_sensitivity(table, "a title", ax=second) is own
    assert not first.lines
    assert second.get_title() == "a title"
    alone = plot_sensitivity(table, "a title").axes[0]
    np.testing.assert_array_equal(second.lines[0].get_xydata(), alone.lines[0].get_xydata())


def test_of_several_measurements_axes_of_ones_own_take_the_lines_over_layers():
    table = pd.concat([measured(3).assign(epoch=n, step=n) for n in range(3)])
    _, ax = plt.subplots()
    plot_sensitivity(table, ax=ax)
    assert len(ax.figure.axes) == 1
    profiles = plot_sensitivity(table).axes[0]
    assert len(ax.lines) == len(profiles.lines) == 3


def test_names_are_text_and_no_mathematics():
    table = measured(3).assign(layer=["$a$", "b$", r"$\frac{"])
    figure = plot_sensitivity(table, "$x")
    figure.draw_without_rendering()  # parses what would be mathematics
    shown = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert [text.replace(r"\$", "$") for text in shown] == list(table["layer"])


# ---- pictures ----


@pytest.mark.parametrize(
    ("name", "start"), [("a.png", b"\x89PNG"), ("a.PDF", b"%PDF"), ("new/a.b.svg", b"<?xml")]
)
def test_pictures(tmp_path, name, start):
    save_picture(plot_sensitivity(measured(3)), tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(start)
    assert [path.name for path in (tmp_path / name).parent.iterdir()] == [name.split("/")[-1]]


@pytest.mark.parametrize("name", ["a", "a.jpg", "png", ".png", "a.png/b"])
def test_what_is_no_picture(tmp_path, name):
    with pytest.raises(ValueError, match=r"a picture is a \.png, \.pdf or \.svg file, not"):
        check_picture(name)
    with pytest.raises(ValueError, match="a picture is"):
        save_picture(plot_sensitivity(measured(3)), tmp_path / name)
    assert not list(tmp_path.iterdir())
