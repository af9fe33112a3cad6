"""Helpers behind the MNIST notebooks: data, loaders, models, training, evaluation, results and pictures."""

from .checkpoints import load_model, save_model
from .data import load_data, load_digits_sample, load_mnist
from .environment import choose_device, quick, seeded
from .evaluation import committee, evaluate, fit_temperature, predict, predict_logits, score_on_test
from .loaders import make_loaders, stratified_split
from .models import count_parameters, improved_network, mlp_baseline, network
from .plots import (
    accuracy_against,
    class_balance,
    compare_curves,
    curves,
    image_grid,
    reliability,
    scatter_digits,
    schedules,
    show5,
)
from .results import load_records, record_run, result_rows, results_table
from .training import fit, learning_rates

__all__ = [
    "accuracy_against",
    "choose_device",
    "class_balance",
    "committee",
    "compare_curves",
    "count_parameters",
    "curves",
    "evaluate",
    "fit",
    "fit_temperature",
    "image_grid",
    "improved_network",
    "learning_rates",
    "load_data",
    "load_digits_sample",
    "load_mnist",
    "load_model",
    "load_records",
    "make_loaders",
    "mlp_baseline",
    "network",
    "predict",
    "predict_logits",
    "quick",
    "record_run",
    "reliability",
    "result_rows",
    "results_table",
    "save_model",
    "scatter_digits",
    "schedules",
    "score_on_test",
    "seeded",
    "show5",
    "stratified_split",
]
