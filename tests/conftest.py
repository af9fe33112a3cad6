"""What all tests share: small synthetic digits, and what to do without the real MNIST."""

import os
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from recipes import shortened

from mnist_helpers.data import digits as data
from mnist_helpers.data import verified
from mnist_helpers.data.digits import DataError, Digits, load_mnist
from mnist_helpers.data.idx_files import describe
from mnist_helpers.experiments.systems import RECIPES
from mnist_helpers.files import sha256

# What must run before a process has used autograd in threads, after which PyTorch refuses to train in forked ones; and
# what shares one long preparation. Of two workers, the first begins with these, at the head of the list, and the second
# with the notebooks, at its middle: both give away from their ends.
AT_THE_HEAD = ["test_faults_training.py", "test_distributed.py"]


@pytest.hookimpl(trylast=True)  # after some have been deselected
def pytest_collection_modifyitems(items):
    head = [item for name in AT_THE_HEAD for item in items if item.path.name == name]
    notebooks = [item for item in items if "test_notebook_runs" in item.nodeid]
    items[:] = [*head, *(item for item in items if item not in {*head, *notebooks})]
    middle = (len(items) + len(notebooks)) // 2
    items[middle:middle] = notebooks
    marked = [item for item in items if item.get_closest_marker("mnist")]
    if not marked or os.environ.get("CI"):
        return  # in CI a missing MNIST is a failure
    try:
        load_mnist(download=False), load_mnist(train=False, download=False)
    except DataError as error:
        for item in marked:
            item.add_marker(pytest.mark.skip(reason=str(error)))


@pytest.fixture(autouse=True)
def random_state_is_left_alone():
    """No function under test may change the caller's global random state."""
    before = torch.get_rng_state()
    yield
    assert torch.equal(torch.get_rng_state(), before), "the global random state was changed"


@pytest.fixture(autouse=True)
def figures_are_closed():
    """What one test leaves open, no other one sees."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture
def digits():
    """203 synthetic digits: class k has a bright bar in row 2k and noise; 203 leaves a ragged last batch."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(203) % 10
    images = torch.randint(0, 60, (203, 28, 28), generator=generator, dtype=torch.uint8)
    images[torch.arange(203), 2 * labels + 4, 4:24] = 255
    return Digits(images, labels, "synthetic", "memory", {"images": "none"})


@pytest.fixture
def contents(monkeypatch):
    """Small stand-ins for MNIST's four files, name -> extracted content, which the package now takes for MNIST."""
    random, contents, files = np.random.default_rng(0), {}, {}
    for train, n in ((True, 30), (False, 20)):
        for file in describe("MNIST", train):
            file = replace(file, shape=(n, *file.shape[1:]))
            top = 256 if len(file.shape) == 3 else 10
            contents[file.name] = file.header + random.integers(0, top, file.shape, dtype=np.uint8).tobytes()
            files.setdefault(train, []).append(replace(file, sha256=sha256(contents[file.name])))
    monkeypatch.setattr(data, "describe", lambda name, train: files[train])
    return contents


@pytest.fixture
def project(tmp_path, monkeypatch):
    """An empty project as the working directory, in full mode: what the code writes goes there."""
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "mnist_helpers"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("QUICK")
    monkeypatch.delenv("MNIST_DATA", raising=False)
    data._warn_once.cache_clear()
    monkeypatch.setattr(verified, "_failed_downloads", {})
    return tmp_path


@pytest.fixture
def short(project, monkeypatch):
    """An empty project where every recipe takes two epochs."""
    for name, recipe in RECIPES.items():
        monkeypatch.setitem(RECIPES, name, shortened(recipe))
    return project
