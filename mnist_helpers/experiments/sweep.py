"""Sweeps: search a recipe's hyperparameters with Optuna, by several workers of which any may die.

Optuna suggests each trial from those before it, ends unpromising ones early and keeps the study in a database, the only
thing that machines share. A trial sends heartbeats to the database; when they stop, another worker begins it again.
"""

import json
import multiprocessing
import os
import secrets
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import count
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from threading import Thread
from typing import Any

import torch
from tqdm.auto import tqdm

try:
    import optuna
except ImportError as error:
    raise ImportError("Optuna is not installed: python -m pip install 'optuna>=4.9'") from error

from ..data.digits import Digits, load_data
from ..environment import combine_seeds, quick_mode
from ..files import are_open
from .recipe import Recipe, vary
from .run import record_run
from .search import fit_trial
from .storage import MAX_RETRIES, PATIENCE, SearchError, no_experimental_warnings, open_storage, shown
from .systems import find_recipe
from .tables import markdown_table

Space = dict[str, Any]  # name -> tuple (low, high), drawn evenly in its logarithm, or list of values to choose from
STATE = optuna.trial.TrialState
FINISHED = STATE.COMPLETE, STATE.PRUNED
N_RANDOM = 4  # trials drawn at random and not pruned, before there is something to learn from


class _SurplusTrial(Exception):
    """There are enough trials without this one."""


@dataclass(frozen=True)
class Plan:
    """What a study's workers need to know; see `sweep`. `source` is that of the digits."""

    recipe: Recipe
    space: Space
    n_trials: int
    storage: str | Path | None
    name: str
    seed: int
    grace: int
    limit: int | None
    device: str | torch.device | None
    allow_sample: bool
    source: str


def sweep(
    recipe: Recipe | str,
    space: Space | None = None,
    n_trials: int = 20,
    n_workers: int = 0,
    storage: str | Path | None = None,
    *,
    name: str | None = None,
    seed: int = 0,
    grace: int = 120,
    limit: int | None = None,
    device: str | torch.device | None = None,
    allow_sample: bool = False,
    progress: bool = True,
) -> optuna.Study:
    """Bring a study of a recipe to `n_trials` finished trials and return it; one that was begun before goes on.

    After `N_RANDOM` trials at random, new ones are suggested by a tree-structured Parzen estimator (Bergstra et al.
    2011), and one whose accuracy after an epoch is below the median of the earlier trials' is pruned. Pruned trials
    count as finished. The same call on another machine, with the same database, helps with the same trials.

    Args:
        recipe: a recipe or its name; no committee.
        space: by name, as for `vary`: a tuple (low, high) or a list of values. `default_space` unless given.
        n_trials: finished trials of the study in all.
        n_workers: processes, each with one torch thread, spread over the GPUs where there are some; 0 trains in this
            process, on all threads. Workers end when this process does, however it ends.
        storage: a database's URL, such as "postgresql://user:password@host/sweeps", or the path of an SQLite file.
            `sweeps.db` among this machine's runs unless given.
        name: of the study; the recipe's unless given.
        seed: of the trials' training, and of the suggestions where one process trains alone.
        grace: seconds without a heartbeat after which a trial is begun again, at most `MAX_RETRIES` times.
        limit, device, allow_sample: as for `record_run`.
        progress: show a progress bar.

    Raises:
        SearchError: the database cannot be used, or did not answer for `PATIENCE` seconds; the study in it is another
            one; a trial met an error; the workers die one after the other.
        ValueError, DataError: an unknown recipe or hyperparameter; there is no MNIST.
    """
    recipe = find_recipe(recipe)
    space = default_space(recipe) if space is None else space
    name = name or recipe.name + "-quick" * quick_mode()
    _check_space(recipe, space)
    if grace < 3:
        raise ValueError(f"grace={grace} is shorter than three heartbeats: give 3 seconds or more")
    digits = load_data(allow_sample=allow_sample)  # before the workers do: a download happens once
    plan = Plan(recipe, space, n_trials, storage, name, seed, grace, limit, device, allow_sample, digits.source)
    study = _patiently(open_study, plan)
    with tqdm(total=n_trials, unit="trial", disable=not (progress and are_open(sys.stdout, sys.stderr))) as bar:
        if n_workers == 0:
            _work(study, plan, digits, bar)
        else:
            _supervise(study, plan, n_workers, bar)
        _show(bar, study)
    return study


def parse_space(text: str) -> Space:
    """Return the search space in a text such as "lr=0.0001..0.1 batch_size=32,64"; raises ValueError if it is none."""
    space: Space = {}
    for part in text.split():
        name, _, values = part.partition("=")
        low, dots, high = values.partition("..")
        space[name] = (_value(low), _value(high)) if dots else [_value(one) for one in values.split(",")]
        numbers = all(isinstance(end, int | float) for end in space[name]) if dots else "" not in space[name]
        if not name or not numbers:
            raise ValueError(f"{part!r} is no part of a search space: write lr=0.0001..0.1 or batch_size=32,64,128")
    return space


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def default_space(recipe: Recipe | str) -> Space:
    """Return the space that is searched unless one is given: weight decay, and the rate around the recipe's own."""
    recipe = find_recipe(recipe)
    rate = recipe.scheduler_arguments.get("max_lr", recipe.optimizer_arguments.get("lr"))
    if rate is None:
        raise ValueError(f"{recipe.name} names no learning rate to search around: give a space")
    return {"lr": (rate / 30, rate * 30), "weight_decay": (1e-6, 1e-2)}


