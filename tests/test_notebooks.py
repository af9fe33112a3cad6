"""The committed notebooks, each executed once by nbmake in quick mode, and what executes and publishes them."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from nbmake.nb_run import NotebookRun

from mnist_helpers import notebooks
from mnist_helpers.data.digits import DataError, load_mnist
from mnist_helpers.notebooks import NotebookError, execute_all, hidden_errors, publish

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
TWICE = {"02_baseline", "08_your_own_digits"}  # one trains and records, one has widgets and files of its own
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def pictures(cell):
    return [output for output in cell.outputs if "image/png" in output.get("data", {})]


@each
def test_committed_notebook_is_a_full_run_on_mnist(path):
    notebook = nbformat.read(path, as_version=4)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert "widgets" not in notebook.metadata
    assert all(sum(output.output_type == "stream" for output in cell.outputs) <= 1 for cell in cells)
    text = str(outputs)
    assert "source: mnist" in text
    assert not re.search("widget-view|sklearn-digits|quick (run|mode)|QUICK", text)
    assert not re.search(r"(/[\w.-]+)+/(runs|site-packages)/|[A-Z]:\\", text), "the path of somebody's machine"
    assert path.stat().st_size < 1_000_000


def assert_one_picture_where_it_plots(notebook):
    plotting = re.compile(
        r"\b(show5|image_grid|(compare_)?curves|schedules|reliability|accuracy_against|class_balance|scatter_digits|"
        r"rate_test|heat_map|parallel_coordinates|bars|draw_reading|plt\.\w+)\("
    )
    for cell in code_cells(notebook):
        assert len(pictures(cell)) == bool(plotting.search(cell.source)), cell.source


@each
def test_committed_notebook_has_one_picture_where_it_plots(path):
    assert_one_picture_where_it_plots(nbformat.read(path, as_version=4))


@each
def test_notebook_keeps_the_conventions(path):
    notebook = nbformat.read(path, as_version=4)
    cells = code_cells(notebook)
    lines = [line for cell in cells for line in cell.source.splitlines() if line.strip()]
    assert len(cells) <= 25 and len(lines) <= 210
    title, bootstrap = notebook.cells[:2]
    assert f"/blob/main/notebooks/{path.name})" in title.source and "**Takes**" in title.source
    assert bootstrap.cell_type == "code" and "bootstrap" in bootstrap.metadata.tags and not bootstrap.outputs
    assert "<details>" in notebook.cells[-1].source and "sys.path" not in path.read_text(encoding="utf-8")


ADDRESS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
ADDRESS = ADDRESS.removeprefix("https://github.com/")


@pytest.mark.parametrize("path", [ROOT / "README.md", *NOTEBOOKS], ids=lambda path: path.stem)
def test_links_lead_to_the_address_in_pyproject(path):
    text = path.read_text(encoding="utf-8")
    badges = re.findall(r"colab\.research\.google\.com/github/([\w.-]+/[\w.-]+)/blob/main/", text)
    clones = re.findall(r"github\.com/(\S+)\.git\b", text)
    assert badges and clones and {*badges, *clones} == {ADDRESS}


@each
def test_the_first_cell_asks_for_the_address_where_it_is_not_set(path, tmp_path, monkeypatch):
    first, magic, rest = nbformat.read(path, as_version=4).cells[1].source.partition("\n    !")
    assert magic and "%pip install" in rest
    first = re.sub(r'address = ".*"', 'address = "{}"', first).replace("/content", tmp_path.as_posix())
    exec(first.format("https://github.com/OWNER/mnist-digits.git"), {})  # neither on Colab nor on Kaggle
    monkeypatch.setitem(sys.modules, "google.colab", SimpleNamespace())
    with pytest.raises(AssertionError, match="replace OWNER by the GitHub account"):
        exec(first.format("https://github.com/OWNER/mnist-digits.git"), {})
    exec(first.format("https://github.com/you/yours.git"), {})


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A copy of the project's tracked files as the working directory, in quick mode and without MNIST."""
    root = tmp_path / "copy"
    for name in ("docs", "notebooks", "records", "saved_models"):
        shutil.copytree(ROOT / name, root / name)
    for name in ("README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, root)
    monkeypatch.chdir(root)
    monkeypatch.delenv("MNIST_DATA", raising=False)
    return root


def tracked(root):
    """Return the content of every file that git would track."""
    files = [path for path in root.rglob("*") if path.is_file() and path.relative_to(root).parts[0] != "runs"]
    return {path: path.read_bytes() for path in files}


@pytest.fixture(scope="session")
def mnist_folder():
    """The folder of MNIST's files, or None where they are not here; in CI they must be."""
    try:
        return load_mnist(download=False).folder
    except DataError:
        if os.environ.get("CI"):
            raise
        return None


@each
def test_notebook_runs_and_touches_nothing_tracked(path, mnist_folder, copy, monkeypatch):
    if mnist_folder:
        monkeypatch.setenv("MNIST_DATA", mnist_folder)
    before = tracked(copy)
    result = NotebookRun(copy / "notebooks" / path.name, 300).execute()
    assert result.error is None, result.error.trace
    assert hidden_errors(result.nb) == []
    assert_a_quick_run(result.nb, "mnist" if mnist_folder else "sklearn-digits")
    if path.stem in TWICE:  # where all that is there already, from another working directory, without MNIST
        monkeypatch.delenv("MNIST_DATA", raising=False)
        monkeypatch.setenv("MPLBACKEND", "Agg")  # as on many a server: the page must have its pictures all the same
        notebook, page = notebooks.execute(copy / "notebooks" / path.name, folder=copy)
        assert page == copy / "runs" / "quick" / "notebooks" / f"{path.stem}.html"
        assert "<html" in page.read_text(encoding="utf-8")
        assert_a_quick_run(notebook, "sklearn-digits")
    assert tracked(copy) == before


def assert_a_quick_run(notebook, source):
    text = nbformat.writes(notebook)
    assert f"{source}, quick run" in text
    assert text.count("THIS IS NOT MNIST") == (source != "mnist"), "one unmistakable warning"
    assert_one_picture_where_it_plots(notebook)


@pytest.mark.filterwarnings("ignore:THIS IS NOT MNIST")
def test_execute_all_says_where_the_pages_are_and_prints_the_table(copy, capsys):
    for path in (copy / "notebooks").glob("*.ipynb"):
        nbformat.write(nbformat.v4.new_notebook(), path) if path.stem == "01_eda" else path.unlink()
    assert [path.stem for path in execute_all()] == ["01_eda"]
    out = capsys.readouterr().out
    assert re.search(r"\[1/1\] 01_eda: \d+ s, .*runs/quick/notebooks/01_eda.html", out)
    assert "48,000 mnist" in out


def test_a_failing_notebook_is_one_sentence_and_leaves_its_page(copy):
    path = copy / "notebooks" / "02_baseline.ipynb"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("print('so far'); 1 / 0")])
    nbformat.write(notebook, path)
    with pytest.raises(NotebookError, match="02_baseline.ipynb stopped: ZeroDivisionError: division by zero. See "):
        notebooks.execute(path)
    assert "so far" in (copy / "runs" / "quick" / "notebooks" / "02_baseline.html").read_text(encoding="utf-8")


