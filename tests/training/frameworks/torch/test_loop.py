"""What the loop does beside learning: stops on signals, says what is wrong, and goes on only with what belongs to it."""

from __future__ import annotations

import os
import signal
import threading

import numpy as np
import pytest
import torch
from tests.training.frameworks.toy import ToyBatch, ToyBatches, toy_events
from torch import nn

import mlaas4hep
from mlaas4hep.errors import ModelFileError, SettingError, TrainingError
from mlaas4hep.training.frameworks.base import FitSettings, NoProgress, Task
from mlaas4hep.training.frameworks.torch.loop import fit
from mlaas4hep.training.frameworks.torch.objective import choose_objective
from mlaas4hep.training.interruption import TrainingInterrupted, stop_on_signals

OBJECTIVE = choose_objective(None, (3, 1), None, Task(5, 2), "toy.py")


class Told(NoProgress):
    """Keeps what it is told, and does something after some batches."""

    def __init__(self, after=-1, do=lambda: None):
        self.batches, self.notes, self.results, self.after, self.do = 0, [], [], after, do

    def advance(self, events, loss):
        self.batches += 1
        if self.batches == self.after:
            self.do()

    def note(self, line):
        self.notes.append(line)

    def epoch(self, result):
        self.results.append(result)


class Both(NoProgress):
    """Tells two."""

    def __init__(self, *told):
        self.told = told

    def advance(self, events, loss):
        for one in self.told:
            one.advance(events, loss)

    def epoch(self, result):
        for one in self.told:
            one.epoch(result)


def module(seed=1, width=5):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(width, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 1))


def settings(folder, **changes):
    return FitSettings(**{"epochs": 3, "patience": 9, "seed": 3, "checkpoints": folder} | changes)


@pytest.fixture
def learn(tmp_path):
    def run(net, train=None, validation=None, progress=None, *, scheduler=None, lr=1e-2, sgd=False, **changes):
        return fit(
            net,
            changes.pop("objective", OBJECTIVE),
            lambda parameters: (torch.optim.SGD if sgd else torch.optim.AdamW)(parameters, lr=lr),
            takes_mask=False,
            train=train if train is not None else ToyBatches(toy_events(320)),
            validation=validation,
            settings=settings(tmp_path, **changes),
            progress=progress or NoProgress(),
            make_scheduler=scheduler,
        )

    return run


@pytest.fixture(scope="module")
def dataset(class_files):
    return mlaas4hep.open(class_files, labels=[0, 1], branches=["MET_pt", "Jet_pt", "nElectron"])


def weights(net):
    return torch.cat([value.flatten() for value in net.state_dict().values()])


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_after_the_batch_and_the_training_goes_on_to_the_same_weights(learn, dataset, number, status):
    def stream():
        return dataset.stream("train", batch_size=64, seed=2)

    def validation():
        return dataset.stream("validation", shuffle=False)

    width = dataset.encoding.width
    unbroken = module(width=width)
    history = learn(unbroken, stream(), validation())
    told = Told(50, lambda: os.kill(os.getpid(), number))
    before = signal.getsignal(number)
    with pytest.raises(
        TrainingInterrupted, match=r"stopped in epoch 2, batch \d+; the best epoch so far is 1"
    ) as caught:
        learn(module(width=width), stream(), validation(), told)
    assert signal.getsignal(number) is before
    assert caught.value.exit_status == status
    assert "--resume goes on from" in str(caught.value)
    assert told.batches in (50, 51)
    resumed, again = module(width=width), Told()
    assert learn(resumed, stream(), validation(), again, resume=True).best_epoch == history.best_epoch
    batches = len(list(stream()))
    assert told.batches + again.batches == 3 * batches
    assert torch.equal(weights(resumed), weights(unbroken))


def test_a_second_signal_stops_at_once(learn, tmp_path):
    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    told = Told(2, twice)
    with pytest.raises(KeyboardInterrupt) as caught:
        learn(module(), progress=told)
    assert not isinstance(caught.value, TrainingInterrupted)
    assert told.batches == 2
    with stop_on_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(SystemExit) as left:
            os.kill(os.getpid(), signal.SIGTERM)
    assert left.value.code == 143


def test_a_signal_during_validation_stops_there_and_it_is_validated_again(learn, dataset):
    class Stopping:
        epoch = 0

        def __iter__(self):
            for batch in dataset.stream("validation", shuffle=False, batch_size=64):
                os.kill(os.getpid(), signal.SIGINT)
                yield batch

    width = dataset.encoding.width
    with pytest.raises(TrainingInterrupted, match="stopped in epoch 1"):
        learn(module(width=width), dataset.stream("train", seed=2), Stopping())
    told = Told()
    history = learn(
        module(width=width), dataset.stream("train", seed=2), dataset.stream("validation"), told, resume=True, epochs=1
    )
    assert told.batches == 0
    assert len(history.epochs) == 1


def test_in_another_thread_signals_are_left_alone(learn):
    before, results = signal.getsignal(signal.SIGINT), []
    thread = threading.Thread(target=lambda: results.append(learn(module(), epochs=1)))
    thread.start()
    thread.join()
    assert len(results) == 1
    assert signal.getsignal(signal.SIGINT) is before


