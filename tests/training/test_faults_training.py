"""What happens to training when batches are wrong, processes are killed, and Ctrl-C is pressed."""

import errno
import os
import signal
import sys
from copy import deepcopy
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from faults import die, in_child
from torch import nn
from torch.nn import functional as F
from torch.optim import Adam, lr_scheduler

import mnist_helpers
from mnist_helpers import plots
from mnist_helpers.data.augment import Augmentation
from mnist_helpers.data.digits import Digits
from mnist_helpers.data.loaders import ResidentLoader, make_loaders
from mnist_helpers.environment import seeded
from mnist_helpers.evaluation.calibration import fit_temperature
from mnist_helpers.evaluation.scores import predict_logits
from mnist_helpers.models import network, unwrapped
from mnist_helpers.models.saved import CheckpointError
from mnist_helpers.training.loop import fit
from mnist_helpers.training.resume import load_state, state_of

N_BATCHES, N_EPOCHS = 5, 4


def small_mlp():
    return network((16,), dropout=0.3, batch_norm=True)


def small_cnn():
    return nn.Sequential(
        nn.Conv2d(1, 4, 5, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(256, 10)
    )


SCHEDULES = {
    "none": lambda optimizer: None,
    "constant": lambda optimizer: lr_scheduler.ConstantLR(optimizer, 0.1, 2),
    "cosine": lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, N_EPOCHS),
    "warm restarts": lambda optimizer: lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 2),
    "cyclic": lambda optimizer: lr_scheduler.CyclicLR(optimizer, 1e-4, 1e-2, 7, cycle_momentum=False),
    "exponential": lambda optimizer: lr_scheduler.ExponentialLR(optimizer, 0.5),
    "lambda": lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.5**epoch),
    "linear": lambda optimizer: lr_scheduler.LinearLR(optimizer, 0.1, 1.0, 3),
    "multi-step": lambda optimizer: lr_scheduler.MultiStepLR(optimizer, [1, 3], 0.1),
    "one cycle": lambda optimizer: lr_scheduler.OneCycleLR(optimizer, 1e-2, N_EPOCHS * N_BATCHES),
    "plateau": lambda optimizer: lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=0, threshold=0.5),
    "polynomial": lambda optimizer: lr_scheduler.PolynomialLR(optimizer, 4),
    "sequence": lambda optimizer: lr_scheduler.SequentialLR(
        optimizer, [lr_scheduler.LinearLR(optimizer, 0.1), lr_scheduler.StepLR(optimizer, 1, 0.5)], [2]
    ),
    "step": lambda optimizer: lr_scheduler.StepLR(optimizer, 2, gamma=0.1),
}


class Training:
    """A short training on synthetic digits, made anew each time it is asked for; `run` may be given `fit`'s options."""

    def __init__(self, digits, build=small_mlp, schedule="none", augmented=False, weights=0):
        with seeded(weights):
            self.model = build()
        self.optimizer = Adam(self.model.parameters(), lr=1e-3)
        self.scheduler = SCHEDULES[schedule](self.optimizer)
        augmentation = Augmentation(degrees=15, translate=2, elastic=20) if augmented else None
        self.loaders = [*make_loaders(digits, 40, seed=5, device="cpu", augmentation=augmentation)]

    def run(self, n_epochs=N_EPOCHS, **options):
        options = {"scheduler": self.scheduler, "seed": 5, "progress": False} | options
        return fit(self.model, *self.loaders, self.optimizer, n_epochs, **options)

    def states(self):
        return [part and part.state_dict() for part in (self.model, self.optimizer, self.scheduler)]


def same(ours, theirs):
    """Compare states bit for bit, whatever they are made of."""
    if isinstance(theirs, torch.Tensor):
        assert torch.equal(ours, theirs)
    elif isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        [same(ours[name], theirs[name]) for name in theirs]
    elif isinstance(theirs, list):
        assert len(ours) == len(theirs)
        [same(*pair) for pair in zip(ours, theirs)]
    else:
        assert ours == theirs


