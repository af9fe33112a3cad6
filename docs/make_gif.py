"""Make notebooks/pictures/readme.gif, README's moving picture: python docs/make_gif.py [FILE]

First a scripted pen draws digits while `any_hand` reads them, as on the drawing pad; then `read_digits` reads a page
that is composed of validation digits. What the networks answer is shown, whatever it is.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from mnist_helpers.data.digits import load_mnist
from mnist_helpers.data.form import to_mnist_form
from mnist_helpers.data.loaders import stratified_split
from mnist_helpers.data.strokes import draw, fitted, write
from mnist_helpers.evaluation.scores import predict
from mnist_helpers.handwriting.learn.pages import compose_page
from mnist_helpers.handwriting.reading import read_digits
from mnist_helpers.models.saved import load_model

WIDTH, HEIGHT, PAD = 680, 330, 280  # pixels
BLUE, GREY, DARK, PAPER = "#0072b2", "#999999", "#222222", "#ffffff"
DRAWN, PAGE_SEED, TICK = (5, 2, 8), 5, 70  # TICK: milliseconds a frame
PICTURE = Path(__file__).parent.parent / "notebooks" / "pictures" / "readme.gif"


def canvas(title: str) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """Return an empty frame with a title, and what draws on it."""
    frame = Image.new("RGB", (WIDTH, HEIGHT), PAPER)
    pencil = ImageDraw.Draw(frame)
    pencil.text((20, 8), title, DARK, ImageFont.load_default(17))
    return frame, pencil


def beginnings(strokes: list, step: int = 4) -> list[list]:
    """Return what the pen has drawn after every `step` points, the whole drawing last."""
    found = []
    for number, stroke in enumerate(strokes):
        found += [[*strokes[:number], stroke[:end]] for end in range(2, len(stroke), step)]
    return [*found, strokes]


def pad_frame(strokes: list, model: torch.nn.Module) -> Image.Image:
    """Return a frame with a drawing, the 28x28 picture that the network sees, and its probabilities."""
    frame, pencil = canvas("Draw: the network reads while you do")
    frame.paste(Image.fromarray(draw(strokes, PAD)), (20, 38))
    form = to_mnist_form(draw(fitted(strokes)))
    seen = Image.fromarray(form).resize((140, 140), Image.Resampling.NEAREST)
    frame.paste(seen, (330, 68))
    pencil.text((330, 44), "what it sees", GREY, ImageFont.load_default(14))
    values = predict(form, model)[1].numpy()
    for place, value in enumerate(values):
        top = 44 + 25 * place
        color = BLUE if place == values.argmax() else GREY
        name = str(place) if place < 10 else "no digit"
        pencil.text((540, top), name, color, ImageFont.load_default(15), anchor="rt")
        pencil.rectangle((548, top + 2, 550 + 100 * float(value), top + 15), fill=color)
    return frame


def page_frames() -> list[Image.Image]:
    """Return frames with a composed page: first bare, then with one more digit read in each."""
    digits = load_mnist()
    validation = digits.take(stratified_split(digits.labels)[1])
    chosen = np.random.default_rng(PAGE_SEED).choice(len(validation), 21)
    images, labels = validation.images.numpy()[chosen], validation.labels.numpy()[chosen]
    looks = {"ruling": "lines", "degrees": -3.0, "shadow": 0.3, "noise": 3.0, "ink": (25, 45, 150), "touching": 0.2}
    page = compose_page(images, labels, seed=PAGE_SEED, columns=7, size=56, **looks).image
    reading = read_digits(page)
    small = Image.fromarray(page)
    small.thumbnail((430, HEIGHT - 46), Image.Resampling.LANCZOS)
    scale, (left, top) = small.width / page.shape[1], (20, 38)
    frame, pencil = canvas("Or read a whole page")
    frame.paste(small, (left, top))
    pencil.text((470, 44), "predict page.jpg", GREY, ImageFont.load_default(14))
    frames, text = [frame] * 10, reading.text.split("\n")
    for number, box in enumerate(reading.boxes):
        frame = frame.copy()
        pencil = ImageDraw.Draw(frame)
        x0, y0, x1, y1 = (float(value) * scale for value in box)
        pencil.rectangle((left + x0 - 2, top + y0 - 2, left + x1 + 2, top + y1 + 2), outline=BLUE, width=2)
        line = int(reading.lines[number])
        place = int((np.asarray(reading.lines[: number + 1]) == line).sum())
        pencil.rectangle((470, 70 + 40 * line, WIDTH, 108 + 40 * line), fill=PAPER)
        pencil.text((470, 74 + 40 * line), text[line][:place], BLUE, ImageFont.load_default(30))
        frames.append(frame)
    return frames + [frame] * 35


def main() -> None:
    """Write the picture."""
    model, generator, frames = load_model("any_hand", "cpu"), torch.Generator().manual_seed(3), []
    for digit in DRAWN:
        frames += [pad_frame(part, model) for part in beginnings(write(digit, generator))]
        frames += [frames[-1]] * 12
    frames += page_frames()
    both = Image.new("RGB", (WIDTH, 2 * HEIGHT))  # colours of both scenes
    both.paste(frames[0], (0, 0))
    both.paste(frames[-1], (0, HEIGHT))
    palette = both.quantize(64)
    indexed = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURE
    indexed[0].save(target, save_all=True, append_images=indexed[1:], duration=TICK, loop=0, optimize=True)
    print(f"{target}: {len(frames)} frames, {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