def test_a_finished_training_can_be_given_more_epochs(learn):
    longer = module()
    learn(longer, epochs=4)
    learn(module(), epochs=2)
    first, told = module(), Told()
    history = learn(first, progress=told, epochs=2, resume=True)
    assert len(history.epochs) == 2
    assert told.batches == 0
    learn(first, progress=told, epochs=4, resume=True)
    assert told.batches == 2 * 5
    assert torch.equal(weights(first), weights(longer))


def test_resuming_without_a_checkpoint_begins_and_says_so(learn, tmp_path):
    told = Told()
    learn(module(), progress=told, epochs=1, resume=True)
    assert told.notes == [f"no checkpoint in {tmp_path}: the training begins"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 4}, "seed was 3 and is 4 now"),
        ({"clip": 1.0}, r"clip was 0\.0 and is 1\.0 now"),
        ({"precision": "bf16-mixed"}, "precision was 32 and is bf16-mixed now"),
        ({"run": {"split": 0.3}}, r"split was 0\.2 and is 0\.3 now"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused_with_the_reason(learn, change, said):
    learn(module(), epochs=1, run={"split": 0.2})
    with pytest.raises(TrainingError, match=f"is of another run: {said}; without --resume the training begins anew"):
        learn(module(), **{"epochs": 2, "resume": True, "run": {"split": 0.2}} | change)


def test_a_checkpoint_of_another_model_or_other_events_is_refused_with_the_reason(learn, dataset):
    width = dataset.encoding.width
    learn(module(width=width), dataset.stream("train", batch_size=64), epochs=1)
    with pytest.raises(TrainingError, match=r"model was Sequential.* and is Linear.* now"):
        learn(nn.Linear(width, 1), dataset.stream("train", batch_size=64), resume=True)
    with pytest.raises(TrainingError, match=r"last\.ckpt is of other files, features or settings of the stream"):
        learn(module(width=width), dataset.stream("train", batch_size=32), resume=True)


def test_a_damaged_checkpoint_costs_a_warning_and_the_batches_since_the_one_before(learn, dataset, tmp_path):
    width = dataset.encoding.width
    unbroken = module(width=width)
    learn(unbroken, dataset.stream("train", batch_size=64))
    stop = Told(20, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(TrainingInterrupted):
        learn(module(width=width), dataset.stream("train", batch_size=64), progress=stop, checkpoint_every=0)
    last = tmp_path / "last.ckpt"
    last.write_bytes(last.read_bytes()[:-200])
    resumed, told = module(width=width), Told()
    learn(resumed, dataset.stream("train", batch_size=64), progress=told, resume=True)
    assert told.notes[0].startswith(f"warning: {last} is damaged")
    assert told.notes[0].endswith("previous.ckpt is used instead")
    assert told.notes[1].startswith("goes on after epoch 1, batch ")
    assert torch.equal(weights(resumed), weights(unbroken))


def test_a_loss_that_is_no_number_names_epoch_batch_rate_and_the_feature_that_is_far_out(learn):
    batch = toy_events(320)
    batch.x[200, 3] = np.float32(-3e38)
    net = module()
    with torch.no_grad():
        net[0].weight *= 100
    with pytest.raises(TrainingError) as caught:
        learn(net, ToyBatches(batch), features=("a", "b", "c", "Jet_pt_0", "e"))
    said = str(caught.value)
    assert "epoch 1, batch 4" in said
    assert "at a learning rate of 0.01" in said
    assert "the largest scaled value of that batch is -3e+38, of 'Jet_pt_0', which is far out" in said


def test_a_batch_that_spoilt_the_weights_is_looked_at_when_the_next_one_shows_it(learn):
    batch = toy_events(320)
    batch.x[10, 1] = np.float32(1e30)
    net = nn.Linear(5, 1)
    for parameter in net.parameters():
        nn.init.zeros_(parameter)

    def spoilt(given, target):
        return given.mean() * 1e12  # 0 at first, but its gradient is not finite

    objective = choose_objective(None, (3, 1), spoilt, Task(5, 2), "toy.py")
    with pytest.raises(TrainingError, match=r"epoch 1, batch 2, .* batch before is 1e\+30, of feature 1, which is far"):
        learn(net, ToyBatches(batch), objective=objective, sgd=True)


def test_a_learning_rate_that_is_far_too_large_is_named(learn):
    with pytest.raises(TrainingError, match=r"at a learning rate of 1e\+30; .* a smaller learning rate"):
        learn(module(), lr=1e30, epochs=20)


def test_without_a_position_of_the_batches_the_epochs_are_what_is_kept(learn):
    stop = Told(8, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(TrainingInterrupted, match="stopped in epoch 2"):
        learn(module(), progress=stop)
    resumed, told, unbroken = module(), Told(), module()
    learn(resumed, progress=told, resume=True)
    learn(unbroken)
    assert told.notes == ["goes on after epoch 2, batch 0"]
    assert torch.equal(weights(resumed), weights(unbroken))


def test_clipping_bounds_the_gradient_that_is_learned_from(tmp_path):
    def learned(clip):
        net = nn.Linear(5, 1)
        nn.init.zeros_(net.weight)
        fit(
            net,
            OBJECTIVE,
            lambda parameters: torch.optim.SGD(parameters, lr=1.0),
            takes_mask=False,
            train=ToyBatches(toy_events(64)),
            validation=None,
            settings=settings(tmp_path, epochs=1, clip=clip),
            progress=NoProgress(),
        )
        return net.weight.norm()

    assert learned(0.01) <= 0.0101
    assert learned(0) > 0.1


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_mixed_precision_learns_about_the_same_but_not_the_same(learn, precision):
    full, half = module(), module()
    exact = learn(full, epochs=2).epochs[-1].loss
    mixed = learn(half, epochs=2, precision=precision).epochs[-1].loss
    assert mixed == pytest.approx(exact, abs=0.05)
    assert mixed != exact
    assert half[0].weight.dtype == torch.float32


def test_a_precision_that_does_not_exist_is_refused(learn):
    with pytest.raises(SettingError, match="setting 'precision' must be one of 32, 16-mixed, bf16-mixed; got '8'"):
        learn(module(), precision="8")


def rates(history_of, scheduler, **changes):
    seen = []

    class Rates(NoProgress):
        def advance(self, events, loss):
            seen.append(optimisers[0].param_groups[0]["lr"])

    optimisers = []

    def make(optimiser):
        optimisers.append(optimiser)
        return scheduler(optimiser)

    history_of(module(), progress=Rates(), scheduler=make, **changes)
    return seen


def test_a_schedule_goes_on_each_epoch_or_each_step_as_it_says(learn):
    def halve(optimiser):
        return torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.5)

    by_epoch = rates(learn, halve, epochs=2)
    assert by_epoch == [0.01] * 5 + [0.005] * 5
    by_step = rates(learn, lambda optimiser: {"scheduler": halve(optimiser), "interval": "step"}, epochs=1)
    assert by_step == pytest.approx([0.01 * 0.5 ** (step + 1) for step in range(5)])


def test_a_schedule_on_a_plateau_looks_at_the_validation_loss(learn):
    told = Told()

    def plateau(optimiser):
        return torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, factor=0.5, patience=0, threshold=0.0)

    few = ToyBatches(toy_events(20, seed=2), size=20)  # so few that later epochs only learn them by heart
    seen = rates(
        lambda net, progress, **more: learn(
            net, few, ToyBatches(toy_events(100, seed=5)), Both(told, progress), **more
        ),
        plateau,
        epochs=40,
        patience=40,
        lr=0.1,
    )
    losses = [result.validation_loss for result in told.results]
    worse = [loss >= min(losses[:index], default=np.inf) for index, loss in enumerate(losses)]
    expected = 0.1 * 0.5 ** np.cumsum([0, *worse[:-1]])
    assert 0 < sum(worse) < 40
    assert seen == pytest.approx(np.maximum(expected, seen[-1]).tolist())


@pytest.mark.parametrize("made", ["cosine", {"scheduler": None, "interval": "year"}])
def test_what_is_no_schedule_is_refused(learn, made):
    with pytest.raises(ModelFileError, match="scheduler"):
        learn(module(), scheduler=lambda optimiser: made)


def test_the_learning_rate_that_is_found_learns_and_the_search_leaves_no_trace(learn):
    told = Told()
    events = ToyBatches(toy_events(3200), size=32)
    history = learn(module(), events, progress=told, find_learning_rate=True, epochs=1)
    assert told.batches == 100
    assert told.notes[0].startswith("learning rate ")
    found = float(told.notes[0].split()[2].rstrip(":"))
    assert 1e-4 < found < 1
    # What learned at that rate from the beginning is the same to the bit.
    plain = module()
    searched = module()
    learn(searched, ToyBatches(toy_events(3200), size=32), find_learning_rate=True, epochs=1)
    exact = 1e-7 * (1.0 / 1e-7) ** (round(np.log(found / 1e-7) / np.log(1e7) * 99) / 99)
    again = learn(plain, ToyBatches(toy_events(3200), size=32), lr=exact, epochs=1)
    assert again.epochs[0].loss == pytest.approx(history.epochs[0].loss, rel=1e-6)


def test_too_few_batches_for_a_search_are_refused(learn):
    with pytest.raises(TrainingError, match="searched over at least 10 batches; there were 5"):
        learn(module(), find_learning_rate=True)


def test_batches_are_what_they_are_when_the_share_of_waiting_is_told(learn):
    told = Told()
    learn(module(), progress=told, epochs=1)
    assert 0 < told.results[0].waiting < 1
    assert isinstance(next(iter(ToyBatches(toy_events(3)))), ToyBatch)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_a_compiled_module_learns_the_same_and_keeps_the_names_of_its_weights(learn):
    plain, compiled = module(), module()
    learn(plain, epochs=1)
    with torch.compiler.set_stance("force_eager"):  # the compiler itself takes half a minute
        learn(compiled, epochs=1, compile=True)
    assert list(compiled.state_dict()) == list(plain.state_dict())
    assert torch.equal(weights(compiled), weights(plain))
