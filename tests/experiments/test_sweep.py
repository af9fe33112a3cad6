import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
from tqdm import tqdm

from mnist_helpers.data.digits import DataError, load_data
from mnist_helpers.experiments import studies, sweep
from mnist_helpers.experiments.recipe import vary
from mnist_helpers.experiments.records import load_records
from mnist_helpers.experiments.studies import MAX_RETRIES, SearchError, fail_stale_trials
from mnist_helpers.experiments.sweep import Silence, finished, work
from mnist_helpers.experiments.systems import RECIPES

pytestmark = [pytest.mark.usefixtures("one_thread", "closed"), pytest.mark.filterwarnings("ignore:THIS IS NOT MNIST")]
SPACE = {"lr": (1e-3, 1e-1)}
BRIEF = vary(RECIPES["network"], {"epochs": 1})
LONG = vary(RECIPES["network"], {"epochs": 40})  # half a second at least, in which a worker can be killed
STATES = optuna.trial.TrialState


@pytest.fixture(params=["sqlite:///sweep.db", "sweep.journal"], ids=["database", "journal"])
def storage(request):
    return request.param


def swept(n_trials, n_workers=0, storage="sweep.journal", recipe=BRIEF, space=SPACE, **options):
    """Sweep the scikit-learn sample, 100 images of it unless more are asked for."""
    options = {"limit": 100, "device": "cpu", "allow_sample": True, "progress": False} | options
    return sweep.sweep(recipe, space, n_trials, n_workers, storage, **options)


def states(study):
    return [trial.state.name for trial in study.get_trials(deepcopy=False)]


def until(condition, seconds=120):
    """Wait for what is bound to happen soon, and return it."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it has not happened"
        time.sleep(0.02)
    return found


def in_training(study):
    """Return the running trials that have finished an epoch."""
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state == STATES.RUNNING and trial.last_step]


def pid_of(trial):
    return int(trial.user_attrs["worker"].rpartition(":")[2])


def is_gone(pid):
    """Tell whether a process is no more; one that this process has inherited is laid to rest."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def is_stopped_outside_the_lock(pid):
    """Stop a process unless it is writing into the journal: the others would wait half a minute for its lock."""
    os.kill(pid, signal.SIGSTOP)
    time.sleep(0.02)
    if not Path("sweep.journal.lock").exists():
        return True
    os.kill(pid, signal.SIGCONT)
    return False


def test_a_sweep_reaches_its_number_of_trials_and_goes_on_from_there(storage, closed):
    two = swept(2, storage=storage).trials
    assert [trial.state.name for trial in two] == ["COMPLETE"] * 2
    assert swept(2, storage=storage).trials == two, "there is nothing left to do"
    more = swept(5, storage=storage)
    assert len(finished(more)) == 5 == len(states(more)) and more.trials[:2] == two
    assert swept(3, storage=storage).trials == more.trials
    rates = {trial.params["lr"] for trial in more.trials}
    assert len(rates) == 5 and all(1e-3 <= rate <= 1e-1 for rate in rates)
    records = {one["recipe"]: one for one in load_records()}
    for trial in more.trials:
        assert records[trial.user_attrs["recipe"]]["trained_on"] == 100
        assert trial.user_attrs["worker"] == sweep._worker_name(os.getpid())
        if trial.state == STATES.COMPLETE:
            assert trial.value == records[trial.user_attrs["recipe"]]["validation_accuracy"]


def test_the_same_seed_suggests_the_same_trials():
    rates = [[trial.params["lr"] for trial in swept(2, storage=f"{name}.journal").trials] for name in ("a", "b")]
    assert rates[0] == rates[1] != [trial.params["lr"] for trial in swept(2, storage="c.journal", seed=1).trials]


def test_pruned_trials_count_as_finished(monkeypatch):
    monkeypatch.setattr(studies, "record_run", lambda *_, **__: {"stopped": "pruned"})
    assert states(swept(2)) == ["PRUNED"] * 2


def test_the_sample_is_refused_unless_asked_for(closed):
    with pytest.raises(DataError, match="--allow-sample"):
        swept(1, allow_sample=False)
    assert not (closed / "sweep.journal").exists()


def test_mistakes_are_found_before_any_trial(closed):
    with pytest.raises(ValueError, match="neither a recipe nor Adam has 'momentum'"):
        swept(1, 2, space={"momentum": (0.1, 0.9)})
    swept(1)
    with pytest.raises(SearchError, match="was begun with other settings"):
        swept(2, 2, limit=101)


def test_without_a_space_the_learning_rate_and_weight_decay_are_searched():
    (trial,) = swept(1, space=None).trials
    assert trial.params.keys() == {"lr", "weight_decay"}


