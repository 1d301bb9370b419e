"""Figures: what is drawn is what the tables say. Data in the artists; pixels of the files only."""

import dataclasses
import io
import pathlib
import statistics

import matplotlib.pyplot as plt
import numpy as np
import pytest
import scipy.ndimage
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb
from PIL import Image
from test_approximations import shifts_that_keep
from test_result_tables import KERNELS, LAYERS, made_results, small_preset

import deformstab as ds
from deformstab.paper.data import datasets
from deformstab.paper.figures import style
from deformstab.paper.figures.catalogue import FIGURES, PANELS, resolve
from deformstab.paper.verdicts import approximations
from deformstab.paper.verdicts.result_tables import Results

KINDS = ("subsample", "max", "average", "strided", "strided_relu")
SENSITIVITY_TICKS = ["in", "1.1", "↓1", "2.1", "2.2", "↓2", "3.1", "↓3", "4.1", "↓4"]
SMOOTHNESS_TICKS = ["1.1", "2.1", "2.2", "3.1", "4.1"]


@pytest.fixture(scope="module")
def results():
    return made_results(small_preset())


def panels(figure):
    """The axes that have a panel's title, by letter."""
    found = {axis.get_title(loc="left")[:3]: axis for axis in figure.axes}
    return {title[1]: axis for title, axis in found.items() if title[:1] == "("}


# ---- lines and bands ----


def drawn_lines(axis):
    """Colour → (x, y) of each line that has points and is not dotted."""
    found = {}
    for line in axis.lines:
        if len(line.get_xdata()) and line.get_linestyle() != ":":
            colour = to_rgb(line.get_color())
            assert colour not in found
            found[colour] = (np.asarray(line.get_xdata()), np.asarray(line.get_ydata()))
    return found


def drawn_bands(axis):
    """Colour → {x: (low, high)}."""
    found = {}
    for band in axis.collections:
        assert isinstance(band, PolyCollection)
        assert len(band.get_paths()) <= 1
        edges = {}
        for x, y in np.concatenate([np.empty((0, 2)), *(p.vertices for p in band.get_paths())]):
            edges.setdefault(round(float(x), 9), []).append(y)
        found[to_rgb(band.get_facecolor()[0][:3])] = {x: (min(y), max(y)) for x, y in edges.items()}
    return found


def check_lines(axis, rows, column, layers, ticks, hue, values, colours, labels):
    """One line for each value of `hue`: mean and mean ± 2 standard deviations over seeds."""
    lines, bands = drawn_lines(axis), drawn_bands(axis)
    assert len(lines) == len(bands) == len(values)
    for value in values:
        colour = to_rgb(colours[value])
        x, y = lines[colour]
        assert list(x) == list(range(len(layers)))
        for place, layer in enumerate(layers):
            seeds = [row[column] for row in rows if row[hue] == value and row["layer"] == layer]
            assert len(seeds) == 3
            mean, deviation = statistics.mean(seeds), statistics.stdev(seeds)
            assert y[place] == pytest.approx(mean)
            assert bands[colour][place] == pytest.approx(
                (mean - 2 * deviation, mean + 2 * deviation)
            )
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ticks
    assert list(axis.get_xticks()) == list(range(len(layers)))
    handles, texts = axis.get_legend_handles_labels()
    found = {text: to_rgb(handle.get_color()) for handle, text in zip(handles, texts)}
    for value in values:
        assert found[labels[value]] == to_rgb(colours[value])


def check_kinds(axis, rows, column, layers, ticks, kinds=KINDS):
    colours, labels = style.KIND_COLOURS, style.KIND_LABELS
    check_lines(axis, rows, column, layers, ticks, "downsampling", kinds, colours, labels)


def check_dotted(axis, rows, layers):
    """The mean at initialization over everything of a layer."""
    (dotted,) = [line for line in axis.lines if line.get_linestyle() == ":"]
    assert list(dotted.get_xdata()) == list(range(len(layers)))
    for place, layer in enumerate(layers):
        values = [row["smoothness"] for row in rows if row["layer"] == layer]
        assert values
        assert dotted.get_ydata()[place] == pytest.approx(statistics.mean(values))
    assert dotted.get_label() == "initialization"


def sensitivity(results, **condition):
    condition = {"metric": "cosine", "task": "true_labels"} | condition
    rows = results.tables["sensitivity"].to_dict("records")
    return [row for row in rows if all(row[k] == v for k, v in condition.items())]


