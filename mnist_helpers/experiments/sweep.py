"""A study's trials by several workers, on one machine or many, of which any may die.

A supervisor on each machine starts the workers and watches: a worker that dies costs its trial, which is begun again
with the same hyperparameters. Machines share nothing but the storage.
"""

import multiprocessing
import os
import socket
import sys
import time
import warnings
from functools import partial
from multiprocessing.connection import wait
from zlib import crc32

import torch
from tqdm.auto import tqdm

from ..data.digits import load_data
from ..environment import combine_seeds
from .studies import (
    MAX_RETRIES,
    SearchError,
    default_space,
    fail_stale_trials,
    is_url,
    make_objective,
    open_study,
    retry,
    storage_faults,
)

MISTAKE = 2  # the exit code of a worker that met what only the user can mend


class Surplus(Exception):
    """A trial that another worker's made superfluous."""


def sweep(
    recipe,
    space=None,
    n_trials=20,
    n_workers=0,
    storage=None,
    *,
    name=None,
    seed=0,
    grace=600,
    limit=None,
    device=None,
    allow_sample=False,
    progress=True,
):
    """Bring a study to `n_trials` finished trials with `n_workers` processes here, and return the study.

    Finished trials are those that completed and those that were pruned. The same call on another machine with the
    same storage, a database on a server or a journal in a shared folder, helps with the same trials; called again
    after a break, it goes on.

    Args:
        recipe, space, storage: as for `studies.open_study`.
        n_trials: finished trials of the study in all, those of earlier calls and other machines included.
        n_workers: processes, each with one torch thread, spread over the GPUs where there are some. With 0, the trials
            run in this process, on all threads, until none is left to begin.
        name, seed: as for `studies.open_study`.
        grace: seconds after which another machine's trial counts as lost, if there is no heartbeat in a database, or
            no finished epoch in a journal.
        limit, device, allow_sample: as for `run.record_run`.
        progress: show a progress bar.

    Raises:
        SearchError: the study cannot begin, see `open_study`; or a trial was lost again and again.
        ValueError, DataError: an unknown recipe or hyperparameter; MNIST is not to be had.
    """
    space = default_space(recipe) if space is None else space
    digits = load_data(allow_sample=allow_sample)  # before the workers do: a download happens once
    options = {"name": name, "seed": seed, "grace": grace, "limit": limit, "source": digits.source}
    options |= {"device": device, "allow_sample": allow_sample}
    study = _open(recipe, space, storage, options)
    _begin_again(study, lambda trial: _died_here(trial.user_attrs.get("worker", "")))
    done = min(n_trials, len(finished(study)))
    with (
        storage_faults(storage),
        tqdm(total=n_trials, initial=done, unit="trial", disable=not progress) as bar,
    ):
        if n_workers == 0:
            work(study, recipe, space, n_trials, digits, options, lambda: _show(bar, study))
        else:
            _supervise(study, (recipe, space, n_trials, storage, options), n_workers, bar)
    return study


def finished(study):
    """Return a study's finished trials: the completed ones and the pruned ones."""
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state.name in ("COMPLETE", "PRUNED")]


def work(study, recipe, space, n_trials, digits, options, after_each):
    """Do trials of a study as long as some are left to begin and `after_each` does not return False."""
    chosen = {name: options[name] for name in ("seed", "limit", "device")}
    objective = make_objective(recipe, space, digits=digits, **chosen)

    def claimed(trial):
        trial.set_user_attr("worker", _worker_name(os.getpid()))  # first, lest it be nobody's when this one dies
        if _place(study, trial.number) >= n_trials:
            raise Surplus  # another worker was faster
        return objective(trial)

    while _left(study, n_trials) > 0:
        try:
            study.optimize(claimed, n_trials=1, catch=(Surplus,))
        except (ValueError, RuntimeError, AssertionError) as error:
            # Optuna's words for a trial that has ended
            if not str(error).startswith(("Cannot tell a", "Trial#", "Should not reach")):
                raise
            warnings.warn("a trial took so long that it was thought lost: a larger grace avoids that", stacklevel=2)
        if after_each() is False:
            break


def _open(recipe, space, storage, options, sampler_seed=None):
    names = "name", "seed", "grace", "limit", "source"
    return open_study(recipe, space, storage, sampler_seed=sampler_seed, **{name: options[name] for name in names})


def _states(study):
    """Return (number, state's name) of a study's trials, without those that failed."""
    trials = study.get_trials(deepcopy=False)
    return [(trial.number, trial.state.name) for trial in trials if trial.state.name != "FAIL"]


def _left(study, n_trials):
    """Return how many trials are still to be begun: queued ones, and new ones up to `n_trials`."""
    states = _states(study)
    return max(n_trials - len(states), 0) + sum(name == "WAITING" for _, name in states)


def _place(study, number):
    """Return how many trials that did not fail come before this one."""
    return sum(other < number for other, _ in _states(study))


def _worker_name(pid):
    return f"{socket.gethostname()}:{pid}"


