"""write_report and report_examples: what is in the file; what a browser makes of it is tested beside."""

import base64
import io
import json
import re
import sys

import numpy as np
import pandas as pd
import pytest
from helpers import loop_warp, natural_images
from PIL import Image
from test_more_plots import HOSTILE, in_parts, moving, stable, worst_of
from test_plots import compared, measured, recorded, strengths

import deformstab as ds
from deformstab.presentation import report
from deformstab.presentation.report_data import named, packed, points
from deformstab.presentation.report_images import ReportExamples, data_url

ADDRESS = re.compile(r"""(?:https?:)?//[a-z0-9-]+(?:\.[a-z0-9-]+)+""", re.IGNORECASE)
NAMESPACES = {"http://www.w3.org"}


def data_of(path):
    page = path.read_text(encoding="utf-8")
    return json.loads(re.search(r'id="data">(.*?)</script>', page, flags=re.DOTALL)[1])


def unpacked(columns):
    """By a plain loop."""
    found = {}
    for name, column in columns.items():
        if isinstance(column, dict):
            column = [column["values"][code] for code in column["codes"]]
        found[name] = column
    return pd.DataFrame(found)


# ---- points ----


@pytest.mark.parametrize(
    ("rows", "measure", "value", "dimension", "column"),
    [
        (measured(4, (1,)), "sensitivity", "sensitivity", "metric", "metric"),
        (strengths(3), "sensitivity", "sensitivity", "strength", "max_displacement"),
        (in_parts(3), "sensitivity", "sensitivity", "part", "part"),
        (stable(3), "stability", "relative_stability", "metric", "metric"),
        (moving(3), "equivariance", "ratio", "metric", "metric"),
        (compared(3), "comparison", "ratio", "network", "model"),
        (measured(3).assign(family="turn"), "sensitivity", "sensitivity", "family", "family"),
    ],
)
def test_points_are_the_numbers_of_the_tables(rows, measure, value, dimension, column):
    found = points(named(rows.sample(frac=1, random_state=0)))
    assert len(found) == len(rows)
    assert set(found["measure"]) == {measure}
    for row in rows.to_dict("records"):
        own = f"{row[column]:g} px" if dimension == "strength" else row[column]
        (point,) = found[(found["layer"] == row["layer"]) & (found[dimension] == own)].to_dict(
            "records"
        )
        for name, number in (("value", value), ("low", f"{value}_low"), ("high", f"{value}_high")):
            np.testing.assert_array_equal(point[name], row[number])
        assert point["order"] == row["layer_index"]
        assert point["note"] == row["note"]


def test_points_of_training_have_their_steps():
    rows = recorded(2, [(0, 0), (1, 40), (3, 1234567)]).sort_values("layer_index", kind="stable")
    found = points(named({"a": rows}))
    assert found["step"].tolist() == rows["step"].tolist()
    assert found["epoch"].tolist() == rows["epoch"].tolist()
    assert unpacked(packed(found))["step"].tolist() == rows["step"].tolist()  # no digit is rounded


def test_points_of_worst_deformations_are_quartiles_over_images():
    rows = worst_of(["b", "a"], images=7)
    found = points(named({"net": rows}))
    for layer in "ab":
        for quoted, column in (
            ("mean of draws", "mean_sensitivity"),
            ("worst found", "worst_sensitivity"),
        ):
            (point,) = found[(found["layer"] == layer) & (found["estimate"] == quoted)].to_dict(
                "records"
            )
            own = rows[rows["layer"] == layer][column]
            expected = [np.quantile(own, share) for share in (0.5, 0.25, 0.75)]
            np.testing.assert_allclose([point[k] for k in ("value", "low", "high")], expected)
            assert point["network"] == "net"
            assert point["images"] == 7


def test_tables_that_nothing_tells_apart_stay_apart():
    found = points(
        named({"a": [measured(2), measured(2, factor=2.0), stable(2)], "b": measured(2)})
    )
    networks = found[found["measure"] == "sensitivity"]["network"]
    assert networks.value_counts().to_dict() == {"a": 2, "a (2)": 2, "b": 2}
    assert set(found[found["measure"] == "stability"]["network"]) == {"a"}


def test_numbers_are_packed_with_six_digits_and_gaps():
    frame = pd.DataFrame(
        {"n": [1.23456789, np.nan, np.inf, 3.0, 1e-17], "t": ["b", "a", "b", "", "b"]}
    )
    columns = json.loads(json.dumps(packed(frame), allow_nan=False))
    assert columns["n"] == [1.23457, None, None, 3, 1e-17]
    assert unpacked(columns)["t"].tolist() == frame["t"].tolist()