def smoothness(results, **condition):
    condition = {"kernel_height": 3, "task": "true_labels"} | condition
    rows = results.tables["smoothness"].to_dict("records")
    return [row for row in rows if all(row[k] == v for k, v in condition.items())]


def legend_texts(figure):
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def test_kinds_look_different_and_have_names():
    for look in (style.KIND_LABELS, style.KIND_MARKERS, style.KIND_COLOURS):
        assert set(look) == set(ds.DOWNSAMPLING_KINDS)
        assert len({str(value) for value in look.values()}) == len(ds.DOWNSAMPLING_KINDS)


@pytest.mark.parametrize("name", ["2", "4"])
def test_a_kind_without_a_label_is_refused_rather_than_left_out(name, results):
    tables = {
        key: table.assign(downsampling=table["downsampling"].replace("max", "unheard_of"))
        for key, table in results.tables.items()
    }
    with pytest.raises(
        ValueError, match=r"no label for downsampling unheard_of; those with one are"
    ):
        FIGURES[name].plot(dataclasses.replace(results, tables=tables))


def test_figure_2_shows_the_means_and_bands_of_its_four_conditions(results):
    figure = FIGURES["2"].plot(results)
    axes = panels(figure)
    assert list(axes) == ["a", "b", "c", "d"]
    for letter, study, phase in (
        ("a", "large", "initial"),
        ("b", "large", "trained"),
        ("c", "main", "initial"),
        ("d", "main", "trained"),
    ):
        rows = sensitivity(results, study=study, phase=phase)
        kinds = ("max", "strided_relu") if study == "large" else KINDS
        check_kinds(axes[letter], rows, "sensitivity", LAYERS, SENSITIVITY_TICKS, kinds)
        assert axes[letter].get_ylim()[0] == 0
    assert legend_texts(figure) == [style.KIND_LABELS[kind] for kind in KINDS]
    # The panels that are compared have one scale.
    assert axes["a"].get_ylim() == axes["b"].get_ylim()
    assert axes["c"].get_ylim() == axes["d"].get_ylim()


def test_figure_4_shows_trained_filters_and_where_they_came_from(results):
    figure = FIGURES["4"].plot(results)
    axes = panels(figure)
    assert list(axes) == ["a", "b", "c"]
    limits = axes["a"].get_ylim()
    for letter, study, task in (
        ("a", "large", "true_labels"),
        ("b", "main", "true_labels"),
        ("c", "main", "random_labels"),
    ):
        rows = smoothness(results, study=study, task=task, phase="trained")
        kinds = ("max", "strided_relu") if study == "large" else KINDS
        check_kinds(axes[letter], rows, "smoothness", KERNELS, SMOOTHNESS_TICKS, kinds)
        initial = smoothness(results, study=study, task=task, phase="initial")
        check_dotted(axes[letter], initial, KERNELS)
        for _, y in drawn_lines(axes[letter]).values():  # every mean is inside the panel
            assert limits[0] < min(y)
            assert max(y) < limits[1]
    labels = [style.KIND_LABELS[kind] for kind in KINDS]
    assert legend_texts(figure) == [*labels, "initialization"]


def palette_of(axis, labels):
    handles, texts = axis.get_legend_handles_labels()
    colours = {text: handle.get_color() for handle, text in zip(handles, texts)}
    return {value: colours[label] for value, label in labels.items()}


def test_figure_5_shows_sigma_and_random_labels(results):
    figure = FIGURES["5"].plot(results)
    axes = panels(figure)
    assert list(axes) == ["a", "b"]
    labels = {0.0: "σ = 0", 0.5: "σ = 0.5", 2.0: "σ = 2"}
    colours = palette_of(axes["a"], labels)
    assert len({to_rgb(colour) for colour in colours.values()}) == 3
    rows = sensitivity(results, study="filters", phase="initial")
    values = (0.0, 0.5, 2.0)
    options = ("sensitivity", LAYERS, SENSITIVITY_TICKS, "sigma", values, colours, labels)
    check_lines(axes["a"], rows, *options)
    rows = sensitivity(results, study="main", phase="trained", task="random_labels")
    check_kinds(axes["b"], rows, "sensitivity", LAYERS, SENSITIVITY_TICKS)