def killed_in(batch):
    """Return a loss function that kills this process in the given batch, counted from 1, those of validation too."""
    calls = []

    def loss_function(logits, labels):
        calls.append(1)
        if len(calls) == batch:
            die()
        return F.cross_entropy(logits, labels)

    return loss_function


@pytest.mark.parametrize(("build", "augmented"), [(small_mlp, False), (small_cnn, True)])
def test_killed_anywhere_and_resumed_it_ends_as_if_nothing_had_been(digits, tmp_path, build, augmented):
    """In the first epoch, in validation, between epochs, in the third: bit for bit."""
    batches = 3, N_BATCHES + 1, N_BATCHES + 3, 3 * N_BATCHES + 4
    assert_resumes(digits, tmp_path, *batches, build=build, augmented=augmented)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_killed_under_any_schedule_and_resumed_it_ends_as_if_nothing_had_been(digits, tmp_path, schedule):
    assert_resumes(digits, tmp_path, 2 * N_BATCHES + 4, schedule=schedule)


def assert_resumes(digits, folder, *batches, **how):
    """Compare training that was killed in each of these batches and resumed with training that was not."""
    whole = Training(digits, **how)
    history = whole.run()
    for batch in batches:
        file, killed = folder / f"{batch}.pt", Training(digits, **how)
        options = {"checkpoint": file, "loss_function": killed_in(batch)}
        assert in_child(lambda killed=killed, options=options: killed.run(**options)) == signal.SIGKILL
        assert file.exists() == (batch > N_BATCHES + 1)
        resumed = Training(digits, **how, weights=99 * file.exists())  # a state replaces whatever weights there are
        again = resumed.run(checkpoint=file, resume=True)
        assert again == history and len(again) == N_EPOCHS
        same(resumed.states(), whole.states())
        same(again.best_state, history.best_state)


class Modular(nn.Module):
    """A network of one's own, with an attribute of the name that wrappers use."""

    def __init__(self):
        super().__init__()
        self.module, self.head = nn.Sequential(nn.Flatten(), nn.Linear(784, 16), nn.ReLU()), nn.Linear(16, 10)

    def forward(self, images):
        return self.head(self.module(images))


def test_a_network_with_an_attribute_module_is_kept_as_a_whole(digits, tmp_path):
    assert_resumes(digits, tmp_path, 2 * N_BATCHES + 4, build=Modular)


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda model: torch.compile(model, backend="eager")])
def test_what_is_wrapped_around_a_network_is_no_part_of_its_state(digits, tmp_path, wrap):
    training, alone = Training(digits), Training(digits)
    wrapped = wrap(training.model)
    assert unwrapped(wrapped) is training.model and unwrapped(nn.DataParallel(wrapped)) is training.model
    training.model = wrapped
    history, whole = training.run(2, checkpoint=tmp_path / "run.pt"), alone.run()
    resumed = Training(digits, weights=99)  # a network that is not wrapped
    assert resumed.run(checkpoint=tmp_path / "run.pt", resume=True) == whole and history.epochs == whole.epochs[:2]
    same(resumed.states(), alone.states())


