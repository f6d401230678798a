"""SBD: `benchmark_RELEASE/dataset/` with a MATLAB struct of classes and one of objects for each image."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.io import savemat

from segfolio.data.formats.images import write_image
from tests.fake import Ids, noisy, voc
from tests.fake.voc import PALETTE, maps


def write(root: Path, train: Sequence[str] = (), val: Sequence[str] = (), size: tuple[int, int] = (48, 96)) -> None:
    """2 objects on each image; there is no border. Without names: some of VOC 2011, which is written with 2012."""
    if not train:
        voc.write(root, 2011)
        voc.write(root, 2012)
        train, val = [*voc.names(2011, "train", 3), voc.names(2011, "val", 1)[0]], ["2010_000001"]
    rng = np.random.default_rng(1)
    folder = root / "benchmark_RELEASE" / "dataset"
    for kind in ("img", "cls", "inst"):
        (folder / kind).mkdir(parents=True)
    for split, names in {"train": train, "val": val}.items():
        (folder / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    for name in (*train, *val):
        classes, ids = (np.where(x == 255, 0, x) for x in maps(rng, size, objects=2))
        write_image(folder / "img" / f"{name}.jpg", noisy(rng, PALETTE[classes], 5))
        write_maps(folder, name, classes, ids)


def write_maps(folder: Path, name: str, classes: Ids, ids: Ids) -> None:
    kinds = np.array([[classes[ids == number][0]] for number in range(1, int(ids.max()) + 1)], np.uint8)
    structs = {
        "cls": {"GTcls": {"Segmentation": classes, "CategoriesPresent": kinds}},
        "inst": {"GTinst": {"Segmentation": ids, "Categories": kinds}},
    }
    for kind, content in structs.items():
        savemat(folder / kind / f"{name}.mat", content, do_compression=True)
