"""LVIS v1 (Gupta et al., 2019, arXiv 1908.03195): objects of 1203 classes in the images of COCO 2017."""

from pathlib import Path
from typing import ClassVar

from segfolio.data.dataset import DatasetInfo, RemoteFile
from segfolio.data.datasets.coco_instances import IMAGES, CocoInstances
from segfolio.errors import SegfolioError

_SERVER = "https://s3-us-west-2.amazonaws.com/dl.fbaipublicfiles.com/LVIS"


class LVIS(CocoInstances):
    """The images of one annotation file and the objects in them, of classes most of which are rare.

    Classes are the file's categories by `name`, in the order of their ids. An image was searched for some of them
    alone: `Target.federated` says for which in vain, and of which not all objects are annotated, and evaluation goes by
    it (`metrics.FederatedMetric`). What is no object need not be background, and so there is no semantic map.

    Images are named by folder and number, as their `coco_url` has them. Some of val are from COCO's train2017: what
    learned COCO has seen them.

    Args:
        root: the folder of the annotation files.
        split: train or val; takes the place of `{split}` in `annotations`.
        annotations: the annotation file. If not given, lvis_v1_{split}.json in root or in annotations/.
        images: the folder that holds train2017/ and val2017/, root if not given.

    Raises:
        SegfolioError: an unknown split, a file that is missing or is none of LVIS v1, no folder of images.
    """

    usual: ClassVar[tuple[str, ...]] = ("lvis_v1_{split}.json", "annotations/lvis_v1_{split}.json")

    info = DatasetInfo(
        title="LVIS v1",
        url="https://www.lvisdataset.org",
        licence="annotations CC BY 4.0, images of Flickr under their own terms",
        splits={"train": 100170, "val": 19809},
        tasks=("instance",),
        layout="lvis_v1_{split}.json, and COCO's images train2017/*.jpg and val2017/*.jpg, of both in either split",
        disk="22 GB",
        files=(  # checksums as in tensorflow/datasets, datasets/lvis/checksums.tsv
            *IMAGES,
            RemoteFile(
                f"{_SERVER}/lvis_v1_train.json.zip",
                "sha256:334a4caa374030a7817cf050364525e910f7960f9b6968cef47cffbf3893f8ba",
            ),
            RemoteFile(
                f"{_SERVER}/lvis_v1_val.json.zip",
                "sha256:5cae9a3c79aadb667550c2b5dcf7f4d86e059a41ec91ef690225b667e28e9ba5",
            ),
        ),
    )

    def __init__(self, root: str | Path, split: str, annotations: str | None = None, images: str = ".") -> None:
        self.expect_split(split, self.info.splits)
        super().__init__(root, split, annotations, images)
        if said := self.file.not_federated:
            raise SegfolioError(
                f"{self.file.path}: {said}, as all have in LVIS v1's files; read another COCO file with CocoInstances"
            )
