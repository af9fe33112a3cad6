from mnist_helpers.training.history import EpochResult, History


def history_of(*figures):
    """Return a history of epochs with these (validation accuracy, validation loss)."""
    results = enumerate(figures, start=1)
    return History([EpochResult(epoch, 0.5, 50.0, loss, accuracy, 0.1, 1.0) for epoch, (accuracy, loss) in results])


def test_the_best_epoch_has_the_highest_accuracy_and_among_equals_the_lowest_loss():
    """Whatever the loss does: patience counts from the epoch whose weights `restore_best` puts back."""
    for figures, best in (
        ([(90, 0.3), (91, 0.4), (92, 0.5)], 3),
        ([(90, 0.5), (90, 0.4), (89, 0.1)], 2),
        ([(90, 0.5), (90, 0.5)], 1),
    ):
        history = history_of(*figures)
        assert history.best.epoch == best and history.epochs_without_improvement() == len(figures) - best


def test_epochs_before_do_not_count_where_patience_begins_anew():
    history = history_of((95, 0.1), (90, 0.3), (91, 0.3), (91, 0.4))
    assert history.epochs_without_improvement() == 3 and history.epochs_without_improvement(since=1) == 1
    assert history.epochs_without_improvement(since=4) == 0


def test_without_validation_there_is_no_best_epoch():
    for history in (history_of((None, None), (None, None)), History()):
        assert history.best is None and history.epochs_without_improvement() == 0
    assert history_of((None, None))["validation_loss"] == [None]