def test_figure_3_shows_the_filters_of_each_task_and_its_images(results):
    figure = FIGURES["3"].plot(results)
    axes = panels(figure)
    assert list(axes) == ["a", "b"]
    labels = {0.5: "C = 0.5", 1.0: "C = 1"}
    colours = palette_of(axes["b"], labels)
    options = ("class_displacement", (0.5, 1.0), colours, labels)
    rows = smoothness(results, study="tasks", task="deformed_classes", phase="trained")
    check_lines(axes["b"], rows, "smoothness", KERNELS, SMOOTHNESS_TICKS, *options)
    initial = smoothness(results, study="tasks", task="deformed_classes", phase="initial")
    check_dotted(axes["b"], initial, KERNELS)

    (shown,) = axes["a"].images
    grid = np.asarray(shown.get_array())
    assert grid.shape == (2 * 16, 2 * 4 * 16)  # a row a strength; two classes, original and three
    cells = grid.reshape(2, 16, 8, 16).transpose(0, 2, 1, 3)
    np.testing.assert_array_equal(cells[0, [0, 4]], cells[1, [0, 4]])  # the originals
    data = datasets.load("digits", image_size=16, train_images=40)
    known = {((image[..., 0] + 1) / 2).tobytes() for image in data.x_train}
    assert cells[0, 0].astype("float32").tobytes() in known
    assert cells[0, 4].astype("float32").tobytes() in known
    far = lambda row, column: np.abs(cells[row, column] - cells[row, column // 4 * 4]).mean()
    for column in (1, 2, 3, 5, 6, 7):  # deformed, and more so at twice the strength
        assert far(0, column) > 0
    columns = (1, 2, 3, 5, 6, 7)
    assert sum(far(1, column) for column in columns) > sum(far(0, column) for column in columns)


@pytest.mark.parametrize("shape", [(16, 16), (20, 16)])
def test_figure_3_takes_any_data_with_two_classes(tmp_path, shape):
    rng = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 24), ("test", 8)):
        arrays[f"x_{part}"] = rng.integers(0, 256, (count, *shape, 3)).astype("uint8")
        arrays[f"y_{part}"] = np.arange(count) % 2
    np.savez(tmp_path / "two.npz", **arrays)
    preset = small_preset(tasks_dataset="npz", tasks_data_dir=str(tmp_path / "two.npz"))
    figure = FIGURES["3"].plot(Results(preset, {}))
    (shown,) = panels(figure)["a"].images
    assert np.asarray(shown.get_array()).shape == (2 * shape[0], 8 * shape[1], 3)


def test_figure_3_without_strengths_is_drawn_or_refused_beforehand():
    try:
        preset = small_preset(class_displacements=())
    except ValueError as error:
        assert "class_displacements" in str(error)  # noqa: PT017
        return
    FIGURES["3"].plot(Results(preset, {}))


# ---- one seed, missing values, missing runs, too many rows ----


def test_one_seed_is_a_line_without_a_band():
    results = made_results(small_preset(seeds=1), studies=("main",))
    axis = panels(FIGURES["2"].plot(results))["c"]
    lines = drawn_lines(axis)
    assert len(lines) == 5
    for row in sensitivity(results, study="main", phase="initial"):
        _, y = lines[to_rgb(style.KIND_COLOURS[row["downsampling"]])]
        assert y[row["layer_index"]] == pytest.approx(row["sensitivity"])
    for band in drawn_bands(axis).values():
        for low, high in band.values():
            assert not high - low > 1e-12


def test_a_layer_that_was_not_measured_has_no_point_in_that_line_only():
    results = made_results(small_preset(), studies=("main",))
    table = results.tables["sensitivity"]
    dead = (table["downsampling"] == "strided") & (table["layer"] == "block3_conv1_relu")
    table.loc[dead, "sensitivity"] = np.nan
    axis = panels(FIGURES["2"].plot(results))["c"]
    lines = drawn_lines(axis)
    for kind in KINDS:
        x, y = lines[to_rgb(style.KIND_COLOURS[kind])]
        shown = {place for place, value in zip(x, y) if np.isfinite(value)}
        assert shown == set(range(10)) - ({6} if kind == "strided" else set())


