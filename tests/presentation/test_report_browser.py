"""A report in a real browser: what is clicked, typed and saved there, and what names can not do."""

import pathlib
import time

import numpy as np
import pandas as pd
import pytest
from helpers import natural_images, small_network
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select
from test_more_plots import stable
from test_plots import measured, recorded

import deformstab as ds
from deformstab.tables import from_csv

pytestmark = pytest.mark.browser
EVIL = ["<script>window.evil=1</script>", "<img src=x onerror='window.evil=1'>", "$a_{", "x" * 300]
STEPS = [(0, 0), (1, 40), (2, 80)]


def training(factor):
    rows = recorded(4, STEPS, broken=(2,), name="conv{}").assign(layer_type="Conv2D")
    numbers = ["sensitivity", "sensitivity_low", "sensitivity_high"]
    return rows.assign(**factor * rows[numbers])


@pytest.fixture(scope="session")
def tables():
    return {"max": [training(1.0), stable(4)], "average": training(0.7)}


@pytest.fixture(scope="session")
def examples():
    images = natural_images(6)
    return ds.report_examples(small_network(), images, ["conv1", "conv2"], count=2, worst=1)


@pytest.fixture(scope="session")
def reports(tmp_path_factory, tables, examples):
    folder = tmp_path_factory.mktemp("reports")
    ds.write_report(folder / "plain.html", tables, examples={"max": examples})
    rows = measured(4).assign(layer=EVIL, note=[EVIL[0], "", "", ""], layer_type=EVIL[1])
    ds.write_report(folder / "evil.html", {EVIL[0]: rows, EVIL[1]: rows}, title=EVIL[0])
    return folder


def opened(browser, path, width=1200):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(path.as_uri())
    until(lambda: browser.execute_script("return document.body.dataset.ready") == "yes")
    return browser


