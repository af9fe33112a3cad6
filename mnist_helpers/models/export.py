"""Networks for programs without PyTorch: ONNX files."""

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..files import write_atomically
from . import evaluation_mode


def export_onnx(model: nn.Module, path: str | Path) -> None:
    """Write a model to `path` as an ONNX file, for batches of any size.

    Its input "images" is float32 (N, 1, 28, 28), normalised as the model was trained; its output "logits" float32
    (N, 10). A network that averages over shifts does so in the file, too.

    Raises:
        ValueError: the packages that write ONNX are not installed, or `path` does not end in `.onnx`.
        OSError: the folder cannot be written to or the disk is full.
    """
    path = Path(path)
    if path.suffix != ".onnx":
        raise ValueError(f"an ONNX file is called something.onnx, not {path.name}")
    try:
        import onnxscript  # noqa: F401  # the exporter needs it
    except ImportError as error:
        raise ValueError("to write ONNX, install the extra: python -m pip install '.[export]'") from error
    example = torch.zeros(2, 1, 28, 28, device=next(model.parameters()).device)
    sizes = ({0: torch.export.Dim("N")},)
    names: dict[str, Any] = {"input_names": ["images"], "output_names": ["logits"]}
    with evaluation_mode(model), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own parts are full of deprecations
        program = torch.onnx.export(model, (example,), **names, dynamic_shapes=sizes, verbose=False)
    assert program is not None
    write_atomically(path, program.model_proto.SerializeToString())
