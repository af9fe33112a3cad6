"""The digit browser: what it selects, and what its page shows and does; none of it needs a front end."""

import gc
import io

import numpy as np
import pytest
import torch
from PIL import Image

from mnist_helpers.data.neighbours import nearest
from mnist_helpers.models import lenet5
from mnist_helpers.widgets import DigitBrowser
from mnist_helpers.widgets.pictures import bars, caption, cards, overlay, png, thumbnails
from mnist_helpers.widgets.selection import choose, clamp, gather


@pytest.fixture
def logits(digits):
    """Logits on the digits: right but for every seventh, which is read as the next digit; they differ in certainty."""
    answers = torch.where(torch.arange(203) % 7 == 0, (digits.labels + 1) % 10, digits.labels)
    heights = torch.linspace(1, 6, 203)
    return torch.zeros(203, 10).scatter(1, answers[:, None], heights[:, None])


@pytest.fixture
def browser(digits, logits):
    return DigitBrowser(digits, logits)


def open_png(content):
    return np.asarray(Image.open(io.BytesIO(content)))


# Choosing


def test_facts_are_those_of_the_probabilities(digits, logits):
    facts = gather(digits.labels, logits)
    two = facts.probabilities.sort(dim=1, descending=True).values[:, :2]
    assert torch.equal(facts.confidence, two[:, 0]) and torch.equal(facts.margin, two[:, 0] - two[:, 1])
    own = facts.probabilities[torch.arange(203), digits.labels]
    assert torch.allclose(facts.loss, -own.log())


def test_logits_that_do_not_fit_are_refused(digits):
    for logits in (torch.zeros(202, 10), torch.zeros(203, 9), torch.full((203, 10), torch.nan), torch.zeros(203)):
        with pytest.raises(ValueError, match=r"finite and \(203, 10\)"):
            DigitBrowser(digits, logits)


def test_filters_are_met_together(digits, logits):
    facts = gather(digits.labels, logits)
    chosen = choose(facts, label=3, right=False, confidence=(0.3, 0.8))
    expected = [i for i in range(203) if digits.labels[i] == 3 and i % 7 == 0 and 0.3 <= facts.confidence[i] <= 0.8]
    assert chosen.tolist() == expected != []
    assert choose(facts, prediction=4, label=3).tolist() == [i for i in range(0, 203, 7) if digits.labels[i] == 3]
    assert (facts.loss[choose(facts, loss=(1.0, 2.0))] >= 1.0).all()
    assert len(choose(facts, label=3, prediction=9)) == 0


def test_orders(digits, logits):
    facts = gather(digits.labels, logits)
    for order in ("loss", "margin", "confidence"):
        for descending in (False, True):
            values = getattr(facts, order)[choose(facts, order=order, descending=descending)]
            assert torch.equal(values, values.sort(descending=descending).values), order


def test_equals_stay_in_the_order_of_their_numbers(digits):
    facts = gather(digits.labels, torch.zeros(203, 10))
    assert choose(facts, order="loss").tolist() == list(range(203))
    assert choose(facts, descending=True).tolist() == list(range(202, -1, -1))


def test_what_needs_logits_says_so(digits):
    facts = gather(digits.labels)
    assert choose(facts, label=2).tolist() == list(range(2, 203, 10))
    for asked in ({"right": True}, {"prediction": 3}, {"order": "loss"}, {"confidence": (0, 1)}):
        with pytest.raises(ValueError, match="only where logits were given"):
            choose(facts, **asked)
    with pytest.raises(ValueError, match="no order 'size': choose one of index, loss"):
        choose(facts, order="size")


def test_clamp():
    assert [clamp(position, 10) for position in (-5, 3, 9, 10**9)] == [0, 3, 9, 9]
    assert clamp(3, 0) is None


# From code


def test_stepping_and_jumping(browser):
    assert browser.index == 0 and len(browser) == 203
    assert browser.goto(3) == 3 and browser.step() == 4 and browser.step(-2) == 2
    assert browser.goto(10**6) == 202 and browser.step() == 202 and browser.goto(-1) == 0
    assert browser.filter(label=5) == 20 and browser.index == 5
    assert browser.step() == 15 and browser.goto(99) == 195
    assert browser.jump(35) == 35 and browser.position == 3 and len(browser) == 20, "selected: the selection stays"
    assert browser.jump(36) == 36 and len(browser) == 203, "not selected: all are"
    assert "position 36 of 203, number 36" in repr(browser)


