"""The package installed from a wheel, used from a folder that is no project's, as README and docs show it."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from pages import written
from PIL import Image

from mnist_helpers.data.digits import load_mnist
from mnist_helpers.experiments.tables import results_table

ROOT = Path(__file__).parent.parent
SOURCES = ["LICENSE", "README.md", "mnist_helpers", "pyproject.toml", "records", "saved_models", "setup.py"]
MAX_BYTES = 3_000_000  # of the wheel

EXAMPLES = """
import json, os, sys
from mnist_helpers.__main__ import main
from mnist_helpers.models.saved import load_model

commands, blocks, names, data = json.load(sys.stdin)
for command in commands:
    print("$", command, flush=True)
    assert main(command.split()) == 0
for block in blocks:
    os.environ["MNIST_DATA"] = data if "score_on_test" in block else ""  # to train, the sample is quicker
    exec(block)
for name in names:
    load_model(name)
print("from", os.path.dirname(sys.modules["mnist_helpers"].__file__))
"""


def build(folder):
    """Return the path of a wheel that is made of the source distribution, as pip makes it of a download."""
    pytest.importorskip("setuptools", minversion="77", reason="a wheel is built by setuptools")
    source = folder / "source"
    source.mkdir()
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    make = "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"
    subprocess.run([sys.executable, "-c", make, "build_sdist", folder], cwd=source, check=True, capture_output=True)
    with tarfile.open(*folder.glob("*.tar.gz")) as archive:
        archive.extractall(folder, filter="data")
    (unpacked,) = folder.glob("mnist_helpers-*/")
    subprocess.run([sys.executable, "-c", make, "build_wheel", folder], cwd=unpacked, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def examples():
    """Return the pages' commands that train nothing, their Python for no notebook, and their models' names."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    readme = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    commands = re.findall(r"^python -m mnist_helpers ((?:results|predict) ?.*?) *(?:#|$)", readme, re.MULTILINE)
    blocks = re.findall(r"^```python\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    blocks = [block for block in blocks if "widgets" not in block]
    names = re.findall(r'(?:load_model|DrawingPad)\("(\w+)"', readme)
    return [command.strip().replace("*.jpg", "photo.jpg") for command in commands], blocks, names


def files_in(*folders):
    return {path: path.stat().st_mtime_ns for folder in folders for path in folder.rglob("*")}


@pytest.mark.mnist
def test_an_installed_wheel_does_what_the_pages_show_from_any_folder(tmp_path, monkeypatch):
    wheel = build(tmp_path)
    assert wheel.stat().st_size < MAX_BYTES
    installed, elsewhere = tmp_path / "installed", tmp_path / "pictures"
    options = ["--quiet", "--no-deps", "--no-index", "--no-compile", "--target", installed]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, wheel], check=True, capture_output=True)
    elsewhere.mkdir()
    Image.fromarray(written([3, 0, 7]).image).save(elsewhere / "photo.jpg")
    Image.fromarray(written([5]).image).save(elsewhere / "digit.jpg")
    for folder in (installed, elsewhere):
        for path in (folder, *folder.rglob("*")):
            path.chmod(path.stat().st_mode & ~0o222)
    before = files_in(installed, elsewhere)
    environment = {**os.environ, "PYTHONPATH": str(installed), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONSAFEPATH": "1"}
    environment |= {"MNIST_OFFLINE": "1", "MNIST_DATA": ""}
    data = load_mnist(train=False, download=False).folder
    commands, blocks, names = examples()
    assert len(commands) == 6 and len(blocks) == 4 and len(names) > 4
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", EXAMPLES],
        input=json.dumps((commands, blocks, names, data)),
        cwd=elsewhere,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith(f"from {installed / 'mnist_helpers'}")
    answers = dict(part.split("\n", 1) for part in done.stdout.split("$ ")[1:])
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("mnist_helpers.experiments.records.runs_folder", lambda: tmp_path)  # none of this machine's
    monkeypatch.delenv("QUICK")
    assert answers["results"].strip() == results_table()
    assert answers["predict photo.jpg"] == "307\n"
    assert answers["predict --one digit.jpg"].startswith("5\n")
    assert files_in(installed, elsewhere) == before, "nothing was written"