@pytest.mark.parametrize(
    ("number", "studies", "letters"),
    [
        ("2", ("main",), "ab"),
        ("2", ("large",), "cd"),
        ("2", (), "abcd"),
        ("3", (), "b"),
        ("4", ("main",), "a"),
        ("4", (), "abc"),
        ("5", ("main",), "a"),
        ("5", ("filters",), "b"),
    ],
)
def test_missing_runs_are_said_to_be_missing(number, studies, letters):
    results = made_results(small_preset(), studies=studies)
    figure = FIGURES[number].plot(results)
    FIGURES[number].caption(results)
    for letter, axis in panels(figure).items():
        texts = [text.get_text() for text in axis.texts]
        assert ("not run" in texts) == (letter in letters)
        if (number, letter) != ("3", "a"):  # which shows images
            assert bool(drawn_lines(axis)) == (letter not in letters)
    # Saved without a complaint of matplotlib's about what is not there.
    figure.draw_without_rendering()


@pytest.mark.parametrize("number", ["2", "3", "4", "5"])
def test_two_conditions_in_one_line_are_refused(number):
    results = made_results(small_preset())
    for name in ("sensitivity", "smoothness"):
        table = results.tables[name]
        again = table[table["seed"] == 1].copy()
        again[["sensitivity" if name == "sensitivity" else "smoothness"]] += 0.1
        results.tables[name] = type(table)(
            np.concatenate([table.to_numpy(), again.to_numpy()]), columns=table.columns
        ).astype(table.dtypes)
    with pytest.raises(ValueError, match="several rows"):
        FIGURES[number].plot(results)


# ---- figures without runs ----


def test_figure_1_shows_photographs_and_their_deformed_copies():
    figure = FIGURES["1"].plot(Results(small_preset(), {}))
    pictures = [np.asarray(axis.images[0].get_array()) for axis in figure.axes if axis.images]
    assert len(pictures) == 2 + 4 + 4
    assert all(picture.shape == (224, 224, 3) for picture in pictures)
    assert all(picture.min() >= 0 and picture.max() <= 1 for picture in pictures)
    originals, copies = pictures[2:6], pictures[6:]
    for original, copy in zip(originals, copies):
        assert np.abs(original - copy).mean() > 0.005
        assert np.corrcoef(original.ravel(), copy.ravel())[0, 1] > 0.5
    # The arrows end at an even 4×4 grid and start where the image is read.
    arrows = next(axis for axis in figure.axes if axis.collections).collections[0]
    tails = np.stack([arrows.X, arrows.Y], axis=1)
    heads = tails + np.stack([arrows.U, arrows.V], axis=1)
    even = np.linspace(0, 223, 4)
    np.testing.assert_allclose(heads, [(x, y) for y in even for x in even], atol=1e-3)
    assert 1 < np.abs(tails - heads).max() <= 18


@pytest.mark.parametrize(
    ("number", "target"), [("A1", "pose"), ("A2", "translation"), ("A3", "rotation")]
)
def test_figures_a_show_the_target_its_spline_and_their_difference(number, target):
    figure = FIGURES[number].plot(Results(small_preset(), {}))
    original, warped, deformation, error = (
        np.asarray(axis.images[0].get_array()) for axis in figure.axes[:4]
    )
    _, displacements, exact, spline = approximations.approximation(target)
    np.testing.assert_allclose(error, np.linalg.norm(spline - exact, axis=-1))
    own = ds.RandomDeformation(5, 10.0).deform(2 * original[None] - 1, displacements[None])
    np.testing.assert_allclose(deformation, (np.asarray(own)[0] + 1) / 2, atol=2e-3)
    assert np.abs(warped - original).mean() > 0.01
    assert np.abs(warped - deformation).mean() < 0.02
    assert figure.axes[1].get_title() == target
    if target == "translation":  # to the right and down: the image moves to the left and up
        np.testing.assert_allclose(warped[:-10, :-10], original[10:, 10:], atol=1e-4)
    row = approximations.approximations().set_index("target").loc[target]
    caption = FIGURES[number].caption(Results(small_preset(), {}))
    assert caption.startswith(f"Figure {number}.")
    assert f"{row['rms_flow']:.2f} px" in caption


