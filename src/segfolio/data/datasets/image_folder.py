"""Plain images, to be predicted or to be trained on without labels."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from segfolio.data.checks.headers import FilePair
from segfolio.data.dataset import IMAGE_SUFFIXES, DatasetInfo, PairedFiles, files_by_id, listed
from segfolio.data.formats.images import read_image
from segfolio.data.image_space import RGB, ImageSpace
from segfolio.data.labels import LabelSpace
from segfolio.errors import SegfolioError
from segfolio.words import counted


class ImageFolder(PairedFiles):
    """All images below a folder, in order, or one image file, without truth; an image's id is its relative path without
    suffix.

    Args:
        root: the folder or file; `{split}` in it stands for the split.
        labels: the label space of the network that will see them; None where it learns without labels.
        image_space: of the images that it has learned from.

    Raises:
        SegfolioError: no folder, no image in it, two images that differ in their suffix alone; a network that asks for
            labels where there are none.
    """

    info = DatasetInfo(
        title="a folder of images",
        url="",
        licence="yours",
        tasks=(),
        layout=f"images ({', '.join(IMAGE_SUFFIXES)}) in any folders",
    )

    def __init__(
        self, root: str | Path | None, split: str, labels: LabelSpace | None = None, image_space: ImageSpace = RGB
    ) -> None:
        if root is None:
            raise SegfolioError("data.root is not set; expected a folder of images")
        root = Path(str(root).replace("{split}", split))
        self._labels, self.has_labels, self.image_space = labels, labels is not None, image_space
        one = root.is_file() and root.suffix.lower() in IMAGE_SUFFIXES
        files = {root.stem: root} if one else files_by_id(root)
        self.pairs = [FilePair(image_id, path, None) for image_id, path in files.items()]
        if not self.pairs:
            kind = "it is no image" if root.is_file() else "there is no such folder"
            found = "there is no image in it" if root.is_dir() else kind
            raise SegfolioError(f"{root}: {found}; expected {self.info.layout}")

    @property
    def labels(self) -> LabelSpace:  # type: ignore[override]
        if self._labels is None:
            raise SegfolioError(
                "ImageFolder holds images without a truth, to be predicted by data.images or to be trained on without "
                "labels; to train with labels, to test and to inspect take a dataset with a truth, as MaskFolder or "
                "CocoInstances"
            )
        return self._labels

    def leave_out_unreadable(self) -> None:
        """Go on without the images that `check` would refuse or that cannot be decoded, and name them. All are decoded
        for it, in threads.

        Raises:
            SegfolioError: none is left.
        """
        fatal = {problem.image_id: f"{problem.where} ({problem.what})" for problem in self.problems() if problem.fatal}
        whole = [pair for pair in self.pairs if pair.image_id not in fatal]
        with ThreadPoolExecutor() as pool:
            faults = zip(whole, pool.map(self._fault, whole), strict=True)
            fatal |= {pair.image_id: fault for pair, fault in faults if fault}
        pairs = [pair for pair in whole if pair.image_id not in fatal]
        if not pairs:
            raise SegfolioError(f"none of {counted(len(self), 'image')} can be read: {listed(fatal.values(), 3)}")
        self.pairs = pairs
        if fatal:
            rank_zero_warn(f"{counted(len(fatal), 'image')} left out: {listed(fatal.values(), len(fatal))}")

    def _fault(self, pair: FilePair) -> str | None:
        try:
            read_image(pair.image, self.image_space)
        except SegfolioError as error:
            return str(error)
        return None