class WorseAndWorse(nn.Module):
    """Learns nothing, and each look at the validation images makes the loss higher."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(10))
        self.register_buffer("looks", torch.zeros(()))

    def forward(self, images):
        self.looks += not self.training
        return self.weight + torch.linspace(0, 1, 10) * self.looks + 0 * images.flatten(1)[:, :10]


@pytest.mark.parametrize("batch", [2 * N_BATCHES + 4, None])
def test_a_training_that_stopped_early_stops_there_again_and_trains_no_further(digits, tmp_path, batch):
    options = {"checkpoint": tmp_path / "run.pt", "resume": True, "patience": 2}
    history = Training(digits, WorseAndWorse).run(9, patience=2)
    assert len(history) == 3 and history.stopped == "early"
    in_child(lambda: Training(digits, WorseAndWorse).run(9, **options, loss_function=killed_in(batch)))
    assert len(load_state(tmp_path / "run.pt")["epochs"]) == (3 if batch is None else 2)
    for _ in range(2):
        again = (training := Training(digits, WorseAndWorse)).run(9, **options)
        assert again == history and again.stopped == "early"
        same(training.model.looks, torch.tensor(6.0))  # two validation batches an epoch
    assert len(Training(digits, WorseAndWorse).run(9, **options | {"patience": 4})) == 5, (
        "with more patience it goes on"
    )


def test_a_state_that_cannot_be_kept_ends_training_with_all_that_is_finished(digits, tmp_path, monkeypatch):
    training, replace = Training(digits), os.replace

    def full_in_the_second_epoch(*paths):
        if (tmp_path / "run.pt").exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(*paths)

    monkeypatch.setattr(os, "replace", full_in_the_second_epoch)
    with pytest.raises(OSError, match="is full: free") as caught:
        training.run(checkpoint=tmp_path / "run.pt")
    assert len(caught.value.history) == 2 and len(load_state(tmp_path / "run.pt")["epochs"]) == 1
    same(training.model.state_dict(), caught.value.history.last_state)


def test_where_no_state_can_be_kept_is_said_before_the_first_step(digits, tmp_path, monkeypatch):
    """In the place of its folder is a file, in its own a folder; the disk has no room for the weights."""
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "folder").mkdir()

    def full(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    for path, message in (
        (tmp_path / "file" / "run.pt", "run.pt cannot be written .*: choose a folder you may write to"),
        (tmp_path / "folder", "folder is a folder: give the path of a file in it"),
        (tmp_path / "new" / "run.pt", "is full: free 1 MB"),
    ):
        if path.parent.name == "new":
            monkeypatch.setattr(os, "fsync", full)
        training = Training(digits)
        with pytest.raises(OSError, match=message) as caught:
            training.run(checkpoint=path, loss_function=None)
        assert len(caught.value.history) == 0
        same(training.states(), Training(digits).states())
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder", "new"], "no probe is left behind"


WRONG = {  # what happens to the images and labels of a batch, and what the error says of the batch
    "shape": (lambda images, labels: (images[:, :, :20], labels), "images float32 (40, 1, 20, 28), labels int64 (40,)"),
    "bytes": (lambda images, labels: (images.byte(), labels), "images uint8 (40, 1, 28, 28), labels int64 (40,)"),
    "label 10": (lambda images, labels: (images, labels + 1), "images float32 (40, 1, 28, 28), labels int64 (40,)"),
    "label -1": (lambda images, labels: (images, labels - 1), "images float32 (40, 1, 28, 28), labels int64 (40,)"),
    "floats": (lambda images, labels: (images, labels.float()), "images float32 (40, 1, 28, 28), labels float32 (40,)"),
    "too few": (lambda images, labels: (images, labels[1:]), "images float32 (40, 1, 28, 28), labels int64 (39,)"),
    "arrays": (lambda *batch: [part.numpy() for part in batch], "images float32 (40, 1, 28, 28), labels int64 (40,)"),
    "lists": (lambda *batch: [part.tolist() for part in batch], "images list (), labels list ()"),
    "a dict": (lambda images, labels: {"image": images, "label": labels}, "a dict, not a pair (images, labels)"),
    "one image": (lambda images, labels: (images[:1], labels[:1]), "images float32 (1, 1, 28, 28), labels int64 (1,)"),
}


class Spoilt:
    """A loader one of whose batches, counted over all epochs, is wrong."""

    def __init__(self, loader, batch, spoil):
        self.loader, self.batch, self.spoil, self.number = loader, batch, spoil, 0
        self.sampler = getattr(loader, "sampler", None)

    def __iter__(self):
        for images, labels in self.loader:
            self.number += 1
            yield self.spoil(images, labels) if self.number == self.batch else (images, labels)  # counted from 1


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_batch_is_named_and_history_and_best_state_survive(digits, name):
    """The error is PyTorch's own, with a note."""
    spoil, described = WRONG[name]
    training = Training(digits)
    training.loaders[0] = Spoilt(training.loaders[0], N_BATCHES + 2, spoil)
    with pytest.raises((RuntimeError, ValueError, TypeError, IndexError, AttributeError)) as caught:
        training.run()
    assert caught.value.__notes__ == [f"epoch 2, batch 2: {described}"]
    assert_first_epoch_is_kept(caught.value, training, digits)


