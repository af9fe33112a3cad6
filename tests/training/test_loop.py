import math
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import CosineAnnealingLR, CyclicLR, OneCycleLR, ReduceLROnPlateau, StepLR

from mnist_helpers.data.loaders import ResidentLoader, make_loaders
from mnist_helpers.environment import seeded
from mnist_helpers.evaluation.scores import evaluate
from mnist_helpers.models import mlp_baseline, network
from mnist_helpers.models.saved import CheckpointError
from mnist_helpers.training.loop import TrainingError, epochs, fit, learning_rates, train_one_epoch
from mnist_helpers.training.resume import load_state


def make(model=mlp_baseline, **arguments):
    with seeded(0):
        return model(**arguments)


def train(digits, n_epochs=3, *, model=None, seed=0, lr=1e-3, **options):
    """Train on the synthetic digits; return (model, optimizer, history)."""
    model = make() if model is None else model
    loaders = make_loaders(digits, 16, seed=seed, device="cpu")
    optimizer = options.pop("optimizer", None) or Adam(model.parameters(), lr=lr)
    options = {"seed": seed, "progress": False} | options
    return model, optimizer, fit(model, *loaders, optimizer, n_epochs, **options)


def test_overfits_one_batch(digits):
    model = make(network)
    batch = [next(iter(ResidentLoader(digits, 32, device="cpu")))]
    optimizer = Adam(model.parameters(), lr=1e-2)
    for _ in range(40):
        loss, accuracy = train_one_epoch(model, batch, optimizer)
    assert loss < 0.01 and accuracy == 100


def test_same_seed_same_history_and_weights(digits):
    first, _, history = train(digits, seed=5)
    with torch.random.fork_rng():
        torch.manual_seed(99)  # whatever the caller's random state
        second, _, again = train(digits, seed=5)
    assert history == again and history["train_loss"] == again["train_loss"]
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values()))
    assert train(digits, seed=6)[2] != history


def test_training_in_two_parts_is_training_in_one(digits):
    whole, _, history = train(digits, 4)
    model, optimizer, first = train(digits, 2)
    _, _, both = train(digits, 2, model=model, optimizer=optimizer, after=first)
    assert both == history and both["epoch"] == [1, 2, 3, 4]
    assert len(first) == 2, "the first part's history is left as it was"
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), model.state_dict().values()))


def test_best_epoch_may_lie_in_the_first_part_and_patience_counts_in_the_second(digits):
    _, _, first = train(digits, 2, model=(model := WorseAndWorse()))
    _, _, both = train(digits, 9, model=model, after=first, patience=2)
    assert both["epoch"] == [1, 2, 3, 4, 5] and both.stopped == "early"
    assert train(digits, 1, model=model, after=both)[2].stopped == ""
    assert both.best.epoch == 1 and both.best_state["looks"] == 3


def test_history_does_not_depend_on_what_the_loader_was_used_for_before(digits):
    histories = []
    for looks in (0, 3):
        model, (training, validation) = make(), make_loaders(digits, 16, device="cpu")
        for _ in range(looks):
            next(iter(training))
        histories.append(fit(model, training, validation, Adam(model.parameters()), 2, progress=False))
    assert histories[0] == histories[1]


def test_dropout_is_part_of_what_the_seed_decides(digits):
    model = make(lambda: nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(784, 10)))
    losses = []
    for seed in (1, 2):
        loader = ResidentLoader(digits, 64, device="cpu")  # unshuffled: dropout alone is random
        results = epochs(model, loader, loader, SGD(model.parameters(), lr=0.0), 2, seed=seed)
        losses.append([result.train_loss for result in results])
    assert len({loss for pair in losses for loss in pair}) == 4


def test_means_are_exact_over_a_ragged_last_batch(digits):
    model = make(network)
    loader = ResidentLoader(digits, 64, device="cpu")  # 64 + 64 + 64 + 11
    loss, accuracy = train_one_epoch(model, loader, SGD(model.parameters(), lr=0.0))
    images, labels = next(iter(ResidentLoader(digits, 203, device="cpu")))
    logits = model(images)
    assert loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert accuracy == pytest.approx(100 * (logits.argmax(1) == labels).float().mean().item())


def test_plateau_schedule_follows_the_validation_loss_and_says_so(digits, capsys):
    model = make()
    optimizer = SGD(model.parameters(), lr=1e-3)
    # Nothing short of a loss lower by 5 counts as better, so epoch 3 is the second in vain and the rate drops.
    scheduler = ReduceLROnPlateau(optimizer, factor=0.1, patience=1, threshold=5, threshold_mode="abs")
    _, _, history = train(digits, 4, model=model, optimizer=optimizer, scheduler=scheduler, progress=True)
    assert scheduler.best == history["validation_loss"][0]
    assert history["learning_rate"] == pytest.approx([1e-3, 1e-3, 1e-3, 1e-4])
    assert "Epoch 3: the learning rate drops from 0.001 to 0.0001" in capsys.readouterr().out


