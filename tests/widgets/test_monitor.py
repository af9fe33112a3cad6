"""The training monitor: it changes nothing, tells everything, and hears Ctrl-C."""

import io
import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from jupyter_client.manager import start_new_kernel
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from mnist_helpers.data.loaders import make_loaders
from mnist_helpers.environment import seeded
from mnist_helpers.models import mlp_baseline
from mnist_helpers.training.loop import EpochResult, epochs
from mnist_helpers.widgets import TrainingMonitor
from mnist_helpers.widgets.monitor import has_front_end, line, worst_digits

EPOCHS = 3
ROOT = Path(__file__).parent.parent.parent
KERNEL = """
import time
from mnist_helpers.training.loop import EpochResult
from mnist_helpers.widgets import TrainingMonitor
def slow():
    for epoch in range(1, 51):
        end = time.monotonic() + 0.2
        while time.monotonic() < end: pass
        yield EpochResult(epoch, 1.0, 50.0, 1.0, 50.0, 0.1, 0.2)
monitor = TrainingMonitor(slow(), 50, widget=False)
print("stopped:", monitor.run().stopped, len(monitor.history) < 50)
"""


def small_model():
    with seeded(0):
        return mlp_baseline(width=16)


def prepare(digits, loaders=None):
    """Return (model, its monitor-ready arguments): a small training with dropout, shuffling and batch norm."""
    train, validation = loaders or make_loaders(digits, device="cpu")
    model = small_model()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    return model, epochs(model, train, validation, optimizer, EPOCHS), validation


def shuffled_loaders(digits):
    """Return torch's own loaders, both shuffled: from a generator, and from the global random state."""
    images = digits.images[:, None].float() / 255
    data = TensorDataset(images, digits.labels)
    return (
        DataLoader(data, batch_size=32, shuffle=True, generator=torch.Generator().manual_seed(3)),
        DataLoader(data, batch_size=32, shuffle=True, generator=torch.Generator().manual_seed(4)),
    )


@pytest.fixture
def shown(monkeypatch):
    """What is displayed."""
    views = []
    monkeypatch.setattr("mnist_helpers.widgets.monitor.display", views.append)
    return views


@pytest.mark.parametrize(
    ("widget", "make"),
    [(False, lambda digits: None), (True, lambda digits: None), (True, shuffled_loaders)],
    ids=["text", "widget", "widget, torch's loaders"],
)
def test_watching_changes_not_a_single_bit(digits, shown, capsys, widget, make):
    plain, results, _ = prepare(digits, make(digits))
    expected = list(results)
    model, results, loader = prepare(digits, make(digits))
    monitor = TrainingMonitor(results, EPOCHS, model=model, loader=loader, widget=widget)
    history = monitor.run()
    assert history.epochs == expected and history.stopped == "" and monitor.errors == []
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in plain.state_dict().items())
    assert len(shown) == widget
    assert len(capsys.readouterr().out.splitlines()) == (0 if widget else EPOCHS)


def test_a_consumer_may_leave_early(digits):
    before = signal.getsignal(signal.SIGINT)
    model, results, _ = prepare(digits)
    monitor = TrainingMonitor(results, model=model, widget=False)
    for result in monitor:
        if result.epoch == 2:
            break
    assert len(monitor.history) == 2 and signal.getsignal(signal.SIGINT) is before


def test_the_best_state_is_that_of_the_best_epoch(digits):
    model, results, _ = prepare(digits)
    states = []
    for _ in (monitor := TrainingMonitor(results, model=model, widget=False)):
        states.append({name: value.clone() for name, value in model.state_dict().items()})
    assert len(states) == EPOCHS
    best = states[monitor.history.best.epoch - 1]
    assert all(torch.equal(value, best[name]) for name, value in monitor.history.best_state.items())


def test_pictures_of_curves_and_of_the_worst(digits, shown):
    model, results, loader = prepare(digits)
    monitor = TrainingMonitor(results, EPOCHS, model=model, loader=loader, title="synthetic", widget=True)
    assert monitor.run() and shown == [monitor.view]
    assert np.asarray(Image.open(io.BytesIO(monitor._curves.value))).shape[1] > 600
    assert "epoch 3/3: training loss" in monitor._line.value
    assert monitor._worst.value.count("<img") == 10 and monitor._worst.value.count("&rarr;") == 11


def test_the_worst_digits_are_those_with_the_largest_loss(digits):
    model, results, loader = prepare(digits)
    list(results)
    model.train()
    images, labels, answers, losses = worst_digits(model, loader, 5)
    assert model.training
    model.eval()
    inputs, targets = (torch.cat(parts) for parts in zip(*loader))
    expected = torch.nn.functional.cross_entropy(model(inputs), targets, reduction="none").detach()
    assert torch.allclose(losses, expected.sort(descending=True).values[:5])
    numbers = expected.argsort(descending=True)[:5]
    assert torch.equal(labels, targets[numbers]) and torch.equal(answers, model(inputs)[numbers].argmax(dim=1))
    assert images.dtype == np.uint8 and images.shape == (5, 28, 28) and images.max() == 255
    assert len(worst_digits(model, loader, 1000)[1]) == 41


