"""The names that a notebook types most: `import mnist_helpers as mh`, then `mh.fit(...)` or `mh.plots.curves(...)`.

Each is imported when it is first used, so `python -m mnist_helpers --help` need not load PyTorch.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the same names, for editors and mypy
    # isort: off
    from . import plots as plots
    from .data.digits import load_data as load_data, load_mnist as load_mnist
    from .data.loaders import make_loaders as make_loaders, stratified_split as stratified_split
    from .environment import choose_device as choose_device, quick as quick, quick_mode as quick_mode, seeded as seeded
    from .evaluation.scores import evaluate as evaluate, predict as predict, predict_logits as predict_logits
    from .evaluation.scores import score_on_test as score_on_test
    from .experiments.run import record_run as record_run
    from .experiments.tables import results_table as results_table
    from .handwriting.single import read_digit as read_digit
    from .models import count_parameters as count_parameters, mlp_baseline as mlp_baseline, network as network
    from .models.saved import load_model as load_model, save_model as save_model
    from .training.loop import fit as fit

_NAMES = {
    "data.digits": ("load_data", "load_mnist"),
    "data.loaders": ("make_loaders", "stratified_split"),
    "environment": ("choose_device", "quick", "quick_mode", "seeded"),
    "evaluation.scores": ("evaluate", "predict", "predict_logits", "score_on_test"),
    "experiments.run": ("record_run",),
    "experiments.tables": ("results_table",),
    "handwriting.single": ("read_digit",),
    "models": ("count_parameters", "mlp_baseline", "network"),
    "models.saved": ("load_model", "save_model"),
    "training.loop": ("fit",),
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names}
__all__ = ["plots", *_MODULES]

if not TYPE_CHECKING:  # for a type checker only the names above exist

    def __getattr__(name):
        """Import a name of `__all__` on its first use."""
        from importlib import import_module

        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        if name == "plots":
            return import_module(".plots", __name__)
        value = getattr(import_module(f".{_MODULES[name]}", __name__), name)
        globals()[name] = value
        return value

    def __dir__():
        return sorted({*globals(), *__all__})
