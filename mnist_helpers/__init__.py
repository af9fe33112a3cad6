"""Helpers behind the MNIST notebooks: data, loaders, models, training, evaluation, results and pictures."""

from .checkpoints import load_model, save_model
from .data import load_data, load_digits_sample, load_mnist
from .environment import choose_device, quick, seeded
from .evaluation import evaluate, predict
from .loaders import make_loaders
from .models import count_parameters, mlp_baseline, network
from .plots import curves, image_grid, show5
from .results import record_run, results_table
from .training import fit

__all__ = [
    "choose_device",
    "count_parameters",
    "curves",
    "evaluate",
    "fit",
    "image_grid",
    "load_data",
    "load_digits_sample",
    "load_mnist",
    "load_model",
    "make_loaders",
    "mlp_baseline",
    "network",
    "predict",
    "quick",
    "record_run",
    "results_table",
    "save_model",
    "seeded",
    "show5",
]