def test_progress_is_shown_with_the_best_so_far(capsys):
    best = swept(2, progress=True).best_value
    shown = capsys.readouterr().err
    assert "2/2" in shown and f"best validation {best:.2f} %" in shown


def lost_trial(study, worker, rate=0.02):
    """Begin a trial as a worker does, and return its number."""
    study.enqueue_trial({"lr": rate})
    trial = study.ask()
    trial.suggest_float("lr", *SPACE["lr"], log=True)
    if worker:
        trial.set_user_attr("worker", worker)
    return trial.number


@pytest.fixture
def dead():
    """Return the name of a worker that has ended on this machine."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return sweep._worker_name(process.pid)


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
def test_what_a_dead_worker_left_is_begun_again_with_the_same_hyperparameters(storage, dead):
    number = lost_trial(swept(0, storage=storage), dead)
    study = swept(2, storage=storage)
    assert states(study)[number] == "FAIL" and len(finished(study)) == 2
    (again,) = [trial for trial in study.trials if trial.system_attrs.get("failed_trial") == number]
    assert again.params == {"lr": 0.02} and again.state == STATES.COMPLETE
    assert again.user_attrs["worker"] == sweep._worker_name(os.getpid())


def test_a_trial_of_a_live_worker_is_left_alone():
    study = swept(0)
    lost_trial(study, sweep._worker_name(os.getpid()))
    lost_trial(study, "another-machine:1")
    swept(3)
    assert sorted(states(study)) == ["COMPLETE", "RUNNING", "RUNNING"], "those count, and one was left"


def test_who_died_here_is_known_of_this_machine_alone(dead, monkeypatch):
    machine, _, pid = dead.rpartition(":")
    assert sweep._died_here(dead) and not sweep._died_here(sweep._worker_name(os.getpid()))
    assert not sweep._died_here(f"another-{machine}:{pid}") and not sweep._died_here("")

    def not_ours(*_):
        raise PermissionError

    monkeypatch.setattr(sweep.os, "kill", not_ours)
    assert not sweep._died_here(dead), "another user's process is alive"
    monkeypatch.setattr(sweep, "os", SimpleNamespace(name="nt", kill=None))
    assert not sweep._died_here(dead), "on Windows, os.kill would kill"


def test_silence_is_noticed_after_the_grace_by_this_machines_clock(monkeypatch):
    clock = SimpleNamespace(now=1e6)
    monkeypatch.setattr(sweep.time, "monotonic", lambda: clock.now)
    silent = Silence(grace=10)

    def trial(number, n_epochs, worker="there:1"):
        attributes = {"worker": worker} if worker else {}
        return SimpleNamespace(number=number, intermediate_values=dict.fromkeys(range(n_epochs)), user_attrs=attributes)

    assert not silent(trial(0, 3)), "it is looked at for the first time"
    clock.now += 9
    assert not silent(trial(0, 3)) and not silent(trial(1, 0, None))
    clock.now += 2
    assert silent(trial(0, 3)) and not silent(trial(1, 0, None))
    assert not silent(trial(0, 4)), "an epoch was reported"
    clock.now += 10
    assert not silent(trial(0, 4)) and not silent(trial(0, 4, "there:2")), "another worker took it"
    clock.now += 11
    assert silent(trial(0, 4, "there:2")) and silent(trial(1, 0, None))


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
def test_silent_trials_are_begun_again(storage):
    """In a database the heartbeats tell, so there it is the trials without a worker's name that silence counts for."""
    study = swept(0, storage=storage)
    mine, unnamed, elsewhere = (lost_trial(study, worker) for worker in ("here:1", None, "there:2"))
    sweep._begin_lost_again(study, storage, lambda trial: False, ["here:1"])
    assert states(study) == ["RUNNING"] * 3
    sweep._begin_lost_again(study, storage, lambda trial: True, ["here:1"])
    in_database = storage.startswith("sqlite")
    assert states(study)[:3] == ["RUNNING", "FAIL", "RUNNING" if in_database else "FAIL"]
    assert states(study)[3:] == ["WAITING"] * (1 if in_database else 2)
    retried = [trial.system_attrs["failed_trial"] for trial in study.trials if trial.state == STATES.WAITING]
    assert retried == ([unnamed] if in_database else [unnamed, elsewhere]) and mine not in retried


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
def test_trials_whose_heartbeat_has_stopped_are_begun_again():
    study = swept(0, storage="sqlite:///sweep.db", grace=60)
    number = lost_trial(study, "there:1")
    database = study._storage._backend
    database.record_heartbeat(study.trials[number]._trial_id)
    fail_stale_trials(study)
    assert states(study) == ["RUNNING"]
    with database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE trial_heartbeats SET heartbeat = datetime('now', '-61 seconds')")
    sweep._begin_lost_again(study, "sqlite:///sweep.db", lambda trial: False, [])
    assert states(study) == ["FAIL", "WAITING"] and "worker" not in study.trials[1].user_attrs


