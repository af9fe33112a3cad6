"""Optuna studies of a recipe: a search space, a storage to keep the trials in, and what they taught."""

import json
import warnings
from contextlib import contextmanager
from pathlib import Path

import torch

from ..environment import combine_seeds, quick_mode, runs_folder
from .recipe import vary
from .run import record_run
from .search import watched
from .systems import find_recipe
from .tables import markdown_table

N_RANDOM = 4  # trials that are drawn at random and not pruned, before there is something to learn from
MAX_RETRIES = 3  # of a trial that is lost again and again


class SearchError(RuntimeError):
    """A study cannot begin or go on."""


def parse_space(text):
    """Return the search space in a text such as "lr=0.0001..0.1 batch_size=32,64"; see `suggest`.

    Raises:
        ValueError: something in it is neither a range nor a list.
    """
    space = {}
    for part in text.split():
        name, _, values = part.partition("=")
        low, dots, high = values.partition("..")
        space[name] = (_value(low), _value(high)) if dots else [_value(one) for one in values.split(",")]
        ends = space[name] if dots else [1, 2]
        if not name or "" in space[name] or not all(isinstance(end, int | float) for end in ends):
            raise ValueError(f"{part!r} is no part of a search space: write lr=0.0001..0.1 or batch_size=32,64,128")
    return space


def _value(text):
    try:
        return json.loads(text)
    except ValueError:
        return text


def default_space(recipe):
    """Return the space that is searched unless one is given: the learning rate around the recipe's, weight decay."""
    rate = find_recipe(recipe).optimizer_arguments["lr"]
    return {"lr": (rate / 30, rate * 30), "weight_decay": (1e-6, 1e-2)}


def suggest(trial, space):
    """Return the changes that an Optuna trial suggests.

    Args:
        space: by name, as for `recipe.vary`: a tuple (low, high), from which is drawn evenly in its logarithm (whole
            numbers where both ends are), or a list of values to choose from.
    """

    def one(name, values):
        if isinstance(values, list):
            return trial.suggest_categorical(name, values)
        whole = all(isinstance(end, int) for end in values)
        return (trial.suggest_int if whole else trial.suggest_float)(name, *values, log=True)

    return {name: one(name, values) for name, values in space.items()}


def _check_space(recipe, space):
    """Raise ValueError if there is something in the space that `recipe` cannot be varied by."""
    for name, values in space.items():
        numbers = all(isinstance(value, int | float) for value in values)
        if isinstance(values, tuple) and not (len(values) == 2 and numbers and 0 < values[0] < values[1]):
            raise ValueError(f"the range of {name} must be two numbers, 0 < low < high, not {values}")
        for value in values:
            varied = vary(find_recipe(recipe), {name: value})
            try:
                getattr(torch.optim, varied.optimizer)([torch.zeros(1)], **varied.optimizer_arguments)
            except (TypeError, ValueError) as error:
                raise ValueError(f"{name}={value} cannot be searched: {error}") from error


def make_objective(recipe, space, seed=0, **options):
    """Return an objective for Optuna, trial -> validation accuracy in percent; `options` as for `run_trials`."""

    def objective(trial):
        varied = vary(find_recipe(recipe), suggest(trial, space))
        trial.set_user_attr("recipe", varied.name)
        record = record_run(varied, seed, train=lambda setup: watched(setup, trial), progress=False, **options)
        if record["stopped"]:
            raise _optuna().TrialPruned(record["stopped"])
        return record["validation_accuracy"]

    return objective


