"""Plain images, to be predicted."""

from pathlib import Path

from segfolio.data.checks.headers import FilePair
from segfolio.data.dataset import IMAGE_SUFFIXES, DatasetInfo, PairedFiles, files_by_id
from segfolio.data.image_space import RGB, ImageSpace
from segfolio.data.labels import LabelSpace
from segfolio.errors import SegfolioError


class ImageFolder(PairedFiles):
    """All images below a folder, in order, without truth; an image's id is its relative path without suffix.

    Args:
        labels: the label space of the network that will see them.
        image_space: of the images that it has learned from.

    Raises:
        SegfolioError: no folder, no image in it, two images that differ in their suffix alone; a split in place of
            the label space.
    """

    info = DatasetInfo(
        title="a folder of images",
        url="",
        licence="yours",
        tasks=(),
        layout=f"images ({', '.join(IMAGE_SUFFIXES)}) in any folders",
    )

    def __init__(self, root: str | Path, labels: LabelSpace, image_space: ImageSpace = RGB) -> None:
        if not isinstance(labels, LabelSpace):
            raise SegfolioError(
                "ImageFolder holds images without a truth, to be predicted by data.images; to train, to test and to "
                "inspect take a dataset with a truth, as MaskFolder or CocoInstances"
            )
        root = Path(root)
        self.labels, self.image_space = labels, image_space
        self.pairs = [FilePair(image_id, path, None) for image_id, path in files_by_id(root).items()]
        if not self.pairs:
            found = "there is no image in it" if root.is_dir() else "there is no such folder"
            raise SegfolioError(f"{root}: {found}; expected {self.info.layout}")
