"""Execute the numbered notebooks, write their pages, and promote a full run into the tracked files."""

import asyncio
import base64
import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbconvert import HTMLExporter
from nbconvert.preprocessors import CoalesceStreamsPreprocessor

from .data.digits import load_data
from .environment import project_root, quick_mode, runs_folder
from .experiments.tables import pages_with_tables, results_table
from .files import check_writable, previous_of, write_atomically
from .models.saved import copy_saved

INLINE = {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}  # pictures go onto the page
LARGEST = 10_000_000  # bytes of a published file
WIDGET = "application/vnd.jupyter.widget-view+json"
STATE = "application/vnd.jupyter.widget-state+json"


class NotebookError(RuntimeError):
    """A notebook did not run from top to bottom, or a run must not be published."""


def numbered_notebooks() -> list[Path]:
    """Return the paths of the project's notebooks in order."""
    return sorted((project_root() / "notebooks").glob("[0-9][0-9]_*.ipynb"))


def execute_all() -> dict[Path, nbformat.NotebookNode]:
    """Execute the notebooks in order into the runs folder, with an HTML page each, and print the results table.

    Tracked files are left alone. Returns {source path: executed notebook}.

    Raises:
        NotebookError: a cell failed; what ran before it is in the runs folder.
        OSError: the runs folder cannot be written to.
    """
    paths, executed = numbered_notebooks(), {}
    if not paths:
        raise NotebookError(f"{project_root()} has no notebooks: run this inside the project's folder")
    check_writable(runs_folder() / "notebooks" / paths[0].name, 1_000_000)
    # One failed download is enough: the notebooks need not try again.
    environment = INLINE if load_data().source == "mnist" else {**INLINE, "MNIST_OFFLINE": "1"}
    for number, path in enumerate(paths, start=1):
        print(f"[{number}/{len(paths)}] {path.stem} ...", flush=True)
        start = time.perf_counter()
        executed[path], page = execute(path, environment)
        print(f"[{number}/{len(paths)}] {path.stem}: {time.perf_counter() - start:.0f} s, {page}", flush=True)
    print(f"\n{results_table()}")
    return executed


def execute(
    path: Path, environment: Mapping[str, str] = INLINE, folder: Path | None = None
) -> tuple[nbformat.NotebookNode, Path]:
    """Execute one notebook and return (executed notebook, path of its HTML page in the runs folder).

    Args:
        path: of the notebook.
        environment: environment variables for its Python process, beside today's.
        folder: its working directory; the notebook's own folder unless given.

    Raises:
        NotebookError: a cell failed, or an error that stopped no cell: in a widget's callback or an `Output` widget.
    """
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=None,
        extra_arguments=["--IPKernelApp.log_level=50"],  # its errors are in the outputs
        record_timing=False,
        resources={"metadata": {"path": folder or path.parent}},
    )
    failure = None
    try:
        # In a thread of its own, nbclient leaves Ctrl-C to us, and still stops its kernel when Python exits.
        _run_in_thread(lambda: asyncio.run(client.async_execute(env={**os.environ, **environment})))
    except CellExecutionError as error:
        failure = f"{error.ename}: {error.evalue}"
    except DeadKernelError:
        failure = "its Python process died (memory?)"
    failure = failure or "; ".join(hidden_errors(notebook))
    notebook.metadata.pop("widgets", None)  # widgets, such as progress bars, do not work on a page read later
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]
    CoalesceStreamsPreprocessor().preprocess(notebook, {})  # one output for all that a cell printed
    copy = runs_folder() / "notebooks" / path.name
    page = copy.with_suffix(".html")
    write_atomically(copy, nbformat.writes(notebook) + "\n")
    write_atomically(page, HTMLExporter().from_notebook_node(notebook)[0])
    if failure:
        raise NotebookError(f"{path.name} stopped: {failure}. See {page}")
    return notebook, page


def hidden_errors(notebook: nbformat.NotebookNode) -> list[str]:
    """Return in a few words each the errors in an executed notebook's outputs and widgets that stopped no cell."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    found = []
    for widget in notebook.metadata.get("widgets", {}).get(STATE, {}).get("state", {}).values():
        outputs += widget["state"].get("outputs", ())
        if "mnist-fault" in widget["state"].get("_dom_classes", ()) and widget["state"].get("value"):
            found.append(re.sub("<.*?>", "", widget["state"]["value"]))
    return [f"{one['ename']}: {one['evalue']}" for one in outputs if one["output_type"] == "error"] + found


def publish() -> None:
    """Execute all notebooks in full mode, then promote outputs, weights, records and the pages' tables together.

    Raises:
        NotebookError: quick mode is on, MNIST is not available, or a notebook failed; no tracked file was touched.
    """
    if quick_mode():
        raise NotebookError("quick mode is on (QUICK), and only full runs are published: unset it and try again")
    if load_data().source != "mnist":
        raise NotebookError("MNIST is not available, and only runs on MNIST are published")
    executed = execute_all()
    if any("THIS IS NOT MNIST" in str(cell.get("outputs")) for one in executed.values() for cell in one.cells):
        raise NotebookError("a notebook did not find MNIST although it is here: nothing has been published")
    pictures = {path: _readme_picture(notebook) for path, notebook in executed.items()}
    root, runs = project_root(), runs_folder()
    for path in runs.glob("records/*/mnist-*.json"):
        write_atomically(root / path.relative_to(runs), path.read_bytes())
    for card in runs.glob("saved_models/[!.]*.json"):
        _publish_model(card.with_suffix(".pth"), root / "saved_models")
    for path, notebook in executed.items():
        write_atomically(path, nbformat.writes(notebook) + "\n")
        if picture := pictures[path]:
            write_atomically(path.parent / "pictures" / f"{path.stem}.png", picture)
    for path, text in pages_with_tables().items():
        write_atomically(path, text)
    print(f"\nPublished {len(executed)} notebooks; look at the changes with git diff before you commit them.")


def _publish_model(path: Path, folder: Path) -> None:
    """Copy weights and their card to a folder; where the weights are too large or gone, the card alone."""
    target = folder / path.name
    large = path.exists() and path.stat().st_size > LARGEST
    if not large and (path.exists() or previous_of(path).exists()):
        copy_saved(path, target)
    elif not target.exists():  # else that could no longer be loaded
        write_atomically(target.with_suffix(".json"), path.with_suffix(".json").read_bytes())
    if large:
        print(
            f"{path.name} stays in {path.parent}: it is too large for the repository, which keeps cards of such alone"
        )


def _readme_picture(notebook: nbformat.NotebookNode) -> bytes | None:
    """Return the PNG that a notebook's cell with the tag "readme-picture" shows, or None."""
    for cell in notebook.cells:
        if "readme-picture" in cell.metadata.get("tags", ()):
            for output in cell.outputs:
                if "image/png" in output.get("data", {}):
                    return base64.b64decode(output["data"]["image/png"])
    return None


def _run_in_thread(work: Callable[[], object]) -> None:
    """Call `work` in another thread, wait for it, and raise what it raised; Ctrl-C ends the waiting."""
    errors: list[Exception] = []

    def guarded() -> None:
        try:
            work()
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=guarded, daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
