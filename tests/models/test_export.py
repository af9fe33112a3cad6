import sys

import pytest
import torch

from mnist_helpers.environment import seeded
from mnist_helpers.models import build_model
from mnist_helpers.models.export import export_onnx

runtime = pytest.importorskip("onnxruntime", reason="onnxruntime, of the extra 'export', is not installed")


def test_an_exported_network_answers_alike_for_any_number_of_images(tmp_path):
    with seeded(0):
        model = build_model("shift_averaged", model="fast_cnn", model_arguments={"widths": (4, 6)})
        images = torch.rand(5, 1, 28, 28)
    export_onnx(model, tmp_path / "model.onnx")
    assert model.training, "the mode is left as it was"
    session = runtime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    for n in (1, 5):
        (logits,) = session.run(["logits"], {"images": images[:n].numpy()})
        torch.testing.assert_close(torch.from_numpy(logits), model.eval()(images[:n]), atol=1e-4, rtol=0)


def test_a_file_of_another_name_and_a_missing_package_are_one_sentence(tmp_path, monkeypatch):
    with seeded(0):
        model = build_model("fast_cnn")
    with pytest.raises(ValueError, match="something.onnx, not model.pth"):
        export_onnx(model, tmp_path / "model.pth")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ValueError, match="install the extra"):
        export_onnx(model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
