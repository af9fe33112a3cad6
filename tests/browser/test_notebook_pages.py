"""Notebooks 01 and 08 up to their widgets, which do in a real JupyterLab in a real browser what they are for."""

import re

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait

pytestmark = pytest.mark.browser
RUN, ANSWER = 240, 60  # seconds that a notebook, and a click, may take at most, on a busy machine
CELLS = "window.jupyterapp.shell.currentWidget.content.widgets.filter(one => one.model.type === 'code')"
READY = """
const panel = window.jupyterapp && window.jupyterapp.shell.currentWidget;
const session = panel && panel.sessionContext && panel.sessionContext.session;
return Boolean(session && session.kernel && session.kernel.status === 'idle' && panel.content.widgets.length > 5);
"""
LEFT = f"""
const panel = window.jupyterapp.shell.currentWidget;
const left = {CELLS}.filter(one => one.model.executionCount === null).length;
return left + (panel.sessionContext.session.kernel.status === 'idle' ? 0 : 1);
"""
FAILED = f"""
return {CELLS}.flatMap(one => one.model.outputs.toJSON()).filter(one => one.output_type === 'error').map(
  one => `${{one.ename}}: ${{one.evalue}}`);
"""


def wait(driver, condition, seconds=ANSWER, message=""):
    return WebDriverWait(driver, seconds, poll_frequency=0.1).until(lambda _: condition(), message)


def run_all(driver, lab, name):
    """Open a notebook, run all of its cells and wait for the last; no cell may fail."""
    driver.get_log("browser")  # what stands there is of the page before
    driver.get(f"{lab.url}/lab/tree/notebooks/{name}.ipynb?token={lab.token}&reset")
    wait(driver, lambda: driver.execute_script(READY), RUN, f"{name} has no kernel")
    driver.execute_script("window.jupyterapp.commands.execute('notebook:run-all-cells')")

    def finished():
        assert driver.execute_script(FAILED) == []
        return driver.execute_script(LEFT) == 0

    wait(driver, finished, RUN, f"{name} does not finish")


def severe(driver):
    return [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]


def find(driver, selector):
    return wait(driver, lambda: driver.find_elements(By.CSS_SELECTOR, selector), message=f"no {selector}")[0]


def click(driver, root, text):
    button = next(one for one in root.find_elements(By.TAG_NAME, "button") if one.text.strip().startswith(text))
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
    button.click()


def test_browsing_digits_in_notebook_01(driver, lab):
    run_all(driver, lab, "01_eda")
    browser = find(driver, ".mnist-browser")
    driver.execute_script("arguments[0].scrollIntoView()", browser)
    caption, picture = find(driver, ".mnist-caption"), find(driver, ".mnist-picture")
    wait(driver, lambda: picture.get_property("naturalWidth") == 252)
    assert "no. 0" in caption.text

    before = picture.screenshot_as_png
    click(driver, browser, "Next")
    wait(driver, lambda: "no. 1 " in caption.text)
    wait(driver, lambda: picture.screenshot_as_png != before)
    click(driver, browser, "Previous")
    wait(driver, lambda: "no. 0 " in caption.text)
    wait(driver, lambda: picture.screenshot_as_png == before)

    Select(browser.find_element(By.TAG_NAME, "select")).select_by_visible_text("7")
    wait(driver, lambda: "label 7" in caption.text)
    thumbnails = [one for one in browser.find_elements(By.CSS_SELECTOR, ".widget-gridbox button") if one.is_displayed()]
    assert len(thumbnails) == 24
    wait(driver, lambda: {one.text for one in thumbnails} == {"7"})

    number = caption.text
    thumbnails[5].click()
    wait(driver, lambda: caption.text != number and "label 7" in caption.text)
    shown = re.search(r"no\. [\d,]+", caption.text)[0].replace(",", "")
    assert thumbnails[5].get_attribute("title").startswith(shown)
    click(driver, browser, "Collect")
    wait(driver, lambda: thumbnails[5].text == "★ 7")
    assert severe(driver) == []


def test_drawing_in_notebook_08(driver, lab):
    run_all(driver, lab, "08_your_own_digits")
    pad = find(driver, ".mnist-drawing-pad")
    canvas, answer = find(driver, "canvas.mnist-pad"), find(driver, ".mnist-answer")
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", pad)
    assert "Nothing is drawn" in answer.text

    mouse = ActionChains(driver, duration=10).move_to_element_with_offset(canvas, 0, -80).click_and_hold()
    for _ in range(10):
        mouse = mouse.move_by_offset(0, 8)
    mouse.perform()
    wait(driver, lambda: "It reads" in answer.text, message="nothing is read while the stroke is being drawn")
    half = find(driver, ".mnist-seen").screenshot_as_png
    for _ in range(10):
        mouse = ActionChains(driver, duration=10).move_by_offset(0, 8)
        mouse.perform()
    ActionChains(driver).release().perform()
    wait(driver, lambda: "It reads 1" in answer.text)
    rows = pad.find_elements(By.CSS_SELECTOR, ".mnist-bars tr")
    shares = [float(re.search(r"([\d.]+)%", row.text)[1]) for row in rows]
    assert len(rows) == 10 and shares.index(max(shares)) == 1
    assert half

    Select(pad.find_element(By.TAG_NAME, "select")).select_by_visible_text("7")
    click(driver, pad, "Keep")
    wait(driver, lambda: "1 × 7" in pad.text and "Nothing is drawn" in answer.text)
    ActionChains(driver, duration=10).move_to_element(canvas).click_and_hold().move_by_offset(
        30, 30
    ).release().perform()
    wait(driver, lambda: "It reads" in answer.text)
    click(driver, pad, "Undo")
    wait(driver, lambda: "Nothing is drawn" in answer.text)
    click(driver, pad, "Forget")
    wait(driver, lambda: "no drawing yet" in pad.text)
    assert severe(driver) == []
