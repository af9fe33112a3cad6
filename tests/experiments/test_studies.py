import re
from dataclasses import replace

import optuna
import pytest

from mnist_helpers.experiments import studies
from mnist_helpers.experiments.recipe import vary
from mnist_helpers.experiments.records import load_records
from mnist_helpers.experiments.studies import (
    MAX_RETRIES,
    SearchError,
    default_space,
    importances,
    make_objective,
    open_storage,
    open_study,
    parse_space,
    retry,
    study_table,
    suggest,
)
from mnist_helpers.experiments.systems import RECIPES

pytestmark = pytest.mark.usefixtures("one_thread", "closed")
STATES = optuna.trial.TrialState


@pytest.fixture(params=["database", "journal"])
def storage(request, closed):
    """Return where a study is kept."""
    return "sqlite:///studies.db" if request.param == "database" else closed / "shared" / "study.journal"


def add(study, value=None, state="COMPLETE", **attributes):
    """Add a trial with a learning rate to a study."""
    params = {"lr": attributes.pop("lr", 0.01)}
    distributions = {"lr": optuna.distributions.FloatDistribution(1e-6, 1.0, log=True)}
    kept = {"params": params, "distributions": distributions, "state": STATES[state], "value": value}
    study.add_trial(optuna.create_trial(**kept, **attributes))


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


@pytest.mark.parametrize("part", ["lr", "lr=", "=1,2", "lr=0.1..", "lr=..0.1", "lr=low..high", "batch_size=32,,64"])
def test_what_is_no_part_of_a_space_is_named(part):
    with pytest.raises(ValueError, match=f"{re.escape(repr(part))} is no part of a search space: write lr=0.0001"):
        parse_space(f"weight_decay=0.1..0.2 {part}")


def test_the_space_unless_given_lies_around_the_recipes_rate():
    assert default_space("network") == {
        "lr": (pytest.approx(1e-3 / 30), pytest.approx(3e-2)),
        "weight_decay": (1e-6, 1e-2),
    }
    assert default_space(vary(RECIPES["network"], {"lr": 0.3}))["lr"] == pytest.approx((0.01, 9))


def test_a_range_is_drawn_evenly_in_its_logarithm_and_a_list_is_chosen_from():
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [suggest(study.ask(), {"lr": (1e-4, 1e-1), "batch_size": [32, 64]}) for _ in range(200)]
    rates = [one["lr"] for one in drawn]
    assert all(1e-4 <= rate <= 1e-1 for rate in rates)
    assert 80 < sum(rate < 10**-2.5 for rate in rates) < 120, "half of them lie below the geometric mean"
    assert {one["batch_size"] for one in drawn} == {32, 64}


def test_a_study_is_begun_and_taken_up_again(storage):
    space = {"lr": (1e-3, 1e-1)}
    first = open_study("network", space, storage, limit=100)
    assert first.study_name == "network" and first.direction.name == "MAXIMIZE" and first.trials == []
    add(first, 97.0)
    again = open_study("network", space, storage, limit=100, grace=30, sampler_seed=7)
    assert [trial.value for trial in again.trials] == [97.0]
    assert open_study("lenet5", space, storage).trials == [], "another recipe has a study of its own"
    assert open_study("network", space, storage, name="mine").trials == []


def test_without_a_storage_the_studies_lie_among_this_machines_runs(closed):
    add(open_study("network"), 97.0)
    assert (closed / "runs" / "sweeps.db").exists()
    assert len(open_study("network").trials) == 1


def test_quick_studies_are_others(closed, monkeypatch):
    monkeypatch.setenv("QUICK", "1")
    assert open_study("network", storage="sqlite:///a.db").study_name == "network-quick"
    monkeypatch.delenv("QUICK")
    with pytest.raises(SearchError, match="the study 'network-quick' in sqlite:///a.db was begun with other settings"):
        open_study("network", storage="sqlite:///a.db", name="network-quick")


OTHERS = {
    "space": {"space": {"lr": (1e-3, 1.0)}},
    "kind of space": {"space": {"lr": [1e-3, 1e-1]}},
    "seed": {"seed": 1},
    "images": {"limit": 200},
    "recipe": {"recipe": "lenet5"},
    "epochs": {"recipe": vary(RECIPES["network"], {"epochs": 3})},
}


@pytest.mark.parametrize("other", OTHERS)
def test_a_study_that_was_begun_with_other_settings_is_refused(other):
    given = {"recipe": "network", "space": {"lr": (1e-3, 1e-1)}, "storage": "a.journal", "name": "mine", "limit": 100}
    open_study(**given)
    with pytest.raises(SearchError, match="the study 'mine' in .* was begun with other settings, so its trials cannot"):
        open_study(**given | OTHERS[other])
    open_study(**given)


def test_a_study_of_a_recipe_that_has_changed_since_is_refused(monkeypatch):
    open_study("network", storage="a.journal")
    monkeypatch.setitem(RECIPES, "network", replace(RECIPES["network"], batch_size=32))
    with pytest.raises(SearchError, match="was begun with other settings"):
        open_study("network", storage="a.journal")


