"""KITTI semantic and instance segmentation 2015 (Alhaija et al., 2018): 200 labelled street scenes."""

from itertools import zip_longest
from pathlib import Path

from segfolio.data.checks.headers import FilePair
from segfolio.data.dataset import DatasetInfo, files_by_id, held_out
from segfolio.data.datasets.cityscapes import Cityscapes
from segfolio.data.instance_maps import PairedInstances, read_packed
from segfolio.data.segments import Segments
from segfolio.errors import SegfolioError


class KITTI(PairedInstances):
    """Images of about 1242x375, labelled with the ids of Cityscapes; the labels of the test images are not public.

    The benchmark has no validation split: of the labelled images in order every `val_every`th is for validation,
    all others train. What the files say is no instance, among things, is a crowd.

    Args:
        root: the folder that holds `training` and `testing`.
        split: train, val, trainval or test.
        val_every: 5 holds out the fifth, the tenth, ... image.
        instances: False to read semantic maps alone.

    Raises:
        SegfolioError: an unknown split, another folder, an image without its annotation.
    """

    info = DatasetInfo(
        title="KITTI segmentation",
        url="https://www.cvlibs.net/datasets/kitti/eval_semseg.php?benchmark=semantics2015",
        licence="CC BY-NC-SA 3.0",
        splits={"train": 160, "val": 40, "trainval": 200, "test": 200},
        adjustable=True,
        tasks=("semantic", "instance", "panoptic"),
        layout="training/{image_2,semantic,instance}/*.png and testing/image_2/*.png",
        disk="0.4 GB",
        access="Log in at the page, then unpack data_semantics.zip (314 MB) into the root folder.",
    )
    labels = Cityscapes.labels

    def __init__(self, root: str | Path, split: str, val_every: int = 5, instances: bool = True) -> None:
        self.expect_split(split, self.info.splits)
        below = "testing" if split == "test" else "training"
        maps = [] if split == "test" else ["semantic", "instance"][: 1 + instances]
        root = self.expect_files(root, f"{below}/image_2", *(f"{below}/{kind}" for kind in maps))
        folder = root / below
        images = files_by_id(folder / "image_2", [".png"])
        part = held_out(images, val_every, split)
        names = list(images) if split in ("test", "trainval") else part
        if not names:
            raise SegfolioError(f"{folder / 'image_2'} holds {len(images)} images, of which none is for {split}")
        masks, self.instance_maps = (
            [folder / kind / f"{name}.png" for name in names] if kind in maps else []
            for kind in ("semantic", "instance")
        )
        self.pairs = [FilePair(name, images[name], mask) for name, mask in zip_longest(names, masks)]
        self.expect_pairs(folder)

    def segments(self, path: Path) -> Segments:
        return read_packed(path, self.labels, zero_is_group=True)
