import functools
import json
import multiprocessing
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import optuna
import psutil
import pytest
import torch

from mnist_helpers.data.digits import DataError
from mnist_helpers.experiments import sweep as sweeps
from mnist_helpers.experiments.recipe import vary
from mnist_helpers.experiments.records import load_records
from mnist_helpers.experiments.sweep import (
    MAX_RETRIES,
    SearchError,
    default_space,
    finished,
    importances,
    parse_space,
    study_table,
    suggest,
    sweep,
)
from mnist_helpers.experiments.systems import RECIPES

pytestmark = [
    pytest.mark.usefixtures("project"),
    pytest.mark.filterwarnings(
        "ignore:THIS IS NOT MNIST", "ignore::optuna.exceptions.ExperimentalWarning", "ignore:Heartbeat of storage"
    ),
]
load_once = functools.cache(sweeps.load_data)
SAMPLE = {"limit": 100, "device": "cpu", "allow_sample": True, "progress": False}  # 100 images of scikit-learn's digits
SPACE = {"lr": (1e-3, 1e-1)}
BRIEF = vary(RECIPES["network"], {"epochs": 1})
LONG = vary(RECIPES["network"], {"epochs": 40})  # a second at least, in which a worker can be killed
STATES = optuna.trial.TrialState


@pytest.fixture(autouse=True)
def sample(monkeypatch):
    """Load the sample once for all sweeps in this process."""
    monkeypatch.setattr(sweeps, "load_data", load_once)


@pytest.fixture
def forked(monkeypatch):
    """Let workers start at once: forked from a process that has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([sweeps.__name__, "torch._dynamo", "sklearn.datasets"])
    monkeypatch.setattr(multiprocessing, "get_context", lambda _: context)
    return context


def swept(n_trials, n_workers=0, storage="sweep.db", recipe=BRIEF, space=SPACE, **options):
    return sweep(recipe, space, n_trials, n_workers, storage, **SAMPLE | options)


def states(study):
    return [trial.state.name for trial in study.get_trials(deepcopy=False)]


def until(condition, seconds=180):
    """Wait for what is bound to happen soon, and return it."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it has not happened"
        time.sleep(0.05)
    return found


def in_training(study):
    """Return the running trials that have finished an epoch."""
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state == STATES.RUNNING and trial.last_step]


def is_gone(process):
    """Tell whether a process has ended; a zombie, which waits for its parent, has."""
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def silence(study, trial):
    """Make a trial's heartbeat the last one of a worker that was killed a minute ago."""
    study._storage.record_heartbeat(trial._trial_id)
    with study._storage._backend.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE trial_heartbeats SET heartbeat = datetime('now', '-61 seconds')")


# Spaces


def test_a_space_is_ranges_and_lists():
    text = (
        "lr=0.0001..0.1 batch_size=32,64  optimizer=SGD,Adam weight_decay=1e-6..1e-2 nesterov=true,false momentum=0.9"
    )
    assert parse_space(text) == {
        "lr": (0.0001, 0.1),
        "batch_size": [32, 64],
        "optimizer": ["SGD", "Adam"],
        "weight_decay": (1e-6, 1e-2),
        "nesterov": [True, False],
        "momentum": [0.9],
    }
    assert parse_space("") == {}


def test_what_is_no_part_of_a_space_is_named():
    for part in ("lr", "lr=", "=1,2", "lr=0.1..", "lr=..0.1", "lr=low..high", "batch_size=32,,64"):
        with pytest.raises(ValueError, match=f"{re.escape(repr(part))} is no part of a search space: write lr=0.0001"):
            parse_space(f"weight_decay=0.1..0.2 {part}")


def test_every_recipe_can_be_swept_with_its_default_space():
    for recipe in RECIPES.values():
        space = default_space(recipe)
        if recipe.members:
            with pytest.raises(ValueError, match="is a committee of trained networks"):
                swept(1, recipe=recipe, space=space)
            continue
        for end in (0, 1):
            trial = optuna.trial.FixedTrial({name: values[end] for name, values in space.items()})
            varied = vary(recipe, suggest(trial, space))
            optimizer = getattr(torch.optim, varied.optimizer)([torch.zeros(1)], **varied.optimizer_arguments)
            (group,) = optimizer.param_groups
            assert (group["lr"], group["weight_decay"]) == (trial.params["lr"], trial.params["weight_decay"])
            assert varied.scheduler_arguments.get("max_lr", group["lr"]) == group["lr"]