def until(true, seconds=20):
    """Waits for what takes the browser a moment."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)


@pytest.fixture
def page(browser, reports):
    return opened(browser, reports / "plain.html")


def get(page, selector):
    return page.find_element(By.CSS_SELECTOR, selector)


def every(page, selector):
    return page.find_elements(By.CSS_SELECTOR, selector)


def symbols(page):
    """Points in the first chart that have a place."""
    return page.execute_script(
        "return [...document.querySelectorAll('#profile .mark-symbol path')]"
        ".filter((each) => each.getAttribute('d') && !/NaN/.test(each.getAttribute('transform'))).length"
    )


def details(page):
    """Of one layer: {series: value}."""
    return {
        row.find_element(By.TAG_NAME, "th").text: float(row.find_element(By.TAG_NAME, "td").text)
        for row in every(page, "#details tbody tr")
        if row.find_elements(By.TAG_NAME, "th")
    }


def column(page, name):
    """What a column of the table shows."""
    names = [each.get_attribute("data-column") for each in every(page, "#rows thead button")]
    return page.execute_script(
        "return [...document.querySelectorAll('#rows tbody tr')]"
        ".map((row) => row.children[arguments[0]].textContent)",
        names.index(name),
    )


@pytest.mark.parametrize("width", [1400, 800, 390])
def test_it_loads_without_a_word_on_the_console_and_nothing_else(browser, reports, width):
    browser.get_log("browser")  # of pages before
    page = opened(browser, reports / "plain.html", width)
    assert page.get_log("browser") == []
    resources = "return performance.getEntriesByType('resource').map((each) => each.name)"
    assert page.execute_script(resources) == []
    assert every(page, "#profile svg")
    assert every(page, "#heatmap svg")
    wide = "return document.documentElement.scrollWidth"
    assert page.execute_script(wide) <= width
    measure = Select(get(page, "#measure"))
    assert [each.get_attribute("value") for each in measure.options] == ["sensitivity", "stability"]
    measure.select_by_value("stability")
    until(lambda: symbols(page) == 8)
    assert page.get_log("browser") == []


def test_a_click_on_a_layer_shows_its_images(page, examples):
    assert get(page, "#layer").get_attribute("value") == "conv1"  # the first that has some
    bands = every(page, "#profile .mark-rect path")
    assert len(bands) == 4
    ActionChains(page).move_to_element(bands[2]).click().perform()
    until(lambda: get(page, "#layer").get_attribute("value") == "conv2")
    for name, group in examples.layers["conv2"].items():
        figures = every(page, f".group[data-group={name}] figure")
        assert len(figures) == len(group)
        for figure, each in zip(figures, group):
            assert f"image {each['image']}: " in figure.text
            shown = [
                image.get_attribute("href") for image in figure.find_elements(By.TAG_NAME, "image")
            ]
            before, after = (examples.pictures[each[when]] for when in ("before", "after"))
            assert shown == [before, after, after]
            arrows = figure.find_elements(By.TAG_NAME, "path")
            assert len(arrows) == sum(a[:2] != a[2:] for a in each["arrows"])
    ActionChains(page).move_to_element(every(page, "#profile .mark-rect path")[3]).click().perform()
    until(lambda: get(page, "#layer").get_attribute("value") == "conv3")
    assert not every(page, "#images figure")
    assert "there are of conv1, conv2" in get(page, "#images").text


def test_a_filter_filters(page):
    assert symbols(page) == 6  # two networks, of four layers one without a number

    def box(place):
        return every(page, "#filters input")[place]

    assert [box(place).get_attribute("value") for place in (0, 1)] == ["max", "average"]
    assert set(details(page)) == {"max", "average"}
    box(0).click()
    until(lambda: symbols(page) == 3)
    assert page.switch_to.active_element.get_attribute("value") == "max"  # it keeps its place
    assert set(details(page)) == {"average"}
    assert get(page, "#legend").text == "average"
    box(1).click()
    until(lambda: get(page, "#nothing").is_displayed())
    box(0).click()
    until(lambda: symbols(page) == 3)
    assert get(page, "#legend").text == "max"


def test_the_slider_goes_through_training_by_keyboard(page, tables):
    slider = get(page, "#step")
    for key, (epoch, step) in (
        (Keys.HOME, STEPS[0]),
        (Keys.ARROW_RIGHT, STEPS[1]),
        (Keys.END, STEPS[2]),
    ):
        slider.send_keys(key)
        assert get(page, "#moment").text == f"step {step}, epoch {epoch}"
        found = details(page)
        for name, rows in (("max", tables["max"][0]), ("average", tables["average"])):
            (expected,) = rows.query("step == @step and layer == 'conv1'")["sensitivity"]
            assert found[name] == pytest.approx(expected, rel=6e-3)


def test_hovering_tells_layer_type_and_numbers(page, tables):
    box = every(page, "#filters input")[1]
    box.click()
    until(lambda: symbols(page) == 3)
    place = page.execute_script(
        "const each = document.querySelectorAll('#profile .mark-symbol path')[1];"
        "const box = each.getBoundingClientRect();"
        "return [box.x + box.width / 2, box.y + box.height / 2]"
    )
    event = {"type": "mouseMoved", "x": place[0], "y": place[1]}
    page.execute_cdp_cmd("Input.dispatchMouseEvent", event)
    until(lambda: get(page, "#tip").is_displayed())
    lines = get(page, "#tip").text.splitlines()
    row = tables["max"][0].query("step == 80 and layer == 'conv1'").iloc[0]
    assert lines[:2] == ["conv1", "Conv2D"]
    numbers = [
        float(x)
        for x in lines[2].removeprefix("max: ").replace("[", "").strip("]").replace(",", "").split()
    ]
    expected = row[["sensitivity", "sensitivity_low", "sensitivity_high"]].to_numpy(float)
    np.testing.assert_allclose(numbers, expected, rtol=6e-3)
    assert lines[3:] == ["step 80, epoch 2", "9 images, 1 px root mean square"]


def test_the_heat_map_goes_across_steps_and_networks(page):
    cells = "#heatmap path[aria-roledescription='rect mark']"
    assert [each.get_attribute("value") for each in Select(get(page, "#across")).options] == [
        "step",
        "network",
    ]
    assert len(every(page, cells)) == 3 * 3
    Select(get(page, "#across")).select_by_value("network")
    until(lambda: len(every(page, cells)) == 3 * 2)
    Select(get(page, "#measure")).select_by_value("stability")
    until(lambda: len(every(page, cells)) == 4 * 2)  # two metrics
    ActionChains(page).move_to_element(every(page, cells)[-1]).click().perform()
    until(lambda: get(page, "#layer").get_attribute("value") == "layer3")


def test_the_saved_file_is_the_table(page, tables):
    Select(get(page, "#table")).select_by_index(2)
    get(page, "#search").send_keys("conv1")  # which narrows what is seen, not what is saved
    get(page, "#download").click()
    path = pathlib.Path(page.folder) / "3-average.csv"
    until(path.exists)
    text = path.read_text(encoding="utf-8")
    assert text == tables["average"].to_csv(index=False, lineterminator="\n")
    pd.testing.assert_frame_equal(
        from_csv(text, {"note": "str"}), tables["average"], check_dtype=False
    )


def test_tables_are_searched_and_sorted(page, tables):
    rows = tables["max"][0]
    assert column(page, "layer") == rows["layer"].tolist()
    get(page, "#search").send_keys("CONV1")
    assert column(page, "layer") == ["conv1"] * 3
    assert get(page, "#count").text.startswith("3 of 12 rows")
    get(page, "#search").clear()
    get(page, "#search").send_keys(" ")
    for direction, ascending in (("ascending", True), ("descending", False)):
        get(page, "#rows button[data-column=sensitivity]").send_keys(Keys.ENTER)
        expected = rows.sort_values("sensitivity", ascending=ascending, na_position="last")
        found = column(page, "sensitivity")
        assert found[-3:] == [""] * 3  # what has no number comes last
        np.testing.assert_allclose(
            [float(x) for x in found[:-3]], expected["sensitivity"][:-3], rtol=6e-4
        )
        head = get(page, "#rows button[data-column=sensitivity]").find_element(By.XPATH, "..")
        assert head.get_attribute("aria-sort") == direction


def test_all_is_reached_by_keyboard(page):
    wanted, element = {"measure", "step", "layer", "across", "table", "search", "download"}, None
    for _ in range(30):
        (element or get(page, "body")).send_keys(Keys.TAB)
        element = page.switch_to.active_element
        wanted -= {element.get_attribute("id")}
    assert not wanted
    get(page, "#layer").send_keys(Keys.ARROW_DOWN)
    until(lambda: get(page, "#layer").get_attribute("value") == "conv2")
    assert every(page, "#images figure")


def test_names_are_text(browser, reports):
    browser.get_log("browser")
    page = opened(browser, reports / "evil.html")
    assert page.title == EVIL[0]
    assert [each.get_attribute("value") for each in Select(get(page, "#layer")).options] == EVIL
    assert column(page, "layer") == EVIL
    drawn = page.execute_script(
        "return [...document.querySelectorAll('#profile text')].map((each) => each.textContent)"
    )
    assert {n if len(n) < 29 else f"…{n[-27:]}" for n in EVIL} <= set(drawn)
    assert [box.get_attribute("value") for box in every(page, "#filters input")] == EVIL[:2]
    Select(get(page, "#layer")).select_by_index(0)
    until(lambda: EVIL[0] in get(page, "#details").text)  # the note
    assert EVIL[1] in get(page, "#details").text  # the type
    assert page.execute_script("return window.evil") is None
    assert not every(page, "body img, main script")
    assert page.get_log("browser") == []
    assert page.execute_script("return document.documentElement.scrollWidth") <= 1200


def test_on_paper_there_is_what_can_be_read(page):
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert not get(page, "#controls").is_displayed()
        assert not get(page, "#download").is_displayed()
        for shown in ("#profile svg", "#images figure", "#rows tbody tr", "dl"):
            assert get(page, shown).is_displayed()
    finally:
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
