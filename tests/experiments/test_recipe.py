import json
from dataclasses import replace

import numpy as np
import pytest

from mnist_helpers.data.augment import Augmentation
from mnist_helpers.experiments.recipe import Recipe, check_recipe, vary
from mnist_helpers.experiments.systems import RECIPES, find_recipe

NETWORK, SMALL = RECIPES["network"], RECIPES["conv_bn_relu_w8"]


def test_every_recipe_is_made_of_things_that_exist():
    for name, recipe in RECIPES.items():
        check_recipe(recipe)
        assert recipe.name == name and recipe.is_system == (not recipe.ablation)
        assert not (recipe.ablation and recipe.published_accuracy)


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
    assert replace(recipe, start=NETWORK).settings()["start"] == NETWORK.settings()
    augmented = replace(recipe, augmentation=Augmentation(degrees=15)).settings()
    assert augmented["augmentation"] == {"degrees": 15, "smoothness": 4.0}, "what is switched off is left out"


def test_a_recipe_is_found_by_name_or_is_itself_and_an_unknown_name_is_told():
    recipe = Recipe(name="mine", model="network")
    assert find_recipe(recipe) is recipe and find_recipe("network") is NETWORK
    with pytest.raises(ValueError, match="no recipe 'resnet': choose one of mlp_baseline"):
        find_recipe("resnet")


def test_varied_are_the_recipes_own_fields_and_else_the_optimizers_arguments():
    varied = vary(NETWORK, {"lr": 0.01, "batch_size": 32, "weight_decay": 1e-5, "model_arguments": {"dropout": 0.1}})
    assert varied.optimizer_arguments == {"lr": 0.01, "fused": True, "weight_decay": 1e-5}
    assert varied.batch_size == 32 and varied.model_arguments == {"dropout": 0.1}
    assert varied.name == "network_lr_0.01_batch_size_32_weight_decay_1e-05_dropout_0.1"
    assert varied.varied is NETWORK and not varied.is_system, "a trial is scored on validation only"
    assert NETWORK.optimizer_arguments == {"lr": 1e-3, "fused": True} and NETWORK.batch_size == 64, "left as it was"
    wanted = NETWORK.settings() | {"batch_size": 32, "model_arguments": {"dropout": 0.1}}
    assert varied.settings() == wanted | {"optimizer_arguments": {"lr": 0.01, "fused": True, "weight_decay": 1e-5}}


def test_a_trial_keeps_the_recipe_but_not_what_was_published_and_holds_images_back():
    varied = vary(RECIPES["mlp_plateau"], {"epochs": 3})
    assert varied.published_accuracy is None and varied.saved_as == varied.note == ""
    assert varied.start is RECIPES["mlp_baseline"] and varied.scheduler == "ReduceLROnPlateau"
    assert not vary(RECIPES["speed_99"], {"epochs": 3}).all_images
    assert vary(RECIPES["mlp_step"], {"epochs": 3}).ablation == ""
    unchanged = vary(NETWORK, {})
    assert unchanged.name not in RECIPES and unchanged.settings() == NETWORK.settings()


@pytest.mark.parametrize(
    ("first", "second", "changes"),
    [
        ({"epochs": 3, "lr": 0.1}, {"batch_size": 16, "lr": 0.3}, {"epochs": 3, "lr": 0.3, "batch_size": 16}),
        ({"optimizer": "SGD", "momentum": 0.9}, {"optimizer": "Adam"}, {"optimizer": "Adam"}),
        ({"lr": 0.1}, {"optimizer_arguments": {"lr": 0.2}}, {"lr": 0.2}),
    ],
)
def test_varying_twice_adds_up_and_can_be_rebuilt_from_its_record(first, second, changes):
    twice = vary(vary(NETWORK, first), second)
    assert twice == vary(NETWORK, changes) and twice.varied is NETWORK and twice.changes == changes
    assert vary(NETWORK, json.loads(json.dumps(changes)), check=False).settings() == twice.settings()


def test_a_recipe_that_is_not_among_the_named_ones_can_be_varied_twice():
    mine = replace(NETWORK, name="mine", batch_size=16)
    twice = vary(vary(mine, {"lr": 0.1}), {"epochs": 3})
    assert twice.varied is mine and twice.batch_size == 16 and twice.name == "mine_lr_0.1_epochs_3"