# ---- the file ----


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "new" / "report.html"
    tables = {"max": [measured(5, (2,)), stable(5)], "b": recorded(5), "": compared(5)}
    assert ds.write_report(str(path), tables, title="A & <b>", settings={"data": "<i>"}) == path
    return path, tables


def test_the_file_names_no_other_host(written):
    path, _ = written
    page = path.read_text(encoding="utf-8")
    assert set(ADDRESS.findall(page)) <= NAMESPACES
    assert not re.search(r"<script[^>]*\bsrc=", page)
    markup = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"<(?:link|iframe|img|object|embed|base)\b", markup)
    assert not re.search(r"@import|url\(", markup)
    assert "default-src 'none'" in page
    assert [each.name for each in path.parent.iterdir()] == ["report.html"]
    assert path.stat().st_size < 2e6


def test_the_file_holds_the_tables_to_the_last_bit(written):
    path, tables = written
    given = [*tables["max"], tables["b"], tables[""]]
    texts = [each["text"] for each in data_of(path)["tables"]]
    assert texts == [table.to_csv(index=False, lineterminator="\n") for table in given]


def test_the_file_says_what_it_was_computed_with(written):
    page = written[0].read_text(encoding="utf-8")
    for words in (
        f"deformstab {ds.__version__}",
        "A &amp; &lt;b&gt;",
        "<dd>&lt;i&gt;</dd>",
        "UTC</dd>",
        "images 9; deformations 1",
        "How to read it",
        "BSD-3-Clause",
    ):
        assert words in page


def test_names_end_no_script(tmp_path):
    rows = measured(5).assign(
        layer=[*HOSTILE[:3], "</script><script>alert(1)</script>", "<!--<script>"]
    )
    path = ds.write_report(tmp_path / "a.html", {"</script>": rows}, title="</title>")
    page = path.read_text(encoding="utf-8")
    assert page.count("<script") == page.count("</script>") == 3
    assert page.count("</title>") == 1
    found = unpacked(data_of(path)["points"])
    assert found["layer"].tolist() == rows["layer"].tolist()


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        (None, "tables must be a table of .*measure_sensitivity.*received None"),
        ({"a": pd.DataFrame({"b": [1]})}, r"received columns \['b'\] and 1 rows for 'a'"),
        ({"a": [measured(2), measured(2)[:0]]}, "and 0 rows for 'a'"),
        ({"a": "table.csv"}, "received 'table.csv' for 'a'"),
        ({}, "tables is empty"),
        ([], "tables is empty"),
    ],
)
def test_what_are_no_tables(tmp_path, tables, message):
    with pytest.raises(ValueError, match=message):
        ds.write_report(tmp_path / "a.html", tables)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"examples": "a"}, "examples must be what ds.report_examples returns"),
        ({"examples": {"a": 1}}, "examples must be"),
        ({"settings": "a"}, "settings must be a dict"),
    ],
)
def test_what_is_no_part_of_a_report(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        ds.write_report(tmp_path / "a.html", measured(2), **options)


def test_a_file_that_would_be_too_large_is_not_written(tmp_path):
    pictures = {"a": "data:image/png;base64," + 9_000_000 * "A"}
    examples = ReportExamples({}, pictures, {})
    with pytest.raises(
        ValueError, match=r"would have \d+\.\d MB, 9\.0 MB of them pictures; at most 8"
    ):
        ds.write_report(tmp_path / "a.html", measured(2), examples=examples)
    assert not list(tmp_path.iterdir())


def test_tables_that_have_no_chart_are_listed(tmp_path):
    rows = pd.DataFrame({"layer": ["a"], "smoothness": [0.5]})
    data = data_of(ds.write_report(tmp_path / "a.html", rows))
    assert data["tables"][0]["text"] == "layer,smoothness\na,0.5\n"
    assert all(len(column.get("codes", [])) == 0 for column in data["points"].values() if column)


@pytest.mark.parametrize("module", ["jinja2", "vl_convert"])
def test_a_missing_package_is_named_with_the_extra(tmp_path, monkeypatch, module):
    from deformstab.presentation import report_charts

    for cached in (report_charts.charts, report_charts.runtime):
        cached.cache_clear()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r'reports need: pip install "deformstab\[report\]"'):
        ds.write_report(tmp_path / "a.html", measured(2))


def test_what_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot be written"):
        ds.write_report(tmp_path / "file" / "a.html", measured(2))


# ---- images ----


