"""What is said of the note's statements, and drawn: from made-up tables, by plain arithmetic."""

import math
import statistics

import numpy as np
import pandas as pd
import pytest
from helpers import ROOT
from scipy import stats
from test_result_tables import small_preset

from deformstab.paper.figures import note, style
from deformstab.paper.pages import note_page
from deformstab.paper.runs import note_measurements
from deformstab.paper.verdicts.note_statements import note_statements
from deformstab.paper.verdicts.result_tables import Results
from deformstab.tables import read_csv


@pytest.fixture
def results():
    """Of the committed tables; those of networks are changed to numbers made up here."""
    folder = ROOT / "results" / "note" / "tables"
    tables = {name: read_csv(folder / f"{name}.csv") for name in note_measurements.TABLES}
    rng = np.random.default_rng(0)
    table = tables["note_gains"]
    tables["note_gains"] = table.assign(gain=np.exp(rng.normal(0.1, 0.2, len(table))))
    return Results(small_preset(), tables)


def statement(results, quantity):
    table = note_statements(results)
    (row,) = table[table["quantity"] == quantity].to_dict("records")
    return row


def test_a_gain_is_a_geometric_mean_over_networks_with_students_interval(results):
    table = results.tables["note_gains"]
    rows = table[(table["metric"] == "cosine") & (table["output"] == "map")]
    rows = rows[(rows["state"] == "trained") & (rows["deformation"] == "rotation")]
    logs = [math.log(gain) for gain in rows["gain"]]
    assert len(logs) == 3
    mean = sum(logs) / 3
    half = stats.t.ppf(0.975, 2) * statistics.stdev(logs) / math.sqrt(3)
    found = statement(results, "Gain, rotation, map: trained")
    expected = [math.exp(each) for each in (mean, mean - half, mean + half)]
    np.testing.assert_allclose([found["value"], found["low"], found["high"]], expected)
    assert (found["count"], found["over"]) == (3, "seeds")


def test_one_unit_that_should_not_have_changed_is_told(results):
    table = results.tables["note_sparse"]
    table["largest_outside"] = table["largest_outside"].astype("float64")
    table.loc[7, "changed_outside"], table.loc[7, "largest_outside"] = 3, 0.25
    table.loc[9, "field_x"] += 1
    assert statement(results, "units outside that changed")["value"] == 3
    assert statement(results, "largest change outside")["value"] == 0.25
    layers = statement(results, "layers that see what was calculated")
    assert (layers["value"], layers["expected"]) == (59, 60)


def test_what_follows_on_paper_stands_beside():
    tables = {"note_units": read_csv(ROOT / "results/note/tables/note_units.csv")}
    table = note_statements(Results(small_preset(), tables))
    assert set(table["statement"]) == {"fewer units"}
    assert len(table) == 2 * 5
    assert len(note_statements(Results(small_preset(), {}))) == 0
    assert note_page.section(note_statements(Results(small_preset(), {}))) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((0, "0"), (8_003_072_000, "8,003,072,000"), (59_733.333, "59,733.3")),
        *((0.0134321, "0.01343"), (16 / 9, "1.778"), (float("nan"), ""), (1.0, "1")),
    ],
)
def test_numbers_are_told_with_four_digits(value, text):
    assert note_page.number(value) == text


def test_the_figure_shows_the_tables(results):
    figure = note.plot(results)
    panels = dict(zip("abcdef", figure.axes))
    assert [axis.get_title(loc="left")[:3] for axis in figure.axes] == [f"({x})" for x in "abcdef"]

    def lines(axis):
        return [line for line in axis.lines if len(line.get_xdata())]

    sparse = results.tables["note_sparse"]
    shown = [list(line.get_ydata()) for line in lines(panels["a"])]
    for kind in ("subsample", "max"):
        rows = sparse[sparse["kind"] == kind]
        assert list(rows["field_x"]) in shown
        assert shown.count(list(rows["field"])) == 2  # measured, and on paper
    heights = [bar.get_height() for bar in panels["b"].patches]
    np.testing.assert_allclose(heights, results.tables["note_sharing"]["moves_with"])
    symmetries = results.tables["note_symmetries"].set_index(["image", "filters", "transform"])
    white = symmetries["error"].to_dict()
    wanted = [white["white", "any", name] for name in ("translation", "rotation", "scale")]
    wanted.append(white["white", "turned alike", "rotation"])
    assert any(np.allclose(line.get_ydata(), wanted) for line in lines(panels["c"]))
    paper = [0, 16 / 9, 16 / 9, 0]
    assert any(np.allclose(line.get_ydata(), paper) for line in lines(panels["c"]))
    maxima = results.tables["note_maxima"].set_index(["window", "image", "place"])["kept"]
    maxima = maxima.to_dict()
    places = [("bright pixel", place) for place in ("corner", "edge", "centre", "any")]
    wanted = [maxima[(3, *key)] for key in (*places, ("noise", "any"), ("photograph", "any"))]
    assert any(np.allclose(line.get_ydata(), wanted) for line in lines(panels["d"]))
    units = results.tables["note_units"].set_index("kind")
    shares = units / units.loc["none"]
    wanted = [*100 * shares["units"][1:], *100 * shares["multiplications"][1:]]
    np.testing.assert_allclose([bar.get_height() for bar in panels["e"].patches], wanted)
    for state in ("initial", "trained", "trained on turned"):
        for name in ("rotation", "scaling", "translation", "spline"):
            value = statement(results, f"Gain, {name}, map: {state}")["value"]
            found = [float(line.get_ydata()[0]) for line in lines(panels["f"])]
            assert np.isclose(found, value).any()
    style.plt.close(figure)


def test_without_runs_panels_say_so():
    empty = Results(small_preset(), {})
    figure = note.plot(empty)
    assert [axis.texts[0].get_text() for axis in figure.axes] == ["not run"] * 6
    assert "(f)" not in note.caption(empty)
    style.plt.close(figure)
    one = Results(small_preset(), {"note_gains": pd.DataFrame()})
    style.plt.close(note.plot(one))


def test_the_caption_says_how_much_was_measured(results):
    text = note.caption(results)
    for words in ("400 random 3×3 kernels", "3 networks", "1.25 px RMS", "8×8 digits at 28 px"):
        assert words in text
