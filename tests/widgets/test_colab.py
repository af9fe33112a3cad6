"""What Colab does with the notebooks' first cell, with the versions that Colab has; `make colab` runs this."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import ipykernel
import IPython
import ipywidgets
import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent.parent
NOTEBOOK = ROOT / "notebooks" / "01_eda.ipynb"
pytestmark = pytest.mark.skipif(
    not ipywidgets.__version__.startswith("7."), reason="only with the versions that Colab has: make colab"
)
PRETEND = """
import sys, types
sys.modules["google.colab"] = types.ModuleType("google.colab")
sys.path.insert(0, {!r})
"""
AFTER = """
import mnist_helpers.widgets, pathlib
print(mnist_helpers.__file__)
pad = mnist_helpers.widgets.DrawingPad("lenet5")
pad.draw(mnist_helpers.data.strokes.write(3))
print("reads", pad.digit, "with", type(pad.canvas).__name__, len(pad.canvas._esm) > 1000)
pad
"""


def bootstrap(path):
    return nbformat.read(path, as_version=4).cells[1].source


def run(folder, *sources):
    """Execute cells in a kernel of this environment, in `folder`, and return what they wrote."""
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    notebook = nbformat.v4.new_notebook(cells=cells)
    client = NotebookClient(notebook, kernel_name="python3", timeout=120, resources={"metadata": {"path": str(folder)}})
    client.execute()
    return "".join(output.get("text", "") for cell in notebook.cells for output in cell.outputs)


def test_the_versions_are_those_of_colab():
    assert ipywidgets.__version__ == "7.7.1"
    assert (ipykernel.__version__, IPython.__version__) == ("6.17.1", "7.34.0")


def test_elsewhere_the_first_cell_does_nothing(tmp_path):
    assert run(tmp_path, bootstrap(NOTEBOOK)) == ""
    assert not list(tmp_path.iterdir())


def test_on_colab_the_first_cell_installs_the_package(tmp_path, monkeypatch):
    """As on Colab, but from this repository instead of its address, and into a folder of the test's own."""
    source, installed = tmp_path / "source", tmp_path / "installed"
    for name in ("mnist_helpers", "saved_models"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    author = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    for command in (["init", "-q"], ["add", "."], [*author, "commit", "-q", "-m", "all"]):
        subprocess.run(["git", *command], cwd=source, check=True)
    cell = re.sub(r'address = ".*"', f'address = "{source.as_uri()}"', bootstrap(NOTEBOOK))
    cell = cell.replace("/content", f"{tmp_path}/content")
    (tmp_path / "content").mkdir()
    for name, value in {"TARGET": installed, "NO_DEPS": 1, "NO_BUILD_ISOLATION": 0, "NO_INDEX": 1}.items():
        monkeypatch.setenv(f"PIP_{name}", str(value))  # isolation is off when its variable says no
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    out = run(tmp_path, PRETEND.format(str(installed)), cell, AFTER)
    assert str(installed / "mnist_helpers") in out and "reads 3 with Canvas True" in out
