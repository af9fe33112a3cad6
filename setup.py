"""What pyproject.toml cannot say: a wheel carries the networks that the README names, and all records in one file."""

import json
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

# The networks that README and notebooks name; the first is the default
NETWORKS = (
    "any_hand record saved_model Network ImprovedNetwork lenet5 speed_99 speed_995 speed_997 tiny_2k tiny_10k".split()
)
WEIGHTS = [Path("saved_models", f"{name}.{suffix}") for name in NETWORKS for suffix in ("pth", "json")]
RECORDS = sorted(Path("records").glob("*/*.json"))


class BuildWithResults(build_py):
    """Puts saved_models/ and records/ into the package; an editable installation finds them beside it."""

    def get_source_files(self):
        """Return what belongs into a source distribution, too, from which a wheel may be built."""
        return [*super().get_source_files(), *map(str, WEIGHTS + RECORDS)]

    def run(self):
        """Build the package, then add the results."""
        super().run()
        if self.editable_mode:
            return
        package = Path(self.build_lib, "mnist_helpers")
        for path in WEIGHTS:
            (package / path).parent.mkdir(exist_ok=True)
            shutil.copyfile(path, package / path)
        together = package / "records" / "all.json"
        together.parent.mkdir(exist_ok=True)
        together.write_text(json.dumps([json.loads(path.read_text(encoding="utf-8")) for path in RECORDS]))


setup(cmdclass={"build_py": BuildWithResults})