def open_study(recipe, space=None, storage=None, *, name=None, seed=0, sampler_seed=None, grace=600, **facts):
    """Return the Optuna study of a recipe in a storage: it is begun, or taken up where it is there already.

    After `N_RANDOM` trials at random, new ones are suggested by a tree-structured Parzen estimator (Bergstra et al.
    2011), and one whose accuracy after an epoch is below the median of the earlier trials' is pruned.

    Args:
        recipe: a recipe or its name.
        space: see `suggest`; `default_space` unless given.
        storage: a database URL such as "sqlite:///sweep.db" or "postgresql://...", or the path of a journal, a file
            that machines may share. The database `sweeps.db` among this machine's runs unless given.
        name: of the study; the recipe's unless given.
        seed: of the trials' training; `sampler_seed` is that of the suggestions, the same unless given.
        grace: seconds without a sign of life after which a trial counts as lost, see `sweep`.
        **facts: what else must be the same whenever the study goes on.

    Raises:
        SearchError: Optuna is not installed, the storage cannot be used, or the study in it is another one.
    """
    optuna, recipe = _optuna(), find_recipe(recipe)
    space = default_space(recipe) if space is None else space
    _check_space(recipe, space)
    name = name or recipe.name + "-quick" * quick_mode()
    with storage_faults(storage):
        study = optuna.create_study(
            storage=open_storage(storage, grace),
            study_name=name,
            direction="maximize",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=N_RANDOM),
        )
        facts |= {"settings": recipe.settings(), "quick": quick_mode(), "seed": seed}
        facts = json.dumps(facts | {"space": {key: [type(one).__name__, *one] for key, one in space.items()}})
        begun = study.user_attrs.get("facts", facts)
        if "facts" not in study.user_attrs:
            study.set_user_attr("facts", facts)
    if begun != facts:
        raise SearchError(
            f"the study {name!r} in {_shown(storage)} was begun with other settings, so its trials cannot be "
            "compared with yours: give this one another name, or another storage"
        )
    # A study that goes on must not be suggested what it began with
    seeds = (seed if sampler_seed is None else sampler_seed, len(study.get_trials(deepcopy=False)))
    options = {"n_startup_trials": N_RANDOM, "constant_liar": True}
    study.sampler = optuna.samplers.TPESampler(**options, seed=combine_seeds(*seeds) % 2**32)
    return study


def open_storage(storage=None, grace=600):
    """Return the Optuna storage for a database URL or a journal's path; see `open_study`.

    A trial in a database whose worker has not been heard of for `grace` seconds is begun again.
    """
    optuna = _optuna()
    if storage is None:
        runs_folder().mkdir(parents=True, exist_ok=True)
        storage = f"sqlite:///{runs_folder() / 'sweeps.db'}"
    if not is_url(storage):
        path = Path(storage).absolute()  # the lock beside it would not be found from another folder
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = optuna.storages.journal.JournalFileOpenLock(str(path))

        class Journal(optuna.storages.journal.JournalFileBackend):
            def append_logs(self, logs):
                mend_journal(path, lock)  # else the torn line of a machine that died would spoil the next one
                super().append_logs(logs)

        mend_journal(path, lock)
        return optuna.storages.JournalStorage(Journal(str(path), lock))
    connection = {"connect_args": {"timeout": 60}} if str(storage).startswith("sqlite") else None
    for attempt in range(3):
        try:
            with _no_experimental_warnings():
                return optuna.storages.RDBStorage(
                    str(storage),
                    engine_kwargs=connection,
                    heartbeat_interval=max(1, min(60, int(grace / 3))),
                    grace_period=int(grace),
                    heartbeat_stale_trial_callback=retry,
                )
        except Exception as error:  # whatever the database and its driver raise
            reason = "its driver is not installed" if isinstance(error, ImportError) else str(error).splitlines()[0]
            if attempt < 2 and "already exists" in reason:  # another process was making the same tables
                continue
            raise SearchError(f"the database {_shown(storage)} cannot be used: {reason}") from error


@contextmanager
def storage_faults(storage):
    """Make one sentence of what Optuna raises in the `with` block when its storage fails or is damaged."""
    optuna = _optuna()
    try:
        yield
    except optuna.exceptions.StorageInternalError as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise SearchError(
            f"the database {_shown(storage)} failed ({reason}): start the same again when it works, and it goes on"
        ) from error
    except (json.JSONDecodeError, KeyError, AssertionError) as error:
        if is_url(storage):
            raise
        raise SearchError(
            f"the journal {storage} is damaged in {_damaged_line(storage)}: stop what writes to it, remove that line, "
            "and start again"
        ) from error