def suggest(trial: optuna.Trial, space: Space) -> dict[str, Any]:
    """Return the changes, for `vary`, that Optuna suggests; whole numbers from a range whose ends are whole."""
    changes: dict[str, Any] = {}
    for name, values in space.items():
        if isinstance(values, list):
            changes[name] = trial.suggest_categorical(name, values)
        elif all(isinstance(end, int) for end in values):
            changes[name] = trial.suggest_int(name, *values, log=True)
        else:
            changes[name] = trial.suggest_float(name, *values, log=True)
    return changes


def _check_space(recipe: Recipe, space: Space) -> None:
    """Raise ValueError if there is something in the space that `recipe` cannot be varied by."""
    for name, values in space.items():
        if isinstance(values, tuple) and not 0 < values[0] < values[1]:
            raise ValueError(f"the range of {name} must be two numbers, 0 < low < high, not {values}")
        for value in values:
            vary(recipe, {name: value})


def make_objective(plan: Plan, digits: Digits) -> Callable[[optuna.Trial], float]:
    """Return an objective for Optuna: it trains and records a trial and returns its validation accuracy in percent.

    Where two workers begin the last trial at the same moment, the later one gives its own up.
    """

    def objective(trial: optuna.Trial) -> float:
        begun = trial.study.get_trials(deepcopy=False, states=(*FINISHED, STATE.RUNNING))
        if sum(one.number < trial.number for one in begun) >= plan.n_trials:
            raise _SurplusTrial
        try:
            varied = vary(plan.recipe, suggest(trial, plan.space))
            trial.set_user_attr("recipe", varied.name)
            options: dict[str, Any] = {"digits": digits, "limit": plan.limit, "device": plan.device, "progress": False}
            record = record_run(varied, plan.seed, train=partial(fit_trial, trial=trial), **options)
        except (optuna.exceptions.OptunaError, SearchError):
            raise
        except Exception as error:
            raise SearchError(f"trial {trial.number} met {type(error).__name__}: {error}") from error
        if record["stopped"]:
            raise optuna.TrialPruned(record["stopped"])
        return record["validation_accuracy"]

    return objective


def open_study(plan: Plan, sampler_seed: int | None = None, attempts: int = 3) -> optuna.Study:
    """Return the study of a plan, made where there is none yet.

    The database is tried more than once, because another process may be making the same tables.

    Raises:
        SearchError: the database cannot be used, or the study in it is another one.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        storage=open_storage(plan.storage, plan.grace, attempts),
        study_name=plan.name,
        direction="maximize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=N_RANDOM),
    )
    kinds = {name: [type(values).__name__, *values] for name, values in plan.space.items()}
    choices = {"seed": plan.seed, "limit": plan.limit, "source": plan.source, "quick": quick_mode()}
    facts = json.dumps({**choices, "settings": plan.recipe.settings(), "space": kinds})
    if "facts" not in study.user_attrs:
        study.set_user_attr("facts", facts)
    elif study.user_attrs["facts"] != facts:
        raise SearchError(
            f"the study {plan.name!r} in {shown(plan.storage)} was begun with other settings, so its trials cannot "
            "be compared with yours: give this one another name, or another storage"
        )
    if sampler_seed is None:  # a study that goes on must not be suggested what it began with
        sampler_seed = combine_seeds(plan.seed, len(study.get_trials(deepcopy=False))) % 2**32
    study.sampler = optuna.samplers.TPESampler(n_startup_trials=N_RANDOM, constant_liar=True, seed=sampler_seed)
    return study


def finished(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Return a study's finished trials: the completed ones and the pruned ones."""
    return study.get_trials(deepcopy=False, states=FINISHED)


def _work(study: optuna.Study, plan: Plan, digits: Digits, bar: tqdm | None = None) -> None:
    """Do trials until the study has its number."""
    objective = make_objective(plan, digits)
    while _patiently(_do_a_trial, study, objective, plan.n_trials):
        if bar is not None:
            _show(bar, study)


def _do_a_trial(study: optuna.Study, objective: Callable[[optuna.Trial], float], n_trials: int) -> bool:
    """Do a trial, or wait where all are begun, and return True; return False where all are finished."""
    if len(finished(study)) >= n_trials:
        return False
    if len(study.get_trials(deepcopy=False, states=(*FINISHED, STATE.RUNNING))) < n_trials:
        study.optimize(objective, n_trials=1, catch=_SurplusTrial)
    else:
        time.sleep(0.5)
        with no_experimental_warnings():
            optuna.storages.fail_stale_trials(study)  # then there is one to begin again
    return True