def test_the_pooling_figure_shows_the_counts():
    results = Results(small_preset(), {})
    figure = FIGURES["pooling"].plot(results)
    for window, axis in zip((2, 3), figure.axes):
        shown = {text.get_position(): text.get_text() for text in axis.texts}
        assert shown == {
            (column, row): f"{shifts_that_keep(window, row, column)} / 8"
            for row in range(window)
            for column in range(window)
        }
        grid = np.asarray(axis.images[0].get_array())
        assert grid[0, 0] == 3
    assert "37.5%" in figure.axes[0].get_title()
    assert "55.6%" in figure.axes[1].get_title()
    caption = FIGURES["pooling"].caption(results)
    assert "3.00 for 2×2" in caption
    assert "4.44 for 3×3" in caption


# ---- names ----


def test_all_figures_of_the_paper_are_there():
    paper = ["1", "2", "3", "4", "5", "A1", "A2", "A3", "pooling"]
    others = ["pretrained_2b", "pretrained_4a", "note"]
    others += [f"question_{number}" for number in range(1, 7)]
    assert list(FIGURES) == [*paper, "trajectory", "over_training", *others]
    everything = resolve(())
    assert list(everything) == list(FIGURES)
    assert everything["2"] == {"main", "large"}
    assert everything["A1"] == everything["1"] == everything["pooling"] == set()


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["2"], {"2": {"main", "large"}}),
        (["2c"], {"2": {"main"}}),
        (["2a"], {"2": {"large"}}),
        (["2a", "2d"], {"2": {"main", "large"}}),
        (["3a"], {"3": set()}),
        (["3b"], {"3": {"tasks"}}),
        (["5a", "5b"], {"5": {"filters", "main"}}),
        (["5a", "4c", "A2"], {"5": {"filters"}, "4": {"main"}, "A2": set()}),
        (["pooling"], {"pooling": set()}),
    ],
)
def test_a_figure_or_panel_knows_whose_runs_it_needs(names, expected):
    assert resolve(names) == expected


def test_every_panel_is_one_that_its_figure_draws(results):
    letters = {number: set() for number in ("2", "3", "4", "5")}
    for name in PANELS:
        letters[name[0]].add(name[1])
    for number, known in letters.items():
        assert set(panels(FIGURES[number].plot(results))) == known
        needs = set().union(*(PANELS[number + letter] for letter in known))
        assert needs == set(FIGURES[number].studies)


@pytest.mark.parametrize("name", ["6", "2e", "A4", "a1", "figure_2", ""])
def test_an_unknown_figure_lists_the_known_ones(name):
    with pytest.raises(ValueError, match=f"'{name}'") as caught:
        resolve(["2", name])
    for known in ("1", "2c", "A3", "pooling", "5b"):
        assert known in str(caught.value)


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("input", "in"),
        ("block1_conv1_relu", "1.1"),
        ("block2_conv3", "2.3"),
        ("block4_downsample", "↓4"),
        ("block12_conv10_relu", "12.10"),
    ],
)
def test_a_layers_label_is_short_and_its_own(name, label):
    assert style.layer_label(name) == label


# ---- captions ----


@pytest.mark.parametrize("number", ["2", "3", "4", "5"])
def test_a_caption_names_the_data_and_how_much_of_it(number):
    preset = small_preset(seeds=2, train_images=44, large_train_images=66, measured_images=9)
    results = made_results(preset)
    caption = FIGURES[number].caption(results)
    assert caption.startswith(f"Figure {number}.")
    assert "2 seeds" in caption
    parts = {
        "2": ["photos at 16 px, 44 training", "photos at 32 px, 66 training", " 9 test images"],
        "3": ["digits at 16 px, 44 training", "in place of MNIST"],
        "4": ["photos at 16 px, 44 training", "photos at 32 px, 66 training", "2×2", "chance 10%"],
        "5": ["hotos at 16 px, 44 training", " 9 test images"],
    }
    for part in parts[number]:
        assert part in caption
    assert "±2 standard deviations over seeds" in caption


@pytest.mark.parametrize("number", ["1", "2", "3", "5", "trajectory", "over_training"])
def test_a_caption_of_deformations_says_how_much_of_them_is_a_shift(number):
    sizes = {"image_size": 32, "large_image_size": 224}
    preset = small_preset(control_points=3, large_control_points=5, **sizes)
    caption = FIGURES[number].caption(Results(preset, {}))
    # The closed form's values: docs of the deformations, and tests/deformations/test_parts.py.
    shares = {"1": "9% (5×5 points at 224 px)", "2": "9% (5×5 points at 224 px) and 31%"}
    assert shares.get(number, "31% (3×3 points at 32 px) is translation") in caption


