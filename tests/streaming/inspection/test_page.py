"""The page: whole in itself, and safe whatever the names of files and branches are."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import uproot
from hypothesis import given
from hypothesis import strategies as st

from mlaas4hep.streaming.inspection import inspect_files
from mlaas4hep.streaming.inspection.outlines import BIN_WIDTH, HEIGHT, outline, outlines
from mlaas4hep.streaming.inspection.page import report_page

HOSTILE = ["<script>alert(1)<", '"><img src=x onerror=alert(1)>', "a&amp;b", "x\x1b[2J\u202ey", "' onclick='alert(1)"]


class Page(HTMLParser):
    """What a browser sees: elements with their attributes, and the text of some."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text = [], {}
        self._open = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in ("meta", "input", "path"):
            self._open.append(tag)

    def handle_endtag(self, tag):
        if self._open and self._open[-1] == tag:
            self._open.pop()

    def handle_data(self, data):
        self.text.setdefault(self._open[-1] if self._open else "", []).append(data)

    def attributes(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def higgs_page(higgs_files):
    found = inspect_files(higgs_files)
    return found, report_page(found)


def test_the_page_loads_nothing_and_runs_no_script_but_its_own(higgs_page):
    _, text = higgs_page
    page = Page(text)
    assert "://" not in text
    assert not [tag for tag, attributes in page.elements if {"src", "href", "srcdoc", "action"} & set(attributes)]
    policy = next(
        one["content"] for one in page.attributes("meta") if "content" in one and "default-src" in one["content"]
    )
    assert policy.startswith("default-src 'none'")
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert len(scripts) == 1
    for kind, body in (("script", scripts[0]), ("style", re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1])):
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy


def test_every_branch_has_a_row_with_a_histogram_of_each_file(higgs_page):
    found, text = higgs_page
    page = Page(text)
    assert [name for name in page.text["button"] if name in found.branches] == list(found.branches)
    pictures = [one for one in page.attributes("svg") if one.get("class") == "lines"]
    assert len(pictures) == len(found.branches)
    assert len([one for one in page.attributes("path") if "data-log" in one]) == 2 * len(found.branches)
    data = json.loads(page.text["script"][0])
    assert len(data["branches"]) == len(found.branches)
    jets = data["branches"][list(found.branches).index("Jet_pt")]
    assert jets["rows"][0][0] == f"{found.files[0].branches['Jet_pt'].values:,}"
    assert "lengths" in jets


def test_a_full_nanoaod_file_is_a_small_page():
    found = inspect_files("tests/data/nanoAOD_2015_CMS_Open_Data_ttbar.root")
    text = report_page(found)
    assert len(text) < 2_000_000
    assert len([one for one in Page(text).attributes("tr") if "data-number" in one]) == len(found.branches) == 947


@pytest.fixture
def hostile_file(tmp_path):
    path = tmp_path / "<b>&'x.root"
    with uproot.recreate(path) as file:
        file.mktree("Events", dict.fromkeys(HOSTILE, np.float32))
        file["Events"].extend({name: np.arange(4, dtype=np.float32) for name in HOSTILE})
    return path


def test_names_that_are_programs_are_shown_as_text(hostile_file, tmp_path):
    found = inspect_files(hostile_file)
    assert set(found.branches) == set(HOSTILE)
    text = report_page(found, title="</title><script>alert(2)</script>")
    page = Page(text)
    assert len(page.attributes("script")) == 2  # the data, and the page's own
    assert not page.attributes("img")
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    shown = page.text["button"]
    for name in HOSTILE:
        assert "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in name) in shown
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_a_name_cannot_end_the_data_that_the_script_reads(hostile_file, tmp_path, write_tree):
    folder = tmp_path / "<"
    folder.mkdir()
    second = folder / "script><!--.root"
    second.write_bytes(hostile_file.read_bytes())
    page = Page(report_page(inspect_files([hostile_file, second])))
    assert len(page.attributes("script")) == 2
    assert json.loads(page.text["script"][0])["files"] == [str(hostile_file), str(second)]


def heights_of(path, bins):
    """Follow a path as a browser does; the height at the middle of each bin."""
    x, y, found = 0, HEIGHT, {}
    for command, number in re.findall(r"([hv])(-?\d+)", path.removeprefix(f"M0 {HEIGHT}")):
        if command == "v":
            y += int(number)
        else:
            for place in range(x // BIN_WIDTH, (x + int(number)) // BIN_WIDTH):
                found[place] = HEIGHT - y
            x += int(number)
    assert (x, y) == (bins * BIN_WIDTH, HEIGHT)
    return [found[place] for place in range(bins)]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=80))
def test_an_outline_goes_through_the_top_of_every_bin(heights):
    assert heights_of(outline(heights), len(heights)) == [round(HEIGHT * height) for height in heights]


@given(st.lists(st.lists(st.integers(0, 10**9), min_size=3, max_size=3), min_size=1, max_size=4))
def test_outlines_share_one_scale(histograms):
    paths, top, bottom = outlines(histograms)
    assert bottom < top
    highest = max(max(counts) for counts in histograms)
    for path, counts in zip(paths, histograms, strict=True):
        assert heights_of(path.linear, 3) == [round(HEIGHT * count / (highest or 1)) for count in counts]
        assert [height > 0 for height in heights_of(path.logarithmic, 3)] == [count > 0 for count in counts]