def test_step_schedule_moves_once_an_epoch_and_says_so(digits, capsys):
    model = make()
    optimizer = Adam(model.parameters(), lr=1e-3)
    scheduler = StepLR(optimizer, 2, gamma=0.5)
    train(digits, 3, model=model, optimizer=optimizer, scheduler=scheduler, progress=True)
    assert scheduler.last_epoch == 3
    assert capsys.readouterr().out.count("Epoch 2: the learning rate drops from 0.001 to 0.0005") == 1


def test_without_progress_nothing_is_printed(digits, capfd):
    model = WorseAndWorse()
    optimizer = Adam(model.parameters(), lr=1e-3)
    _, _, history = train(digits, 9, model=model, optimizer=optimizer, scheduler=StepLR(optimizer, 1), patience=2)
    interrupted = train(digits, 9, loss_function=interrupting(30))[2]
    assert (history.stopped, interrupted.stopped) == ("early", "interrupted") and capfd.readouterr() == ("", "")


def test_training_needs_no_streams(digits, monkeypatch, tmp_path):
    """As under pythonw, and in services; the rate drops and training stops early, which would be said."""
    closed = open(tmp_path / "closed", "w")
    closed.close()
    for out, err in ((None, None), (sys.stdout, None), (None, sys.stderr), (closed, sys.stderr), (closed, closed)):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            model = make()
            optimizer = SGD(model.parameters(), lr=0.0)
            scheduler = StepLR(optimizer, 1)
            options = {"optimizer": optimizer, "scheduler": scheduler, "patience": 1, "progress": True}
            _, _, history = train(digits, 3, model=model, **options)
        assert history.stopped == "early"


def test_a_plateau_of_something_rising_is_refused(digits):
    optimizer = Adam((model := make()).parameters())
    with pytest.raises(ValueError, match="give it mode='min'"):
        train(digits, model=model, optimizer=optimizer, scheduler=ReduceLROnPlateau(optimizer, mode="max"))


def test_the_rates_that_are_drawn_are_those_of_training(digits):
    for make_scheduler in (
        lambda optimizer: StepLR(optimizer, 2, gamma=0.1),
        lambda optimizer: CosineAnnealingLR(optimizer, 3),
        lambda optimizer: OneCycleLR(optimizer, 1e-2, total_steps=33),
    ):
        optimizer = Adam((model := make()).parameters(), lr=1e-3)
        _, _, history = train(digits, 3, model=model, optimizer=optimizer, scheduler=make_scheduler(optimizer))
        rates = learning_rates(make_scheduler, 1e-3, n_epochs=3, n_batches=11)
        assert len(rates) == 33 and rates[::11] == pytest.approx(history["learning_rate"])


def test_a_schedule_that_waits_for_losses_cannot_be_drawn():
    with pytest.raises(ValueError, match="ReduceLROnPlateau cannot be drawn before training"):
        learning_rates(ReduceLROnPlateau, 1e-3, 2, 3)


def test_one_cycle_moves_with_every_batch_and_cosine_where_told(digits, capsys):
    for make_scheduler, per_batch in (
        (lambda optimizer: OneCycleLR(optimizer, 1e-2, total_steps=33), None),
        (lambda optimizer: CyclicLR(optimizer, 1e-4, 1e-2, cycle_momentum=False), None),
        (lambda optimizer: CosineAnnealingLR(optimizer, 33), True),
    ):
        model = make()
        optimizer = Adam(model.parameters(), lr=1e-3)
        scheduler = make_scheduler(optimizer)
        options = {"scheduler": scheduler, "per_batch": per_batch, "progress": True}
        train(digits, 3, model=model, optimizer=optimizer, **options)
        assert scheduler.last_epoch == 33  # 162 images: 11 batches an epoch
    optimizer = Adam((model := make()).parameters(), lr=1e-3)
    train(digits, 3, model=model, optimizer=optimizer, scheduler=CosineAnnealingLR(optimizer, 3), progress=True)
    assert capsys.readouterr().out == "", "no line for a schedule that glides"


