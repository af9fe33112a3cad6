"""README and the pages in docs: their links lead somewhere, their commands are understood, and their Python runs.

What needs no notebook is run by test_wheel.py, with the installed package; the widgets' example is run here.
"""

import re
import shlex
import warnings
from pathlib import Path

import pytest
import torch

from mnist_helpers.__main__ import parse

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG")] + sorted((ROOT / "docs").glob("*.md"))
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# Programs of others, whose options are theirs to check
OTHERS = {
    ("git", "clone"),
    ("python", "-m", "pip"),
    ("python", "-m", "pytest"),
    ("uv", "pip"),
    ("uv", "venv"),
    ("uv", "sync"),
}
each = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)


def anchors(text):
    """Return what `#...` may name in a page, as GitHub makes it of the headings."""
    headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(path, text):
    """Return the links in a page's text that lead nowhere; those to other hosts are not tried."""
    found = re.findall(r"\]\(([^)\s]+)\)", BLOCK.sub("", text)) + re.findall(r'(?:href|src)="([^"]+)"', text)
    broken = []
    for link in found:
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        if target != path and not target.exists():
            broken.append(link)
        elif anchor and anchor not in anchors(text if target == path else target.read_text(encoding="utf-8")):
            broken.append(link)
    return broken


@each
def test_links_lead_somewhere(path):
    assert broken_links(path, path.read_text(encoding="utf-8")) == []


def test_a_link_that_leads_nowhere_is_found(tmp_path):
    (tmp_path / "other.md").write_text("# A heading, it is\n")
    text = "# Here\n[a](other.md) [b](#here) [c](other.md#a-heading-it-is) [d](none.md) [e](#there) [f](other.md#here)"
    assert broken_links(tmp_path / "page.md", text) == ["none.md", "#there", "other.md#here"]


def commands(text):
    """Return the commands of a page, each a list of words: its blocks' lines, and what begins so in a sentence."""
    lines = [line for kind, block in BLOCK.findall(text) if kind != "python" for line in block.splitlines()]
    lines += re.findall(r"`((?:make|python|torchrun|uv) [^`]+)`", BLOCK.sub("", text))
    found = []
    for line in lines:
        for part in line.split(" && "):
            words = shlex.split(part, comments=True)
            while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):  # such as QUICK=1
                words = words[1:]
            found += [words] if words else []
    return found


def check_command(words):
    """Raise AssertionError for a command that does not exist, and SystemExit for options that are not understood."""
    if "mnist_helpers" in words[:4]:  # after python -m, or torchrun's own option and -m
        parse(words[words.index("mnist_helpers") + 1 :] or ["data"])
    elif words[:2] == ["python", "-m"] and words[2].startswith("mnist_helpers."):
        assert (ROOT / f"{words[2].replace('.', '/')}.py").exists(), words
    elif words[0] in ("python", "bash"):
        assert tuple(words[:3]) in OTHERS or words[2:3] == ["pip_audit"] or (ROOT / words[1]).exists(), words
    elif words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert {*words[1:]} <= {*targets}, words
    else:
        assert words[0] in ("cd", "source") or tuple(words[:2]) in OTHERS, words


@each
def test_commands_are_understood(path):
    for words in commands(path.read_text(encoding="utf-8")):
        check_command(words)


def test_commands_that_do_not_exist_are_found(capsys):
    good = "```\nQUICK=1 make notebooks  # short\ntorchrun --nproc_per_node=2 -m mnist_helpers train lenet5\n```"
    assert [words[0] for words in commands(good)] == ["make", "torchrun"]
    for wrong in ("make nothing", "python benchmarks/none.py", "python -m mnist_helpers.nothing", "pythn x"):
        with pytest.raises(AssertionError):
            check_command(wrong.split())
    for wrong in ("python -m mnist_helpers read x.png", "torchrun -m mnist_helpers train lenet5 --sedes 1"):
        with pytest.raises(SystemExit):
            check_command(wrong.split())


def test_the_widgets_example_runs(tmp_path, monkeypatch):
    (block,) = [block for path in PAGES for kind, block in BLOCK.findall(path.read_text("utf-8")) if "widgets" in block]
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MNIST_DATA", raising=False)
    found = {}
    with warnings.catch_warnings(action="ignore"), torch.random.fork_rng():  # the sample is used, which says so
        exec(block, found)
    assert len(found["browser"].indices) and len(found["history"]) == 3 and len(found["pad"].digits) == 1
    assert (tmp_path / "own.npz").exists()
