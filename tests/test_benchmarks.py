import runpy
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def test_each_benchmark_starts(monkeypatch, capsys):
    monkeypatch.syspath_prepend(BENCHMARKS)  # for `timing`, as when Python runs the file
    for path in sorted(set(BENCHMARKS.glob("*.py")) - {BENCHMARKS / "timing.py"}):
        monkeypatch.setattr(sys, "argv", [str(path), "--help"])
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(str(path), run_name="__main__")
        assert stopped.value.code == 0 and f"usage: {path.name}" in capsys.readouterr().out
