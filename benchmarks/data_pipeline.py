"""Augmented training images per second on one core, against torchvision's decoders and transforms v2.

Both sides: CamVid at 480x360, scale 0.5-2, crop 320, flip, colour jitter (0.4, 0.4, 0.4, 0.1), normalised
`[3, 320, 320]` float32. Ours is normalised into its place in a batch, as images stay uint8 until there is one;
torchvision's collation is left out. Without CamVid, PNGs of its size are drawn.

    python -m benchmarks.data_pipeline --root ../shared/data/CamVid
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

import cv2
import numpy as np
import torch
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import v2
from torchvision.tv_tensors import Image, Mask

from segfolio.data.checks.headers import FilePair
from segfolio.data.datasets import CamVid
from segfolio.data.formats.images import write_id_map, write_image
from segfolio.data.sample import Sample
from segfolio.data.transforms import ColorJitter, RandomWindow

AIMS = {"augmentation, segfolio / torchvision": ">= 6", "with decoding, segfolio / torchvision": ">= 2.5"}
ROUNDS = 7
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BATCH = torch.empty(3, 320, 320)  # an image's place in the batch that the network gets
OFFSET, SCALE = 255 * torch.tensor(MEAN)[:, None, None], 1 / (255 * torch.tensor(STD)[:, None, None])

OURS = (RandomWindow((320, 320), scale=(0.5, 2.0), hflip=0.5), ColorJitter(0.4, 0.4, 0.4, 0.1))
TORCHVISION = v2.Compose(
    [
        v2.ScaleJitter((360, 480), scale_range=(0.5, 2.0)),
        v2.RandomCrop(320, pad_if_needed=True, fill={Image: 0, Mask: 255}),
        v2.RandomHorizontalFlip(),
        v2.ColorJitter(0.4, 0.4, 0.4, 0.1),
        v2.ToDtype({Image: torch.float32, "others": None}, scale=True),
        v2.Normalize(MEAN, STD),
    ]
)


def augmented(sample: Sample, rng: np.random.Generator) -> tuple[torch.Tensor, Mask | None]:
    for transform in OURS:
        sample = transform(sample, rng)
    image = BATCH.copy_(sample.image.as_subclass(torch.Tensor)).sub_(OFFSET).mul_(SCALE)
    return image, sample.target and sample.target.semantic


def decoded(pair: FilePair) -> tuple[Image, Mask]:
    image = decode_image(str(pair.image), ImageReadMode.RGB)
    return Image(image), Mask(decode_image(str(pair.mask), ImageReadMode.UNCHANGED)[0])


def draw_camvid(root: Path, images: int = 20) -> None:
    """Textured blocks in CamVid's layout; the files are about as large as CamVid's."""
    rng = np.random.default_rng(0)
    for i in range(images):
        ids = cv2.resize(rng.integers(0, 12, (9, 12), np.uint8), (480, 360), interpolation=cv2.INTER_NEAREST)
        texture = cv2.GaussianBlur(rng.normal(0, 40, (360, 480, 3)), (0, 0), 1.0)
        write_id_map(root / "trainannot" / f"{i}.png", ids)
        write_image(root / "train" / f"{i}.png", np.clip(20.0 * ids[..., None] + texture, 0, 255).astype(np.uint8))
    (root / "train.txt").write_text("".join(f"train/{i}.png trainannot/{i}.png\n" for i in range(images)))


def seconds(step: Callable[..., object], items: Sequence[object]) -> float:
    """Of the processor: other processes on the machine do not count."""
    start = time.process_time()
    for item in items:
        step(item)
    return time.process_time() - start


def measure(dataset: CamVid) -> dict[str, float]:
    """Sides take turns round by round, so that a slow minute of the machine is slow for both."""
    seeds = count()
    samples = [dataset[i] for i in range(len(dataset))]
    pairs = [decoded(pair) for pair in dataset.pairs]
    steps: dict[tuple[str, str], tuple[Callable[..., object], Sequence[object]]] = {
        ("augmentation", "segfolio"): (lambda s: augmented(s, np.random.default_rng(next(seeds))), samples),
        ("augmentation", "torchvision"): (lambda p: TORCHVISION(*p), pairs),
        ("with decoding", "segfolio"): (
            lambda i: augmented(dataset[i], np.random.default_rng(next(seeds))),
            range(len(dataset)),
        ),
        ("with decoding", "torchvision"): (lambda p: TORCHVISION(*decoded(p)), dataset.pairs),
    }
    times: dict[tuple[str, str], list[float]] = {key: [] for key in steps}
    for _ in range(ROUNDS + 1):
        for key, step in steps.items():
            times[key].append(seconds(*step))
    ratios = {}
    for what in ("augmentation", "with decoding"):
        ours, peer = (statistics.median(times[what, side][1:]) for side in ("segfolio", "torchvision"))
        print(f"{what}: segfolio {len(samples) / ours:.0f}, torchvision {len(samples) / peer:.0f} images/s")
        ratios[f"{what}, segfolio / torchvision"] = peer / ours
    return ratios


def main(arguments: Sequence[str] = ()) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[2] / "shared" / "data" / "CamVid")
    root = parser.parse_args(arguments).root
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    torch.manual_seed(0)
    if root.is_dir():
        return measure(CamVid(root, "train"))
    with tempfile.TemporaryDirectory() as folder:
        draw_camvid(Path(folder))
        print(f"{root} is not here: drawn images")
        return measure(CamVid(folder, "train"))


if __name__ == "__main__":
    for ratio, value in main(sys.argv[1:]).items():
        print(f"{ratio}: {value:.2f} (aim {AIMS[ratio]})")