def test_a_trial_that_ended_in_the_meantime_is_not_begun_again():
    study = swept(0)
    number = lost_trial(study, "there:1")

    def ends_meanwhile(trial):
        study.tell(number, 97.0)
        return True

    assert sweep._begin_again(study, ends_meanwhile) == [] and states(study) == ["COMPLETE"]


def test_a_trial_that_others_made_superfluous_is_given_up_untrained(monkeypatch):
    study = swept(2)
    answers = iter([1, 0])  # as if the second trial had not been there yet when this worker looked
    monkeypatch.setattr(sweep, "_left", lambda *_: next(answers))
    monkeypatch.setattr(studies, "record_run", None)
    options = {"seed": 0, "limit": 100, "device": "cpu"}
    work(study, BRIEF, SPACE, 2, load_data(), options, lambda: True)
    assert states(study) == ["COMPLETE", "COMPLETE", "FAIL"] and study.trials[2].params == {}


def test_a_worker_stops_when_it_is_told_to():
    study, told = swept(0), []
    options = {"seed": 0, "limit": 100, "device": "cpu"}
    work(study, BRIEF, SPACE, 5, load_data(), options, lambda: told.append(1) or len(told) < 2)
    assert len(told) == 2 == len(finished(study))


@pytest.mark.parametrize("late", [False, True])
def test_a_trial_that_was_thought_lost_costs_a_warning_and_another_trial(storage, monkeypatch, late):
    """Whether that is noticed when an epoch is reported, or not before the trial has ended."""
    study, record_run, given_up = swept(0, storage=storage), studies.record_run, []

    def thought_lost(varied, seed, *, train, **options):
        def meanwhile():
            if not given_up:
                given_up.append(study.get_trials(states=(STATES.RUNNING,))[0].number)
                study.tell(given_up[0], state=STATES.FAIL)

        if not late:
            meanwhile()
        record = record_run(varied, seed, train=train, **options)
        meanwhile()
        return record

    monkeypatch.setattr(studies, "record_run", thought_lost)
    options = {"seed": 0, "limit": 100, "device": "cpu"}
    with pytest.warns(UserWarning, match="thought lost: a larger grace avoids that"):
        work(study, BRIEF, SPACE, 2, load_data(), options, lambda: True)
    assert states(study) == ["FAIL", "COMPLETE", "COMPLETE"]


def test_other_errors_in_a_trial_are_not_hidden(monkeypatch):
    def fail(*_, **__):
        raise ValueError("the disk is full")

    monkeypatch.setattr(studies, "record_run", fail)
    with pytest.raises(ValueError, match="the disk is full"):
        swept(2)


def test_who_is_given_up_has_been_lost_so_often():
    study = optuna.create_study()
    for state, losses in (("FAIL", 0), ("FAIL", MAX_RETRIES - 1), ("FAIL", MAX_RETRIES), ("WAITING", MAX_RETRIES)):
        history = {"failed_trial": 0, "retry_history": list(range(losses))} if losses else {}
        study.add_trial(optuna.create_trial(state=STATES[state], system_attrs=history))
    assert sweep._given_up(study) == {2}


class Mortal:
    """A worker that begins a trial, if it comes so far, and dies."""

    started = []

    def __init__(self, target, args):
        self.pid, self.sentinel = 10**9 + len(self.started), None
        self.started.append(self)

    def start(self):
        if self.exitcode < 0:
            lost_trial(self.study, sweep._worker_name(self.pid)) if not self.study.trials else self.begin()

    def begin(self):
        trial = self.study.ask()
        trial.set_user_attr("worker", sweep._worker_name(self.pid))

    def is_alive(self):
        return False

    def terminate(self):
        pass

    join = terminate


@pytest.fixture
def mortals(monkeypatch):
    """Let a sweep have workers that die; return (study, a function that supervises them with an exit code)."""
    study = swept(0)

    def supervise(exitcode, n_trials=1):
        kind = type("Mortal", (Mortal,), {"study": study, "exitcode": exitcode, "started": []})
        context = SimpleNamespace(Process=kind, Pipe=lambda duplex: (None, None))
        monkeypatch.setattr(sweep.multiprocessing, "get_context", lambda method: context)
        monkeypatch.setattr(sweep, "wait", lambda *_, **__: None)
        with tqdm(total=n_trials, disable=True) as bar:
            arguments = BRIEF, SPACE, n_trials, "sweep.journal", {"grace": 600}
            sweep._supervise(study, arguments, 2, bar)
        return kind.started

    return study, supervise


