"""The site is built strictly: links, anchors, names of the API; and no page loads another host."""

import os
import subprocess
import sys
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest
from helpers import ROOT
from selenium.webdriver.support.wait import WebDriverWait

import deformstab as ds

# What a browser fetches by itself. A link that a reader may follow is no such thing.
LOADED = {("script", "src"), ("img", "src"), ("link", "href"), ("iframe", "src"), ("source", "src")}


class Page(HTMLParser):
    """The places in a page that links may lead to, its links, and what it loads."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.loads = set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.ids |= {value for name, value in attrs if name in ("id", "name")}
        for name, value in attrs:
            if (tag, name) in LOADED:
                self.loads.append(value)
            elif (tag, name) == ("a", "href"):
                self.links.append(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site):
    """{path: page}, without 404.html, whose paths are those of a server."""
    files = [path for path in site.rglob("*.html") if path.name != "404.html"]
    return {path.resolve(): Page(path.read_text(encoding="utf-8")) for path in files}


def test_links_and_what_pages_load_are_there(pages):
    for path, page in pages.items():
        for link in page.links + page.loads:
            parts = urlsplit(link)
            if parts.scheme:
                continue
            there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert there.is_file(), f"{path.name} leads to {link}"
            if parts.fragment and there in pages:
                fragment = unquote(parts.fragment)
                assert fragment in pages[there].ids, f"{path.name} leads to {link}"


def test_no_page_loads_another_host(site, pages):
    for path, page in pages.items():
        for address in page.loads:
            assert not urlsplit(address).netloc, f"{path.name} loads {address}"
        # The theme fetches the program that draws these from elsewhere.
        assert "mermaid" not in path.read_text(encoding="utf-8")
    for sheet in site.rglob("*.css"):
        assert "url(http" not in sheet.read_text(encoding="utf-8").replace('"', "").replace(
            "//", "http"
        )


def test_every_public_name_has_its_place_in_the_api(site, pages):
    api = set().union(*(page.ids for path, page in pages.items() if path.parent.name == "api"))
    for name in set(dir(ds)) | {
        f"addons.{name}" for name in ("dense_image_warp", "sparse_image_warp")
    }:
        assert f"deformstab.{name}" in api


def test_pages_from_outside_docs_are_there(site):
    for page in ("index", "CHANGELOG", "CONTRIBUTING", "benchmarks/index", "results/quick/index"):
        assert (site / f"{page}.html").is_file()


@pytest.mark.browser
def test_a_page_opened_from_disk_searches_the_site_without_errors(site, browser):
    for page in ("index.html", "how_to/augment.html"):
        browser.get((site / page).as_uri())
        box = browser.find_element("css selector", "[data-md-component=search-query]")
        browser.execute_script("arguments[0].focus()", box)
        box.send_keys("max_displacement")
        found = WebDriverWait(browser, 20).until(
            lambda browser: browser.find_elements("css selector", ".md-search-result__link")
        )
        assert any("api/deformations.html" in each.get_attribute("href") for each in found)
        assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 900, 1400])
def test_pages_fit_their_window_and_show_their_pictures(width, site, pages, browser):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        for path in pages:
            browser.get(path.as_uri())
            wide, broken = browser.execute_script(
                "return [document.documentElement.scrollWidth, [...document.images]"
                ".filter((image) => !image.naturalWidth).map((image) => image.src)]"
            )
            assert wide <= width, path.name
            assert not broken, path.name
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