def test_the_default_space_lies_around_the_recipes_own_rate():
    assert default_space("network") == {
        "lr": (pytest.approx(1e-3 / 30), pytest.approx(3e-2)),
        "weight_decay": (1e-6, 1e-2),
    }
    assert default_space(vary(RECIPES["network"], {"lr": 0.3}))["lr"] == pytest.approx((0.01, 9))
    assert default_space("mlp_one_cycle")["lr"] == pytest.approx((1e-2 / 30, 0.3)), "the schedule's highest"


def test_a_range_is_drawn_evenly_in_its_logarithm_and_a_list_is_chosen_from():
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    space = {"lr": (1e-4, 1e-1), "batch_size": [32, 64], "epochs": (2, 8)}
    drawn = [suggest(study.ask(), space) for _ in range(200)]
    rates = [one["lr"] for one in drawn]
    assert all(1e-4 <= rate <= 1e-1 for rate in rates)
    assert 80 < sum(rate < 10**-2.5 for rate in rates) < 120, "half of them lie below the geometric mean"
    assert {one["batch_size"] for one in drawn} == {32, 64}
    assert {type(one["epochs"]) for one in drawn} == {int}, "a range of whole numbers gives whole numbers"


@pytest.mark.parametrize(
    ("space", "complaint"),
    [
        ({"lr": (0.0, 0.1)}, "0 < low < high"),
        ({"lr": (0.1, 0.01)}, "0 < low < high"),
        ({"optimizer": ["SGD", 5]}, "no optimizer 5"),
        ({"momentum": (0.1, 0.9)}, "neither a recipe nor Adam has 'momentum'"),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused_before_anything_is_written(project, space, complaint):
    with pytest.raises(ValueError, match=complaint):
        swept(1, space=space)
    assert not (project / "sweep.db").exists()


# Studies


def test_a_sweep_reaches_its_number_of_trials_and_goes_on_from_there(project):
    two = swept(2).trials
    assert [trial.state.name for trial in two] == ["COMPLETE"] * 2
    assert swept(2).trials == two, "there is nothing left to do"
    more = swept(5)
    assert len(finished(more)) == 5 == len(states(more)) and more.trials[:2] == two
    assert swept(3).trials == more.trials
    rates = {trial.params["lr"] for trial in more.trials}
    assert len(rates) == 5, "a study that goes on is not suggested what it began with"
    assert all(1e-3 <= rate <= 1e-1 for rate in rates)
    records = {one["recipe"]: one for one in load_records()}
    assert len(records) == 5
    for trial in more.trials:
        record = records[trial.user_attrs["recipe"]]
        assert record["trained_on"] == 100 and record["test_accuracy"] is None
        assert record["changes"] == {"epochs": 1, **trial.params}
        assert trial.intermediate_values == {1: record["validation_accuracy"]}
        if trial.state == STATES.COMPLETE:
            assert trial.value == record["validation_accuracy"]


def test_the_same_seed_suggests_the_same_trials():
    rates = [[trial.params["lr"] for trial in swept(2, storage=f"{name}.db").trials] for name in ("a", "b")]
    assert rates[0] == rates[1] != [trial.params["lr"] for trial in swept(2, storage="c.db", seed=1).trials]


def test_studies_of_other_recipes_and_names_lie_beside_each_other(project, monkeypatch):
    storage = {"storage": None}
    assert len(swept(1, **storage).trials) == 1 and (project / "runs" / "sweeps.db").exists()
    assert swept(0, recipe="lenet5", **storage).trials == [] == swept(0, name="mine", **storage).trials
    assert swept(0, storage=f"sqlite:///{project}/runs/sweeps.db").trials != [], "the same, as a URL"
    monkeypatch.setenv("QUICK", "1")
    quick = swept(0, storage="sweep.db")
    assert quick.study_name == f"{BRIEF.name}-quick" and quick.direction.name == "MAXIMIZE"


OTHERS = {
    "space": {"space": {"lr": (1e-3, 1.0)}},
    "kind of space": {"space": {"lr": [1e-3, 1e-1]}},
    "seed": {"seed": 1},
    "images": {"limit": 200},
    "recipe": {"recipe": "lenet5"},
    "epochs": {"recipe": vary(RECIPES["network"], {"epochs": 3})},
}


def test_a_study_that_was_begun_with_other_settings_is_refused(monkeypatch):
    swept(0, name="mine")
    for n_workers, other in enumerate(OTHERS.values()):
        with pytest.raises(SearchError, match="the study 'mine' in sweep.db was begun with other settings, so its"):
            swept(1, n_workers, name="mine", **other)
    with monkeypatch.context() as patch:
        patch.setenv("QUICK", "1")
        with pytest.raises(SearchError, match="was begun with other settings"):
            swept(1, name="mine")
    changed = replace(BRIEF, batch_size=32)
    with pytest.raises(SearchError, match="was begun with other settings"):
        swept(1, name="mine", recipe=changed)
    swept(0, name="mine", grace=30)


def test_the_sample_is_refused_unless_asked_for(project):
    with pytest.raises(DataError, match="--allow-sample"):
        swept(1, allow_sample=False)
    assert not (project / "sweep.db").exists()


def test_without_a_space_the_learning_rate_and_weight_decay_are_searched():
    (trial,) = swept(1, space=None).trials
    assert trial.params.keys() == {"lr", "weight_decay"}


def test_progress_is_shown_with_the_best_so_far(capsys):
    best = swept(2, progress=True).best_value
    shown = capsys.readouterr().err
    assert "2/2" in shown and f"best validation {best:.2f} %" in shown


def test_a_hopeless_trial_is_pruned_and_a_diverged_one_counts_as_pruned(monkeypatch, digits):
    monkeypatch.setattr(sweeps, "load_data", lambda allow_sample: digits)
    options = {"recipe": vary(RECIPES["network"], {"epochs": 3, "optimizer": "SGD"}), "space": {"lr": (1e-9, 1e10)}}
    study = swept(0, **options)
    for rate in (1e9, 0.2, 0.1, 0.05, 0.02, 1e-8, 0.2):
        study.enqueue_trial({"lr": rate})
    study = swept(7, **options)
    assert states(study) == ["PRUNED"] + ["COMPLETE"] * 4 + ["PRUNED", "COMPLETE"]
    diverged, first, pruned, again = (study.trials[number] for number in (0, 1, 5, 6))
    assert diverged.value is None and len(pruned.intermediate_values) == 1
    (record,) = [one for one in load_records() if one["recipe"] == pruned.user_attrs["recipe"]]
    assert record["stopped"] == "pruned" and record["epochs"] == 1
    assert again.value == first.value and not again.intermediate_values, "what is recorded is not trained again"
    assert "| 0 | 1e+09 | 0 |  | pruned |" in study_table(study)


# Storages


@pytest.mark.parametrize("content", [b"five!", b"notes, and no database\n" * 1000, bytes(5000), b"SQLite format 3"])
def test_a_file_that_is_no_database_is_refused_untouched(project, content):
    (project / "notes.db").write_bytes(content)
    for storage in ("notes.db", "sqlite:///notes.db"):
        with pytest.raises(SearchError, match=f"the database {storage} cannot be used: file is not a database"):
            swept(1, storage=storage)
    assert (project / "notes.db").read_bytes() == content
    assert [path.name for path in project.glob("notes*")] == ["notes.db"], "nor is anything left beside it"


def test_signs_that_mean_something_in_a_url_mean_themselves_in_a_path(project):
    name = "50%41 of what? {x} #1 &+é@.db"
    swept(0, storage=name)
    swept(0, storage=project / name)
    assert [path.name for path in project.glob("*.db*")] == [name]
    with pytest.raises(SearchError, match=re.escape(f"in {name} was begun with other settings")):
        swept(0, storage=name, seed=1)


@pytest.mark.parametrize(
    ("storage", "shown"),
    [
        ("unheard-of://me:secret@host/studies", "unheard-of://...@host/studies"),
        ("postgresql://me:secret@host:port/studies", "postgresql://...@host:port/studies"),
        ("unheard-of://me:se@cret@host/studies", "unheard-of://...@host/studies"),
        ("postgresql://me:secret@127.0.0.1:1/studies", "postgresql://...@127.0.0.1:1/studies"),
        ("unheard-of://host/studies?user=me&password=secret", "unheard-of://host/studies"),
        ("sqlite:////no/such/folder/studies.db", "sqlite:////no/such/folder/studies.db"),
        ("/no/such/folder/studies.db", "/no/such/folder/studies.db"),
        (".", "."),
    ],
)
def test_a_database_that_cannot_be_used_is_one_sentence_without_a_password(storage, shown):
    with pytest.raises(SearchError) as caught:
        swept(1, storage=storage)
    message = str(caught.value)
    assert message.startswith(f"the database {shown} cannot be used: ") and len(message.splitlines()) == 1
    assert "cret" not in message


def test_a_password_is_not_shown_where_the_settings_differ_either(monkeypatch):
    opened = sweeps.open_storage("sweep.db", 60, 1)
    monkeypatch.setattr(sweeps, "open_storage", lambda *_: opened)
    url = "postgresql://me:secret@host/studies"
    swept(0, storage=url)
    with pytest.raises(SearchError, match=r"in postgresql://...@host/studies was begun") as caught:
        swept(0, storage=url, seed=1)
    assert "secret" not in str(caught.value)


def test_a_missing_driver_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(SearchError, match=r"a driver that is not installed \(.*psycopg.*\).*pip install 'psycopg\[bin"):
        swept(1, storage="postgresql://me@host/studies")


# Lost trials


def test_a_trial_whose_heartbeat_has_stopped_is_begun_again_with_the_same_hyperparameters():
    study = swept(0, grace=60)
    study.enqueue_trial({"lr": 0.02})
    trial = study.ask()
    trial.suggest_float("lr", *SPACE["lr"], log=True)
    silence(study, trial)
    study = swept(1, grace=60)
    assert states(study) == ["FAIL", "COMPLETE"]
    assert study.trials[1].params == {"lr": 0.02} and study.trials[1].system_attrs["failed_trial"] == 0


def test_a_trial_that_is_lost_again_and_again_is_given_up():
    study = swept(0, grace=60)
    for _ in range(MAX_RETRIES + 1):
        silence(study, study.ask())
        optuna.storages.fail_stale_trials(study)
    assert states(study) == ["FAIL"] * (MAX_RETRIES + 1)


def test_a_trial_that_others_are_at_is_waited_for(monkeypatch):
    study = swept(0)
    trial = study.ask()
    study._storage.record_heartbeat(trial._trial_id)
    clock = SimpleNamespace(sleep=lambda seconds: seconds and study.tell(trial, 90.0), monotonic=time.monotonic)
    monkeypatch.setattr(sweeps, "time", clock)
    assert states(swept(2)) == ["COMPLETE", "COMPLETE"] and study.trials[0].value == 90


def test_of_two_workers_that_begin_the_last_trial_together_one_gives_it_up(monkeypatch):
    theirs, optimize = [], optuna.Study.optimize

    def together(study, *given, **options):
        theirs.append(study.ask())
        optimize(study, *given, **options)
        study.tell(theirs[0], 90.0)

    monkeypatch.setattr(optuna.Study, "optimize", together)
    study = swept(1)
    assert states(study) == ["COMPLETE", "FAIL"] and study.trials[0].value == 90 and len(theirs) == 1


@pytest.mark.parametrize("late", [False, True])
def test_a_trial_that_was_thought_lost_costs_a_warning_and_another_trial(monkeypatch, late):
    """Whether that is noticed when an epoch is reported, or not before the trial has ended."""
    study, record_run, given_up = swept(0), sweeps.record_run, []

    def thought_lost(*given, **options):
        def meanwhile():
            if not given_up:
                given_up.append(study.get_trials(states=(STATES.RUNNING,))[0].number)
                study.tell(given_up[0], state=STATES.FAIL)

        if not late:
            meanwhile()
        record = record_run(*given, **options)
        meanwhile()
        return record

    monkeypatch.setattr(sweeps, "record_run", thought_lost)
    with pytest.warns(UserWarning, match="a trial, or a look at the study, failed and is tried again"):
        study = swept(2)
    assert states(study) == ["FAIL", "COMPLETE", "COMPLETE"]


def test_an_error_in_a_trial_ends_the_sweep_in_one_sentence(monkeypatch):
    def fail(*_, **__):
        raise OSError("the disk is full")

    monkeypatch.setattr(sweeps, "record_run", fail)
    with pytest.raises(SearchError, match=r"^trial 0 met OSError: the disk is full$"):
        swept(2)


def test_an_error_in_a_worker_ends_the_sweep(project, capfd, forked):
    (project / "runs").write_text("no folder, so that nothing can be recorded")
    with pytest.raises(SearchError, match="a worker ended with the error above"):
        swept(3, 1)
    assert re.search(r"^trial 0 met \w+Error: .*runs", capfd.readouterr().err, re.MULTILINE)


def test_workers_that_die_one_after_the_other_end_the_sweep(monkeypatch):
    started = []

    def killed(target, args):
        methods = {"start": lambda: started.append(args), "terminate": lambda: None, "join": lambda: None}
        return SimpleNamespace(exitcode=-9, is_alive=lambda: False, sentinel=None, **methods)

    monkeypatch.setattr(multiprocessing, "get_context", lambda _: SimpleNamespace(Process=killed))
    monkeypatch.setattr(sweeps, "wait", lambda *_, **__: None)
    with pytest.raises(SearchError, match="the workers die one after the other"):
        swept(3, 2)
    assert MAX_RETRIES + 2 < len(started) <= MAX_RETRIES + 2 * 2
    assert [number for _, number in started] == list(range(len(started))), "spread over the GPUs"


def test_workers_end_with_their_supervisor_and_what_they_left_is_done_by_the_next(project, forked):
    """The supervisor is killed, so that it cannot tell its worker, which is in the midst of training."""
    options = {"limit": 600, "grace": 3}
    study = swept(0, recipe=LONG, **options)
    supervisor = forked.Process(target=sweep, args=(LONG, SPACE, 2, 1, "sweep.db"), kwargs=SAMPLE | options)
    supervisor.start()
    (left,) = until(lambda: in_training(study))
    family = psutil.Process(supervisor.pid).children()
    supervisor.kill()
    until(lambda: all(is_gone(process) for process in family), seconds=5)
    assert states(study) == ["RUNNING"], "it has not even ended its trial"
    swept(2, recipe=LONG, **options)
    assert sorted(states(study)) == ["COMPLETE", "COMPLETE", "FAIL"]
    (again,) = [trial for trial in study.trials if "failed_trial" in trial.system_attrs]
    assert again.system_attrs["failed_trial"] == left.number and again.params == left.params
    assert len(again.intermediate_values) == LONG.epochs
    trained = {json.loads(path.read_text())["recipe"] for path in project.glob("runs/records/trials/*.json")}
    assert trained == {trial.user_attrs["recipe"] for trial in finished(study)}


class Server:
    """A PostgreSQL server of our own, in a temporary folder, on a free port."""

    def __init__(self, tools, folder):
        self.tools, self.folder = tools, folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"postgresql://sweeper:secret@127.0.0.1:{self.port}/postgres"
        self.user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}
        self.run("initdb", "--username=sweeper", "--auth=trust", "--no-sync")

    def run(self, tool, *arguments):
        command = [self.tools / tool, f"--pgdata={self.folder / 'data'}", *arguments]
        subprocess.run(command, cwd=self.folder, check=True, stdout=subprocess.DEVNULL, **self.user)

    def start(self):
        options = f"-p {self.port} -h 127.0.0.1 -k {self.folder} -F"
        self.run("pg_ctl", "start", "--wait", f"--log={self.folder / 'log'}", "--options", options)

    def stop(self):
        self.run("pg_ctl", "stop", "--wait", "--mode=fast")


@pytest.fixture
def server():
    tools = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not tools and not os.environ.get("CI"):
        pytest.skip("PostgreSQL is not installed (on Debian: apt install postgresql)")
    folder = Path(tempfile.mkdtemp())  # pytest's own is closed to the server's user
    if os.getuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
    server = Server(tools[-1].parent, folder)
    server.start()
    yield server
    if (folder / "data" / "postmaster.pid").exists():
        server.stop()
    shutil.rmtree(folder)


@pytest.mark.filterwarnings("ignore:a trial, or a look at the study, failed")  # where the restart cuts off a query
def test_two_supervisors_finish_a_study_though_a_worker_is_killed_and_the_server_restarts(server, forked, monkeypatch):
    options = {"storage": server.url, "recipe": LONG, "limit": 600, "grace": 6}
    study, ended = swept(0, **options), []
    supervisors = [threading.Thread(target=lambda: ended.append(swept(3, 1, **options)), daemon=True) for _ in range(2)]
    supervisors[0].start()
    (lost,) = until(lambda: in_training(study))
    (worker,) = multiprocessing.active_children()
    worker.kill()
    supervisors[1].start()
    until(lambda: [trial for trial in in_training(study) if trial.number != lost.number])
    server.stop()
    time.sleep(1)
    server.start()
    for supervisor in supervisors:
        supervisor.join(timeout=180)
    assert len(ended) == 2, "both supervisors have come to an end"
    assert len(finished(study)) == 3, "no more, though both supervisors wanted them"
    failed = [trial.number for trial in study.trials if trial.state == STATES.FAIL]
    assert lost.number in failed, "a query that the restart cut off, or a heartbeat that came late, may cost another"
    (again,) = [trial for trial in study.trials if "failed_trial" in trial.system_attrs]
    assert again.system_attrs["failed_trial"] == lost.number and again.params == lost.params
    monkeypatch.setattr(sweeps, "PATIENCE", 0)
    server.stop()
    with pytest.raises(SearchError, match=r"^the database postgresql://...@127.0.0.1:\d+/postgres has not answered"):
        sweeps.finished(study)


# What a study taught


def add(study, value=None, state="COMPLETE", **attributes):
    """Add a trial with a learning rate to a study."""
    params = {"lr": attributes.pop("lr", 0.01)}
    distributions = {"lr": optuna.distributions.FloatDistribution(1e-6, 1.0, log=True)}
    kept = {"params": params, "distributions": distributions, "state": STATES[state], "value": value}
    study.add_trial(optuna.create_trial(**kept, **attributes))


def test_a_table_shows_every_trial_the_lost_ones_too():
    study = optuna.create_study(direction="maximize")
    add(study, 98.125, lr=0.0123456, intermediate_values={1: 97.0, 2: 98.125})
    add(study, state="FAIL", lr=0.1)
    add(study, 50.0, "PRUNED", lr=0.2, intermediate_values={1: 50.0})
    add(study, 97.0, lr=0.1, system_attrs={"failed_trial": 1})
    add(study, state="FAIL", lr=0.1, system_attrs={"failed_trial": 1})
    study.add_trial(optuna.create_trial(state=STATES.FAIL))  # given up before it began
    assert study_table(study).splitlines() == [
        "| trial | lr | epochs | validation accuracy (%) |  |",
        "|---|---|---|---|---|",
        "| 0 | 0.0123 | 2 | 98.12 |  |",
        "| 1 | 0.1 | 0 |  | failed |",
        "| 2 | 0.2 | 1 | 50.00 | pruned |",
        "| 3 | 0.1 | 0 | 97.00 | trial 1 again |",
        "| 4 | 0.1 | 0 |  | failed, trial 1 again |",
    ]


def test_importances_say_what_matters_and_need_four_trials():
    study = optuna.create_study(direction="maximize")
    distributions = {name: optuna.distributions.FloatDistribution(0, 1) for name in ("matters", "does_not")}
    values = [(0.1, 0.8), (0.9, 0.3), (0.5, 0.5), (0.3, 0.1), (0.7, 0.9), (0.2, 0.4)]
    for number, (matters, does_not) in enumerate(values):
        if number < 4:
            with pytest.raises(SearchError, match=f"need at least 4 completed trials, and the study has {number}"):
                importances(study)
        params = {"matters": matters, "does_not": does_not}
        study.add_trial(optuna.create_trial(params=params, distributions=distributions, value=100 * matters))
        study.add_trial(optuna.create_trial(params=params, distributions=distributions, state=STATES.FAIL))
    found = importances(study)
    assert found["matters"] > 0.8 and sum(found.values()) == pytest.approx(1)
    assert importances(study) == found