def test_a_wrong_batch_in_validation_is_named_too(digits):
    """A label out of range after the first batch is seen when all batches have been computed."""
    for name, batch, note in (
        ("shape", 1, "epoch 2, validation batch 1: images float32 (40, 1, 20, 28), labels int64 (40,)"),
        ("label 10", 1, "epoch 2, validation batch 1: images float32 (40, 1, 28, 28), labels int64 (40,)"),
        ("label 10", 2, "epoch 2, after validation batch 2"),
    ):
        training = Training(digits)
        training.loaders[1] = Spoilt(training.loaders[1], 2 + batch, WRONG[name][0])
        with pytest.raises((RuntimeError, IndexError, ValueError)) as caught:
            training.run()
        assert caught.value.__notes__ == [note]
        assert_first_epoch_is_kept(caught.value, training, digits)


def assert_first_epoch_is_kept(error, training, digits):
    history = error.history
    assert history == Training(digits).run(1)
    same(training.model.state_dict(), history.last_state)
    same(history.best_state, history.last_state)


def test_without_batch_normalisation_a_single_image_is_trained_on(digits):
    loaders = make_loaders(digits.take(torch.arange(101)), 79, device="cpu")  # of which 80 are for training: 79 + 1
    with seeded(0):
        model = network((16,))
    assert len(fit(model, *loaders, Adam(model.parameters()), 1, progress=False)) == 1


@pytest.mark.parametrize("place", [0, 1])
def test_an_empty_loader_is_named_and_history_survives(digits, place):
    training = Training(digits)
    training.loaders[place] = []
    with pytest.raises(ValueError, match="the loader gave no batch: there is nothing to (train on|evaluate)") as caught:
        training.run()
    assert len(caught.value.history) == 0
    same(training.model.state_dict(), Training(digits).model.state_dict())


@pytest.mark.parametrize("place", [0, 1])
def test_a_loader_that_can_be_read_only_once_is_refused_before_training(digits, place):
    training = Training(digits)
    training.loaders[place] = iter(training.loaders[place])
    with pytest.raises(ValueError, match="^the loader is a generator, which gives its batches only once: give a Data"):
        training.run(2)
    same(training.model.state_dict(), Training(digits).model.state_dict())
    assert len(training.run(1)) == 1, "for a single epoch it serves"


def test_pixels_that_no_normalisation_gives_are_a_warning(digits):
    def train(normalisation, distort):
        model = Training(digits).model
        loader = ResidentLoader(digits, 100, normalisation, device="cpu")
        batches = [(distort(images), labels) for images, labels in loader]
        return fit(model, batches, None, Adam(model.parameters()), 2, progress=False)

    half_twice, mnist_too = (lambda images: (images - 0.5) / 0.5), (lambda images: (images - 0.1307) / 0.3081)
    for normalisation in ("half", "mnist", "unit", "raw"):
        train(normalisation, lambda images: images)  # without a warning, which would be an error
        if normalisation != "raw":
            with pytest.warns(UserWarning, match="from .*, which hardly differ: were the images divided by 255 twice"):
                train(normalisation, lambda images: images / 255)
        for distort in (half_twice, mnist_too, lambda images: images * 255):
            if normalisation == "unit":  # normalised once, then, or as stored: nothing to be seen
                train(normalisation, distort)
                continue
            with pytest.warns(UserWarning, match="the first batch has pixels from .*, which no normalis") as caught:
                train(normalisation, distort)
            assert len(caught) == 1, "in the first epoch alone"