def _patiently(call: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a call returns; repeat one that the database or another worker has spoilt, `MAX_RETRIES` times.

    Another worker spoils a slow trial by taking it for lost, after which Optuna has no place for its result.
    """
    for attempt in range(MAX_RETRIES + 1):
        try:
            return call(*arguments)
        except SearchError:
            raise
        except Exception as error:  # whatever Optuna and the database raise; what training raises is a SearchError
            if attempt == MAX_RETRIES:
                raise SearchError(f"the study's database fails again and again: {error!r}") from error
            warnings.warn(f"a trial, or a look at the study, failed and is tried again: {error!r}", stacklevel=2)
            time.sleep(1)


def _supervise(study: optuna.Study, plan: Plan, n_workers: int, bar: tqdm) -> None:
    """Keep up to `n_workers` at work until the study has its trials."""
    context = multiprocessing.get_context("spawn")
    team: list[SpawnProcess] = []
    numbers, n_dead, n_known = count(), 0, 0
    try:
        while (n_finished := len(_patiently(finished, study))) < plan.n_trials:
            if n_finished > n_known:
                n_known, n_dead = n_finished, 0
                _show(bar, study)
            for process in [process for process in team if not process.is_alive()]:
                team.remove(process)
                if process.exitcode == 1:
                    raise SearchError(
                        "a worker ended with the error above (a script calls sweep under `if __name__ == '__main__':`)"
                    )
                n_dead += bool(process.exitcode)
            if n_dead > MAX_RETRIES + n_workers:
                raise SearchError("the workers die one after the other: if memory runs out, take fewer of them")
            while len(team) < min(n_workers, plan.n_trials - n_finished):
                team.append(context.Process(target=_worker, args=(plan, next(numbers))))
                team[-1].start()
            wait([process.sentinel for process in team], timeout=0.5)
    finally:
        for process in team:
            process.terminate()
            process.join()


def _worker(plan: Plan, number: int) -> None:
    """Work in a process of its own until the study has its trials, or the supervisor is gone."""
    Thread(target=_end_with_supervisor, daemon=True).start()
    torch.set_num_threads(1)
    if torch.cuda.device_count():
        torch.cuda.set_device(number % torch.cuda.device_count())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the supervisor has said it
            digits = load_data(allow_sample=plan.allow_sample)
        study = _patiently(open_study, plan, secrets.randbits(32), PATIENCE)
        _work(study, plan, digits)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:  # which another attempt would only meet again
        sys.exit(str(error) if isinstance(error, SearchError) else f"{type(error).__name__}: {error}")


def _end_with_supervisor() -> None:
    supervisor = multiprocessing.parent_process()
    assert supervisor is not None
    supervisor.join()
    os._exit(0)  # even in the midst of training; the heartbeat stops, and the trial is begun again


def _show(bar: tqdm, study: optuna.Study) -> None:
    """Bring the progress bar up to date."""
    done = _patiently(finished, study)
    values = [trial.value for trial in done if trial.state == STATE.COMPLETE]
    if values:
        bar.set_postfix_str(f"best validation {max(values):.2f} %", refresh=False)
    bar.update(min(bar.total, len(done)) - bar.n)


def study_table(study: optuna.Study) -> str:
    """Return a Markdown table of a study's trials, those that were lost and begun again included."""
    trials = [trial for trial in study.get_trials(deepcopy=False) if trial.params]
    names = list(dict.fromkeys(name for trial in trials for name in trial.params))
    rows = []
    for trial in trials:
        values = [trial.params.get(name, "") for name in names]
        cells = [str(trial.number), *(f"{one:.3g}" if isinstance(one, float) else str(one) for one in values)]
        cells += [str(len(trial.intermediate_values)), "" if trial.value is None else f"{trial.value:.2f}"]
        remarks = {"COMPLETE": [], "FAIL": ["failed"]}.get(trial.state.name, [trial.state.name.lower()])
        if "failed_trial" in trial.system_attrs:
            remarks = [*remarks, f"trial {trial.system_attrs['failed_trial']} again"]
        rows.append([*cells, ", ".join(remarks)])
    return markdown_table(["trial", *names, "epochs", "validation accuracy (%)", ""], rows)


def importances(study: optuna.Study) -> dict[str, float]:
    """Return how much of the variance among a study's completed trials each hyperparameter explains, 1 in all.

    By functional ANOVA on a random forest (Hutter, Hoos and Leyton-Brown 2014). Raises SearchError for fewer than four
    completed trials, which say nothing.
    """
    n_completed = len(study.get_trials(deepcopy=False, states=(STATE.COMPLETE,)))
    if n_completed < 4:
        raise SearchError(f"importances need at least 4 completed trials, and the study has {n_completed}")
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return optuna.importance.get_param_importances(study, evaluator=evaluator)
