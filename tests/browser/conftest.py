"""A real JupyterLab on copies of the notebooks, in quick mode, and a real Chromium that looks at it."""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

ROOT = Path(__file__).parent.parent.parent
SETTINGS = {  # of JupyterLab, for the sake of the tests alone
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},  # cells out of sight are there, too
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1280,1600",
]
BADGE = "https://colab.research.google.com/assets/colab-badge.svg"  # nothing here needs a network
STARTED = 120  # seconds that the server may take to answer, on a busy machine


def pytest_collection_modifyitems(items):
    if os.environ.get("CI") or find_browser():
        return  # in CI a missing browser is a failure
    for item in items:
        if item.get_closest_marker("browser"):
            item.add_marker(pytest.mark.skip(reason="chromium and chromedriver are not installed"))


def find_browser():
    """Return the paths of a Chromium and of its driver, or None if either is missing."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


class Lab:
    """A running server: `url` and `token`, and the folder of the copied project."""

    def __init__(self, folder):
        self.folder, self.token = folder, secrets.token_hex(16)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.log = (folder / "server.log").open("w")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", "--ip=127.0.0.1"]
            + [f"--port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={self.token}"]
            + ["--LabApp.expose_app_in_browser=True", f"--ServerApp.root_dir={folder}"],
            cwd=folder,
            env={**os.environ, **self.environment()},
            stdout=self.log,
            stderr=subprocess.STDOUT,
        )

    def environment(self):
        """Return the variables that keep the server away from whatever configuration this machine has."""
        settings = self.folder / "settings"
        for name, content in SETTINGS.items():
            path = settings / f"{name}.jupyterlab-settings"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(content))
        own = {
            name: str(self.folder / name.lower())
            for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
        }
        workspaces = str(self.folder / "workspaces")
        threads = {"OMP_NUM_THREADS": "1"}  # small networks are no slower, and a busy machine is not made busier
        return {**own, **threads, "JUPYTERLAB_SETTINGS_DIR": str(settings), "JUPYTERLAB_WORKSPACES_DIR": workspaces}

    def wait(self):
        """Wait until the server answers."""
        end = time.monotonic() + STARTED
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/api?token={self.token}", timeout=5):
                    return
            except OSError as error:
                written = (self.folder / "server.log").read_text()
                assert self.process.poll() is None, f"JupyterLab ended: {written[-2000:]}"
                assert time.monotonic() < end, f"JupyterLab does not answer ({error}): {written[-2000:]}"
                time.sleep(0.2)

    def close(self):
        """Stop the server and its kernels."""
        self.process.terminate()
        self.process.wait(60)
        self.log.close()


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    for name in ("notebooks", "records", "saved_models"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "pyproject.toml", folder)
    for name, widget in (("01_eda", "DigitBrowser("), ("08_your_own_digits", "DrawingPad(")):
        path = folder / "notebooks" / f"{name}.ipynb"
        notebook = json.loads(path.read_text(encoding="utf-8").replace(BADGE, ""))
        code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        for cell in code:  # without outputs: what is seen was made here
            cell.update(outputs=[], execution_count=None)
        (last,) = [cell for cell in code if widget in "".join(cell["source"])]
        del notebook["cells"][notebook["cells"].index(last) + 1 :]  # what comes after the widget is run by nbmake
        path.write_text(json.dumps(notebook), encoding="utf-8")
    server = Lab(folder)
    try:
        server.wait()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def driver(tmp_path_factory):
    found = find_browser()
    assert found, "chromium and chromedriver are not installed"
    options = webdriver.ChromeOptions()
    options.binary_location = found[0]
    for flag in [*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(found[1]))
    try:
        driver.set_script_timeout(60)
        yield driver
    finally:
        driver.quit()
