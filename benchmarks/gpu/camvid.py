"""CamVid at 240 x 180: small enough to be carried to a machine, in the layout of the original.

    python -m benchmarks.gpu.camvid PATH/TO/CamVid build/gpu/CamVid_240x180

Images are averaged over their pixels and stored as JPEGs of quality 95, masks take the nearest pixel. The whole set is
20 MB. It is CamVid's for research use, and neither the images nor packs of them belong in a repository.
"""

import sys
from pathlib import Path

import cv2

from segfolio.data.datasets import CamVid
from segfolio.errors import SegfolioError

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
    print(f"{shrink(Path(sys.argv[1]), Path(sys.argv[2]))} images: {sys.argv[2]}")