HIDDEN = """
import ipywidgets
from mnist_helpers.widgets.faults import Faults
output, button, faults = ipywidgets.Output(), ipywidgets.Button(), Faults()
with output:
    raise ValueError("in an Output")
button.on_click(lambda _: [].in_a_callback)
button.click()
faults.guard(lambda: {}["in our widgets"])()
ipywidgets.VBox([output, button, faults.view])
"""


def test_errors_that_stop_no_cell_cannot_pass_unseen(copy):
    path = copy / "notebooks" / "02_baseline.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(HIDDEN)]), path)
    with pytest.raises(NotebookError) as caught:
        notebooks.execute(path)
    for error in (
        "ValueError: in an Output",
        "AttributeError: 'list' object has no attribute 'in_a_callback'",
        "KeyErr",
    ):
        assert error in str(caught.value)


def test_one_failed_download_is_enough_for_all_notebooks(copy, monkeypatch):
    told = []
    monkeypatch.setattr(notebooks, "execute", lambda path, environment: told.append(environment) or (None, path))
    monkeypatch.setattr(notebooks, "results_table", str)
    for source, offline in (("sklearn-digits", "1"), ("mnist", None)):
        monkeypatch.setattr(notebooks, "load_data", lambda source=source: SimpleNamespace(source=source))
        execute_all()
        assert [one.get("MNIST_OFFLINE") for one in told] == [offline] * len(NOTEBOOKS)
        told.clear()