def test_another_optimizer_drops_what_it_does_not_know():
    varied = vary(SMALL, {"optimizer": "Adam"})
    assert varied.optimizer_arguments == {"lr": 0.005, "weight_decay": 1e-5, "fused": True}, "Adam has no momentum"
    chosen = vary(SMALL, {"optimizer": "Adam", "lr": 0.1, "betas": [0.8, 0.9]})
    assert chosen.optimizer_arguments == {"lr": 0.1, "weight_decay": 1e-5, "fused": True, "betas": [0.8, 0.9]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"momentum": 0.9}, "neither a recipe nor Adam has 'momentum': Adam has lr, "),
        ({"optimizer": "SGD", "betas": (0.9, 0.99)}, "neither a recipe nor SGD has 'betas'"),
        ({"params": []}, "neither a recipe nor Adam has 'params'"),
        ({"name": "mine"}, "a trial cannot change 'name': it can change augmentation, batch_size"),
        ({"start": "mlp_baseline"}, "a trial cannot change 'start'"),
        ({"all_images": True}, "a trial cannot change 'all_images'"),
        ({"optimizer": "Adamant"}, "torch.optim has no optimizer 'Adamant'"),
        ({"optimizer": 5}, "torch.optim has no optimizer 5"),
        ({"optimizer": "Optimizer"}, "torch.optim has no optimizer 'Optimizer'"),
        ({"optimizer": "swa_utils"}, "torch.optim has no optimizer 'swa_utils'"),
    ],
)
def test_a_hyperparameter_that_cannot_be_varied_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        vary(NETWORK, changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr": -1.0}, "network cannot be trained with {'lr': -1.0}: Invalid learning rate"),
        ({"lr": float("nan")}, "not JSON compliant"),
        ({"batch_size": np.int64(32)}, "not JSON serializable"),
        ({"batch_size": 0}, "batch_size must be a whole number from 1 on"),
        ({"epochs": 2.5}, "epochs must be a whole number from 1 on"),
        ({"mixed_precision": "no"}, "mixed_precision must be True or False"),
        ({"model": "resnet"}, "there is no model 'resnet'"),
        ({"model_arguments": {"depth": 3}}, "unexpected keyword argument 'depth'"),
        ({"initialisation": "zeros"}, "there is no initialisation 'zeros'"),
        ({"normalisation": "zeros"}, "there is no normalisation 'zeros'"),
        ({"scheduler": "StepLR"}, "step_size"),
        ({"scheduler": "Slower"}, "Slower"),
        ({"augmentation": {"shiver": 1}}, "unexpected keyword argument 'shiver'"),
        ({"augmentation": {"degrees": "15"}}, "network cannot be trained with"),
    ],
)
def test_a_value_that_does_not_suit_is_refused_before_training(changes, message):
    with pytest.raises(ValueError, match=message):
        vary(NETWORK, changes)


def test_an_augmentation_can_be_varied_and_is_recorded_by_its_arguments():
    rough = Augmentation(elastic=20, smoothness=0.0)
    assert vary(NETWORK, {"augmentation": rough}).augmentation == rough
    shaken = Augmentation(degrees=15, flip=True)
    varied = vary(NETWORK, {"augmentation": shaken})
    assert varied.augmentation == shaken and varied.name == "network_degrees_15_smoothness_4.0_flip_True"
    changes = json.loads(json.dumps(varied.changes))
    assert vary(NETWORK, changes) == varied == vary(NETWORK, {"augmentation": varied.changes["augmentation"]})
    assert vary(RECIPES["cnn_tuned"], {"augmentation": None}).augmentation is None


def test_what_a_trial_continues_holds_images_back_too():
    every = replace(NETWORK, all_images=True)
    trial = vary(replace(NETWORK, start=replace(every, start=every)), {"lr": 0.01})
    assert not trial.start.all_images and not trial.start.start.all_images


def test_a_committee_is_not_varied():
    with pytest.raises(ValueError, match="committee is a committee of trained networks: search"):
        vary(RECIPES["committee"], {"lr": 0.1})


def test_under_one_cycle_the_rate_is_the_highest_one():
    one_cycle, both = RECIPES["mlp_one_cycle"], {"lr": 0.1, "scheduler_arguments": {"max_lr": 0.1}}
    assert vary(one_cycle, {"lr": 0.1}).scheduler_arguments == {"max_lr": 0.1}
    assert vary(one_cycle, {"scheduler_arguments": {"max_lr": 0.1}}).optimizer_arguments["lr"] == 1e-3
    speed = vary(RECIPES["speed_99"], {"lr": 0.1}).scheduler_arguments
    assert speed == RECIPES["speed_99"].scheduler_arguments | {"max_lr": 0.1}
    for changes in (both, {"lr": 0.1, "scheduler": "CyclicLR"}):
        with pytest.raises(ValueError, match="the schedule of mlp_one_cycle sets the learning rate: leave out lr"):
            vary(one_cycle, changes)


def test_a_long_list_of_changes_still_makes_a_file_name():
    changes = {"lr": 0.012345678901234567, "weight_decay": 1.2345678901234567e-05, "epochs": 3, "batch_size": 64}
    changes |= {"betas": [0.9123456789012345, 0.9987654321098765]}
    names = {vary(NETWORK, changes | {"eps": eps}).name for eps in (1e-8, 1.0000000000000002e-08)}
    assert len(names) == 2 and max(map(len, names)) <= 150


def test_a_committees_members_see_images_as_it_does():
    for recipe in RECIPES.values():
        assert all(member.normalisation == recipe.normalisation for member in recipe.members)
        networks = [(member.model, member.model_arguments) for member in recipe.members]
        assert networks == recipe.model_arguments.get("members", [])
