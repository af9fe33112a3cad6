import json

import pytest
import torch

from mnist_helpers.data.augment import Augmentation
from mnist_helpers.experiments.recipes import RECIPES, Recipe, find_recipe, vary
from mnist_helpers.models import INITIALISATIONS, MODELS


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda recipe: recipe.name)
def test_every_recipe_is_made_of_things_that_exist(recipe):
    assert RECIPES[recipe.name] is recipe and recipe.model in MODELS
    assert hasattr(torch.optim, recipe.optimizer)
    assert recipe.scheduler is None or hasattr(torch.optim.lr_scheduler, recipe.scheduler)
    assert not recipe.initialisation or recipe.initialisation in INITIALISATIONS
    assert recipe.start is None or recipe.start in RECIPES
    assert not (recipe.study and recipe.published_accuracy)


def test_settings_hold_what_decides_the_outcome_and_nothing_else():
    recipe = Recipe(name="one", model="network", published_accuracy=99.0, saved_as="One", note="a note")
    assert recipe.settings() == {
        "model": "network",
        "optimizer": "Adam",
        "optimizer_arguments": {"lr": 1e-3, "fused": True},
        "normalisation": "half",
        "batch_size": 64,
        "epochs": 15,
    }
    assert find_recipe("mlp_plateau").settings()["start"] == find_recipe("mlp_baseline").settings()


def test_an_augmentation_is_part_of_the_settings():
    settings = Recipe(name="one", model="lenet5", augmentation=Augmentation(degrees=15)).settings()
    assert settings["augmentation"] == {"degrees": 15, "smoothness": 4.0}, "what is switched off is left out"


def test_unknown_recipe_is_named():
    with pytest.raises(ValueError, match="no recipe 'resnet': choose one of mlp_baseline"):
        find_recipe("resnet")


def test_a_recipe_itself_will_do_for_its_name():
    recipe = Recipe(name="mine", model="network")
    assert find_recipe(recipe) is recipe


def test_varied_are_the_recipes_own_fields_and_else_the_optimizers_arguments():
    varied = vary("network", {"lr": 0.01, "batch_size": 32, "weight_decay": 1e-5, "model_arguments": {"dropout": 0.1}})
    assert varied.optimizer_arguments == {"lr": 0.01, "fused": True, "weight_decay": 1e-5}
    assert varied.batch_size == 32 and varied.model_arguments == {"dropout": 0.1}
    assert varied.name == "network_lr_0.01_batch_size_32_weight_decay_1e-05_dropout_0.1"
    assert varied.varied == "network" and varied.study == "search", "a trial is scored on validation only"
    plain = RECIPES["network"]
    assert plain.optimizer_arguments == {"lr": 1e-3, "fused": True} and plain.batch_size == 64, "it is left as it was"
    wanted = plain.settings() | {"batch_size": 32, "model_arguments": {"dropout": 0.1}}
    assert varied.settings() == wanted | {"optimizer_arguments": {"lr": 0.01, "fused": True, "weight_decay": 1e-5}}


def test_a_trial_has_nothing_to_do_with_what_was_published():
    varied = vary("mlp_plateau", {"epochs": 3})
    assert varied.published_accuracy is None and varied.saved_as == varied.note == ""
    assert varied.start == "mlp_baseline" and varied.scheduler == "ReduceLROnPlateau"


def test_varying_twice_adds_up():
    twice = vary(vary("network", {"epochs": 3, "lr": 0.1}), {"lr": 0.01, "weight_decay": 1e-4})
    once = vary("network", {"epochs": 3, "lr": 0.01, "weight_decay": 1e-4})
    assert twice == once and twice.varied == "network" and twice.epochs == 3
    assert twice.changes == {"epochs": 3, "lr": 0.01, "weight_decay": 1e-4}


def test_another_optimizer_drops_what_it_does_not_know():
    varied = vary("conv_bn_relu_w8", {"optimizer": "Adam"})
    assert varied.optimizer_arguments == {"lr": 0.005, "weight_decay": 1e-5, "fused": True}, "Adam has no momentum"
    chosen = vary("conv_bn_relu_w8", {"optimizer": "Adam", "lr": 0.1, "betas": [0.8, 0.9]})
    assert chosen.optimizer_arguments == {"lr": 0.1, "weight_decay": 1e-5, "fused": True, "betas": [0.8, 0.9]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"momentum": 0.9}, "neither a recipe nor Adam has 'momentum': Adam has params, lr, "),
        ({"optimizer": "SGD", "betas": (0.9, 0.99)}, "neither a recipe nor SGD has 'betas'"),
        ({"name": "mine"}, "neither a recipe nor Adam has 'name'"),
        ({"note": "mine"}, "neither a recipe nor Adam has 'note'"),
        ({"optimizer": "Adamant"}, "torch.optim has no optimizer 'Adamant'"),
    ],
)
def test_an_unknown_hyperparameter_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        vary("network", changes)
    with pytest.raises(ValueError, match="no recipe 'resnet'"):
        vary("resnet", {"lr": 0.1})


def test_a_trial_that_changes_nothing_is_not_taken_for_the_recipe():
    varied = vary("network", {})
    assert varied.name not in RECIPES and varied.settings() == RECIPES["network"].settings()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"optimizer": "SGD", "momentum": 0.9}, {"optimizer": "Adam"}),
        ({"lr": 0.1}, {"optimizer_arguments": {"lr": 0.2}}),
        ({"epochs": 3, "lr": 0.1}, {"batch_size": 16, "lr": 0.3}),
    ],
)
def test_a_trial_can_be_rebuilt_from_its_changes(first, second):
    twice = vary(vary("network", first), second)
    assert vary(twice.varied, twice.changes) == twice
    assert vary(twice.varied, json.loads(json.dumps(twice.changes))).settings() == twice.settings()


@pytest.mark.parametrize("optimizer", [5, "Optimizer", "lr_scheduler", "swa_utils"])
def test_what_is_no_optimizer_is_refused(optimizer):
    with pytest.raises(ValueError, match=f"torch.optim has no optimizer {optimizer!r}"):
        vary("network", {"optimizer": optimizer})


def test_the_rate_under_one_cycle_is_the_highest_of_the_schedule():
    varied = vary("mlp_one_cycle", {"lr": 0.1})
    assert varied.scheduler_arguments == {"max_lr": 0.1} and vary(varied.varied, varied.changes) == varied
    assert vary("mlp_one_cycle", {"scheduler_arguments": {"max_lr": 0.1}}).scheduler_arguments == {"max_lr": 0.1}
    for both in ({"scheduler_arguments": {"max_lr": 0.1}}, {"scheduler": "CyclicLR"}):
        with pytest.raises(ValueError, match="the schedule of mlp_one_cycle sets the learning rate: leave out lr"):
            vary("mlp_one_cycle", {"lr": 0.1, **both})


def test_a_long_list_of_changes_still_makes_a_file_name():
    changes = {"lr": 0.012345678901234567, "weight_decay": 1.2345678901234567e-05, "epochs": 3, "batch_size": 64}
    changes |= {"betas": [0.9123456789012345, 0.9987654321098765], "eps": 1.2345678901234567e-08}
    names = {vary("mlp_baseline", changes | {"eps": eps}).name for eps in (1e-8, 1.0000000000000002e-08)}
    assert len(names) == 2 and max(map(len, names)) <= 150
