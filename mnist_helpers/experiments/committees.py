"""Committees: trained networks, of one recipe or of several, that answer together."""

from ..environment import choose_device
from ..models.saved import load_model
from ..training.history import History
from .distributed import world_size
from .recipes import RECIPES
from .records import member_path, record_run, recorded_history


def record_committee(recipe, seed=0, **options):
    """Train and record the members of a committee recipe, then the committee as a run of its own; return its record.

    Of a recipe that n members have, they have the seeds from n * seed on, so that no two committees share a member.
    Members that are recorded on this machine already are not trained again. The committee's epochs and seconds are
    those of all its members.

    Args:
        recipe: a `Recipe` with `members`.
        seed: the committee's.
        **options: as for `records.record_run`: device, allow_sample, progress, digits, limit.

    Raises:
        CheckpointError: a member is recorded, but its weights are not there: remove its record to train it again.
        ValueError: several processes train together; see also `records.record_run`.
        DataError, TrainingError, OSError: as for `records.record_run`.
    """
    if world_size() > 1:
        raise ValueError(f"a committee is put together by one process: train {recipe.name} without torchrun")
    device = choose_device(options.pop("device", None))

    def gather(setup):
        history = History()
        for place, (name, network) in enumerate(zip(recipe.members, setup.model.members, strict=True)):
            member = RECIPES[name]
            own_seed = seed * recipe.members.count(name) + recipe.members[:place].count(name)
            record = record_run(member, own_seed, device=device, **options)
            saved = load_model(member_path(record), device)
            network.load_state_dict(saved.state_dict())
            history.epochs += recorded_history(record).epochs
        return history

    return record_run(recipe, seed, train=gather, device=device, **options)