def test_a_trial_that_is_lost_again_and_again_ends_the_sweep(mortals, capsys):
    study, supervise = mortals
    message = (
        f"trial {MAX_RETRIES} was lost {MAX_RETRIES + 1} times: its worker dies each time. Perhaps memory runs out"
    )
    with pytest.raises(SearchError, match=message):
        supervise(-9)
    assert states(study) == ["FAIL"] * (MAX_RETRIES + 1)
    assert {trial.params["lr"] for trial in study.trials if trial.params} == {0.02}
    assert "Worker 1000000000 died: trial 0 is begun again" in capsys.readouterr().out


def test_what_was_given_up_in_an_earlier_sweep_is_not_held_against_the_next(mortals, monkeypatch):
    study, supervise = mortals
    with pytest.raises(SearchError):
        supervise(-9)
    more = swept(2)
    assert states(more) == ["FAIL"] * (MAX_RETRIES + 1) + ["COMPLETE"] * 2
    assert supervise(-9, n_trials=2) == [], "nothing is left to do"


def test_workers_that_cannot_even_start_end_the_sweep(mortals):
    study, supervise = mortals
    with pytest.raises(SearchError, match="a worker cannot start"):
        supervise(1)
    assert states(study) == []


def test_a_killed_worker_costs_one_trial_which_another_does(storage, capsys):
    """With more workers than trials, of which there are then exactly as many as asked for."""
    study = swept(0, storage=storage, recipe=LONG, limit=600)
    ended = []
    options = {"n_workers": 3, "storage": storage, "recipe": LONG, "limit": 600}
    thread = threading.Thread(target=lambda: ended.append(swept(2, **options)), daemon=True)
    thread.start()
    victim = until(lambda: in_training(study))[0]
    until(lambda: is_stopped_outside_the_lock(pid_of(victim)))
    os.kill(pid_of(victim), signal.SIGKILL)
    thread.join(timeout=120)
    assert ended, "the sweep has not come to an end"
    assert sorted(states(study)) == ["COMPLETE", "COMPLETE", "FAIL"]
    assert states(study)[victim.number] == "FAIL"
    (again,) = [trial for trial in study.trials if trial.system_attrs.get("failed_trial") == victim.number]
    assert again.params == victim.params and again.user_attrs["worker"] != victim.user_attrs["worker"]
    assert f"Worker {pid_of(victim)} died: trial {victim.number} is begun again" in capsys.readouterr().out
    assert all(len(trial.intermediate_values) == 40 for trial in finished(study))
    until(lambda: all(is_gone(pid_of(trial)) for trial in study.trials))


def test_a_sweep_whose_supervisor_and_a_worker_are_killed_is_completed_when_it_is_started_again(closed):
    options = {"storage": "sqlite:///sweep.db", "recipe": LONG, "limit": 600}
    study = swept(0, **options)
    command = "sweep network --trials 3 --workers 2 --epochs 40 --limit 600 --space lr=0.001..0.1 --device cpu"
    command = [sys.executable, "-m", "mnist_helpers", *command.split(), "--allow-sample", "--storage"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    supervisor = subprocess.Popen([*command, options["storage"]], **quiet)
    try:
        victim, other = until(lambda: len(running := in_training(study)) == 2 and running)
    finally:
        supervisor.kill()
        supervisor.wait()
    os.kill(pid_of(victim), signal.SIGKILL)
    until(lambda: is_gone(pid_of(victim)))
    swept(3, **options)
    until(lambda: len(finished(study)) == 3)
    assert states(study).count("FAIL") == 1 and len(states(study)) == 4
    assert states(study)[victim.number] == "FAIL"
    (again,) = [trial for trial in study.trials if trial.system_attrs.get("failed_trial") == victim.number]
    assert again.params == victim.params and again.user_attrs["worker"] == sweep._worker_name(os.getpid())
    orphan = study.trials[other.number]
    assert orphan.state == STATES.COMPLETE and orphan.user_attrs == other.user_attrs, "it has ended its trial"
    until(lambda: is_gone(pid_of(other)))
    trained = {json.loads(path.read_text())["recipe"] for path in closed.glob("runs/records/trials/*.json")}
    assert trained == {trial.user_attrs["recipe"] for trial in finished(study)}


def test_a_mistake_in_a_worker_ends_the_sweep_in_one_sentence():
    with pytest.raises(SearchError) as caught:
        swept(3, 1, space={"normalisation": ["nothing"]})
    assert str(caught.value) == (
        "ValueError: there is no normalisation 'nothing': choose one of half, mnist, unit, raw"
    )
