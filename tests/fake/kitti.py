"""KITTI 2015: `training/{image_2,semantic,instance}/` and `testing/image_2/`."""

from pathlib import Path

import numpy as np

from segfolio.data.formats.images import write_id_map, write_image
from tests.fake.cityscapes import class_ids, picture, street


def write(root: Path, training: int = 10, testing: int = 2, size: tuple[int, int] = (48, 80)) -> None:
    """The street of the fake Cityscapes; objects count from 1, a group has the number 0."""
    rng = np.random.default_rng(0)
    for folder, count in {"training": training, "testing": testing}.items():
        for name in (f"{i:06d}_10.png" for i in range(count)):
            instances = street(rng, size)
            ids = class_ids(instances)
            write_image(root / folder / "image_2" / name, picture(rng, ids))
            if folder == "training":
                numbers = np.where(instances < 1000, 0, instances % 1000 + 1)
                write_id_map(root / folder / "semantic" / name, ids)
                write_id_map(
                    root / folder / "instance" / name, (ids.astype(np.uint16) * 256 + numbers).astype(np.uint16)
                )
