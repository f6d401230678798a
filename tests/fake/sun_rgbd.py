"""SUN RGB-D: `SUNRGBD/<camera>/<sensor>/<scene>/image/*.jpg`, and the three files of `SUNRGBDtoolbox/`."""

from pathlib import Path

import numpy as np
import scipy.io

from segfolio.data.datasets.sun_rgbd import SUNRGBD
from segfolio.data.formats.images import write_image
from tests.fake import blocks, noisy
from tests.fake.matlab import write_hdf5

AUTHORS = "/n/fs/sun3d/data/SUNRGBD"


def write(root: Path, train: int = 4, test: int = 2, size: tuple[int, int] = (64, 96)) -> None:
    """Test images come first in the toolbox's files, as in the real ones."""
    rng = np.random.default_rng(0)
    colors = np.array([(0, 0, 0), *SUNRGBD.labels.palette])
    maps = [blocks(rng, [0, 1, 2, 5, 37], size) for _ in range(test + train)]
    scenes = [f"kv2/kinect2data/{i:06d}_2014-05-26_rgbf{i:06d}-resize" for i in range(test + train)]
    images = [f"{scene}/image/{i:07d}.jpg" for i, scene in enumerate(scenes)]
    for image, ids in zip(images, maps, strict=True):
        write_image(root / "SUNRGBD" / image, noisy(rng, colors[ids]))
    toolbox = root / "SUNRGBDtoolbox"
    write_hdf5(toolbox / "Metadata/SUNRGBD2Dseg.mat", {}, {"SUNRGBD2Dseg/seglabel": maps})
    meta = np.zeros((1, len(images)), [("sequenceName", object), ("rgbpath", object)])
    for place, (scene, image) in enumerate(zip(scenes, images, strict=True)):
        meta[0, place] = (f"SUNRGBD/{scene}", f"{AUTHORS}/{image}")
    scipy.io.savemat(toolbox / "Metadata/SUNRGBDMeta.mat", {"SUNRGBDMeta": meta})
    (toolbox / "traintestSUNRGBD").mkdir()
    write_split(root, scenes[test:], scenes[:test])


def write_split(root: Path, train: list[str], test: list[str]) -> None:
    lists = {
        name: np.array([[f"{AUTHORS}/{scene}/" for scene in scenes]], object)
        for name, scenes in (("alltrain", train), ("alltest", test))
    }
    scipy.io.savemat(root / "SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat", lists)
