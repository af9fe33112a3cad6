import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import mnist_helpers as mh

HEAVY = {"cv2", "ipywidgets", "matplotlib.pyplot", "optuna", "pandas", "scipy", "sklearn", "torchvision"}


def test_each_name_is_the_one_that_type_checkers_see():
    seen = {}
    for node in ast.walk(ast.parse(Path(mh.__file__).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            seen |= {one.name: node.module for one in node.names}
    assert seen.pop("plots") is None and mh.plots is import_module("mnist_helpers.plots")
    assert {*seen, "plots"} == set(mh.__all__) <= set(dir(mh))
    for name, module in seen.items():
        assert getattr(mh, name) is getattr(import_module(f"mnist_helpers.{module}"), name)
    with pytest.raises(AttributeError, match="module 'mnist_helpers' has no attribute 'fitt'"):
        mh.fitt  # noqa: B018


def imported(code):
    """Return the names of the modules that a fresh Python has after `code`."""
    code += "\nimport sys; print('modules:', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.partition("modules:")[2].split())


def test_the_package_and_help_load_no_pytorch():
    help_shown = "import contextlib\nwith contextlib.suppress(SystemExit): main(['train', '--help'])"
    modules = imported(f"import mnist_helpers\nfrom mnist_helpers.__main__ import main\n{help_shown}")
    assert not {"torch", "numpy"} & modules


def test_the_names_load_nothing_slow_but_pytorch():
    modules = imported("from mnist_helpers import *")
    assert "torch" in modules and not HEAVY & modules
