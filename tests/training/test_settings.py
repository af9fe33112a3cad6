"""Training goes on only with the settings that it began with, whatever optimizer and schedule they are of."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from torch.optim import SGD, Adam, AdamW, lr_scheduler

from mnist_helpers.data.loaders import make_loaders
from mnist_helpers.environment import seeded
from mnist_helpers.models import network
from mnist_helpers.models.saved import CheckpointError
from mnist_helpers.training.history import History
from mnist_helpers.training.loop import fit
from mnist_helpers.training.resume import state_of, take_up
from mnist_helpers.training.settings import settings_of


def make(optimizer=SGD, schedule=None, **settings):
    """Return [model, optimizer, schedule or None] with these settings."""
    with seeded(0):
        model = torch.nn.Linear(2, 2)
    optimizer = optimizer(model.parameters(), **{"lr": 0.1} | settings)
    return [model, optimizer, schedule and schedule(optimizer)]


def take_a_step(parts):
    """Let optimizer and schedule move once, as after an epoch or batch."""
    parts[1].step()
    if isinstance(parts[2], lr_scheduler.ReduceLROnPlateau):
        parts[2].step(1.0)
    elif parts[2] is not None:
        parts[2].step()


def state_after(parts, n_steps=3):
    """Return the state of training after so many steps."""
    begun = settings_of(*parts[1:], per_batch=False)
    for _ in range(n_steps):
        take_a_step(parts)
    return deepcopy(state_of(History(), parts, begun=begun))


def go_on(state, parts, *, per_batch=False):
    return take_up(deepcopy(state), parts, settings=settings_of(*parts[1:], per_batch))


def sequence(second, milestones=(1,)):
    return lambda optimizer: lr_scheduler.SequentialLR(
        optimizer, [lr_scheduler.LinearLR(optimizer, 0.1), second(optimizer)], [*milestones]
    )


def chained(part):
    return lambda optimizer: lr_scheduler.ChainedScheduler([part(optimizer)], optimizer=optimizer)


def of(name, *given, **settings):
    return lambda optimizer: getattr(lr_scheduler, name)(optimizer, *given, **settings)


class Halving:
    """A function with a state of its own, which schedules keep."""

    def __init__(self, factor=0.5):
        self.factor = factor

    def __call__(self, epoch):
        return self.factor**epoch


OPTIMIZERS = [  # (class, its settings, others, what differs)
    (SGD, {}, {"lr": 0.2}, "learning rate lr 0.1, not 0.2"),
    (SGD, {"momentum": 0.9}, {"momentum": 0.8}, "momentum 0.9, not 0.8"),
    (SGD, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}, "nesterov False, not True"),
    (Adam, {}, {"lr": 0.2}, "learning rate lr 0.1, not 0.2"),
    (Adam, {}, {"weight_decay": 0.5}, "weight_decay 0, not 0.5"),
    (Adam, {}, {"betas": (0.9, 0.99)}, "betas 0.999, not 0.99"),
    (AdamW, {}, {"eps": 1e-3}, "eps 1e-08, not 0.001"),
    (AdamW, {}, {"amsgrad": True}, "amsgrad False, not True"),
]


@pytest.mark.parametrize("number", range(len(OPTIMIZERS)))
def test_another_setting_of_the_optimizer_is_named_and_refused(number):
    optimizer, settings, others, difference = OPTIMIZERS[number]
    plateau = of("ReduceLROnPlateau", patience=0)
    for schedule in (None, of("StepLR", 1), plateau, of("LinearLR", 0.5), chained(of("ConstantLR", 0.5))):
        state = state_after(make(optimizer, schedule, **settings))
        ours = make(optimizer, schedule, **others)
        before = deepcopy([part and part.state_dict() for part in ours])
        if "lr" in others and schedule is not None and ours[1].param_groups[0]["lr"] != 0.2:
            assert ours[1].param_groups[0]["initial_lr"] == 0.2, "the rate that is named is the one that was given"
        with pytest.raises(CheckpointError, match=f"^the state of training has {difference}[;:].*remove it"):
            go_on(state, ours)
        assert str([part and part.state_dict() for part in ours]) == str(before), "nothing is taken up"
        go_on(state, make(optimizer, schedule, **settings))


SCHEDULES = [  # (one, another, what differs)
    (of("StepLR", 1, gamma=0.5), of("StepLR", 1, gamma=0.1), "gamma 0.5, not 0.1"),
    (of("StepLR", 1), of("StepLR", 2), "step_size 1, not 2"),
    (of("MultiStepLR", [1, 3]), of("MultiStepLR", [1, 4]), "milestones 3, not 4"),
    (of("MultiStepLR", [1]), of("MultiStepLR", [1, 4]), r"milestones \[1\], not \[1, 4\]"),
    (of("ExponentialLR", 0.5), of("ExponentialLR", 0.9), "gamma 0.5, not 0.9"),
    (of("CosineAnnealingLR", 4), of("CosineAnnealingLR", 9), "T_max 4, not 9"),
    (of("CosineAnnealingWarmRestarts", 1, 2), of("CosineAnnealingWarmRestarts", 1, 3), "T_mult 2, not 3"),
    (of("LinearLR", 0.1), of("LinearLR", 0.1, total_iters=9), "total_iters 5, not 9"),
    (of("PolynomialLR", 4), of("PolynomialLR", 9), "total_iters 4, not 9"),
    (of("OneCycleLR", 0.1, 9), of("OneCycleLR", 0.1, 37), "total_steps 9, not 37"),
    (of("OneCycleLR", 0.1, 9), of("OneCycleLR", 0.1, 9, pct_start=0.7), "end_step"),
    (
        of("OneCycleLR", 0.1, 9),
        of("OneCycleLR", 0.2, 9),
        "learning rate lr 0.004, not 0.008; max_lr 0.1, not 0.2; min_lr",
    ),
    (of("OneCycleLR", 0.1, 9), of("OneCycleLR", 0.1, 9, max_momentum=0.9), "max_momentum 0.95, not 0.9"),
    (of("CyclicLR", 0.01, 0.1, 3), of("CyclicLR", 0.01, 0.1, 4), "total_size 6.0, not 8.0"),
    (of("CyclicLR", 0.01, 0.1, 3), of("CyclicLR", 0.01, 0.2, 3), "max_lrs 0.1, not 0.2"),
    (
        of("CyclicLR", 0.01, 0.1, 3, scale_fn=lambda cycle: 0.5**cycle),
        of("CyclicLR", 0.01, 0.1, 3, scale_fn=lambda cycle: 0.9**cycle),
        "lr_lambda 0.5, not 0.9",
    ),
    (of("ReduceLROnPlateau", factor=0.5), of("ReduceLROnPlateau", factor=0.1), "factor 0.5, not 0.1"),
    (of("ReduceLROnPlateau"), of("ReduceLROnPlateau", patience=3), "patience 10, not 3"),
    (of("ReduceLROnPlateau", patience=0), of("ReduceLROnPlateau", patience=0, cooldown=3), "cooldown 0, not 3"),
    (of("LambdaLR", lambda n: 0.5**n), of("LambdaLR", lambda n: 0.9**n), "lr_lambda 0.5, not 0.9"),
    (of("LambdaLR", Halving()), of("LambdaLR", Halving(0.9)), "factor 0.5, not 0.9; lr_lambda 0.5, not 0.9"),
    (of("MultiplicativeLR", lambda n: 0.5), of("MultiplicativeLR", lambda n: 0.9), "lr_lambda 0.5, not 0.9"),
    (sequence(of("StepLR", 1)), sequence(of("StepLR", 2)), "step_size 1, not 2"),
    (sequence(of("StepLR", 1)), sequence(of("ExponentialLR", 0.1)), "schedule StepLR, not ExponentialLR"),
    (sequence(of("StepLR", 1)), sequence(of("StepLR", 1), [2]), "milestones 1, not 2"),
    (sequence(of("LambdaLR", lambda n: 0.5**n)), sequence(of("LambdaLR", lambda n: 0.9**n)), "lr_lambda 0.5, not 0.9"),
    (chained(of("CosineAnnealingLR", 4)), chained(of("CosineAnnealingLR", 9)), "T_max 4, not 9"),
    (chained(sequence(of("StepLR", 1))), chained(sequence(of("StepLR", 2))), "step_size 1, not 2"),
]


@pytest.mark.parametrize("number", range(len(SCHEDULES)))
def test_another_setting_of_the_schedule_is_named_and_refused(number):
    one, another, difference = SCHEDULES[number]
    for n_steps in (1, 3):
        state = state_after(used := make(SGD, one, momentum=0.9), n_steps)
        with pytest.raises(CheckpointError, match=f"^the state of training has {difference}[^;]*: give the settings"):
            go_on(state, make(SGD, another, momentum=0.9))
        for same in (make(SGD, one, momentum=0.9), used):  # made anew, or those that were trained with until then
            go_on(state, same)
            assert same[1].param_groups[0]["lr"] == used[1].param_groups[0]["lr"]


def test_what_was_trained_with_goes_on_after_the_batch_in_which_it_was_broken_off():
    for schedule in (of("OneCycleLR", 0.1, 9), of("CyclicLR", 0.01, 0.1, 3), sequence(of("OneCycleLR", 0.1, 9))):
        for optimizer, settings in ((SGD, {"momentum": 0.9}), (Adam, {"betas": (0.9, 0.99)})):
            state = state_after(parts := make(optimizer, schedule, **settings))
            take_a_step(parts)
            go_on(state, parts)
    with pytest.raises(CheckpointError, match="has betas 0.99, not 0.9: give"):
        go_on(state, make(Adam, sequence(of("OneCycleLR", 0.1, 9)), betas=(0.9, 0.9)))


def test_how_fast_steps_are_taken_and_what_a_rate_is_stored_as_is_no_setting():
    state = state_after(make(Adam))
    for same in ({"foreach": False}, {"lr": torch.tensor(0.1)}, {"lr": np.float64(0.1)}):
        go_on(state, make(Adam, **same))
    with pytest.raises(CheckpointError, match="learning rate lr 0.1, not 0.5"):
        go_on(state, make(Adam, lr=torch.tensor(0.5)))


def test_a_function_that_ends_with_the_epochs_may_end_later():
    def rates(*given):
        return of("LambdaLR", lambda epoch: given[epoch])

    state = state_after(make(SGD, rates(1, 0.5, 0.2, 0.1)))
    go_on(state, make(SGD, rates(1, 0.5, 0.2, 0.1, 0.1, 0.1)))
    with pytest.raises(CheckpointError, match="lr_lambda 0.2, not 0.3"):
        go_on(state, make(SGD, rates(1, 0.5, 0.3, 0.1)))


def test_whether_a_schedule_moves_with_batches_or_epochs_is_a_setting():
    schedule = of("CosineAnnealingLR", 9)
    with pytest.raises(CheckpointError, match="per_batch False, not True"):
        go_on(state_after(make(SGD, schedule)), make(SGD, schedule), per_batch=True)


def test_fit_goes_on_for_more_epochs_with_the_same_settings_and_with_others_not_at_all(digits, tmp_path):
    def trained(n_epochs, file, gamma=0.5, **settings):
        with seeded(0):
            model = network((8,))
        optimizer = Adam(model.parameters(), **{"lr": 1e-3} | settings)
        scheduler = lr_scheduler.StepLR(optimizer, 1, gamma)
        options = {"scheduler": scheduler, "checkpoint": tmp_path / file, "resume": True, "progress": False}
        return fit(model, *make_loaders(digits, 40, device="cpu"), optimizer, n_epochs, **options)

    whole = trained(4, "whole.pt")
    trained(1, "run.pt")
    for others in ({"lr": 1e-2}, {"gamma": 0.1}, {"weight_decay": 0.1}):
        with pytest.raises(CheckpointError, match=f"the state of training has .*, not {next(iter(others.values()))}"):
            trained(4, "run.pt", **others)
    trained(3, "run.pt")
    assert trained(4, "run.pt") == whole, "after being taken up twice, its beginning is still known"
    with pytest.raises(CheckpointError, match=r"learning rate lr 0.001, not 0.000125"):
        trained(5, "run.pt", lr=whole["learning_rate"][-1])


def test_what_was_trained_with_goes_on_and_after_it_what_is_made_anew(digits, tmp_path):
    """The rate that a plateau has lowered is not taken for the one that training began with."""

    def made():
        with seeded(0):
            model = network((8,))
        optimizer = Adam(model.parameters(), lr=1e-3)
        return (
            model,
            optimizer,
            lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=5, threshold_mode="abs"),
        )

    def go_on(n_epochs, model, optimizer, scheduler):
        options = {"scheduler": scheduler, "checkpoint": tmp_path / "run.pt", "resume": True, "progress": False}
        return fit(model, *make_loaders(digits, 40, device="cpu"), optimizer, n_epochs, **options)

    go_on(2, *(used := made()))
    go_on(3, *used)
    history = go_on(4, *made())
    assert history["learning_rate"] == pytest.approx([1e-3, 1e-3, 1e-4, 1e-5])


def test_a_state_that_does_not_say_how_it_began_is_taken_up(digits):
    """As those of earlier versions."""
    state = state_after(make())
    del state["begun"]
    go_on(state, make(lr=0.5))
