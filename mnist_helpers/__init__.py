"""Helpers behind the MNIST notebooks: data, loaders, models, training, evaluation, results and pictures."""

from .data.digits import load_data, load_digits_sample, load_mnist
from .data.loaders import make_loaders, stratified_split
from .environment import choose_device, quick, seeded
from .evaluation.calibration import fit_temperature
from .evaluation.scores import evaluate, predict, predict_logits, score_on_test
from .experiments.recipe import vary
from .experiments.records import load_records
from .experiments.run import record_run
from .experiments.search import best_trial, compare_learning_rates, grid_search, run_trials, trials_table
from .experiments.tables import result_rows, results_table
from .models import count_parameters, improved_network, mlp_baseline, network
from .models.averaged import committee
from .models.saved import load_model, save_model
from .plots import (
    accuracy_against,
    bars,
    class_balance,
    compare_curves,
    curves,
    heat_map,
    image_grid,
    parallel_coordinates,
    rate_test,
    reliability,
    scatter_digits,
    schedules,
    show5,
)
from .training.checks import backward_check, forward_check
from .training.loop import fit, learning_rates
from .training.lr_find import lr_find

__all__ = [
    "accuracy_against",
    "backward_check",
    "bars",
    "best_trial",
    "choose_device",
    "class_balance",
    "committee",
    "compare_curves",
    "compare_learning_rates",
    "count_parameters",
    "curves",
    "evaluate",
    "fit",
    "fit_temperature",
    "forward_check",
    "grid_search",
    "heat_map",
    "image_grid",
    "improved_network",
    "learning_rates",
    "load_data",
    "load_digits_sample",
    "load_mnist",
    "load_model",
    "load_records",
    "lr_find",
    "make_loaders",
    "mlp_baseline",
    "network",
    "parallel_coordinates",
    "predict",
    "predict_logits",
    "quick",
    "rate_test",
    "record_run",
    "reliability",
    "result_rows",
    "results_table",
    "run_trials",
    "save_model",
    "scatter_digits",
    "schedules",
    "score_on_test",
    "seeded",
    "show5",
    "stratified_split",
    "trials_table",
    "vary",
]