def interrupting(results, at, times=1):
    """Yield `results`, with Ctrl-C pressed while the epoch `at` runs."""
    for number in range(1, EPOCHS + 1):
        if number == at:
            for _ in range(times):
                os.kill(os.getpid(), signal.SIGINT)
        yield next(results)


def test_one_interrupt_ends_after_the_epoch_with_everything_kept(digits, capsys):
    before = signal.getsignal(signal.SIGINT)
    model, results, _ = prepare(digits)
    history = TrainingMonitor(interrupting(results, at=2), EPOCHS, model=model, widget=False).run()
    assert len(history) == 2 and history.stopped == "interrupted" and history.best_state is not None
    out = capsys.readouterr().out
    assert "interrupt again to abort" in out and "Stopped after epoch 2, as asked" in out
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_interrupt_aborts_and_leaves_the_last_finished_epoch(digits):
    before = signal.getsignal(signal.SIGINT)
    whole, results, _ = prepare(digits)
    expected = [next(results)]
    state = {name: value.clone() for name, value in whole.state_dict().items()}
    model, results, _ = prepare(digits)
    monitor = TrainingMonitor(interrupting(results, at=2, times=2), EPOCHS, model=model, widget=False)
    with pytest.raises(KeyboardInterrupt):
        monitor.run()
    assert monitor.history.epochs == expected and monitor.history.stopped == "interrupted"
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert signal.getsignal(signal.SIGINT) is before


def test_outside_the_main_thread_it_trains_all_the_same(digits):
    _, results, _ = prepare(digits)
    histories = []
    thread = threading.Thread(target=lambda: histories.append(TrainingMonitor(results, widget=False).run()))
    thread.start()
    thread.join()
    assert len(histories[0]) == EPOCHS


def test_an_error_in_drawing_is_kept_and_does_not_stop_the_training(digits, shown, monkeypatch):
    monkeypatch.setattr("mnist_helpers.widgets.monitor.picture_of", lambda *_: 1 / 0)
    _, results, _ = prepare(digits)
    monitor = TrainingMonitor(results, widget=True)
    assert len(monitor.run()) == EPOCHS and len(monitor.errors) == EPOCHS
    assert "ZeroDivisionError" in monitor._faults.view.value


def test_a_failing_training_says_so_itself():
    def broken():
        raise RuntimeError("the disk is full")
        yield

    with pytest.raises(RuntimeError, match="disk"):
        TrainingMonitor(broken(), widget=False).run()


def test_the_line_of_an_epoch():
    text = line(EpochResult(2, 0.12345, 96.5, 0.1, 97.25, 1e-3, 3.21), 15)
    assert text == "epoch 2/15: training loss 0.1235, 96.50 %; validation loss 0.1000, 97.25 %; 3.2 s"


def test_training_without_validation_is_watched_too(shown):
    results = [EpochResult(epoch, 0.5, 90.0, None, None, 1e-3, 3.21) for epoch in (1, 2)]
    monitor = TrainingMonitor(iter(results), 2, model=small_model(), widget=True)
    history = monitor.run()
    assert monitor.errors == [] and history.best is None and history.best_state is None
    assert monitor._line.value == "epoch 2/2: training loss 0.5000, 90.00 %; 3.2 s"
    assert np.asarray(Image.open(io.BytesIO(monitor._curves.value))).shape[1] > 600


def test_a_program_is_no_front_end(monkeypatch):
    assert not has_front_end()
    for answers, there in ((True, True), (False, False)):
        shell = type("Shell", (), {"get_parent": lambda self, answers=answers: {"content": {"allow_stdin": answers}}})
        monkeypatch.setattr("mnist_helpers.widgets.monitor.get_ipython", lambda shell=shell: shell())
        assert has_front_end() is there


def test_the_kernels_interrupt_is_heard():
    """In a real kernel, as the notebook's Interrupt button does it: once, and the cell goes on after the training."""
    manager, client = start_new_kernel(kernel_name="python3", cwd=str(ROOT))
    try:
        client.execute(KERNEL)
        out, interrupted = "", False
        while True:
            message = client.get_iopub_msg(timeout=60)
            kind, content = message["msg_type"], message["content"]
            out += content.get("text", "") + content.get("evalue", "")
            if "epoch 1/50" in out and not interrupted:
                interrupted = manager.interrupt_kernel() is None
            if kind == "status" and content["execution_state"] == "idle" and interrupted:
                break
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert "as asked; everything is kept" in out and "stopped: interrupted" in out
    assert "epoch 50/50" not in out


def test_a_title_is_text(shown):
    results = [EpochResult(1, 1.0, 50.0, 1.0, 50.0, 0.1, 0.2)]
    monitor = TrainingMonitor(results, title="costs $5_{, or 6$", widget=True)  # no formula, and none that is broken
    monitor.run()
    assert monitor.errors == [] and bytes(monitor._curves.value[:4]) == b"\x89PNG"
    monitor._tell("<b>")
    assert monitor._line.value == "&lt;b&gt;"
