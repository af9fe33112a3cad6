import ast
import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import mnist_helpers
from mnist_helpers.data.digits import load_digits_sample, load_mnist
from mnist_helpers.data.loaders import ResidentLoader
from mnist_helpers.environment import seeded
from mnist_helpers.evaluation.scores import (
    DISPUTED,
    LABEL_ERRORS,
    accuracy,
    evaluate,
    predict,
    predict_logits,
    score_on_test,
)
from mnist_helpers.models import mlp_baseline, network
from mnist_helpers.models import saved as saving
from mnist_helpers.models.averaged import committee
from mnist_helpers.models.saved import load_model, save_model


@pytest.fixture
def model():
    with seeded(0):
        return mlp_baseline()


def test_is_exact_however_the_batches_are_cut(digits, model):
    images, labels = next(iter(ResidentLoader(digits, 203, device="cpu")))
    with torch.no_grad():
        logits = model.eval()(images)
    expected = F.cross_entropy(logits, labels).item(), 100 * (logits.argmax(1) == labels).float().mean().item()
    for batch_size in (1, 7, 64, 203, 500):
        loader = ResidentLoader(digits, batch_size, device="cpu")
        assert evaluate(model, loader) == pytest.approx(expected, rel=1e-5)
        predicted = predict_logits(model, loader)
        torch.testing.assert_close(predicted, logits)
        assert not predicted.requires_grad


def test_leaves_weights_statistics_and_modes_alone(digits, model):
    model.train()
    model[3].eval()  # a part that the caller has frozen
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    evaluate(model, ResidentLoader(digits, device="cpu"))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes


def test_modes_come_back_after_an_error(model):
    model.train()
    with pytest.raises(RuntimeError):
        predict_logits(model, [(torch.zeros(2, 5), torch.zeros(2))])
    assert model.training


def test_empty_loader_is_refused(model):
    with pytest.raises(ValueError, match="nothing to evaluate"):
        evaluate(model, [])


def test_accuracy_is_percent():
    logits = torch.eye(4)
    assert accuracy(logits, torch.tensor([0, 1, 2, 0])) == 75.0


def test_score_on_test_reads_the_test_part(project, model):
    score = score_on_test(model, "half", "sklearn-digits")
    assert score.logits.argmax(dim=1).tolist() == [int(digit) for digit in score.predictions]
    assert len(score.predictions) == 360 and set(score.predictions) <= set("0123456789")
    labels = load_digits_sample(train=False).labels
    right = sum(int(digit) == label for digit, label in zip(score.predictions, labels.tolist()))
    assert score.accuracy == pytest.approx(100 * right / 360) and score.digits.source == "sklearn-digits"


@pytest.fixture
def saved(project, model):
    """The model under the name "small", trained, its card says, on pixels from 0 to 1."""
    card = {"model": "mlp_baseline", "model_arguments": {}, "settings": {"normalisation": "unit"}}
    save_model(model, project / "saved_models" / "small.pth", card)
    return load_model("small", device="cpu")


def test_predict_reads_one_image_or_many_as_the_saved_network_was_trained(digits, saved, project):
    answers, probabilities = predict(digits.images, "small")
    assert torch.equal(predict(digits.images, project / "saved_models" / "small.pth")[0], answers)
    with torch.no_grad():
        expected = saved(digits.images[:, None] / 255).softmax(dim=1)
    torch.testing.assert_close(probabilities, expected)
    assert torch.equal(answers, expected.argmax(dim=1))
    for image in (digits.images[0], digits.images[0].numpy(), Image.fromarray(digits.images[0].numpy())):
        digit, shares = predict(image, saved)
        assert digit == answers[0].item() and shares.shape == (10,)
        torch.testing.assert_close(shares, expected[0])


def by_palette(pixels):
    """Return a picture uint8 (28, 28) as a PIL image whose numbers are indices of a palette, which runs backwards."""
    image = Image.fromarray(255 - pixels).convert("P")
    image.putpalette([grey for grey in range(255, -1, -1) for _ in range(3)])
    return image


def gif(*images):
    """Return PIL images as they come back from one GIF file."""
    file = io.BytesIO()
    images[0].save(file, "GIF", save_all=True, append_images=images[1:])
    return Image.open(file)


def test_predict_reads_the_grey_values_of_every_kind_of_pil_image(digits, saved):
    pixels = [image.numpy() for image in digits.images[:20]]
    expected = predict(digits.images[:20], saved)[1]
    for mode in ("L", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "P", "PA"):
        kinds = [Image.fromarray(image).convert(mode) for image in pixels]
        torch.testing.assert_close(predict(kinds, saved)[1], expected, atol=0.01, rtol=0.1, msg=mode)  # CMYK rounds
    for kinds in ([by_palette(image) for image in pixels], [gif(by_palette(image)) for image in pixels]):
        assert torch.equal(predict(kinds, saved)[1], expected)
        torch.testing.assert_close(predict(kinds[3], saved)[1], expected[3])
    film = gif(*[by_palette(image) for image in pixels[:3]])
    for number in (0, 2, 1):
        film.seek(number)
        torch.testing.assert_close(predict(film, saved)[1], expected[number])
    extreme = np.where(pixels[0] > 128, 255, 0).astype(np.uint8)
    assert torch.equal(predict(Image.fromarray(extreme).convert("1"), saved)[1], predict(extreme, saved)[1])
    exif = Image.Exif()
    exif[0x0112], file = 6, io.BytesIO()  # turned by the camera
    Image.fromarray(np.rot90(pixels[0]).copy()).save(file, "PNG", exif=exif)
    torch.testing.assert_close(predict(Image.open(file), saved)[1], expected[0])