def test_quick_and_sample_runs_are_not_published(copy, monkeypatch):
    before = tracked(copy)
    with pytest.raises(NotebookError, match="quick mode is on"):
        publish()
    monkeypatch.delenv("QUICK")
    with pytest.warns(UserWarning, match="NOT MNIST"), pytest.raises(NotebookError, match="MNIST is not available"):
        publish()
    assert tracked(copy) == before


def test_outputs_of_the_sample_are_not_published(copy, monkeypatch):
    path = copy / "notebooks" / "02_baseline.ipynb"
    executed = nbformat.read(path, as_version=4)
    executed.cells[1].outputs = [nbformat.v4.new_output("stream", name="stderr", text="THIS IS NOT MNIST: ...")]
    before = tracked(copy)
    monkeypatch.delenv("QUICK")
    monkeypatch.setattr(notebooks, "load_data", lambda: type("Found", (), {"source": "mnist"}))
    monkeypatch.setattr(notebooks, "execute_all", lambda: {path: executed})
    with pytest.raises(NotebookError, match="did not find MNIST although it is here"):
        publish()
    assert tracked(copy) == before


def test_publish_promotes_outputs_records_weights_and_readme_together(copy, monkeypatch):
    path = copy / "notebooks" / "02_baseline.ipynb"
    executed = nbformat.read(path, as_version=4)
    executed.cells[0].source += "\nnew"
    runs = copy / "runs"
    shutil.copytree(copy / "records", runs / "records")
    shutil.copytree(copy / "saved_models", runs / "saved_models")
    shutil.rmtree(copy / "records"), shutil.rmtree(copy / "saved_models")
    seed0 = runs / "records" / "mlp_baseline" / "mnist-48000-cpu-seed0.json"
    shutil.copy(seed0, seed0.with_name("sklearn-digits-1149-cpu-seed0.json"))
    for other in seed0.parent.glob("mnist-*-seed[1-9].json"):
        other.unlink()
    (runs / "saved_models" / "large.pth").write_bytes(bytes(notebooks.LARGEST + 1))
    readme = copy / "README.md"
    readme.write_text(re.sub("(?<=results:start -->\n).*?(?=<!--)", "", readme.read_text("utf-8"), flags=re.S), "utf-8")
    monkeypatch.delenv("QUICK")
    monkeypatch.setattr(notebooks, "load_data", lambda: type("Found", (), {"source": "mnist"}))
    monkeypatch.setattr(notebooks, "execute_all", lambda: {path: executed})
    publish()
    assert nbformat.read(path, as_version=4).cells[0].source.endswith("new")
    assert [file.name for file in (copy / "records" / "mlp_baseline").iterdir()] == [seed0.name]
    weights = {path.name for path in (ROOT / "saved_models").iterdir()}
    assert {path.name for path in (copy / "saved_models").iterdir()} == weights
    assert "(one run; 95 % interval" in (copy / "docs" / "results.md").read_text(encoding="utf-8")
    assert readme.read_text(encoding="utf-8") == (ROOT / "README.md").read_text(encoding="utf-8")
    assert (copy / "notebooks" / "pictures" / "02_baseline.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.skipif(sys.platform != "linux", reason="GitHub runs this script on Linux")
def test_a_new_repository_writes_its_address_everywhere(copy):
    tracked_files = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True).split("\0")
    for name in filter(None, tracked_files):
        if not (copy / name).exists() and not name.startswith(("notebooks", "records", "saved_models")):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    for command in (["git", "init", "-q"], ["git", "add", "."], ["bash", ".github/stamp.sh", "some-one/a.b_c"]):
        subprocess.run(command, cwd=copy, check=True)
    changed = subprocess.check_output(["git", "diff", "--name-only"], cwd=copy, text=True).split()
    assert {"README.md", "pyproject.toml", "CITATION.cff"} <= {*changed}
    assert len([name for name in changed if name.startswith("notebooks/")]) == len(NOTEBOOKS)
    for name in changed:
        text = (copy / name).read_text(encoding="utf-8")
        assert "/some-one/a.b_c" in text or "some-one.github.io/a.b_c" in text
        assert not re.search(r"OWNER(\.github\.io)?/mnist-digits", text)
    subprocess.run(["bash", ".github/stamp.sh", "another/one"], cwd=copy, check=True)
    assert changed == subprocess.check_output(["git", "diff", "--name-only"], cwd=copy, text=True).split()
    assert "another/one" not in (copy / "README.md").read_text(encoding="utf-8"), "once is enough"
