"""What the shell is asked for is what the library measures; what makes no sense is refused before."""

import keras
import numpy as np
import pandas as pd
import pytest
from helpers import natural_images
from PIL import Image
from scipy import stats

import deformstab as ds
from deformstab.presentation import measure_command, model_sources
from deformstab.presentation.measure_command import run
from deformstab.presentation.model_sources import ModelSource
from deformstab.presentation.shell_request import Request
from deformstab.tables import read_csv

CLASSES = ("ant", "bee", "cat", "dog")
LAYERS = ["input", "block?_downsample"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two models and a folder of four classes, three images each."""
    folder = tmp_path_factory.mktemp("files")
    model = ds.vgg((16, 16, 3), 4, ((1, 4), (1, 6)), seed=0)
    model.save(folder / "a.keras")
    ds.swap_downsampling(model, "average").save(folder / "b.keras")
    ds.vgg((24, 24, 3), 4, ((1, 4),), seed=0).save(folder / "large.keras")
    pixels = np.round(127.5 + 127.5 * natural_images(12)).astype("uint8")
    for number, image in enumerate(pixels):
        path = folder / "images" / CLASSES[number // 3] / f"{number % 3}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return folder, pixels / np.float32(127.5) - 1


def asked(place, said=None, **options):
    """The tables of a request."""
    folder, _ = place
    options = {"layers": LAYERS, **options}
    request = Request(ModelSource(folder / "a.keras"), str(folder / "images"), **options)
    return run(request, [].append if said is None else said.append)


def loaded(place, name="a.keras"):
    return keras.saving.load_model(place[0] / name)


def assert_same(found, expected):
    pd.testing.assert_frame_equal(found, expected, rtol=1e-4, atol=1e-6)


def test_strengths_are_measured_and_shown_beside_each_other(place, tmp_path):
    said = []
    found = asked(
        place, said, strengths=["0.5", "1"], control_points=4, output=str(tmp_path / "t.csv")
    )
    expected = ds.sensitivity_by_strength(
        loaded(place), place[1], [0.5, 1.0], ds.RandomDeformation(4), layers=LAYERS
    )
    assert_same(found["sensitivity"], expected)
    assert_same(read_csv(tmp_path / "t.csv", {"note": "str"}), expected)
    head, *rows = said[-1].splitlines()
    assert head.split() == ["layer", "0.5", "px", "1", "px", "note"]
    assert float(rows[0].split()[2]) == pytest.approx(expected["sensitivity"][3], rel=1e-3)


@pytest.mark.parametrize(
    ("family", "layer"),
    [
        ("diffeomorphism", ds.RandomDiffeomorphism),
        ("translation", ds.RandomTranslation),
        ("rotation", ds.RandomRotation),
        ("scaling", ds.RandomScaling),
    ],
)
def test_families_are_measured_at_the_strength_of_the_papers_spline(place, family, layer):
    found = asked(place, family=family, layers=["input"])["sensitivity"]
    rms = ds.paper_deformation(place[1].shape).expected_rms(16, 16)
    deformation = layer(rms_displacement=rms)
    assert_same(found, ds.measure_sensitivity(loaded(place), place[1], deformation, layers="input"))


def test_a_family_has_strengths(place, tmp_path):
    options = {"family": "rotation", "strengths": ["0", "1.5"], "layers": ["input"]}
    found = asked(place, figure=str(tmp_path / "a.png"), labels=True, **options)
    table = found["sensitivity"]
    assert table["strength"].tolist() == [0, 1.5]
    assert table["sensitivity"][0] == 0
    expected = ds.measure_sensitivity(
        loaded(place), place[1], ds.RandomRotation(1.5), layers="input"
    )
    assert_same(table[1:].drop(columns="strength").reset_index(drop=True), expected)
    assert found["consistency"]["consistency"][0] == 1  # of images that are not deformed
    assert found["consistency"]["strength"].tolist() == [0, 1.5]
    assert (tmp_path / "a.png").exists()


def test_several_measures_go_to_a_file_each(place, tmp_path):
    measures = ("sensitivity", "stability", "equivariance", "smoothness")
    said = []
    output = {"output": str(tmp_path / "t.csv"), "figure": str(tmp_path / "t.pdf")}
    found = asked(place, said, measures=measures, deformations=2, seed=3, **output)
    model, images = loaded(place), place[1]
    options = {"layers": LAYERS, "deformations": 2, "seed": 3}
    expected = {
        "sensitivity": ds.measure_sensitivity(model, images, **options),
        "stability": ds.measure_stability(model, images, **options),
        "equivariance": ds.measure_equivariance(model, images, **options),
    }
    for name, table in expected.items():
        assert_same(found[name], table)
    assert found["smoothness"].empty  # poolings have no filters
    assert "none of these layers is a convolution" in said
    assert {file.name for file in tmp_path.iterdir()} == {
        *("t.csv", "t_stability.csv", "t_equivariance.csv", "t_smoothness.csv", "t.pdf")
    }
    written = read_csv(tmp_path / "t_stability.csv", {"note": "str"})
    assert_same(written, expected["stability"])
    every = asked(place, measures=("smoothness",), layers=None)["smoothness"]
    assert_same(every, ds.filter_smoothness(model))
    one = asked(place, measures=("smoothness",), layers=["block2*"])["smoothness"]
    assert one["layer"].tolist() == ["block2_conv1"]


def test_two_models_are_compared(place, tmp_path):
    other = ModelSource(place[0] / "b.keras")
    files = {"output": str(tmp_path / "t.csv"), "figure": str(tmp_path / "t.png")}
    measures = ("sensitivity", "stability")
    said = []
    found = asked(place, said, other=other, measures=measures, labels=True, **files)
    models = {"a.keras": loaded(place), "b.keras": loaded(place, "b.keras")}
    for name in measures:
        expected = ds.compare_sensitivity(models, place[1], layers=LAYERS, measure=name)
        assert_same(found[name], expected)
    assert found["consistency"]["model"].tolist() == list(models)
    assert (tmp_path / "t_stability.csv").exists()
    assert (tmp_path / "t.png").exists()
    assert any("reference_relative_stability" in each for each in said)
    assert "comparing b.keras with a.keras, the reference" in said


def test_folders_are_classes_and_the_answers_have_intervals(place, tmp_path):
    said = []
    found = asked(place, said, labels=True, deformations=2, output=str(tmp_path / "t.csv"))
    row = found["consistency"].iloc[0]
    labels = np.repeat(np.arange(4), 3)
    expected = ds.prediction_consistency(loaded(place), place[1], labels, deformations=2)
    assert_same(found["consistency"][expected.columns], expected)
    right = round(12 * row["accuracy"])
    by_hand = (loaded(place).predict(place[1], verbose=0).argmax(axis=1) == labels).sum()
    assert right == by_hand
    wilson = stats.binomtest(right, 12).proportion_ci(method="wilson")
    np.testing.assert_allclose(row[["accuracy_low", "accuracy_high"]].tolist(), wilson, atol=1e-6)
    assert "ant = 0, bee = 1, cat = 2, dog = 3" in said[2]
    assert f"accuracy {row['accuracy']:.3f} ({wilson[0]:.3f} to {wilson[1]:.3f})" in said[-1]
    assert (tmp_path / "t_consistency.csv").exists()
    (tmp_path / "names.txt").write_text("dog\nant\nbee\ncat\n")
    other = asked(place, labels=True, classes=str(tmp_path / "names.txt"))["consistency"]
    moved = ds.prediction_consistency(loaded(place), place[1], (labels + 1) % 4)
    assert other["accuracy"][0] == moved["accuracy"][0]


def test_images_in_another_order_of_channels_are_shown_as_they_were(place, tmp_path, monkeypatch):
    pytest.importorskip("vl_convert")
    seen = []

    def look(*arguments, value_range, **options):
        seen.append(value_range(arguments[1]))
        raise OSError("enough")

    monkeypatch.setattr("deformstab.presentation.report_images.report_examples", look)
    source = ModelSource(place[0] / "a.keras", preprocessing="caffe")
    request = Request(source, str(place[0] / "images"), report=str(tmp_path / "r.html"))
    with pytest.raises(OSError, match="enough"):
        run(request, [].append)
    np.testing.assert_allclose(seen[0], (place[1] + 1) / 2, atol=1e-5)
    source = ModelSource(place[0] / "a.keras", preprocessing="0,255")
    examples = ds.report_examples(
        loaded(place), 255 * seen[0], "input", count=1, value_range=lambda image: image / 255
    )
    assert examples.pictures.keys()


# ---- what makes no sense ----


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"measures": ("speed",)}, r"--measures is some of sensitivity, .*received 'speed'"),
        ({"measures": ()}, "--measures is some of"),
        ({"strengths": ["a"]}, r"--strengths is some numbers of pixels.*received 'a'"),
        ({"strengths": []}, "--strengths is some numbers"),
        ({"strengths": ["1", "1.0"]}, "each at least 0 and once"),
        ({"strengths": ["-1"]}, "each at least 0 and once"),
        ({"strengths": ["nan"]}, "--strengths is some numbers"),
        ({"strengths": ["1"], "max_displacement": 2.0}, "pass one of the two"),
        ({"strengths": ["1"], "measures": ("stability",)}, "--strengths=1 with --measures"),
        ({"strengths": ["1"], "other": "b.keras"}, "--strengths=1 with --compare"),
        ({"family": "rotation", "control_points": 4}, r"--control_points=4 is of --family=spline"),
        ({"family": "scaling", "max_displacement": 1.0}, r"said by --strengths.*=1\.25"),
        ({"family": "shear"}, "--family is one of spline, diffeomorphism"),
        ({"classes": "names.txt"}, "pass --labels=folders as well"),
        ({"compare_by": "depth"}, "pass --compare"),
        ({"measures": ("smoothness",), "figure": "a.png"}, "add one, or leave the figure out"),
        ({"measures": ("stability",), "figure": "a.png", "other": "b.keras"}, "of two models"),
        ({"other": "nowhere.keras"}, "does not exist"),
        ({"output": "a.keras"}, "named twice"),
        ({"other": "b.keras", "output": "b.keras"}, "named twice"),
        ({"measures": ("stability",), "output": "t.png", "figure": "t_stability.png"}, "twice"),
    ],
)
def test_flags_that_do_not_go_together_are_refused_before_anything_is_read(
    place, options, words, monkeypatch
):
    monkeypatch.setattr(model_sources, "load_model", lambda *_: pytest.fail("the work began"))
    monkeypatch.chdir(place[0])
    if "other" in options:
        options = {**options, "other": ModelSource(options["other"])}
    if "output" in options and options["output"].endswith(".keras"):
        options["output"] = str(place[0] / options["output"])
    with pytest.raises((ValueError, OSError), match=words):
        asked(place, **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"strengths": ["1", "99"]}, "at most 16 pixels.*received 99"),
        ({"other": ModelSource("large.keras")}, r"large\.keras takes images \(24, 24, 3\)"),
        ({"other": ModelSource("b.keras", preprocessing="caffe")}, "compared by the same images"),
        ({"labels": True, "source": ModelSource("maps.keras")}, r"one output \[images, classes\]"),
    ],
)
def test_what_does_not_fit_together_is_refused_before_anything_is_measured(
    place, options, words, monkeypatch
):
    monkeypatch.chdir(place[0])
    inputs = keras.Input((16, 16, 3))
    keras.Model(inputs, keras.layers.Conv2D(2, 3)(inputs)).save("maps.keras")
    monkeypatch.setattr(measure_command, "measured", lambda *_: pytest.fail("it was measured"))
    source = options.get("source", ModelSource("a.keras"))
    options = {name: value for name, value in options.items() if name != "source"}
    with pytest.raises(ValueError, match=words):
        run(Request(source, "images", **options), [].append)


# ---- another range ----


def test_a_wrong_range_is_said_before_and_in_the_table(place, tmp_path):
    model = loaded(place)
    norm = next(x for x in model.layers if isinstance(x, keras.layers.BatchNormalization))
    ds.reestimate_batch_normalization(model, place[1])
    model.save(tmp_path / "trained.keras")
    notes = {}
    for prepared in ("-1,1", "0,1", "0,255"):
        said = []
        source = ModelSource(tmp_path / "trained.keras", preprocessing=prepared)
        table = run(Request(source, str(place[0] / "images")), said.append)["sensitivity"]
        notes[prepared] = dict(zip(table["layer"], table["note"]))
        strange = {name for name, note in notes[prepared].items() if note}
        assert strange == ({norm.name} if prepared == "0,255" else set())
        assert any(each.startswith("note: trained.keras, ") for each in said) == bool(strange)
    assert "are images in the range it was trained on?" in notes["0,255"][norm.name]


def test_a_measurement_of_random_weights_looks_for_no_range(place, monkeypatch):
    monkeypatch.setattr(measure_command, "range_notes", lambda *_: pytest.fail("it looked"))
    monkeypatch.setattr(
        keras.applications,
        "VGG16",
        lambda weights, **_: ds.vgg((16, 16, 3), 4, ((1, 4), (1, 6)), seed=0),
    )
    monkeypatch.setattr(model_sources, "preparation_of_application", lambda _: scaled())
    run(Request(ModelSource("VGG16", "none"), str(place[0] / "images")), [].append)


def scaled():
    return model_sources.preparation("0,1")