def test_the_digit_that_is_shown_stays_if_it_can(browser):
    browser.goto(21)
    browser.filter(right=False)
    assert browser.index == 21
    browser.order("loss", descending=True)
    assert browser.index == browser.facts.loss.argmax()
    browser.filter(label=4)
    losses = browser.facts.loss[browser.indices]
    assert torch.equal(losses, losses.sort(descending=True).values), "a filter leaves the order"


def test_nothing_selected_says_so_and_recovers(browser):
    assert browser.filter(label=3, prediction=8) == 0
    assert browser.index is None and browser.goto(4) is None and browser.step() is None
    browser.collect()
    assert browser.selected == []
    assert "No digit fits" in browser._shell.caption.value and browser._shell.next.disabled
    assert "nth-child(n+1){visibility:hidden}" in browser._shell._pictures.value
    assert browser.filter() == 203 and browser.index == 0 and "no. 0" in browser._shell.caption.value


def test_collecting(browser):
    collected = browser.selected
    browser.goto(4), browser.collect(), browser.collect(), browser.collect(7, 9)
    assert collected == [4, 7, 9] and "★" in browser._shell.thumbnails[7].description
    browser.drop()
    assert collected == [7, 9]


def test_errors_from_code_are_raised(browser):
    with pytest.raises(ValueError, match="no order"):
        browser.order("size")
    with pytest.raises(TypeError):
        browser.filter(colour="red")
    with pytest.raises(ValueError, match="no neighbours"):
        browser.nearest_neighbours(3)
    with pytest.raises(ValueError, match="no model"):
        browser.where_it_looked(3)
    assert browser.errors == [] and len(browser) == 203


def test_no_digits(digits):
    with pytest.raises(ValueError, match="no digits to browse"):
        DigitBrowser(digits.take(torch.arange(0)))


def test_neighbours_are_the_nearest_others(digits):
    pixels = digits.images.flatten(1).float() / 255
    browser = DigitBrowser(digits, neighbours=digits)
    distances, found = browser.nearest_neighbours(11)
    expected = nearest(pixels, k=5)
    assert torch.equal(found, expected[1][11]) and torch.allclose(distances, expected[0][11], atol=1e-3)
    few = digits.take(torch.arange(3))
    distances, found = DigitBrowser(digits, neighbours=few).nearest_neighbours(0)
    assert found[0] == 0 and distances[0] < 0.01 and len(found) == 3, "in another set its copy counts"


def test_a_browser_that_was_made_anew_keeps_no_pixels(digits):
    """ipywidgets keeps every widget that was ever made, and with it the browser behind it."""

    def floats():
        gc.collect()
        tensors = [one for one in gc.get_objects() if type(one) is torch.Tensor]
        return sum(one.numel() for one in tensors if one.is_floating_point() and one.numel() > 20 * 784)

    before = floats()
    for _ in range(3):
        browser = DigitBrowser(digits, neighbours=digits)
        browser.step()
    assert browser._shell.near.value and floats() == before


@pytest.fixture
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return lenet5()


def test_where_it_looked(digits, logits, model):
    with pytest.raises(ValueError, match="no card"):
        DigitBrowser(digits, logits, model=model)
    browser = DigitBrowser(digits, logits, model=model, normalisation="half")
    before = browser._shell.map.value
    assert browser.where_it_looked(5).shape == (28, 28) and open_png(before).shape == (112, 112, 3)
    browser.look_by("occlusion")
    assert browser._shell.map.value != before and browser._shell.look.value == "occlusion"
    with pytest.raises(ValueError, match="saliency or occlusion, not by 'magic'"):
        browser.look_by("magic")


# The page


def test_the_page_follows_the_code(browser):
    shell = browser._shell
    browser.order("confidence"), browser.filter(right=False), browser.goto(2)
    assert shell.slider.value == shell.play.value == 2 and shell.slider.max == len(browser) - 1
    assert shell.filters["right"].value is False and shell.order.value == "confidence"
    assert shell.number.value == browser.index
    assert f"no. {browser.index}" in shell.caption.value and "(wrong)" in shell.caption.value
    assert open_png(shell.picture.value).shape == (252, 252)
    assert np.array_equal(open_png(shell.picture.value)[::9, ::9], browser.digits.images[browser.index].numpy())


