import pytest
import torch

from mnist_helpers.augment import Augmentation
from mnist_helpers.models import INITIALISATIONS, MODELS
from mnist_helpers.recipes import RECIPES, Recipe, find_recipe


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
    assert settings["augmentation"]["degrees"] == 15 and not settings["augmentation"]["flip"]


def test_unknown_recipe_is_named():
    with pytest.raises(ValueError, match="no recipe 'resnet': choose one of mlp_baseline"):
        find_recipe("resnet")