def _worker(connection, number, recipe, space, n_trials, storage, options):
    """Work in a process of its own until nothing is left, or the supervisor is gone."""
    torch.set_num_threads(1)
    sampler_seed = combine_seeds(options["seed"], number, crc32(_worker_name(os.getpid()).encode()))
    if torch.cuda.device_count():
        torch.cuda.set_device(number % torch.cuda.device_count())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the supervisor has said it
            digits = load_data(allow_sample=options["allow_sample"])
            study = _open(recipe, space, storage, options, sampler_seed)
        work(study, recipe, space, n_trials, digits, options, multiprocessing.parent_process().is_alive)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:  # which another attempt would only meet again
        connection.send(f"{type(error).__name__}: {error}")
        sys.exit(MISTAKE)


def _supervise(study, arguments, n_workers, bar):
    """Keep up to `n_workers` at work until the study has its trials."""
    n_trials, storage, options = arguments[2:]
    context, team, n_started = multiprocessing.get_context("spawn"), {}, 0
    given_up = _given_up(study)
    silent, in_vain = Silence(options["grace"]), 0
    try:
        while len(finished(study)) < n_trials:
            for process in [process for process in team if not process.is_alive()]:
                connection = team.pop(process)
                if process.exitcode == MISTAKE:
                    raise SearchError(connection.recv())
                if process.exitcode == 1:  # it never came to work; the next one would not either
                    raise SearchError(
                        "a worker cannot start, for the reason above: a script must call sweep under "
                        "`if __name__ == '__main__':`"
                    )
                lost = _begin_again(study, partial(_is_by, _worker_name(process.pid)))
                for trial in lost:
                    bar.write(f"Worker {process.pid} died: trial {trial.number} is begun again")
                in_vain = in_vain + 1 if process.exitcode and not lost else 0
                if in_vain > MAX_RETRIES + n_workers:
                    raise SearchError("the workers die before they come to work: perhaps memory runs out, take fewer")
            _begin_lost_again(study, storage, silent, [_worker_name(process.pid) for process in team])
            if lost := _given_up(study) - given_up:
                raise SearchError(
                    f"trial {min(lost)} was lost {MAX_RETRIES + 1} times: its worker dies each time. Perhaps memory "
                    "runs out: take fewer workers, or a smaller model"
                )
            while len(team) < min(n_workers, len(team) + _left(study, n_trials), n_trials):
                receiver, sender = context.Pipe(duplex=False)
                process = context.Process(target=_worker, args=(sender, n_started, *arguments))
                process.start()
                team[process], n_started = receiver, n_started + 1
            _show(bar, study)
            wait([process.sentinel for process in team], timeout=0.5) if team else time.sleep(0.5)
        _show(bar, study)
    finally:
        for process in team:
            process.terminate()
            process.join()


def _show(bar, study):
    """Bring the progress bar up to date."""
    done = finished(study)
    values = [trial.value for trial in done if trial.state.name == "COMPLETE"]
    new = min(bar.total, len(done)) - bar.n
    if new:
        bar.update(new)
    if new and values:
        bar.set_postfix_str(f"best validation {max(values):.2f} %")


def _begin_again(study, is_lost):
    """Give up the running trials that are lost, queue them once more, and return them."""
    lost = []
    for trial in study.get_trials(deepcopy=True):
        if trial.state.name == "RUNNING" and is_lost(trial):
            try:
                study.tell(trial.number, state=type(trial.state).FAIL)
            except (ValueError, RuntimeError):  # it ended in the meantime, or somebody else noticed, too
                continue
            retry(study, trial)
            lost.append(trial)
    return lost


def _begin_lost_again(study, storage, silent, alive):
    """Begin again what other machines have lost: heartbeats tell it in a database, silence in a journal.

    In a database, too, silence tells of a worker that died before its first heartbeat.
    """
    fail_stale_trials(study)

    def is_lost(trial):
        worker = trial.user_attrs.get("worker")
        return worker not in alive and (worker is None or not is_url(storage)) and silent(trial)

    _begin_again(study, is_lost)


class Silence:
    """Notices running trials that nothing has been heard of for `grace` seconds, by this machine's clock alone."""

    def __init__(self, grace):
        self.grace, self.last = grace, {}

    def __call__(self, trial):
        """Tell whether a trial has reported no epoch, and has had no other worker, for so long."""
        sign, now = (len(trial.intermediate_values), trial.user_attrs.get("worker")), time.monotonic()
        if self.last.get(trial.number, (None, 0))[0] != sign:
            self.last[trial.number] = sign, now
        return now - self.last[trial.number][1] > self.grace


def _given_up(study):
    """Return the numbers of the trials that were lost as often as they may be."""
    trials = study.get_trials(deepcopy=False)
    losses = {trial.number: len(trial.system_attrs.get("retry_history", [])) for trial in trials}
    return {trial.number for trial in trials if trial.state.name == "FAIL" and losses[trial.number] >= MAX_RETRIES}


def _is_by(worker, trial):
    return trial.user_attrs.get("worker") == worker


def _died_here(worker):
    """Tell whether a worker was a process of this machine that is no more; not on Windows, where asking would kill."""
    machine, _, pid = worker.rpartition(":")
    if machine != socket.gethostname() or os.name != "posix":
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False