def test_a_class_that_never_occurs_is_no_hindrance(digits):
    """In training, in validation, and in what is drawn of them."""
    digits = digits.take((digits.labels != 7).nonzero().flatten())
    training = Training(digits)
    history = training.run()
    assert len(history) == N_EPOCHS and all(loss > 0 for loss in history["validation_loss"])
    logits, labels = predict_logits(training.model, training.loaders[1]), training.loaders[1].labels
    right = 100 * (logits.argmax(dim=1) == labels).double().mean().item()
    assert right == pytest.approx(history["validation_accuracy"][-1])
    assert fit_temperature(logits, labels) > 0
    plt.close(plots.class_balance({"training": digits.labels}).figure)


def test_labels_that_are_none_are_refused_where_the_loader_is_made(digits):
    for labels in (digits.labels + 1, digits.labels - 1):
        wrong = Digits(digits.images, labels, "synthetic", "memory", {})
        with pytest.raises(ValueError, match="labels go from (1 to 10|-1 to 8), and must be 0 to 9"):
            ResidentLoader(wrong, device="cpu")


def interrupting(n, package=str(Path(mnist_helpers.__file__).parent)):
    """Return a tracer that raises KeyboardInterrupt at the n-th line that the package runs within `fit`'s loop."""
    lines = []

    def trace(frame, event, _argument):
        if not frame.f_code.co_filename.startswith(package):
            return None
        if event == "line":
            lines.append(frame)
            if len(lines) == n:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    return trace, lines


@pytest.mark.parametrize("step", [83, pytest.param(3, marks=pytest.mark.full)])
def test_ctrl_c_at_any_line_leaves_whole_epochs(digits, tmp_path, step):
    """In the package's own lines, one after the other, from the beginning of two short epochs to their end."""
    digits, before = digits.take(torch.arange(60)), sys.gettrace()
    states = [Training(digits).model.state_dict()]
    whole = [Training(digits) for _ in range(2)]
    histories = [one.run(n + 1) for n, one in enumerate(whole)]
    states += [one.model.state_dict() for one in whole]
    moments = {"raised": 0, "returned": 0}
    for n in range(1, 5000, step):
        training, file = Training(digits), tmp_path / f"{n}.pt"
        trace, lines = interrupting(n)
        sys.settrace(trace)
        try:
            history = training.run(2, checkpoint=file)
        except KeyboardInterrupt as error:
            history = getattr(error, "history", None)
            moments["raised"] += 1
        finally:
            sys.settrace(before)
        kept = load_state(file)
        if len(lines) < n:
            assert history.stopped == "" and len(history) == 2
            break
        if history is None:  # before the first epoch began, or after the last one was kept
            assert kept is None or len(kept["epochs"]) == 2
            continue
        moments["returned"] += 1
        assert history.epochs == histories[1].epochs[: len(history)]
        same(training.model.state_dict(), states[len(history)])
        assert len(history) == 0 or history.best_state is not None
        n_kept = 0 if kept is None else len(kept["epochs"])
        assert len(history) - 1 <= n_kept <= len(history)
    assert moments["returned"] > 300 / step and moments["raised"] < 1 + 100 / step, (moments, n)


def test_a_state_is_taken_up_by_the_training_that_it_is_of_alone(digits, tmp_path):
    """Of two seeds; and of two trainings of which one continues the other, or that continue different ones."""
    history, other_start = (
        Training(digits).run(2, seed=0, checkpoint=tmp_path / "a.pt"),
        Training(digits).run(2, seed=3),
    )
    state, other = load_state(tmp_path / "a.pt"), Training(digits, weights=7)
    before = deepcopy(other.states())
    with pytest.raises(CheckpointError, match="has seed 0, not 1: remove it"):
        other.run(2, resume=state, seed=1)
    Training(digits).run(1, checkpoint=tmp_path / "b.pt", seed=0, after=history)
    continued = load_state(tmp_path / "b.pt")
    assert len(history) == len(other_start) and history != other_start
    for given, after in (
        (state, history),
        (continued, other_start),
        (continued, None),
        (continued, Training(digits).run(1, seed=0)),
    ):
        with pytest.raises(CheckpointError, match="continues other epochs than those of `after`: remove it"):
            other.run(2, resume=given, seed=0, after=after)
    same(other.states(), before)
    assert Training(digits).run(1, resume=continued, seed=0, after=history).epochs[:2] == history.epochs