def test_clicks_reach_the_browser(browser):
    shell = browser._shell
    shell.next.click()
    assert browser.index == 1
    shell.forward.click()
    assert browser.index == 25 and "page 2 of 9" in shell.pages.value
    shell.thumbnails[5].click()
    assert browser.index == 29
    shell.collect.click()
    assert browser.selected == [29] and shell.collect.description == "Drop (1)"
    shell.collect.click(), shell.previous.click()
    assert browser.selected == [] and browser.index == 28
    shell.slider.value = 100
    assert browser.index == 100
    shell.play.value = 101  # as playing does
    assert browser.index == 101
    shell.number.value = 7
    assert browser.index == 7 and browser.errors == []


def test_menus_and_sliders_select(browser):
    shell = browser._shell
    shell.filters["label"].value = 3
    assert len(browser) == 20 and browser.choice["label"] == 3
    shell.filters["right"].value = False
    assert browser.indices.tolist() == [i for i in range(3, 203, 10) if i % 7 == 0]
    shell.filters["confidence"].value = (0.5, 1.0)
    assert (browser.facts.confidence[browser.indices] >= 0.5).all()
    shell.filters["confidence"].value = (0.0, 1.0)
    assert browser.choice["confidence"] is None
    shell.filters["label"].value = shell.filters["right"].value = None
    assert len(browser) == 203
    shell.order.value = "loss"
    shell.descending.value = True
    assert browser.index == browser.facts.loss.argmax() and browser.errors == []


def test_the_loss_slider_reaches_the_costliest(browser):
    shell = browser._shell
    shell.filters["loss"].value = (0.5, shell.filters["loss"].max)
    assert len(browser) == (browser.facts.loss >= 0.5).sum()
    browser.filter(loss=(1, float("inf")))
    assert shell.filters["loss"].value == (1, shell.filters["loss"].max) and browser.choice["loss"][1] == float("inf")


def test_without_logits_there_is_nothing_about_predictions(digits):
    browser = DigitBrowser(digits)
    assert "read as" not in browser._shell.caption.value
    assert browser._shell.order.options == ("index",)
    browser._shell.filters["label"].value = 8
    assert browser.index == 8 and browser.errors == []


def test_an_error_in_a_callback_is_kept_and_shown(browser, monkeypatch):
    monkeypatch.setattr(browser, "step", lambda n: 1 / 0)
    browser._shell.next.click()
    assert isinstance(browser.errors[0], ZeroDivisionError)
    assert "ZeroDivisionError: division by zero" in browser._shell.faults.view.value
    monkeypatch.undo()
    browser._shell.next.click()
    assert browser._shell.faults.view.value == "" and len(browser.errors) == 1


def test_the_last_page_hides_the_buttons_left_over(browser):
    browser.goto(202)
    assert "nth-child(n+12){visibility:hidden}" in browser._shell._pictures.value  # 203 = 8 * 24 + 11
    browser._shell.thumbnails[10].click()
    assert browser.index == 202


# Pictures and text


def test_bars_mark_answer_and_label():
    text = bars([0.05] * 4 + [0.6] + [0.01] * 4 + [0.16], label=9)
    assert text.count("<tr") == 10 and "60.0%" in text and "16.0% &#9668; label" in text and "#D55E00" in text
    assert "#009E73" in bars(np.eye(10)[2], label=2) and "label" not in bars(np.eye(10)[2])


def test_captions(digits, logits):
    assert caption(7, gather(digits.labels)) == "no. 7 &middot; label <b>7</b>"
    text = caption(7, gather(digits.labels, logits))
    assert "read as <b" in text and "8 (wrong)" in text and "confidence" in text and "loss" in text


def test_overlay_and_cards():
    image, heat = torch.zeros(28, 28, dtype=torch.uint8), torch.zeros(28, 28)
    assert not overlay(image, heat).any()
    heat[3, 4] = -1.0
    heat[5, 6] = 2.0
    colored = overlay(image, heat)
    assert colored.shape == (28, 28, 3) and colored[5, 6].max() > 200 and not colored[3, 4].any()
    assert cards(torch.zeros(3, 28, 28, dtype=torch.uint8), "abc").count("<img") == 3
    assert open_png(png(colored, 2)).shape == (56, 56, 3)


def test_thumbnails_of_none_hide_all():
    assert thumbnails([], "some").count("hidden") == 1
