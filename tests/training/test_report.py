"""The report of a real training: what stands in it, and that it loads and runs nothing."""

from __future__ import annotations

import html.parser
import json
import re

import numpy as np
import pytest

import mlaas4hep
from mlaas4hep.streaming.splitting import Split
from mlaas4hep.training.frameworks.base import EpochResult, History
from mlaas4hep.training.performance import judge
from mlaas4hep.training.report import make_report, report_of, write_report
from mlaas4hep.training.report_page import with_error
from mlaas4hep.training.sample import Sample

HISTORY = History((EpochResult(1, 0.6, 0.5, 0.8, 0.7, 1.0), EpochResult(2, 0.5, float("nan"), 0.8, 0.7, 1.0)), 2)
NASTY = '<script>alert(1)</script>"onload=\u202e&'


class Page(html.parser.HTMLParser):
    """Elements and attributes of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


def predict(x, mask):
    p = np.clip(0.5 + 2 * (x[:, 0] - x[:, 0].mean()), 0.02, 0.98)
    return np.stack([1 - p, p], axis=1).astype(np.float32)


@pytest.fixture(scope="module")
def dataset(class_files):
    return mlaas4hep.open(class_files, labels=["b", NASTY], split=Split(0.2, 0.1), branches=["MET_pt", "Jet_pt"])


@pytest.fixture(scope="module")
def report(dataset):
    return make_report(dataset, predict, HISTORY, title=NASTY, facts={NASTY: NASTY}, background_uncertainty=0.1)


def test_the_page_loads_nothing_runs_nothing_and_escapes_every_name(report):
    page = Page(report.html)
    assert "script" not in page.tags
    assert not {"link", "iframe", "object", "form", "base"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on") or name == "href"]
    assert all(value.startswith("data:image/png;base64,") for name, value in page.attributes if name == "src")
    assert "default-src 'none'" in dict(page.attributes)["content"] or "default-src 'none'" in report.html
    assert "\u202e" not in report.html
    assert "<script>alert(1)</script>" in page.text
    outside = re.sub(r"base64,[A-Za-z0-9+/=]*", "", report.html)
    assert "//" not in outside


def test_the_numbers_of_the_page_are_those_of_the_metrics(report):
    test = report.metrics["test"]
    page = Page(report.html)
    assert with_error(test["auc"], test["auc_error"]) in page.text
    (against,) = test["against_rest"].values()
    cut = against["best_cut"]["test"]
    assert with_error(cut["significance"], cut["significance_error"]) in page.text
    assert cut["background_uncertainty"] == 0.1
    assert against["working_points"][0]["background"] == 0.01
    assert report.metrics["best_epoch"] == 2
    assert report.metrics["epochs"][1]["validation_loss"] is None
    assert [one["name"] for one in report.metrics["importance"]] == ["MET_pt", "Jet_pt"] or report.metrics["importance"]


def test_everything_is_written_and_a_bundle_gets_page_and_plots(report, tmp_path):
    written = {path.name for path in report.write(tmp_path / "report")}
    large = {"roc", "rejection", "scores", "confusion", "calibration", "history", "importance"}
    assert written == {f"{name}.png" for name in large} | {
        "report.html",
        "metrics.json",
        "input_00.png",
        "input_01.png",
    }
    assert set(report.files) == {f"{name}.png" for name in large} | {"report.html"}
    assert json.loads((tmp_path / "report" / "metrics.json").read_text()) == report.metrics
    assert (tmp_path / "report" / "report.html").read_text() == report.html


def test_the_same_events_give_the_same_report(dataset, report):
    again = make_report(dataset, predict, HISTORY, title=NASTY, facts={NASTY: NASTY}, background_uncertainty=0.1)
    assert again.metrics == report.metrics
    assert again.files == report.files


def test_without_labels_or_test_events_there_is_no_report(class_files, tmp_path):
    unlabelled = mlaas4hep.open(class_files, branches=["MET_pt"])
    assert write_report(unlabelled, predict, tmp_path / "nothing") is None
    untested = mlaas4hep.open(class_files, labels=["0", "1"], split=Split(0, 0.1), branches=["MET_pt"])
    assert make_report(untested, predict) is None
    assert not (tmp_path / "nothing").exists()


def test_weights_that_cancel_out_leave_gaps_and_no_error(class_files, tmp_path):
    """Half of the weights are -1: what they sum to is anything, of either sign."""
    dataset = mlaas4hep.open(class_files, labels=["0", "1"], branches=["MET_pt"], weights="genWeight")
    found = write_report(dataset, predict, tmp_path / "report", history=HISTORY)
    plain = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert plain["test"]["events"] == found.performance.evaluation.events > 0
    assert (tmp_path / "report" / "report.html").stat().st_size > 10_000


def test_over_training_is_said_in_words():
    def sample(seed, sharpness):
        random = np.random.default_rng(seed)
        y = np.arange(2000) % 2
        p = 1 / (1 + np.exp(-random.normal(sharpness * (2 * y - 1))))
        return Sample(np.stack([1 - p, p], axis=1), y, np.ones(2000))

    test, learned = sample(1, 0.5), sample(2, 2.0)
    performance = judge(test, ("b", "s"), train=learned, replicas=5)
    page = Page(report_of(performance, test, ("b", "s"), train=learned).html)
    assert "the model knows training events by heart" in page.text
    calm = judge(test, ("b", "s"), train=sample(3, 0.5), replicas=5)
    assert "by no more than chance" in Page(report_of(calm, test, ("b", "s")).html).text


def test_three_classes_and_folds_have_their_tables():
    random = np.random.default_rng(4)
    y = np.arange(300) % 3
    p = random.dirichlet(np.ones(3), 300) + np.eye(3)[y]
    test = Sample(p / 2, y, np.ones(300))
    performance = judge(test, ("a", "b", "c"), replicas=5)
    metrics = {
        "test": performance.to_dict(),
        "folds": [performance.evaluation.to_dict()] * 2,
        "scatter": {"auc": 0.0123, "accuracy": None, "log_loss": 0.1},
    }
    page = Page(report_of(performance, test, ("a", "b", "c"), metrics=metrics).html)
    assert "AUC (mean of classes)" in page.text
    assert "0.0123" in page.text
    assert page.tags.count("table") == 2