def test_mistakes_are_found_before_a_study_is_begun(closed):
    with pytest.raises(ValueError, match="neither a recipe nor Adam has 'momentum'"):
        open_study("network", {"momentum": [0.9]}, "sqlite:///a.db")
    with pytest.raises(ValueError, match="no recipe 'resnet'"):
        open_study("resnet", {"lr": [0.1]}, "sqlite:///a.db")
    assert not (closed / "a.db").exists()


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
def test_a_study_that_goes_on_is_not_suggested_what_it_began_with(storage):
    def suggested(**options):
        return open_study("network", storage=storage, **options).ask().suggest_float("lr", 1e-4, 1.0, log=True)

    first = suggested()
    assert suggested() != first and suggested(sampler_seed=3) != first
    assert open_study("network", storage="other.journal").ask().suggest_float("lr", 1e-4, 1.0, log=True) == first


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("unheard-of://me:secret@host/studies", "unheard-of://...@host/studies"),
        ("postgresql://me:secret@host:port/studies", "postgresql://...@host:port/studies"),
        ("unheard-of://me:se@cret@host/studies", "unheard-of://...@host/studies"),
        ("unheard-of://host/studies?user=me&password=secret", "unheard-of://host/studies"),
        ("sqlite:////no/such/folder/studies.db", "sqlite:////no/such/folder/studies.db"),
    ],
)
def test_a_database_that_cannot_be_used_is_one_sentence_without_a_password(url, shown):
    with pytest.raises(SearchError) as caught:
        open_study("network", storage=url)
    message = str(caught.value)
    assert message.startswith(f"the database {shown} cannot be used: ") and len(message.splitlines()) == 1
    assert "secret" not in message and "cret" not in message.replace("secret", "")


def test_a_password_is_not_shown_where_the_settings_differ_either(monkeypatch, closed):
    monkeypatch.setattr(studies, "open_storage", lambda *_: optuna_storage)
    optuna_storage = open_storage("sqlite:///a.db")
    open_study("network", storage="postgresql://me:secret@host/studies")
    with pytest.raises(SearchError, match=r"in postgresql://...@host/studies was begun") as caught:
        open_study("network", storage="postgresql://me:secret@host/studies", seed=1)
    assert "secret" not in str(caught.value)
    optuna_storage.remove_session()
    optuna_storage.engine.dispose()


def test_a_file_that_is_no_database_is_refused(closed):
    (closed / "notes.db").write_text("these are notes, and no database at all\n" * 100)
    with pytest.raises(SearchError, match="the database sqlite:///notes.db cannot be used: .*not a database"):
        open_study("network", storage="sqlite:///notes.db")


def test_a_torn_last_line_of_a_journal_is_put_aside_with_a_warning(closed):
    journal = closed / "study.journal"
    for value in (96.0, 97.0):
        add(open_study("network", storage=journal), value)
    whole = journal.read_bytes()
    torn = whole.splitlines(keepends=True)[-1][:40]
    journal.write_bytes(whole + torn)
    with pytest.warns(UserWarning, match="study.journal ended in a torn line.* now in study.journal.torn"):
        study = open_study("network", storage=journal)
    assert [trial.value for trial in study.trials] == [96.0, 97.0]
    assert (
        journal.read_bytes().startswith(whole + b"{") and (closed / "study.journal.torn").read_bytes() == torn + b"\n"
    )
    add(study, 98.0)
    assert [trial.value for trial in open_study("network", storage=journal).trials] == [96.0, 97.0, 98.0]
    assert sorted(path.name for path in closed.glob("study*")) == ["study.journal", "study.journal.torn"], "no lock"
    journal.write_bytes(journal.read_bytes() + b"again")
    with pytest.warns(UserWarning, match="torn line"):
        open_study("network", storage=journal)
    assert (closed / "study.journal.torn").read_bytes() == torn + b"\nagain\n", "what was put aside before is kept"


def test_a_journal_that_is_damaged_elsewhere_is_refused(closed):
    journal = closed / "study.journal"
    add(open_study("network", storage=journal), 97.0)
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([lines[0], b"no line of a journal\n", *lines[1:]]))
    with pytest.raises(
        SearchError, match="journal .*study.journal is damaged in line 2: stop what writes to it, remove that line"
    ):
        open_study("network", storage=journal)


def test_an_objective_trains_a_variant_records_it_and_gives_its_validation_accuracy(closed, digits):
    objective = make_objective("network", {"lr": (1e-3, 1e-2), "epochs": [2]}, 3, digits=digits, device="cpu")
    study = open_study("network", {"lr": (1e-3, 1e-2), "epochs": [2]}, "study.journal")
    study.optimize(objective, n_trials=2)
    records = {one["recipe"]: one for one in load_records()}
    assert len(records) == len(study.trials) == 2
    for trial in study.trials:
        record = records[trial.user_attrs["recipe"]]
        assert trial.value == record["validation_accuracy"] and record["changes"] == trial.params
        assert record["seed"] == 3 and record["test_accuracy"] is None
        accuracies = {epoch["epoch"]: epoch["validation_accuracy"] for epoch in record["history"]}
        assert trial.intermediate_values == accuracies


