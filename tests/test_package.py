"""What holds of the package's source as a whole: where imports go, what an import does, and who uses the network."""

import ast
import json
import os
import subprocess
import sys
from graphlib import TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path

import matplotlib
import pytest

import mnist_helpers

PACKAGE = Path(mnist_helpers.__file__).parent
FILES = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}
SOURCES = {name.removesuffix(".__init__"): path.read_text(encoding="utf-8") for name, path in FILES.items()}
FLOORS = [  # imports go down this list, or stay within a room
    {"files", "environment", "plots"},
    {"data"},
    {"models"},
    {"evaluation"},
    {"training"},
    {"experiments", "handwriting"},
    {"widgets"},
    {"notebooks"},
    {"__init__", "__main__"},
]
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
SLOW = {"cv2", "ipywidgets", "matplotlib.pyplot", "optuna", "pandas", "scipy", "sklearn", "torchvision"}
NETWORK = set(
    "urllib urllib3 http socket ssl ftplib smtplib telnetlib xmlrpc requests httpx aiohttp websockets "
    "urlopen urlretrieve hub load_state_dict_from_url download_url".split()
)


def imported(module):
    """Yield the full name of everything that a module imports, also within functions."""
    package = module if f"{module}.__init__" in FILES else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(SOURCES[module])):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def owner(name):
    """Return which of the package's modules a full name is of, or "" for other packages' names."""
    while name and name not in SOURCES:
        name = name.rpartition(".")[0]
    return name


def room(module):
    """Return the folder or file at the package's top that a module is in."""
    return [*module.split("."), "__init__"][1]


def test_imports_go_down_from_room_to_room_without_circles():
    arrows = {module: {owner(name) for name in imported(module)} - {"", module} for module in SOURCES}
    for module, targets in arrows.items():
        for target in targets:
            down = FLOOR_OF[room(target)] < FLOOR_OF[room(module)]
            assert down or room(target) == room(module), f"{module} imports {target}, which does not lie below it"
    TopologicalSorter(arrows).prepare()  # raises CycleError


def test_nothing_but_widgets_imports_ipywidgets():
    found = {room(module) for module in SOURCES if any("widgets" in name.split(".")[0] for name in imported(module))}
    assert found == {"widgets"}


def mentions(tree):
    """Return every name in a source, also in dotted imports and, as `import_module` has it, in strings."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            dotted = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            yield from ".".join(dotted).split(".")
        elif isinstance(node, ast.Name | ast.Attribute):
            yield node.id if isinstance(node, ast.Name) else node.attr
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from node.value.split(".")


def networked(source):
    return bool(NETWORK & set(mentions(ast.parse(source))))


def test_only_the_download_of_the_digits_uses_the_network():
    """No telemetry: no other module of ours names what could call home."""
    found = {module for module, source in SOURCES.items() if networked(source)}
    assert found == {"mnist_helpers.data.mirrors"}


def test_ways_to_the_network_are_found():
    for source in (
        "import urllib.request",
        "from torch import hub",
        "import importlib\nimportlib.import_module('socket')",
        "__import__('http.client')",
        "torch.hub.load('pytorch/vision', 'resnet18')",
        "def later():\n    from requests import get",
    ):
        assert networked(source), source


WATCHED = """
import contextlib, json, os, socket, sys

def refuse(*_, **__):
    raise AssertionError("the network was asked")

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
EVENTS = "mkdir rename remove rmdir link symlink truncate utime chmod chown setxattr"
CHANGES = {f"os.{name}" for name in EVENTS.split()}
changed, loaded, watching = [], {}, True

def watch(event, arguments):
    if watching and (event in CHANGES or event == "open" and arguments[2] & WRITES):
        changed.append(f"{event} {arguments[0]}")

socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.create_connection = refuse
sys.addaudithook(watch)
from mnist_helpers.__main__ import main
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(None):
    main(["train", "--help"])
loaded["help"] = list(sys.modules)
from mnist_helpers import *
loaded["names"] = list(sys.modules)
for name in sorted(sys.argv[2:], key=lambda name: "widgets" in name):
    if "widgets" in name:
        loaded.setdefault("all but widgets", list(sys.modules))
    __import__(name)
exec(sys.argv[1])
watching = False
import torch
assert torch.initial_seed() == torch.default_generator.initial_seed()
print(json.dumps({"changed": changed, **loaded}))
"""
ON_PURPOSE = "from pathlib import Path; (Path.home() / '.x').touch(); Path('y').mkdir(); open('z', 'w').close()"
FONTS = matplotlib.get_cachedir()  # where matplotlib keeps its list of fonts


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """Import everything in a fresh Python; return its folder, what it changed, and what was loaded after each step."""
    folder = tmp_path_factory.mktemp("watched")
    environment = {
        **{"HOME": str(folder), "PYTHONPATH": str(PACKAGE.parent), "PYTHONDONTWRITEBYTECODE": "1"},
        "MPLCONFIGDIR": FONTS,
    }
    command = [sys.executable, "-c", WATCHED, ON_PURPOSE, *SOURCES]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {"folder": folder, **json.loads(done.stdout)}


def test_importing_everything_asks_no_network_and_writes_nothing(watched):
    changed = [one for one in watched["changed"] if FONTS not in one and os.devnull not in one]
    hidden = watched["folder"] / ".x"
    on_purpose = [f"os.utime {hidden}", f"open {hidden}", "os.mkdir y", "open z"]
    assert changed == on_purpose, "what is done on purpose is noticed, and nothing else is done"


def test_the_package_and_help_load_no_pytorch(watched):
    assert "mnist_helpers" in watched["help"] and not {"torch", "numpy"} & set(watched["help"])


def test_the_names_load_nothing_slow_but_pytorch(watched):
    assert "torch" in watched["names"]
    assert SLOW & set(watched["names"]) == {"cv2"}, "which read_digit reads pictures with"


def test_the_package_alone_imports_no_widgets(watched):
    modules = set(watched["all but widgets"])
    assert "mnist_helpers.experiments.sweep" in modules and not {"ipywidgets", "anywidget"} & modules