def test_predict_refuses_what_is_not_in_mnists_form(digits, saved):
    grey = Image.fromarray(digits.images[0].numpy())
    beyond = [grey.convert("I"), grey.convert("F"), Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)]
    for images in (
        torch.zeros(28, 28),
        np.zeros((8, 8), dtype=np.uint8),
        "a.png",
        None,
        [],
        grey.resize((9, 9)),
        *beyond,
    ):
        with pytest.raises(ValueError, match=r"images must be uint8 .*, not .*: read files .*mnist_helpers.read_digit"):
            predict(images, saved)
    clear = Image.merge("LA", (Image.new("L", (28, 28)), grey))  # the ink is what covers
    palette = by_palette(np.asarray(grey))
    palette.info["transparency"] = 255
    for image in (clear, clear.convert("RGBA"), palette):
        with pytest.raises(ValueError, match="has transparent parts: put it on black paper, or use .*read_digits"):
            predict(image, saved)


def test_predict_warns_of_ink_on_bright_paper(digits, saved):
    grey_paper = (120 - digits.images[:1] // 3).numpy()
    for images, sentence in (
        (255 - digits.images[0], "the picture has a bright border"),
        (grey_paper, "the picture has a bright border"),
        (Image.new("L", (28, 28), 255), "the picture has a bright border"),
        (torch.cat([digits.images, 255 - digits.images[:3]]), "3 of 206 pictures have a bright border"),
    ):
        with pytest.warns(
            UserWarning, match=f"{sentence}.*: invert it .255 - picture., or use handwriting.read_digits"
        ):
            predict(images, saved)
    predict(digits.images, saved)  # without a warning, which would be an error


def test_the_card_tells_score_on_test_the_normalisation(saved, model):
    by_card, said, other = (score_on_test(saved, name, "sklearn-digits").logits for name in (None, "unit", "half"))
    assert torch.equal(by_card, said) and not torch.equal(by_card, other)
    with pytest.raises(ValueError, match="no normalisation 'halve': choose one of half, mnist"):
        score_on_test(saved, "halve", "sklearn-digits")
    with pytest.raises(ValueError, match="no card that tells its normalisation"):
        score_on_test(model, source="sklearn-digits")


def test_a_committee_has_the_mean_of_its_members_probabilities():
    members = [torch.tensor([[3.0, 0.0, 0.0]]), torch.tensor([[0.0, 1.0, 0.0]])]
    mean = (members[0].softmax(dim=1) + members[1].softmax(dim=1)) / 2
    torch.testing.assert_close(committee(members).softmax(dim=1), mean)
    assert committee(members).argmax() == 0, "the surer member prevails"
    far = torch.tensor([[300.0, 0.0, 0.0]])
    torch.testing.assert_close(committee([far, far]), far - 300)  # beyond what a probability can hold


LOADERS = {"load_data", "load_mnist", "load_part", "load_digits_sample"}


def test_a_saved_network_is_loaded_once_until_its_file_changes(project, monkeypatch):
    loaded, load = [], saving.load_model
    monkeypatch.setattr(saving, "load_model", lambda path: loaded.append(path) or load(path))
    with seeded(0):
        own = network()
    save_model(own, "own.pth", {"model": "network", "model_arguments": {}})
    first, second = saving.load_once("own.pth"), saving.load_once("own.pth")
    assert first is second and len(loaded) == 1
    save_model(own, "own.pth", {"model": "network", "model_arguments": {}})
    os.utime("own.pth", ns=(1, 1))
    assert saving.load_once("own.pth") is not first and len(loaded) == 2


def test_nothing_but_a_score_reads_the_test_set():
    """Only `scores`, and the command that counts the files, may ask for the test part, and few for a score."""
    readers, scorers, package = set(), set(), Path(mnist_helpers.__file__).parent
    for path in package.rglob("*.py"):
        module = path.relative_to(package).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                function = ast.unparse(node.func).split(".")[-1]
                train = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}.get("train", "True")
                if function == "score_on_test":
                    scorers.add(module)
                if function in LOADERS and (train != "True" or len(node.args) > (function == "load_part")):
                    readers.add(module)
    assert readers <= {"evaluation/scores.py", "data/digits.py", "__main__.py"}, "the last counts, and takes checksums"
    assert scorers <= {"experiments/run.py", "experiments/records.py"}, "a finished run, and its weights when saved"


@pytest.mark.mnist
def test_the_known_label_errors_are_those_of_this_test_set():
    labels = load_mnist(train=False).labels
    assert labels[[*LABEL_ERRORS]].tolist() == [8, 0, 9, 2, 5, 5, 5, 0, 1, 5]
    assert list(LABEL_ERRORS.values()) == [9, 6, 4, 0, 3, 0, 3, 6, 6, 6] and not set(DISPUTED) & set(LABEL_ERRORS)


def test_predict_takes_the_network_for_any_hand_unless_told():
    sample = load_digits_sample()
    image, label = sample.images[0], int(sample.labels[0])
    digit, probabilities = predict(image)
    assert probabilities.shape == (11,) and probabilities.argmax() == digit == label
    assert probabilities.sum() == pytest.approx(1) and torch.equal(probabilities, predict(image, "any_hand")[1])
    assert predict(torch.zeros_like(image))[0] == 10, "no digit"
