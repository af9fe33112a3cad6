"""What happens to training when batches are wrong, processes are killed, and Ctrl-C is pressed."""

import sys
from copy import deepcopy
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from faults import die, in_child
from sklearn.metrics import classification_report, confusion_matrix
from torch import nn
from torch.nn import functional as F
from torch.optim import Adam, lr_scheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import mnist_helpers
from mnist_helpers import plots
from mnist_helpers.data.augment import Augmentation
from mnist_helpers.data.digits import Digits
from mnist_helpers.data.loaders import ResidentLoader, make_loaders
from mnist_helpers.environment import seeded
from mnist_helpers.evaluation.calibration import fit_temperature
from mnist_helpers.evaluation.scores import predict_logits
from mnist_helpers.models import network
from mnist_helpers.models.saved import CheckpointError
from mnist_helpers.training.batches import BatchError
from mnist_helpers.training.loop import TrainingError, fit
from mnist_helpers.training.resume import load_state, state_of

pytestmark = pytest.mark.usefixtures("one_thread")
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

    def __init__(self, digits, build=small_mlp, schedule="none", augmented=False, averaged=False, weights=0):
        with seeded(weights):
            self.model = build()
        self.optimizer = Adam(self.model.parameters(), lr=1e-3)
        self.scheduler = SCHEDULES[schedule](self.optimizer)
        augmentation = Augmentation(degrees=15, translate=2, elastic=20) if augmented else None
        self.loaders = make_loaders(digits, 40, seed=5, device="cpu", augmentation=augmentation)
        self.companions = []
        if averaged:
            self.companions.append(AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(0.9)))
            self.optimizer.register_step_post_hook(lambda *_: self.companions[0].update_parameters(self.model))

    def run(self, n_epochs=N_EPOCHS, **options):
        options = {"scheduler": self.scheduler, "seed": 5, "progress": False, "companions": self.companions} | options
        return fit(self.model, *self.loaders, self.optimizer, n_epochs, **options)

    def states(self):
        parts = [self.model, self.optimizer, self.scheduler, *self.companions]
        return [part and part.state_dict() for part in parts]


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


@pytest.mark.parametrize("averaged", [False, True], ids=["", "averaged"])
@pytest.mark.parametrize("augmented", [False, True], ids=["", "augmented"])
@pytest.mark.parametrize("build", [small_mlp, small_cnn])
@pytest.mark.parametrize("batch", [3, N_BATCHES + 1, N_BATCHES + 3, 3 * N_BATCHES + 4])
def test_killed_anywhere_and_resumed_it_ends_as_if_nothing_had_been(
    digits, tmp_path, build, augmented, averaged, batch
):
    """In the first epoch, in validation, between epochs, in the third: bit for bit, moving averages too."""
    assert_resumes(digits, tmp_path / "run.pt", batch, build=build, augmented=augmented, averaged=averaged)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_killed_under_any_schedule_and_resumed_it_ends_as_if_nothing_had_been(digits, tmp_path, schedule):
    assert_resumes(digits, tmp_path / "run.pt", 2 * N_BATCHES + 4, schedule=schedule)


def assert_resumes(digits, file, batch, **how):
    whole = Training(digits, **how)
    history = whole.run()
    killed = Training(digits, **how)
    in_child(lambda: killed.run(checkpoint=file, resume="auto", loss_function=killed_in(batch)))
    assert file.exists() == (batch > N_BATCHES + 1)
    resumed = Training(digits, **how, weights=99 * file.exists())  # a state replaces whatever weights there are
    again = resumed.run(checkpoint=file, resume="auto")
    assert again == history and len(again) == N_EPOCHS
    same(resumed.states(), whole.states())
    same(again.best_state, history.best_state)


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
    options = {"checkpoint": tmp_path / "run.pt", "resume": "auto", "patience": 2}
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


def test_a_second_copy_is_taken_up_where_the_first_is_gone(digits, tmp_path):
    drive = tmp_path / "drive"
    drive.mkdir()
    in_child(
        lambda: Training(digits).run(checkpoint=tmp_path / "vm" / "run.pt", copy=drive, loss_function=killed_in(9))
    )
    assert (drive / "run.pt").read_bytes() == (tmp_path / "vm" / "run.pt").read_bytes()
    resumed = Training(digits, weights=99)
    again = resumed.run(checkpoint=tmp_path / "another vm" / "run.pt", copy=drive, resume="auto")
    assert again == (whole := Training(digits)).run()
    same(resumed.states(), whole.states())