def test_the_caption_of_random_labels_tells_how_well_they_were_learned():
    results = made_results(small_preset(), studies=("main",))
    table = results.tables["training"]
    table["accuracy_train"] = 0.99
    random = table.index[table["task"] == "random_labels"]
    table.loc[random, "accuracy_train"] = 0.5
    table.loc[random[3], "accuracy_train"] = 0.42
    table.loc[random[7], "accuracy_train"] = 0.61
    assert "42% to 61% (chance 10%)" in FIGURES["4"].caption(results)


def test_a_caption_counts_what_there_was_not_what_was_asked_for():
    """A data set may have fewer images than the preset asks for."""
    preset = small_preset(train_images=4321, large_train_images=8765, measured_images=987)
    results = made_results(preset)
    for name, column, count in (
        ("training", "train_images", 41),
        ("sensitivity", "images", 13),
    ):
        results.tables[name][column] = count
    for number in ("2", "3", "4", "5"):
        caption = FIGURES[number].caption(results)
        assert "41 training images" in caption
        for asked in ("4321", "8765", "987"):
            assert asked not in caption
    for number in ("2", "5"):
        assert "13 test images" in FIGURES[number].caption(results)


@pytest.mark.parametrize(
    ("dataset", "path", "name"),
    [
        ("npz", "MyBirds.npz", "MyBirds"),
        ("folder", "MyBirds", "MyBirds"),
        ("folder", "birds.v2", "birds.v2"),
        ("folder", ".", "here"),
    ],
)
def test_a_caption_names_data_of_ones_own(tmp_path, monkeypatch, dataset, path, name):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    if dataset == "npz":
        pathlib.Path(path).touch()
    else:
        pathlib.Path(path).mkdir(exist_ok=True)
    preset = small_preset(dataset=dataset, data_dir=path)
    for number in ("2", "4", "5"):
        assert f"{name} at 16 px" in FIGURES[number].caption(Results(preset, {}))


def test_what_a_caption_says_of_the_choices_is_true():
    results = Results(small_preset(tasks_dataset="photos", tasks_downsampling="average"), {})
    caption = FIGURES["3"].caption(results)
    assert "Average pooling" in caption
    assert "8×8" not in caption
    results = Results(small_preset(filters_downsampling="strided", max_displacement=1.25), {})
    assert "strided convolution" in FIGURES["5"].caption(results)
    assert "up to 1.25 px" in FIGURES["5"].caption(results)
    caption = FIGURES["2"].caption(Results(small_preset(large_image_size=112), {}))
    assert "5.00 px" in caption  # of 112 pixels, as 10 of 224


# ---- files ----


def save(results, folder, caption="A caption.", number="2"):
    style.save(FIGURES[number].plot(results), caption, folder / "figure")
    return [(folder / f"figure.{suffix}").read_bytes() for suffix in ("png", "pdf")]


def test_a_figure_is_saved_as_png_and_pdf_with_the_same_bytes_each_time(results, tmp_path):
    first = save(results, tmp_path / "a")
    assert not plt.get_fignums()
    assert sorted(file.name for file in (tmp_path / "a").iterdir()) == ["figure.pdf", "figure.png"]
    assert first[0].startswith(b"\x89PNG")
    assert first[1].startswith(b"%PDF")
    assert b"CreationDate" not in first[1]
    assert save(results, tmp_path / "b") == first
    plt.rcParams["font.size"] = 20  # nor does it matter what a user has set
    try:
        assert save(results, tmp_path / "c") == first
    finally:
        plt.rcdefaults()
        plt.switch_backend("agg")