def picture_of(url):
    head, _, text = url.partition(",")
    assert head in ("data:image/png;base64", "data:image/jpeg;base64")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def test_examples_are_the_extremes_of_each_layer(network, images):
    deformation = ds.RandomDeformation(3, 2.0, seed=0)
    options = {"deformations": 2, "seed": 3}
    found = ds.report_examples(
        network, images, ["conv1", "conv2"], deformation, 2, worst=1, **options
    )
    _, distances = ds.measure_sensitivity(
        network, images, deformation, ["conv1", "conv2"], return_distances=True, **options
    )
    displacements = deformation.draw(2 * len(images), seed=3)
    for layer, groups in found.layers.items():
        own = distances[distances["layer"] == layer]
        furthest = own.groupby("image")["distance"].max().sort_values(ascending=False)
        nearest = own.groupby("image")["distance"].min().sort_values()
        for name, expected in (("most", furthest), ("least", nearest)):
            assert [each["image"] for each in groups[name]] == expected.index[:2].tolist()
            for each in groups[name]:
                assert each["distance"] == expected[each["image"]]
                assert each["sensitivity"] == pytest.approx(
                    each["distance"] / own["baseline"].iloc[0]
                )
                number = 2 * each["image"] + int(each["after"].split()[-1])
                field = np.asarray(deformation.flow(displacements[number : number + 1], 16, 16))
                warped = loop_warp(images[each["image"]][None], field)[0]
                shown = picture_of(found.pictures[each["after"]])
                np.testing.assert_allclose(shown, 127.5 * (warped + 1), atol=0.51)
                before = picture_of(found.pictures[each["before"]])
                np.testing.assert_allclose(before, 127.5 * (images[each["image"]] + 1), atol=0.51)
                x0, y0, x1, y1 = each["arrows"][5]
                there = np.clip([y1, x1] + field[0, int(y1), int(x1)], 0, 15)
                np.testing.assert_allclose([y0, x0], there, atol=0.006)
        (worst,) = groups["worst"]
        assert worst["image"] == furthest.index[0]
        assert worst["distance"] > furthest.iloc[0]
        baseline = own["baseline"].iloc[0]
        assert worst["sensitivity"] == pytest.approx(worst["distance"] / baseline)
        assert worst["after"] in found.pictures
    assert "control_points=(3, 3)" in found.settings["deformation"]


@pytest.mark.parametrize(
    ("deformation", "worst", "groups"),
    [
        (None, None, {"most", "least", "worst"}),
        (None, 0, {"most", "least"}),
        (ds.RandomRotation(1.0), None, {"most", "least"}),
        (lambda x, seed: x[:, ::-1], None, {"most", "least"}),
    ],
)
def test_which_images_there_are(network, images, deformation, worst, groups):
    found = ds.report_examples(network, images[:4], "conv1", deformation, 1, worst)
    assert set(found.layers["conv1"]) == groups
    known = "arrows" in found.layers["conv1"]["most"][0]
    assert known == (not callable(deformation) or isinstance(deformation, ds.RandomRotation))


def test_many_layers_have_no_worst_deformation_unless_asked(network, images):
    found = ds.report_examples(network, images[:4], None, count=1)
    assert len(found.layers) == 9
    assert not any("worst" in groups for groups in found.layers.values())
    assert len(found.pictures) <= 2 * 4  # an image of several layers is there once


def test_a_layer_that_cannot_be_measured_has_no_images(network):
    network.get_layer("conv1").set_weights(
        [0 * w for w in network.get_layer("conv1").get_weights()]
    )
    found = ds.report_examples(network, natural_images(4), ["input", "conv1"], worst=0)
    assert list(found.layers) == ["input"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, "count must be an int of at least 1"),
        ({"worst": -1}, "worst must be an int of at least 0"),
        ({"deformation": ds.RandomRotation(1.0), "worst": 1}, "pass worst=0"),
        ({"layers": "nothing"}, "nothing"),
    ],
)
def test_what_are_no_examples(network, images, options, message):
    with pytest.raises(ValueError, match=message):
        ds.report_examples(network, images, **options)


def test_large_pictures_are_made_small():
    large = np.random.default_rng(0).random((300, 400, 3))
    assert picture_of(data_url(large)).shape == (120, 160, 3)
    assert len(data_url(large)) < 30_000
    assert picture_of(data_url(np.ones((1, 5, 3)))).tolist() == [[[255] * 3] * 5]


def test_the_most_bytes_are_what_the_documentation_says():
    assert report.MOST_BYTES == 8_000_000
    assert "8 MB" in ds.write_report.__doc__
