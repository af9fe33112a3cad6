"""How fast saved networks answer, by PyTorch and as ONNX by onnxruntime.

Images a second in batches of 1,000, and milliseconds for a single image; the medians of several rounds, in which the
two take turns. Says also how far the two answers differ. Needs the extra `export`, no network.
"""

import statistics
import tempfile
from pathlib import Path

import torch
from timing import command_line, seconds

from mnist_helpers.data.digits import load_data
from mnist_helpers.data.loaders import ResidentLoader
from mnist_helpers.models.export import export_onnx
from mnist_helpers.models.saved import load_model

ROUNDS, BATCH = 7, 1000
MODELS = "densenet_small", "speed_99", "speed_997", "committee"


def as_onnx(model):
    """Return a function from images (N, 1, 28, 28) to logits (N, 10), by onnxruntime on as many threads as torch."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export_onnx(model, path)
        session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


@torch.inference_mode()
def main():
    """Measure and print the table."""
    parser = command_line(__doc__)
    parser.add_argument("models", nargs="*", metavar="MODEL", default=MODELS, help=f"default: {' '.join(MODELS)}")
    names = parser.parse_args().models
    digits = load_data(train=True).take(torch.arange(BATCH))
    print(f"on the CPU, {torch.get_num_threads()} threads, float32\n")
    print("| network | engine | images/s | ms for one image | logits differ by at most |")
    print("|---|---|---|---|---|")
    for name in names:
        model = load_model(name, "cpu")
        images, _ = next(iter(ResidentLoader(digits, BATCH, model.card["settings"]["normalisation"], device="cpu")))
        engines, times = {"PyTorch": model, "onnxruntime": as_onnx(model)}, {}
        for _ in range(ROUNDS + 1):
            for engine, answer in engines.items():
                many, one = seconds(answer, images), seconds(answer, images[:1])
                times.setdefault(engine, []).append((many, one))
        gap = (engines["onnxruntime"](images) - model(images)).abs().max().item()
        for engine, found in times.items():
            many, one = (statistics.median(column) for column in zip(*found[1:]))  # the first round warms up
            print(f"| `{name}` | {engine} | {BATCH / many:,.0f} | {1000 * one:.2f} | {gap:.1g} |")


if __name__ == "__main__":
    main()
