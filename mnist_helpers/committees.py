"""Committees: networks of one recipe, trained with different seeds, that answer together."""

from .checkpoints import load_model
from .environment import choose_device
from .recipes import RECIPES
from .records import member_path, record_run, recorded_history
from .training import History


def member_seeds(recipe, seed):
    """Return the seeds of the members of a committee recipe's run; those of different runs are disjoint."""
    return range(seed * recipe.n_members, (seed + 1) * recipe.n_members)


def record_committee(recipe, seed=0, **options):
    """Train and record the members of a committee recipe, then the committee as a run of its own; return its record.

    Members that are recorded on this machine already are not trained again. The committee's epochs and seconds are
    those of all its members.

    Args:
        recipe: a `Recipe` with a `member`.
        seed: the committee's; its members have those of `member_seeds`.
        **options: as for `records.record_run`: device, allow_sample, progress, digits, limit.

    Raises:
        CheckpointError: a member is recorded, but its weights are not there: remove its record to train it again.
        ValueError, DataError, TrainingError, OSError: as for `records.record_run`.
    """
    member, device = RECIPES[recipe.member], choose_device(options.pop("device", None))

    def gather(setup):
        history = History()
        for network, one in zip(setup.model.members, member_seeds(recipe, seed)):
            record = record_run(member, one, device=device, **options)
            saved = load_model(member_path(member, one, device), device)
            network.load_state_dict(saved.state_dict())
            history.epochs += recorded_history(record).epochs
        return history

    return record_run(recipe, seed, train=gather, device=device, **options)