def run_with(study, space, digits, chosen, n_epochs=3):
    """Run trials with chosen hyperparameters."""
    objective = make_objective(vary(RECIPES["network"], {"epochs": n_epochs}), space, digits=digits, device="cpu")
    for params in chosen:
        study.enqueue_trial(params)
    study.optimize(objective, n_trials=len(chosen))


def test_a_hopeless_trial_is_pruned(storage, digits):
    space = {"lr": (1e-9, 1e-1)}
    study = open_study("network", space, storage)
    run_with(study, space, digits, [{"lr": rate} for rate in (0.01, 0.005, 0.002, 0.001, 1e-8, 0.01)])
    states = [trial.state.name for trial in study.trials]
    assert states == ["COMPLETE"] * 4 + ["PRUNED"] + ["COMPLETE"]
    pruned = study.trials[4]
    assert len(pruned.intermediate_values) == 1 and study.best_trial.number != 4
    (record,) = [one for one in load_records() if one["recipe"] == pruned.user_attrs["recipe"]]
    assert record["stopped"] == "pruned" and record["epochs"] == 1
    assert study.trials[5].value == study.trials[0].value, "what is recorded already is not trained again"


def test_a_diverged_trial_counts_as_pruned(storage, digits):
    space = {"lr": (1e-3, 1e10), "optimizer": ["SGD"]}
    study = open_study("network", space, storage)
    run_with(study, space, digits, [{"lr": 1e9, "optimizer": "SGD"}, {"lr": 0.1, "optimizer": "SGD"}])
    assert [trial.state.name for trial in study.trials] == ["PRUNED", "COMPLETE"]
    assert study.trials[0].value is None and study.best_trial.number == 1
    assert "| 1e+09 | SGD | 0 |  | pruned |" in study_table(study)


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
def test_a_lost_trial_is_queued_with_the_same_hyperparameters_so_many_times_and_no_more(storage):
    study = open_study("network", {"lr": (1e-4, 1e-1)}, storage)
    study.enqueue_trial({"lr": 0.02})
    for number in range(MAX_RETRIES + 1):
        trial = study.ask()
        assert trial.number == number and trial.suggest_float("lr", 1e-4, 1e-1, log=True) == 0.02
        trial.set_user_attr("worker", f"here:{number}")
        frozen = study.get_trials(deepcopy=True)[number]
        study.tell(trial, state=STATES.FAIL)
        retry(study, frozen)
        if number < MAX_RETRIES:
            waiting = study.trials[-1]
            assert waiting.state == STATES.WAITING and "worker" not in waiting.user_attrs
            assert waiting.system_attrs["failed_trial"] == 0
            assert waiting.system_attrs["retry_history"] == list(range(number + 1))
    assert len(study.trials) == MAX_RETRIES + 1 and all(trial.state == STATES.FAIL for trial in study.trials)


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
            with pytest.raises(SearchError, match=f"need at least 4 finished trials, and the study has {number}"):
                importances(study)
        params = {"matters": matters, "does_not": does_not}
        study.add_trial(optuna.create_trial(params=params, distributions=distributions, value=100 * matters))
        study.add_trial(optuna.create_trial(params=params, distributions=distributions, state=STATES.FAIL))
    found = importances(study)
    assert found["matters"] > 0.8 and sum(found.values()) == pytest.approx(1)
    assert importances(study) == found


def test_a_line_torn_while_others_write_spoils_nothing(closed):
    journal = closed / "study.journal"
    study = open_study("network", storage=journal)
    add(study, 96.0)
    with open(journal, "ab") as file:
        file.write(b'{"op_code":4,"wor')  # another machine dies here, and this one goes on
    with pytest.warns(UserWarning, match="torn line"):
        add(study, 97.0)
    add(study, 98.0)
    assert [trial.value for trial in study.trials] == [96.0, 97.0, 98.0]
    assert [trial.value for trial in open_study("network", storage=journal).trials] == [96.0, 97.0, 98.0]


@pytest.mark.parametrize(
    ("space", "complaint"),
    [
        ({"lr": (0.0, 0.1)}, "0 < low < high"),
        ({"lr": (0.1, 0.01)}, "0 < low < high"),
        ({"lr": ("a", "b")}, "0 < low < high"),
        ({"optimizer": ["SGD", 5]}, "no optimizer 5"),
        ({"lr": [0.1], "rate": [0.1]}, "neither a recipe nor Adam has 'rate'"),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused_before_anything_is_written(closed, space, complaint):
    with pytest.raises(ValueError, match=complaint):
        open_study("network", space, closed / "study.journal")
    assert not list(closed.glob("study*"))


def test_ranges_of_whole_numbers_give_whole_numbers():
    study = optuna.create_study()
    found = [suggest(study.ask(), {"batch_size": (16, 64), "lr": (0.01, 1)}) for _ in range(5)]
    assert all(type(one["batch_size"]) is int and type(one["lr"]) is float for one in found)
