import ast
from importlib import import_module
from pathlib import Path

import pytest

import mnist_helpers as mh


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