def test_a_state_that_does_not_fit_leaves_model_and_optimizer_as_they_were(digits):
    """Another width; or all but the optimizer fits: without care the network would be overwritten."""
    for widths in ((16, 8), (16,)):
        other = Training(digits, lambda widths=widths: network(widths, dropout=0.3, batch_norm=True), "step")
        state = state_of(other.run(1), [other.model, other.optimizer, other.scheduler], seed=5)
        if widths == (16,):
            state["states"][1]["param_groups"][0]["params"].pop()
        ours = Training(digits, schedule="step", weights=7)
        before = deepcopy(ours.states())
        with pytest.raises(CheckpointError, match="belongs to another model, optimizer or schedule"):
            ours.run(2, resume=state)
        same(ours.states(), before)


def test_numpy_numbers_in_an_optimizer_are_kept_as_plain_ones(digits, tmp_path):
    def training():
        made = Training(digits)
        made.optimizer = Adam(made.model.parameters(), lr=np.logspace(-3, -1, 3)[0])
        made.scheduler = lr_scheduler.MultiStepLR(made.optimizer, [1, 3], np.float64(0.1))
        return made

    file, seed = tmp_path / "run.pt", np.int64(5)
    training().run(2, checkpoint=file, seed=seed)
    assert training().run(checkpoint=file, resume=True, seed=seed) == training().run(seed=5)


def test_resume_without_a_file_to_resume_from_is_one_sentence(digits):
    for options in ({"resume": True}, {"resume": "run.pt", "checkpoint": "run.pt"}):
        with pytest.raises(ValueError, match="give resume=True together with the file as checkpoint"):
            Training(digits).run(1, **options)


class FailedFirst(Exception):
    pass


def test_where_the_weights_cannot_be_put_back_the_first_error_counts_and_history_survives(digits, monkeypatch):
    """As after a GPU's failure, when every further call fails too."""
    training = Training(digits)

    def loss_function(logits, labels):
        monkeypatch.setattr(training.model, "load_state_dict", lambda state: {}["a CUDA error"])
        raise FailedFirst

    with pytest.raises(FailedFirst) as caught:
        training.run(1, loss_function=loss_function)
    assert len(caught.value.history) == 0 and "could not be put back" in caught.value.__notes__[-1]


def test_ctrl_c_while_the_best_weights_are_put_in_is_an_interrupt_like_others(digits, monkeypatch):
    training = Training(digits)
    load, calls = training.model.load_state_dict, []

    def interrupted_once(state):
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return load(state)

    monkeypatch.setattr(training.model, "load_state_dict", interrupted_once)
    history = training.run(2, restore_best=True)
    assert history.stopped == "interrupted" and len(history) == 2
    same(training.model.state_dict(), history.best_state)


def test_an_error_that_no_batch_caused_comes_as_it_is(digits):
    error = torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    def loss_function(logits, labels):
        raise error

    with pytest.raises(torch.cuda.OutOfMemoryError) as caught:
        Training(digits).run(1, loss_function=loss_function)
    assert caught.value is error and len(caught.value.history) == 0


def test_a_loaders_own_error_comes_as_it_is(digits):
    """Its note does not blame the batch before."""
    for place, name in enumerate(("batch", "validation batch")):
        error = OSError("worker 7 is gone")

        def spoil(images, labels, error=error):
            raise error

        training = Training(digits)
        training.loaders[place] = Spoilt(training.loaders[place], 2, spoil)
        with pytest.raises(OSError) as caught:
            training.run(1)
        assert caught.value is error and error.__notes__ == [f"epoch 1, after {name} 1"]