def _damaged_line(path):
    for number, line in enumerate(Path(path).read_bytes().splitlines(), start=1):
        try:
            json.loads(line)["op_code"]
        except (ValueError, KeyError, TypeError):
            return f"line {number}"
    return "some line"


def is_url(storage):
    """Tell whether a storage is a database's URL; else it is a journal's path."""
    return storage is None or "://" in str(storage)


def _shown(storage):
    """Return a storage's name without a password."""
    text = "sweeps.db" if storage is None else str(storage).partition("?")[0]
    head, at, tail = text.rpartition("@")
    return f"{head.partition('://')[0]}://...@{tail}" if at else text


def mend_journal(path, lock):
    """Take a torn last line, as a machine leaves it that dies while writing, out of a journal; it is kept beside it."""
    if _ends_whole(path):
        return
    lock.acquire()
    try:
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole == content:
            return
        with open(f"{path}.torn", "ab") as file:
            file.write(content[len(whole) :] + b"\n")
        with open(path, "r+b") as file:
            file.truncate(len(whole))
    finally:
        lock.release()
    warnings.warn(
        f"{path} ended in a torn line, as a machine leaves it that dies while writing: the line is now in "
        f"{path.name}.torn, and the study goes on without it",
        stacklevel=2,
    )


def _ends_whole(path):
    if not path.exists() or not path.stat().st_size:
        return True
    with open(path, "rb") as file:
        file.seek(-1, 2)
        return file.read() == b"\n"


def retry(study, trial):
    """Put a lost trial into a study's queue once more, with the same hyperparameters, at most `MAX_RETRIES` times."""
    trial.user_attrs.pop("worker", None)
    with _no_experimental_warnings() as optuna:
        optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=MAX_RETRIES)(study, trial)


def fail_stale_trials(study):
    """Begin trials again whose heartbeats in the database have stopped; without a database there are none."""
    with _no_experimental_warnings() as optuna:
        optuna.storages.fail_stale_trials(study)


def study_table(study):
    """Return a Markdown table of a study's trials, those that were lost and retried included."""
    trials = [trial for trial in study.get_trials(deepcopy=False) if trial.params]
    names = list(dict.fromkeys(name for trial in trials for name in trial.params))
    rows = []
    for trial in trials:
        values = [trial.params.get(name, "") for name in names]
        cells = [str(trial.number), *(f"{one:.3g}" if isinstance(one, float) else str(one) for one in values)]
        state = {"COMPLETE": "", "FAIL": "failed"}.get(trial.state.name, trial.state.name.lower())
        first = trial.system_attrs.get("failed_trial")
        again = [] if first is None else [f"trial {first} again"]
        cells += [str(len(trial.intermediate_values)), "" if trial.value is None else f"{trial.value:.2f}"]
        rows.append([*cells, ", ".join([state] * bool(state) + again)])
    return markdown_table(["trial", *names, "epochs", "validation accuracy (%)", ""], rows)


def importances(study):
    """Return how much of the variance among a study's finished trials each hyperparameter explains, adding up to 1.

    By functional ANOVA on a random forest (Hutter, Hoos and Leyton-Brown 2014). Raises SearchError for fewer than four
    finished trials, from which nothing can be said.
    """
    optuna = _optuna()
    finished = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    if len(finished) < 4:
        raise SearchError(f"importances need at least 4 finished trials, and the study has {len(finished)}")
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return optuna.importance.get_param_importances(study, evaluator=evaluator)


def _optuna():
    """Return the module `optuna`, which searches alone need."""
    try:
        import optuna
    except ImportError as error:
        raise SearchError("Optuna is not installed: python -m pip install 'optuna>=4.9'") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


@contextmanager
def _no_experimental_warnings():
    """Give Optuna, without the warnings that its heartbeats may change some day."""
    optuna = _optuna()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield optuna
