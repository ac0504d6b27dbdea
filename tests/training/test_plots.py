"""Plots as pictures: there, not empty, and without a trace in the user's own drawing."""

from __future__ import annotations

import io

import matplotlib as mpl
import matplotlib.image
import numpy as np
import pytest

from mlaas4hep.training.evaluation import evaluate
from mlaas4hep.training.plots import COLOURS, draw_roc, draw_scores

NAMES = ("0", "VBF", "ttH")


def events(n, classes, seed):
    random = np.random.default_rng(seed)
    y = np.arange(n) % classes
    p = np.exp(random.normal(size=(n, classes)) + 2 * np.eye(classes)[y])
    return (p / p.sum(axis=1, keepdims=True)).astype(np.float32), y, np.ones(n, np.float32)


def picture(png):
    return matplotlib.image.imread(io.BytesIO(png), format="png")[..., :3]


def has_colour(image, colour):
    return (np.abs(image - np.array(mpl.colors.to_rgb(colour))).max(axis=-1) < 0.02).sum()


@pytest.mark.parametrize("classes", [2, 3])
def test_each_class_has_its_curve_and_its_scores(classes):
    held_out, trained = events(600, classes, 1), events(900, classes, 2)
    roc = picture(draw_roc(*held_out, NAMES[:classes], evaluate(*held_out, NAMES[:classes])))
    scores = picture(draw_scores(held_out, trained, NAMES[:classes]))
    assert roc.shape == scores.shape == (700, 800, 3)
    for index in range(classes):
        assert has_colour(scores, COLOURS[index]) > 200
    for index in range(1 if classes == 2 else classes):
        assert has_colour(roc, COLOURS[index]) > 200


def test_drawing_leaves_the_users_style_alone():
    before = dict(mpl.rcParams)
    held_out = events(50, 2, 1)
    draw_roc(*held_out, NAMES[:2], evaluate(*held_out, NAMES[:2]))
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize("n", [2, 3])
def test_a_handful_of_events_is_drawn_too(n):
    few = events(n, 2, 3)
    assert picture(draw_roc(*few, NAMES[:2], evaluate(*few, NAMES[:2]))).std() > 0
    assert picture(draw_scores(few, few, NAMES[:2])).std() > 0


def test_the_same_events_give_the_same_picture():
    few = events(50, 2, 1)
    assert draw_scores(few, few, NAMES[:2]) == draw_scores(few, few, NAMES[:2])
