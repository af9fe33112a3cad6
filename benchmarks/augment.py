"""Compare batched augmentation on the device with torchvision's transforms, image by image: images per second.

Run from anywhere in the project: python benchmarks/augment.py. Needs no network; without MNIST it measures the sample.
"""

import statistics

import torch
from timing import command_line, seconds
from torchvision import transforms

from mnist_helpers.data.augment import Augmentation
from mnist_helpers.data.digits import load_data
from mnist_helpers.environment import choose_device, seeded

REPEATS = 5  # the two take turns, so a drift of the machine's speed affects both
BATCH, FEW = 512, 1000  # images a batch on the device; images for torchvision in each repeat


def main():
    """Measure affine distortion alone, and with elastic distortion."""
    command_line(__doc__).parse_args()
    device = choose_device()
    images = load_data(train=True).images[:48_000, None].float() / 255  # (N, 1, 28, 28)
    resident, single = images.to(device), list(images[:FEW])
    affine = transforms.RandomAffine(15, (0.1, 0.1), (0.9, 1.1), interpolation=transforms.InterpolationMode.BILINEAR)
    elastic = transforms.ElasticTransform(34.0, 4.0)
    ways = {
        "affine": (Augmentation(degrees=15, translate=2.8, scale=0.1), affine),
        "affine and elastic": (
            Augmentation(degrees=15, translate=2.8, scale=0.1, elastic=34),
            transforms.Compose([affine, elastic]),
        ),
    }
    print(f"on {device}, {torch.get_num_threads()} threads; images/s, median of {REPEATS}")
    for name, (ours, theirs) in ways.items():
        rates = {"batched": [], "torchvision": []}
        for _ in range(REPEATS):
            rates["batched"].append(len(resident) / seconds(distort_batches, ours, resident))
            rates["torchvision"].append(FEW / seconds(distort_each, theirs, single))
        batched, plain = (statistics.median(rates[way]) for way in rates)
        print(f"{name:20} batched {batched:11,.0f}   torchvision {plain:8,.0f}   ratio {batched / plain:6.1f}")


def distort_batches(augmentation, images):
    """Distort images (N, 1, 28, 28) batch by batch on their device."""
    generator = torch.Generator(images.device)
    for batch in images.split(BATCH):
        augmentation(batch, 0.0, generator)


def distort_each(transform, images):
    """Distort a list of images (1, 28, 28) one by one."""
    with seeded(0):
        for image in images:
            transform(image)


if __name__ == "__main__":
    main()
