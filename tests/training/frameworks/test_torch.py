"""What a user may return from ``model(idim)`` in PyTorch, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from mlaas4hep.bundle.graph import FEATURES, Output, complete_graph
from mlaas4hep.bundle.session import open_session
from mlaas4hep.errors import ModelFileError, TrainingError
from mlaas4hep.streaming.encoding.encoding import Encoding, Feature
from mlaas4hep.training.frameworks.base import FitSettings, NoProgress, Task
from mlaas4hep.training.frameworks.torch.trainer import make_trainer

from .toy import ToyBatches, toy_events

TASK = Task(width=5, classes=2)


class Layers(nn.Module):
    """A linear layer and then whatever is asked for."""

    def __init__(self, then, columns=1, width=5):
        super().__init__()
        self.linear, self.then = nn.Linear(width, columns), then

    def forward(self, x):
        return self.then(self.linear(x))


def of(returned, task=TASK):
    return make_trainer(returned, task, "toy.py")


@pytest.mark.parametrize(
    ("module", "output", "columns"),
    [
        (nn.Linear(5, 1), Output.LOGITS, 1),
        (Layers(lambda z: z.squeeze(1)), Output.LOGITS, 1),
        (Layers(torch.sigmoid), Output.PROBABILITIES, 1),
        (Layers(lambda z: torch.sigmoid(z).squeeze(-1)), Output.PROBABILITIES, 1),
        (nn.Sequential(nn.Linear(5, 1), nn.Sigmoid(), nn.Flatten(0)), Output.PROBABILITIES, 1),
        (nn.Linear(5, 2), Output.LOGITS, 2),
        (Layers(lambda z: functional.softmax(z, dim=1), 2), Output.PROBABILITIES, 2),
        (nn.Sequential(nn.Linear(5, 2), nn.Softmax(dim=-1)), Output.PROBABILITIES, 2),
        (nn.Sequential(nn.Linear(5, 2), nn.LogSoftmax(dim=1)), Output.LOG_PROBABILITIES, 2),
        (nn.Sequential(nn.Linear(5, 5), nn.Sigmoid(), nn.Linear(5, 1)), Output.LOGITS, 1),
    ],
)
def test_what_the_output_means_is_read_off_the_last_operation(module, output, columns):
    objective = of(module).objective
    assert (objective.output, objective.columns) == (output, columns)


@pytest.mark.parametrize(
    ("loss", "columns", "output"),
    [
        (nn.BCEWithLogitsLoss(), 1, Output.LOGITS),
        (nn.BCELoss(), 1, Output.PROBABILITIES),
        (functional.binary_cross_entropy, 1, Output.PROBABILITIES),
        (nn.CrossEntropyLoss(), 2, Output.LOGITS),
        (nn.NLLLoss(), 2, Output.LOG_PROBABILITIES),
    ],
)
def test_the_loss_says_it_where_the_last_operation_does_not(loss, columns, output):
    module = Layers(lambda z: z.clamp(0.01, 0.99), columns)
    assert of((module, loss)).objective.output is output


@pytest.mark.parametrize(
    ("module", "loss"),
    [
        (nn.Linear(5, 1), None),
        (Layers(torch.sigmoid), None),
        (nn.Linear(5, 2), None),
        (nn.Sequential(nn.Linear(5, 2), nn.Softmax(dim=1)), None),
        (nn.Sequential(nn.Linear(5, 2), nn.LogSoftmax(dim=1)), None),
        (nn.Linear(5, 1), nn.BCEWithLogitsLoss()),
        (nn.Linear(5, 2), nn.CrossEntropyLoss()),
        (nn.Linear(5, 1), functional.binary_cross_entropy_with_logits),
    ],
)
def test_every_form_of_cross_entropy_is_minus_the_log_of_the_true_classes_probability(module, loss):
    trainer = of((module, loss))
    batch = toy_events(50)
    x, mask, y, weight = (torch.from_numpy(array) for array in batch)
    with torch.no_grad():
        value = trainer.objective.mean_loss(module(x), x, mask, y, weight)
    p = trainer.predict(batch.x, batch.mask)
    assert value.item() == pytest.approx(-np.log(p[np.arange(50), batch.y]).mean(), rel=1e-4)


def test_an_event_of_weight_two_counts_as_two_events():
    objective = of(nn.Linear(5, 1)).objective
    x, mask, y, weight = (torch.from_numpy(array) for array in toy_events(10))
    given = torch.linspace(-1, 1, 10).unsqueeze(1)
    weight[4] = 2
    twice = [torch.cat([part, part[4:5]]) for part in (given, x, mask, y, torch.ones(10))]
    expected = objective.mean_loss(*twice) * 11
    assert (objective.mean_loss(given, x, mask, y, weight) * 10).item() == pytest.approx(expected.item())


def test_forward_gets_the_mask_if_it_asks_for_it(tmp_path):
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(10, 1)

        def forward(self, x, mask):
            return self.linear(torch.cat([x, mask.float()], dim=1))

    trainer = of(Masked())
    settings = FitSettings(1, 1, 0, tmp_path)
    trainer.fit(ToyBatches(toy_events(100), seed=1), None, settings, NoProgress())
    batch = toy_events(20)
    all_there = trainer.predict(batch.x, np.zeros_like(batch.mask))
    assert not np.array_equal(trainer.predict(batch.x, batch.mask), all_there)
    as_it_is = Encoding(tuple(Feature(f"f{place}", False, 1) for place in range(5)))
    graph, output = trainer.to_onnx()
    session = open_session(complete_graph(graph, as_it_is, output, 2))
    raw = np.where(batch.mask, np.float32(np.inf), batch.x)
    assert session.run(None, {FEATURES: raw})[0] == pytest.approx(trainer.predict(batch.x, batch.mask), abs=1e-6)


@pytest.mark.parametrize("form", ["class", "function", "instance"])
def test_an_optimiser_may_be_a_class_a_function_or_an_instance(tmp_path, form):
    module = nn.Linear(5, 1)
    optimiser = {
        "class": torch.optim.SGD,
        "function": lambda parameters: torch.optim.SGD(parameters, lr=0.5),
        "instance": torch.optim.SGD(module.parameters(), lr=0.5),
    }[form]
    before = module.weight.detach().clone()
    trainer = of((module, None, optimiser))
    trainer.check()
    trainer.fit(ToyBatches(toy_events(100), seed=1), None, FitSettings(1, 1, 0, tmp_path), NoProgress())
    assert not torch.equal(module.weight, before)


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (nn.Linear(5, 3), r"output has shape \[events, 3\]; for 2 classes it must be \[events, 1\] or \[events, 2\]"),
        (nn.Sequential(nn.Linear(5, 4), nn.Unflatten(1, (2, 2))), r"output has shape \[events, 2, 2\]"),
        (nn.Linear(6, 1), "forward fails on 5 features: RuntimeError: mat1 and mat2"),
        (Layers(lambda z: (z, z)), "forward returns tuple; it must return one tensor"),
        ((nn.Linear(5, 1), nn.CrossEntropyLoss()), "1 wide, but CrossEntropyLoss needs 2 or more outputs"),
        ((nn.Linear(5, 2), nn.BCEWithLogitsLoss()), "2 wide, but BCEWithLogitsLoss needs one output"),
        ((Layers(torch.sigmoid), nn.BCEWithLogitsLoss()), "sigmoid, gives probabilities, but BCEWithLogitsLoss takes"),
        (Layers(lambda z: torch.softmax(z, dim=1)), "softmax on 1 outputs; right is sigmoid"),
        (Layers(torch.sigmoid, 2), "sigmoid on 2 outputs; right is softmax"),
        ((nn.Linear(5, 1), "mse"), "the loss is str; it must be a function"),
        ((nn.Linear(5, 1), None, "adam"), "the optimiser is str"),
        ((nn.Linear(5, 1), None, lambda parameters: None), "the optimiser is NoneType"),
        ((nn.Linear(5, 1), None, torch.optim.SGD(nn.Linear(5, 1).parameters())), "none of the module's parameters"),
        ((nn.Linear(5, 1), None, None, None, None), "it must return a torch.nn.Module"),
        (nn.Flatten(), r"for 2 classes it must be|no parameters"),
        (Layers(lambda z: z * 2 if z.sum() > 0 else z), "cannot be exported"),
        (Layers(lambda z: z.repeat(1, 1).view(3, 1)), "cannot be exported"),
    ],
)
def test_a_model_that_does_not_fit_is_refused_before_the_training(returned, said):
    with pytest.raises(ModelFileError, match=said) as caught:
        of(returned).check()
    assert caught.value.file == "toy.py"


def test_a_forward_of_three_arguments_is_refused():
    class Three(nn.Module):
        def forward(self, x, mask, weight):
            return x

    with pytest.raises(ModelFileError, match=r"forward takes x, mask, weight; it must be forward\(x\) or"):
        of(Three()).check()


def test_a_classifier_without_labels_is_refused():
    with pytest.raises(ModelFileError, match=r"it must give back its 5 features.*a classifier needs labels"):
        of(nn.Linear(5, 1), Task(5, 0)).check()


def test_a_loss_that_is_no_number_stops_the_training_and_names_epoch_and_batch(tmp_path):
    def broken(given, target):
        broken.calls += 1
        return given.mean() * (float("nan") if broken.calls == 5 else 1.0)

    broken.calls = 0
    trainer = of((nn.Linear(5, 1), broken))
    with pytest.raises(TrainingError, match="loss is nan in epoch 2, batch 2"):
        trainer.fit(ToyBatches(toy_events(192), seed=1), None, FitSettings(3, 1, 0, tmp_path), NoProgress())


def test_the_reconstruction_error_is_the_mean_square_over_present_places():
    trainer = of(Layers(lambda z: z, 5), Task(5, 0))
    batch = toy_events(30, 0)
    given = batch.x @ trainer.module.linear.weight.detach().numpy().T + trainer.module.linear.bias.detach().numpy()
    expected = [((given[i] - batch.x[i])[~batch.mask[i]] ** 2).mean() for i in range(30)]
    assert trainer.predict(batch.x, batch.mask)[:, 0] == pytest.approx(expected, rel=1e-4)


def test_saved_weights_are_read_back_without_unpickling(tmp_path):
    module = nn.Linear(5, 1)
    of(module).save(tmp_path / "model.pt")
    other = nn.Linear(5, 1)
    other.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    assert torch.equal(other.weight, module.weight)


@pytest.mark.parametrize("form", ["instance", "function", "mapping"])
def test_a_scheduler_lowers_the_learning_rate(tmp_path, form):
    module = nn.Linear(5, 1)
    optimiser = torch.optim.SGD(module.parameters(), lr=0.5)
    halving = torch.optim.lr_scheduler.ExponentialLR
    scheduler = {
        "instance": lambda: halving(optimiser, 0.5),
        "function": lambda: lambda given: halving(given, 0.5),
        "mapping": lambda: {"scheduler": halving(optimiser, 0.5), "interval": "epoch"},
    }[form]()
    trainer = of((module, None, optimiser, scheduler))
    trainer.check()
    assert optimiser.param_groups[0]["lr"] == 0.5
    trainer.fit(ToyBatches(toy_events(100), seed=1), None, FitSettings(3, 1, 0, tmp_path), NoProgress())
    assert optimiser.param_groups[0]["lr"] == pytest.approx(0.5**4)


def lightning_module(configured, loss=True, step=False):
    import lightning.pytorch as lightning

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(5, 1)
            if loss:
                self.loss = nn.BCEWithLogitsLoss()

        def forward(self, x):
            return self.linear(x)

        def configure_optimizers(self):
            return configured(torch.optim.SGD(self.parameters(), lr=0.5))

    if step:
        Module.training_step = lambda self, batch, index: None
    return Module()


@pytest.mark.parametrize(
    "configured",
    [
        lambda optimiser: optimiser,
        lambda optimiser: [optimiser],
        lambda optimiser: ([optimiser], [torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.5)]),
        lambda optimiser: {
            "optimizer": optimiser,
            "lr_scheduler": {"scheduler": torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.5), "interval": "step"},
        },
    ],
    ids=["optimiser", "list", "lists", "mapping"],
)
def test_a_lightning_module_brings_its_loss_optimiser_and_scheduler(tmp_path, configured):
    module = lightning_module(configured)
    trainer = of(module)
    trainer.check()
    before = trainer.predict(*toy_events(500)[:2])
    history = trainer.fit(ToyBatches(toy_events(500), seed=1), None, FitSettings(3, 1, 0, tmp_path), NoProgress())
    assert history.epochs[-1].loss < history.epochs[0].loss
    assert np.abs(trainer.predict(*toy_events(500)[:2]) - before).max() > 0.1


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (
            lambda: lightning_module(lambda optimiser: optimiser, loss=False, step=True),
            "training_step is not called here",
        ),
        (lambda: lightning_module(lambda optimiser: [optimiser, optimiser]), "2 optimisers; right is one"),
        (lambda: lightning_module(lambda optimiser: 1 / 0), "configure_optimizers fails: ZeroDivisionError"),
    ],
)
def test_a_lightning_module_that_would_be_trained_otherwise_than_it_says_is_refused(module, said):
    with pytest.raises(ModelFileError, match=said):
        of(module()).check()