@pytest.mark.filterwarnings("default:no second copy")
def test_a_drive_that_fails_never_stops_training(digits, tmp_path):
    (tmp_path / "drive").write_text("no folder")
    with pytest.warns(UserWarning, match="no second copy of the state of training: there is no folder .*drive$"):
        history = Training(digits).run(checkpoint=tmp_path / "run.pt", copy=tmp_path / "drive")
    assert history == Training(digits).run() and len(load_state(tmp_path / "run.pt")["epochs"]) == N_EPOCHS


def test_a_state_that_cannot_be_kept_ends_training_with_all_that_is_finished(digits, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OSError, match="cannot be written") as caught:
        (training := Training(digits)).run(checkpoint=tmp_path / "file" / "run.pt")
    assert len(caught.value.history) == 1
    same(training.model.state_dict(), caught.value.history.last_state)


WRONG = {  # what happens to the images and labels of a batch, and what the sentence says
    "shape": (lambda images, labels: (images[:, :, :20], labels), r"does not take its images \(40, 1, 20, 28\): "),
    "channels": (lambda images, labels: (images.expand(-1, 3, -1, -1), labels), r"take its images \(40, 3, 28, 28\)"),
    "bytes": (
        lambda images, labels: (images.byte(), labels),
        "its images are uint8, and the network's .* float32",
    ),
    "doubles": (lambda images, labels: (images.double(), labels), "its images are float64, and the .* float32"),
    "label 10": (lambda images, labels: (images, labels + 1), "a label is none of 0 to 9: Target 10 is out of bounds"),
    "label -1": (lambda images, labels: (images, labels - 1), "a label is none of 0 to 9: Target -1 is out of bounds"),
    "labels as floats": (
        lambda images, labels: (images, labels.float()),
        r"float32 \(40,\), and must be int64",
    ),
    "too few labels": (lambda images, labels: (images, labels[1:]), r"labels are int64 \(39,\), and must be int64"),
    "no numbers": (
        lambda images, labels: (images * torch.nan, labels),
        "loss is nan. Try a learning",
    ),
    "NumPy's arrays": (
        lambda images, labels: (images.numpy(), labels.numpy()),
        "it must be a pair of tensors .images, labels., and is a tuple of ndarray, ndarray",
    ),
    "three parts": (
        lambda images, labels: (images, labels, labels),
        "it must be a pair of tensors .images, labels., and is a tuple of Tensor, Tensor, Tensor",
    ),
    "a dict": (lambda images, labels: {"image": images, "label": labels}, "must be a pair of .*, and is a dict$"),
    "a single image": (
        lambda images, labels: (images[:1], labels[:1]),
        "a single image, and batch norm",
    ),
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


# In validation the others are no error, or one of all batches together
@pytest.mark.parametrize(
    ("name", "part"),
    [*((name, "training") for name in WRONG)]
    + [(name, "validation") for name in ("shape", "channels", "bytes", "label 10", "label -1", "no numbers")],
)
def test_a_wrong_batch_is_named_and_history_and_best_state_survive(digits, name, part):
    spoil, sentence = WRONG[name]
    training = Training(digits)
    batches = {"training": N_BATCHES + 2, "validation": 2 + 1}[part]
    place = ("training", "validation").index(part)
    training.loaders = [*training.loaders]
    training.loaders[place] = Spoilt(training.loaders[place], batches, spoil)
    where = "epoch 2, batch 2: " if part == "training" else "epoch 2, (in validation|after its last batch): "
    with pytest.raises((BatchError, TrainingError), match=f"^{where}.*{sentence}") as caught:
        training.run()
    assert len(str(caught.value).splitlines()) == 1
    history = caught.value.history
    assert history == Training(digits).run(1)
    same(training.model.state_dict(), history.last_state)
    same(history.best_state, history.last_state)


def test_without_batch_normalisation_a_single_image_is_trained_on(digits):
    digits = digits.take(torch.arange(101))  # of which 80 are for training: 79 + 1
    loaders = make_loaders(digits, 79, device="cpu")
    for build, fails in ((lambda: network((16,)), False), (small_mlp, True)):
        with seeded(0):
            model = build()
        if fails:
            with pytest.raises(BatchError, match="epoch 1, batch 2: it has a single image"):
                fit(model, *loaders, Adam(model.parameters()), 1, progress=False)
        else:
            assert len(fit(model, *loaders, Adam(model.parameters()), 1, progress=False)) == 1


@pytest.mark.parametrize("place", [0, 1])
def test_an_empty_loader_is_named_and_history_survives(digits, place):
    training = Training(digits)
    loaders = [*training.loaders]
    training.loaders = [*loaders]
    training.loaders[place] = []
    with pytest.raises(ValueError, match="the loader gave no batch: there is nothing to (train on|evaluate)") as caught:
        training.run()
    assert len(caught.value.history) == 0
    same(training.model.state_dict(), Training(digits).model.state_dict())


@pytest.mark.parametrize(
    "distort",
    [lambda images: (images - 0.5) / 0.5, lambda images: (images - 0.1307) / 0.3081, lambda images: images * 255],
    ids=["half twice", "half, then mnist's", "scaled back, then not"],
)
@pytest.mark.parametrize("normalisation", ["half", "mnist", "unit", "raw"])
def test_pixels_that_no_normalisation_gives_are_a_warning(digits, normalisation, distort):
    def train(distort):
        loader = ResidentLoader(digits, 100, normalisation, device="cpu")
        model = Training(digits).model
        batches = [(distort(images), labels) for images, labels in loader]
        return fit(model, batches, None, Adam(model.parameters()), 1, progress=False)

    train(lambda images: images)  # without a warning, which would be an error
    if normalisation == "unit":  # normalised once, then, or as stored: nothing to be seen
        train(distort)
        return
    with pytest.warns(UserWarning, match="the first batch has pixels from .* to .*, which no normalisation here gives"):
        train(distort)


def test_a_class_that_never_occurs_is_no_hindrance(digits):
    """In training, in validation, in the figures, and in what is drawn of them."""
    digits = digits.take((digits.labels != 7).nonzero().flatten())
    training = Training(digits)
    history = training.run()
    assert len(history) == N_EPOCHS and all(loss > 0 for loss in history["validation_loss"])
    logits, labels = predict_logits(training.model, training.loaders[1]), training.loaders[1].labels
    right = 100 * (logits.argmax(dim=1) == labels).double().mean().item()
    assert right == pytest.approx(history["validation_accuracy"][-1])
    assert fit_temperature(logits, labels) > 0
    answers = logits.argmax(dim=1)
    assert confusion_matrix(labels, answers, labels=range(10))[7].sum() == 0
    assert "precision" in classification_report(labels, answers, zero_division=0)  # as in the notebooks: no warning
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


def test_ctrl_c_at_any_line_leaves_whole_epochs(digits, tmp_path):
    """In the package's own lines, one after the other, from the beginning of two short epochs to their end."""
    digits, before = digits.take(torch.arange(60)), sys.gettrace()
    states = [Training(digits).model.state_dict()]
    whole = [Training(digits) for _ in range(2)]
    histories = [one.run(n + 1) for n, one in enumerate(whole)]
    states += [one.model.state_dict() for one in whole]
    outcomes = {"raised": 0, "returned": 0}
    for n in range(1, 5000, 3):
        training, file = Training(digits), tmp_path / f"{n}.pt"
        trace, lines = interrupting(n)
        sys.settrace(trace)
        try:
            history = training.run(2, checkpoint=file)
        except KeyboardInterrupt as error:
            history = getattr(error, "history", None)
            outcomes["raised"] += 1
        finally:
            sys.settrace(before)
        kept = load_state(file)
        if len(lines) < n:
            assert history.stopped == "" and len(history) == 2
            break
        if history is None:  # before the first epoch began, or after the last one was kept
            assert kept is None or len(kept["epochs"]) == 2
            continue
        outcomes["returned"] += 1
        assert history.epochs == histories[1].epochs[: len(history)]
        same(training.model.state_dict(), states[len(history)])
        assert len(history) == 0 or history.best_state is not None
        n_kept = 0 if kept is None else len(kept["epochs"])
        assert len(history) - 1 <= n_kept <= len(history)
    assert outcomes["returned"] > 100 and outcomes["raised"] < 20


def test_a_state_is_taken_up_by_the_training_that_it_is_of_alone(digits, tmp_path):
    """Two seeds whose copies have one name, and two trainings of which one continues the other."""
    (tmp_path / "drive").mkdir()
    options = {"copy": tmp_path / "drive", "resume": "auto"}
    history = Training(digits).run(2, checkpoint=tmp_path / "s0" / "r.pt", seed=0, **options)
    other = Training(digits, weights=7)
    before = {name: value.clone() for name, value in other.model.state_dict().items()}
    with pytest.raises(CheckpointError, match="is that of seed 0, not 1: remove it"):
        other.run(2, checkpoint=tmp_path / "s1" / "r.pt", seed=1, **options)
    same(other.model.state_dict(), before)
    state = load_state(tmp_path / "s0" / "r.pt")
    for after in (history, Training(digits).run(1, seed=3)):
        with pytest.raises(CheckpointError, match="is that of one that continues another"):
            Training(digits).run(2, resume=state, seed=0, after=after)
    continued = Training(digits).run(1, checkpoint=tmp_path / "c.pt", seed=0, after=history)
    assert Training(digits).run(1, resume=load_state(tmp_path / "c.pt"), seed=0, after=history) == continued
    with pytest.raises(CheckpointError, match="is that of one that continues another"):
        Training(digits).run(1, resume=load_state(tmp_path / "c.pt"), seed=0)


@pytest.mark.parametrize("companions", [False, True])
def test_a_state_that_does_not_fit_leaves_model_and_optimizer_as_they_were(digits, companions):
    """Another width, or all but the last part fits: without care the first layers would be overwritten."""
    other = Training(digits, lambda: network((16,) if companions else (16, 8), dropout=0.3, batch_norm=True))
    state = state_of(other.run(1), [other.model, other.optimizer, other.scheduler], seed=5)
    ours = Training(digits, weights=7)
    if companions:
        ours.companions = [AveragedModel(ours.model)]
        state["classes"].append("AveragedModel")
        state["parts"].append({"n_averaged": torch.tensor(1)})
    before = deepcopy(ours.states())
    with pytest.raises(CheckpointError, match="another model, optimizer or schedule"):
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
    assert training().run(checkpoint=file, resume="auto", seed=seed) == training().run(seed=5)


@pytest.mark.parametrize("options", [{"resume": "auto"}, {"resume": "run.pt", "checkpoint": "run.pt"}])
def test_resume_without_a_file_to_resume_from_is_one_sentence(digits, options):
    with pytest.raises(ValueError, match='give resume="auto" with the file as checkpoint'):
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
    assert len(caught.value.history) == 0 and "could not be put back" in caught.value.__notes__[0]


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


UNRELATED = {  # errors of which no batch is the cause, although its images are doubles
    "memory": torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    "a worker": RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."),
    "a mistake in the loss": TypeError("unsupported operand type(s) for +: 'Tensor' and 'str'"),
    "a schedule at its end": ValueError("Tried to step 21 times. The specified number of total steps is 20"),
}


@pytest.mark.parametrize("error", UNRELATED.values(), ids=UNRELATED)
def test_an_error_that_no_batch_caused_comes_as_it_is(digits, error):
    training = Training(digits, lambda: small_mlp().double())
    training.loaders = [Spoilt(loader, 0, None) for loader in training.loaders]

    def loss_function(logits, labels):
        raise error

    training.model.forward = lambda images, forward=training.model.forward: forward(images.double())
    with pytest.raises(type(error)) as caught:
        training.run(1, loss_function=loss_function)
    assert caught.value is error and len(caught.value.history) == 0


@pytest.mark.parametrize("place", [0, 1])
def test_a_loaders_own_error_comes_as_it_is(digits, place):
    """Even one that reads like a batch's: the batch before was trained on without a complaint."""
    error = RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    def spoil(images, labels):
        raise error

    training = Training(digits)
    training.loaders = [*training.loaders]
    training.loaders[place] = Spoilt(training.loaders[place], 2, spoil)
    with pytest.raises(RuntimeError) as caught:
        training.run(1)
    assert caught.value is error
