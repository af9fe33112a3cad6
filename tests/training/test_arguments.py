"""What cannot train is said in one sentence, before a step is taken."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import LBFGS, SGD, Adam, lr_scheduler

from mnist_helpers.data.loaders import ResidentLoader
from mnist_helpers.environment import seeded
from mnist_helpers.evaluation.scores import evaluate
from mnist_helpers.models import network
from mnist_helpers.training.arguments import moves_per_batch
from mnist_helpers.training.checks import backward_check
from mnist_helpers.training.loop import epochs, fit, learning_rates, train_one_epoch
from mnist_helpers.training.lr_find import lr_find


class Answering(nn.Module):
    """Gives what `answer` makes of the outputs of one layer."""

    def __init__(self, answer=lambda outputs: outputs, n_outputs=10):
        super().__init__()
        self.answer, self.layer = answer, nn.Linear(784, n_outputs)

    def forward(self, images):
        return self.answer(self.layer(images.flatten(1)))


def make(model=Answering, *given):
    with seeded(0):
        return model(*given)


def sgd(model):
    return SGD(model.parameters(), lr=0.01)


def quiet_fit(model, loader, optimizer, **options):
    return fit(model, loader, loader, optimizer, 2, progress=False, **options)


PATHS = {
    "fit": quiet_fit,
    "epochs": lambda *given: next(epochs(*given[:2], None, given[2], 2)),
    "train_one_epoch": train_one_epoch,
    "lr_find": lr_find,
    "backward_check": backward_check,
}


def assert_refused(message, model, loader, optimizer, paths=PATHS):
    """See that each of the functions that train raises ValueError with this message, and no weight has moved."""
    before = [parameter.clone() for parameter in model.parameters()]
    for name in paths:
        with pytest.raises(ValueError, match=message) as caught:
            PATHS[name](model, loader, optimizer)
        assert len(str(caught.value).splitlines()) == 1
    assert all(torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True))


@pytest.fixture
def loader(digits):
    return ResidentLoader(digits, 40, device="cpu")


def test_an_optimizer_that_cannot_train_the_model_is_refused(loader):
    model, frozen = make(), make().requires_grad_(False)
    other = "none of the optimizer's [02] parameters is the model's: make the optimizer anew"
    for one, optimizer, message in (
        (model, sgd(make()), other),
        (model, SGD([{"params": []}], lr=0.1), other),
        (model, LBFGS(model.parameters()), "LBFGS computes the loss several times a step, which this loop does not do"),
        (frozen, sgd(frozen), "all parameters that the optimizer holds are frozen"),
        (nn.Flatten(), sgd(model), "the model, a Flatten, has no parameters: there is nothing to train"),
        (model, None, "the optimizer is None: give one of torch.optim"),
        (model, SGD(model.parameters(), lr=math.nan), "the optimizer's lr is nan: give it a number"),
        (model, Adam(model.parameters(), lr=math.inf), "the optimizer's lr is inf: give it a finite learning rate"),
        (model, SGD(model.parameters(), lr=0.1, momentum=math.nan), "the optimizer's momentum is nan"),
        (model, SGD(model.parameters(), lr=torch.tensor(math.nan)), "the optimizer's lr is nan"),
    ):
        paths = PATHS if optimizer else ["fit", "epochs", "train_one_epoch"]
        assert_refused(message, one, loader, optimizer, paths)


def test_a_part_of_the_model_may_be_frozen_or_left_alone_and_a_replaced_layer_is_a_warning(loader):
    model = make(network, (8,))
    next(model.parameters()).requires_grad_(False)
    quiet_fit(model, loader, sgd(model))
    model.requires_grad_(True)
    quiet_fit(model, loader, SGD(model[-1].parameters(), lr=0.01))
    optimizer = sgd(model)
    model[-1] = make(nn.Linear, 8, 10)
    with pytest.warns(UserWarning, match="^2 of the optimizer's parameters are not the model's: if a layer") as caught:
        quiet_fit(model, loader, optimizer)
    assert len(caught) == 1


def test_outputs_that_are_no_logits_are_refused(loader):
    for answer, message in (
        (lambda outputs: (outputs, outputs), "the model returns a tuple, not one tensor"),
        (lambda outputs: {"logits": outputs}, "the model returns a dict, not one tensor"),
        (lambda outputs: [outputs], "the model returns a list, not one tensor"),
        (lambda outputs: outputs[:, :, None, None], r"have the shape \(40, 10, 1, 1\), and must be logits"),
        (lambda outputs: outputs[:, 0], r"have the shape \(40,\), and must be logits"),
        (lambda outputs: outputs[:1], r"have the shape \(1, 10\), and must be logits .* for the 40 labels"),
        (lambda outputs: outputs[:, :2], r"have the shape \(40, 2\), and the labels go from 0 to 9: .*for each class"),
        (lambda outputs: outputs[:, :1], r"have the shape \(40, 1\), and the labels go from 0 to 9"),
    ):
        model = make(Answering, answer)
        assert_refused(message, model, loader, sgd(model))
        with pytest.raises(ValueError, match=message):
            evaluate(model, loader)
    detached = make(Answering, lambda outputs: outputs.detach())
    assert_refused("no gradient leads from the loss to the model", detached, loader, sgd(detached))
    evaluate(detached, loader), evaluate(make(Answering, lambda outputs: outputs, 11), loader)


def test_one_output_is_none_for_one_class_either(digits, loader):
    zeros = [(images, torch.zeros_like(labels)) for images, labels in loader]
    model = make(Answering, lambda outputs: outputs[:, :1])
    assert_refused("the labels go from 0 to 0: .* two at least", model, zeros, sgd(model), ["fit", "train_one_epoch"])


def test_labels_that_are_no_classes_are_refused(loader):
    model = make()
    for change, message in (
        (
            lambda labels: F.one_hot(labels, 10),
            r"labels are int64 \(40, 10\), and must be .* give labels.argmax\(dim=1\)",
        ),
        (lambda labels: F.one_hot(labels, 10).float(), r"labels are float32 \(40, 10\)"),
        (lambda labels: labels.float(), r"labels are float32 \(40,\), and must be int64 \(B,\).*give labels.flatten"),
        (lambda labels: labels.int(), r"labels are int32 \(40,\)"),
        (lambda labels: labels[:, None], r"labels are int64 \(40, 1\)"),
        (lambda labels: labels > 4, r"labels are bool \(40,\)"),
        (lambda labels: labels + 1, "labels go from 1 to 10: they must count from 0"),
        (lambda labels: labels - 1, "labels go from -1 to 8: they must count from 0"),
    ):
        batches = [(images, change(labels)) for images, labels in list(loader)[:2]]
        assert_refused(message, model, batches, sgd(model))
        with pytest.raises(ValueError, match=message):
            evaluate(model, batches)
    quiet_fit(model, [(images, labels.byte()) for images, labels in loader], sgd(model))


def test_a_loss_that_is_no_mean_is_refused(loader):
    for reduce, message in (
        (lambda *given: F.cross_entropy(*given, reduction="none"), r"the loss has the shape \(40,\), and must be"),
        (lambda *given: F.cross_entropy(*given).item(), "the loss has the type float, and must be a tensor"),
    ):
        with pytest.raises(ValueError, match=message):
            quiet_fit(model := make(), loader, sgd(model), loss_function=reduce)
    with torch.no_grad(), pytest.raises(ValueError, match=r"is this within torch.no_grad\(\)\?"):
        quiet_fit(model := make(), loader, sgd(model))


def test_numbers_that_are_none_are_refused(loader):
    model = make()
    for wrong in (-1, 1.5, None, "3"):
        with pytest.raises(ValueError, match=f"^n_epochs must be a whole number of 0 or more, not {wrong!r}$"):
            fit(model, loader, loader, sgd(model), wrong, progress=False)
        with pytest.raises(ValueError, match="^n_epochs must be"):
            next(epochs(model, loader, loader, sgd(model), wrong))
        with pytest.raises(ValueError, match="^n_epochs must be"):
            learning_rates(lambda optimizer: lr_scheduler.StepLR(optimizer, 1), 0.1, wrong, 3)
        with pytest.raises(ValueError, match=f"^seed must be a whole number of 0 or more, not {wrong!r}$"):
            quiet_fit(model, loader, sgd(model), seed=wrong)
    for wrong in (0, -1, 1.5):
        with pytest.raises(ValueError, match=f"^patience must be a whole number of 1 or more, not {wrong}$"):
            quiet_fit(model, loader, sgd(model), patience=wrong)
    for wrong in (math.nan, math.inf, -1):
        with pytest.raises(ValueError, match=f"{wrong}"):
            learning_rates(lambda optimizer: lr_scheduler.StepLR(optimizer, 1), wrong, 2, 3)
    assert len(fit(model, loader, loader, sgd(model), 0, progress=False)) == 0


def cycle(total_steps):
    return lambda optimizer: lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps, cycle_momentum=False)


def warm_up(optimizer):
    return lr_scheduler.LinearLR(optimizer, 0.1)


def sequence(first, second, milestone):
    return lambda optimizer: lr_scheduler.SequentialLR(optimizer, [first(optimizer), second(optimizer)], [milestone])


def chained(*parts):
    return lambda optimizer: lr_scheduler.ChainedScheduler([part(optimizer) for part in parts], optimizer=optimizer)


def test_one_cycles_within_other_schedules_move_with_every_batch(loader):
    """Here, two epochs are twelve batches."""
    for schedule in (sequence(cycle(5), cycle(9), 5), chained(cycle(12)), chained(sequence(cycle(5), cycle(9), 5))):
        scheduler = schedule(optimizer := sgd(model := make()))
        assert moves_per_batch(scheduler)
        quiet_fit(model, loader, optimizer, scheduler=scheduler)
        first = scheduler._schedulers[0]
        assert getattr(scheduler, "last_epoch", first.last_epoch) == 12
    rates = learning_rates(chained(cycle(12)), 0.1, 2, 6)
    assert rates == learning_rates(cycle(12), 0.1, 2, 6) and len(set(rates)) > 6


def test_a_mixture_of_what_moves_with_batches_and_epochs_is_refused_unless_one_is_asked_for(loader):
    for schedule in (
        sequence(warm_up, cycle(20), 5),
        chained(warm_up, cycle(20)),
        chained(sequence(warm_up, cycle(20), 5)),
    ):
        scheduler = schedule(optimizer := sgd(model := make()))
        message = "OneCycleLR moves after every batch and LinearLR after every epoch, .*: give per_batch=True"
        with pytest.raises(ValueError, match=message):
            quiet_fit(model, loader, optimizer, scheduler=scheduler)
        with pytest.raises(ValueError, match=message):
            learning_rates(schedule, 0.1, 2, 6)
        quiet_fit(model, loader, optimizer, scheduler=scheduler, per_batch=True)


def test_a_cycle_that_ends_before_training_does_is_refused(loader):
    for schedule, total, taken in (  # of twelve steps
        (cycle(11), 11, 12),
        (chained(cycle(11)), 11, 12),
        (sequence(warm_up, cycle(6), 5), 6, 7),
        (sequence(cycle(3), warm_up, 5), 3, 4),
    ):
        message = f"OneCycleLR has total_steps={total}, of which 0 are taken, and this training takes {taken} more"
        scheduler = schedule(optimizer := sgd(model := make()))
        before = [parameter.clone() for parameter in model.parameters()]
        with pytest.raises(ValueError, match=message):
            quiet_fit(model, loader, optimizer, scheduler=scheduler, per_batch=True)
        assert all(torch.equal(*pair) for pair in zip(before, model.parameters()))
    for schedule in (cycle(12), chained(cycle(12)), sequence(warm_up, cycle(7), 5), sequence(cycle(4), warm_up, 5)):
        scheduler = schedule(optimizer := sgd(model := make()))
        quiet_fit(model, loader, optimizer, scheduler=scheduler, per_batch=True)
    scheduler = cycle(12)(optimizer := sgd(model := make()))
    quiet_fit(model, loader, optimizer, scheduler=scheduler)
    with pytest.raises(
        ValueError, match="total_steps=12, of which 12 are taken, .* takes 12 more: give it total_steps=24"
    ):
        quiet_fit(model, loader, optimizer, scheduler=scheduler)


def test_a_schedule_of_another_optimizer_or_for_batches_that_waits_for_epochs_is_refused(loader):
    model = make()
    for schedule in (warm_up, cycle(99), lr_scheduler.ReduceLROnPlateau, chained(warm_up)):
        with pytest.raises(ValueError, match="belongs to another optimizer: make the schedule anew"):
            quiet_fit(model, loader, sgd(model), scheduler=schedule(sgd(model)))
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer := sgd(model))
    with pytest.raises(ValueError, match="ReduceLROnPlateau waits for the validation loss after each epoch: leave out"):
        quiet_fit(model, loader, optimizer, scheduler=scheduler, per_batch=True)


def test_a_loader_that_does_not_know_its_length_serves(digits):
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(ResidentLoader(digits, 40, device="cpu"))

    stream = torch.utils.data.DataLoader(Stream(), batch_size=None, generator=torch.Generator())
    scheduler = cycle(12)(optimizer := sgd(model := make()))
    assert len(quiet_fit(model, stream, optimizer, scheduler=scheduler)) == 2


def test_what_is_no_network_or_no_schedule_is_refused_before_the_first_step(loader):
    net = make()
    for model, message in (("lenet5", "'lenet5': give a network"), (nn.Linear, "give a network")):
        with pytest.raises(ValueError, match=f"the model is .*{message}"):
            fit(model, loader, None, sgd(net), 1, progress=False)
    for schedule in ([1], lambda epoch: 0.1, lr_scheduler.StepLR):
        before = net.state_dict()["weight"].clone() if "weight" in net.state_dict() else None
        with pytest.raises(ValueError, match="the scheduler is .*: give one of torch.optim.lr_scheduler"):
            fit(net, loader, None, sgd(net), 1, scheduler=schedule, progress=False)
        assert before is None or torch.equal(before, net.state_dict()["weight"])
