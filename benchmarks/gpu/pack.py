"""`make gpu-pack`: what `make gpu` needs beside the checkout.

    python -m benchmarks.gpu.pack [PATH/TO/CamVid]

Which commit the checkout is of, as a copy of it may come without its history; and CamVid at 240 x 180, in the layout of
the original: images are averaged over their pixels and stored as JPEGs of quality 95, masks take the nearest pixel. The
whole set is 18 MB. It is CamVid's for research use, and neither the images nor packs of them belong in a repository.
"""

import sys
from pathlib import Path

import cv2

from segfolio.data.datasets import CamVid
from segfolio.errors import SegfolioError
from segfolio.ledger.record import carry_code

WIDTH, HEIGHT = 240, 180


def shrink(root: Path, target: Path) -> int:
    """Write the small set; returns the number of images. What is there already stays.

    Raises:
        SegfolioError: no CamVid there, or a file that cannot be read.
    """
    count = 0
    for split in ("train", "val", "test"):
        lines = []
        for pair in CamVid(root, split).pairs:
            image, mask = target / split / f"{pair.image_id}.jpg", target / f"{split}annot" / f"{pair.image_id}.png"
            if not (image.exists() and mask.exists()):
                _shrink(pair.image, image, cv2.INTER_AREA, [cv2.IMWRITE_JPEG_QUALITY, 95])
                _shrink(pair.mask, mask, cv2.INTER_NEAREST, [])
            lines.append(f"{split}/{image.name} {split}annot/{mask.name}\n")
        (target / f"{split}.txt").write_text("".join(lines))
        count += len(lines)
    return count


def _shrink(source: Path, target: Path, interpolation: int, parameters: list[int]) -> None:
    if (pixels := cv2.imread(str(source), cv2.IMREAD_UNCHANGED)) is None:
        raise SegfolioError(f"{source} cannot be read as an image; take CamVid's own")
    target.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(target), cv2.resize(pixels, (WIDTH, HEIGHT), interpolation=interpolation), parameters)


if __name__ == "__main__":
    try:
        file = carry_code()
        print(f"the commit of the checkout: {file}")
        if camvid := sys.argv[1:]:
            small = file.with_name("CamVid_240x180")
            print(f"{shrink(Path(camvid[0]), small)} images: {small}")
    except SegfolioError as error:
        raise SystemExit(f"make gpu-pack: {error}") from None