def test_a_png_has_few_colours_and_shows_what_matplotlib_drew():
    """Flat colours exactly, smooth ones closely once an eye, or a blur, averages neighbours."""
    figure, (lines, photo) = plt.subplots(1, 2, figsize=(4, 2), dpi=style._DPI)
    for number, colour in enumerate(style.KIND_COLOURS.values()):
        lines.axhspan(number, number + 1, color=colour)
    ramp = np.stack(np.meshgrid(np.linspace(0, 1, 80), np.linspace(0, 1, 80)), axis=-1)
    photo.imshow(np.dstack([ramp, 1 - ramp[..., :1]]))
    raw = io.BytesIO()
    figure.savefig(raw, dpi=style._DPI)
    plt.close(figure)
    drawn = np.asarray(Image.open(raw).convert("RGB"), float)
    with Image.open(style.with_palette(raw)) as image:
        assert image.mode == "P"
        saved = np.asarray(image.convert("RGB"), float)
    for colour in [*style.KIND_COLOURS.values(), "white"]:
        exact = 255 * np.array(to_rgb(colour))
        of_it = (np.abs(drawn - exact) < 1).all(axis=-1)
        assert of_it.sum() > 500
        np.testing.assert_array_equal(saved[of_it], drawn[of_it])
    blurred = [scipy.ndimage.uniform_filter(each, (9, 9, 1)) for each in (drawn, saved)]
    error = np.abs(blurred[0] - blurred[1]).max(axis=-1)[:, drawn.shape[1] // 2 :]
    assert np.quantile(error, 0.9) < 5  # a whole plane of colours is more than photographs have
    assert 32 < len({tuple(pixel) for pixel in saved.reshape(-1, 3)}) <= 256


def test_a_png_of_few_colours_keeps_them_all():
    pixels = np.random.default_rng(0).integers(0, 5, (20, 30, 1)) * np.array([50, 20, 3])
    raw = io.BytesIO()
    Image.fromarray(pixels.astype("uint8")).save(raw, "png")
    with Image.open(style.with_palette(raw)) as image:
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), pixels)


def test_a_caption_stands_below_the_figure_and_moves_nothing(results, tmp_path):
    pictures, places = [], []
    for words in (3, 300):
        figure = FIGURES["2"].plot(results)
        style.save(figure, " ".join(["caption"] * words), tmp_path / str(words))
        pictures.append(np.asarray(Image.open(tmp_path / f"{words}.png").convert("L"), float))
        places.append([axis.get_position().bounds for axis in figure.axes])
    short, long = pictures
    np.testing.assert_allclose(*places, atol=1e-12)
    assert short.shape[1] == long.shape[1]
    assert long.shape[0] > short.shape[0] + 100
    same = np.abs(short - long[: len(short)])[: int(0.8 * len(short))]
    assert (same > 20).mean() < 0.002  # palettes differ a little
    height = int(figure.get_figheight() * short.shape[1] / figure.get_figwidth())
    assert (long[height:] < 128).any(axis=1).sum() > 100  # lines of text down to the end
    assert (long[-4:] > 250).all()  # and none cut off
    assert (long[height:, -4:] > 250).all()


def test_captions_say_what_is_not_the_paper_s_and_only_that(tmp_path):
    ours = Results(small_preset(), {})
    choices = {"dataset": "cifar10", "large_dataset": "imagenet", "tasks_dataset": "mnist"}
    choices["large_data_dir"] = str(tmp_path)
    same = Results(small_preset(**choices, blocks=ds.CIFAR10_BLOCKS, image_size=32), {})
    words = {
        "2": ["In place of ImageNet: photos", "In place of CIFAR-10: photos"],
        "3": ["8×8 digits, resized, in place of MNIST"],
        "4": ["In place of ImageNet: photos", "In place of CIFAR-10: photos"],
        "5": ["Differs from the paper: data and width"],
    }
    for number, expected in words.items():
        caption, papers = (FIGURES[number].caption(results) for results in (ours, same))
        assert all(each in caption for each in expected)
        assert "n place of" not in papers
        assert "width" not in papers
        assert "(not intervals" in caption
    cifar = Results(small_preset(tasks_dataset="cifar10"), {})
    assert "images of cifar10 in place of MNIST" in FIGURES["3"].caption(cifar)


def test_images_that_are_not_at_hand_cost_their_panel_only(monkeypatch):
    """A download may fail, after hours of runs that did not need it."""

    def load(*_, **__):
        raise OSError("dataset mnist could not be downloaded")

    monkeypatch.setattr(datasets, "load", load)
    results = made_results(small_preset(tasks_dataset="mnist"), studies=("tasks",))
    with pytest.warns(UserWarning, match="3a is not drawn: dataset mnist"):
        figure = FIGURES["3"].plot(results)
    shown = panels(figure)
    assert [text.get_text() for text in shown["a"].texts] == ["not run"]
    assert drawn_lines(shown["b"])
    plt.close(figure)