class WorseAndWorse(nn.Module):
    """Starts out perfect on the synthetic digits' rows and unlearns a little at each look at the validation set."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.0))
        self.register_buffer("looks", torch.tensor(0.0))

    def forward(self, images):
        if not self.training:
            self.looks += 1
        rows = images.flatten(1).view(-1, 28, 28)[:, 4:24:2, 4:24].mean(dim=2)  # (B, 10)
        return rows * (10 - self.looks / 3) + self.scale


def test_best_state_and_early_stopping(digits, capsys):
    _, _, history = train(digits, 9, model=(model := WorseAndWorse()), patience=2, progress=True)
    assert history["epoch"] == [1, 2, 3] and history.stopped == "early" and history.best.epoch == 1
    assert "Stopped early after epoch 3: the best epoch is 2 epochs back" in capsys.readouterr().out
    assert model.looks == 9 and history.best_state["looks"] == 3  # three validation batches a look
    train(digits, 3, model=(model := WorseAndWorse()), restore_best=True)
    assert model.looks == 3


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_loss_that_is_no_number_names_epoch_and_batch(digits, poison):
    calls, model = [], make()

    def loss_function(logits, labels):
        calls.append(len(labels))
        loss = F.cross_entropy(logits, labels)
        return loss * poison if len(calls) == 11 + 1 + 7 else loss  # 11 batches and one look at the validation images

    with pytest.raises(TrainingError, match="epoch 2, batch 7: the loss is (nan|inf). Try a learning rate") as caught:
        train(digits, 5, model=model, loss_function=loss_function)
    assert len(caught.value.history) == 1
    good = caught.value.history.best_state
    assert all(torch.equal(value, good[name]) for name, value in model.state_dict().items())


def test_diverging_in_the_last_batch_is_noticed_and_undone(digits):
    model = make(network)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    loader = ResidentLoader(digits, 203, device="cpu")  # one batch: its loss is still good, the step is not
    with pytest.raises(TrainingError, match="epoch 1, after its last batch: the validation loss is (nan|inf)"):
        fit(model, loader, loader, SGD(model.parameters(), lr=1e30), 1, progress=False)
    assert all(torch.equal(value, start[name]) for name, value in model.state_dict().items())


def interrupting(n):
    """Return a loss function during whose n-th call Ctrl-C is pressed; an epoch here has 11 + 1."""
    calls = []

    def loss_function(logits, labels):
        calls.append(1)
        if len(calls) == n:
            raise KeyboardInterrupt
        return F.cross_entropy(logits, labels)

    return loss_function


def test_interrupt_keeps_history_and_best_state(digits, capsys):
    model = make()
    _, _, history = train(digits, 5, model=model, loss_function=interrupting(30), progress=True)
    assert history.stopped == "interrupted" and len(history) == 2
    assert "2 finished epochs and the best state are kept" in capsys.readouterr().out
    weights = model.state_dict()
    assert all(value.isfinite().all() for value in weights.values())
    if history.best.epoch == 2:
        assert all(torch.equal(value, history.best_state[name]) for name, value in weights.items())


def test_epochs_is_a_generator_that_can_be_left_and_leaves_the_callers_random_state(digits):
    model, before = make(), torch.get_rng_state()
    loaders = make_loaders(digits, 16, device="cpu")
    for result in epochs(model, *loaders, Adam(model.parameters()), 100):
        assert torch.equal(torch.get_rng_state(), before)
        if result.epoch == 2:
            break
    assert result.epoch == 2 and result.seconds > 0


def test_where_several_processes_train_the_figures_are_the_combined_ones(digits):
    asked, model = [], make(network)
    optimizer = SGD(model.parameters(), lr=1e-3)
    scheduler = ReduceLROnPlateau(optimizer, factor=0.1, patience=0)

    def combine(result, loader):
        asked.append((result, loader))
        return len(asked), 50.0 + len(asked)

    loaders = make_loaders(digits, 16, device="cpu")
    history = fit(model, *loaders, optimizer, 3, scheduler=scheduler, all_reduce=combine, progress=False)
    assert history["train_loss"] == [1, 3, 5] and history["validation_loss"] == [2, 4, 6]
    assert history["train_accuracy"] == [51, 53, 55] and history["validation_accuracy"] == [52, 54, 56]
    assert [loader for _, loader in asked] == [*loaders] * 3
    loaders[0].sampler.set_epoch(1)
    again = make(network)
    own = train_one_epoch(again, loaders[0], SGD(again.parameters(), lr=1e-3)), evaluate(again, loaders[1])
    assert tuple(result for result, _ in asked[:2]) == own, "it is given this process's own figures"
    assert scheduler.best == 2, "the schedule follows the combined loss, which rises"
    assert history["learning_rate"] == pytest.approx([1e-3, 1e-3, 1e-4])


def test_a_combined_loss_that_is_no_number_ends_training(digits):
    with pytest.raises(TrainingError, match="epoch 1, after its last batch: the validation loss is nan"):
        train(digits, all_reduce=lambda result, loader: (math.nan, 10.0))


def test_without_a_state_resume_starts_fresh_and_a_finished_one_is_not_trained_again(digits, tmp_path, monkeypatch):
    file = tmp_path / "run.pt"
    model, _, history = train(digits, 2, checkpoint=file, resume=True, restore_best=True)
    assert history == train(digits, 2)[2] and file.exists()
    monkeypatch.setattr("mnist_helpers.training.loop.train_one_epoch", None)
    again, _, same = train(
        digits,
        2,
        model=make(network, widths=(256, 256), dropout=0.3, batch_norm=True),
        checkpoint=file,
        resume=True,
        restore_best=True,
    )
    assert same == history
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values()))


def test_a_state_can_be_given_and_a_file_that_is_not_asked_for_is_not_read(digits, tmp_path):
    file = tmp_path / "run.pt"
    _, _, two = train(digits, 2, checkpoint=file)
    assert train(digits, 3, resume=load_state(file))[2] == train(digits, 3)[2]
    file.write_bytes(b"torn")
    assert train(digits, 2, checkpoint=file)[2] == two, "without resume, training begins anew"
    assert len(load_state(file)["epochs"]) == 2


def test_what_continues_other_training_can_be_broken_off_too(digits, tmp_path):
    def second_part(**options):
        model, _, first = train(digits, 2)
        return train(digits, 3, model=model, after=first, **options)

    whole, _, history = second_part()
    second_part(checkpoint=tmp_path / "run.pt", loss_function=interrupting(11 + 1 + 5))
    assert len(load_state(tmp_path / "run.pt")["epochs"]) == 3
    resumed, _, again = second_part(checkpoint=tmp_path / "run.pt", resume=True)
    assert again == history and again["epoch"] == [1, 2, 3, 4, 5]
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values()))


def test_the_state_of_other_training_is_refused_in_one_sentence(digits, tmp_path):
    def attempt(model=make, optimizer=Adam, scheduler=lambda optimizer: StepLR(optimizer, 2), **options):
        optimizer = optimizer((model := model()).parameters(), lr=1e-3)
        train(digits, 2, model=model, optimizer=optimizer, scheduler=scheduler(optimizer), **options)

    attempt(checkpoint=tmp_path / "run.pt")
    for other in (
        {"model": lambda: make(network)},
        {"model": lambda: make(width=8)},
        {"optimizer": SGD},
        {"scheduler": lambda optimizer: CosineAnnealingLR(optimizer, 3)},
        {"scheduler": lambda optimizer: None},
    ):
        with pytest.raises(CheckpointError, match="to another model, optimizer or schedule: remove it, or") as caught:
            attempt(**other, checkpoint=tmp_path / "run.pt", resume=True)
        assert len(str(caught.value).splitlines()) == 1


def test_what_is_no_state_of_training_is_refused(digits):
    for state in ({}, {"0.weight": torch.zeros(3)}, [1, 2]):
        with pytest.raises(CheckpointError, match="the state of training belongs to another model"):
            train(digits, resume=state)


def test_bfloat16_shortens_the_models_products_alone(digits):
    seen = []

    def loss_function(outputs, targets):
        seen.append(outputs.dtype)
        return F.cross_entropy(outputs, targets)

    _, _, history = train(digits, 8)
    model, optimizer, shortened = train(digits, 8, bfloat16=True, loss_function=loss_function)
    assert shortened["train_loss"] != history["train_loss"] and set(seen) == {torch.float32}
    assert shortened["validation_accuracy"][-1] > 90 < history["validation_accuracy"][-1]
    kept = [*model.parameters(), *(value for state in optimizer.state.values() for value in state.values())]
    assert {value.dtype for value in kept} == {torch.float32}


def test_without_images_held_back_training_goes_as_it_would_with_them(digits, capsys):
    def trained(validation_loader):
        model, loader = make(), ResidentLoader(digits, 16, shuffle=True, device="cpu")
        return model, fit(model, loader, validation_loader, Adam(model.parameters()), 2)

    held_back = ResidentLoader(digits, 100, device="cpu")
    (with_it, history), (without, alone) = trained(held_back), trained(None)
    assert all(torch.equal(a, b) for a, b in zip(with_it.state_dict().values(), without.state_dict().values()))
    assert alone["train_loss"] == history["train_loss"] and alone["validation_loss"] == [None, None]
    assert alone.best is None and alone.best_state is None
    assert f"training {alone['train_accuracy'][-1]:.2f} %" in capsys.readouterr().err


def test_what_needs_validation_is_refused_without_it(digits):
    model, loader = make(), ResidentLoader(digits, 16, device="cpu")
    for option in ({"patience": 2}, {"restore_best": True}):
        with pytest.raises(ValueError, match="without a validation loader there is no best epoch"):
            fit(model, loader, None, Adam(model.parameters()), 2, **option)
    optimizer = Adam(model.parameters())
    with pytest.raises(ValueError, match="give it a validation loader"):
        fit(model, loader, None, optimizer, 2, scheduler=ReduceLROnPlateau(optimizer), progress=False)
