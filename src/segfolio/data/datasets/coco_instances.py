"""COCO 2017 (Lin et al., 2014, arXiv 1405.0312), and whatever else is annotated in its format or in CVAT's."""

from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path, PurePosixPath
from typing import ClassVar

import torch
from torchvision.tv_tensors import Mask

from segfolio.data.checks.headers import FilePair, header_problems
from segfolio.data.checks.problems import Problem
from segfolio.data.checks.remembered import remembered_problems
from segfolio.data.dataset import DatasetInfo, RemoteFile, SegmentationDataset, files_by_id
from segfolio.data.formats import coco, coco_problems, cvat, rle
from segfolio.data.formats.coco_problems import problems
from segfolio.data.formats.images import read_image
from segfolio.data.image_space import Dtype, ImageSpace
from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Sample, Target, to_image
from segfolio.errors import SegfolioError
from segfolio.words import counted

_SERVER = "http://images.cocodataset.org"
USUAL = (  # COCO's own, those of exports for one's own data, Roboflow's
    "annotations/instances_{split}2017.json",
    "annotations/instances_{split}.json",
    "instances_{split}.json",
    "{split}/_annotations.coco.json",
)
IMAGES = (  # checksums as in tensorflow/datasets, url_checksums/coco.txt
    RemoteFile(
        f"{_SERVER}/zips/train2017.zip", "sha256:69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929"
    ),
    RemoteFile(
        f"{_SERVER}/zips/val2017.zip", "sha256:4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05"
    ),
)


class CocoInstances(SegmentationDataset):
    """The images of one annotation file and the objects in them, crowds included.

    Images without an object are kept; a file without annotations, as COCO's of test images, can be predicted. Classes
    are the file's categories in the order of their ids, all of them things. Masks are decoded when an image is read;
    objects that have a box alone are for networks that learn boxes alone. A file that says what each image was searched
    for, and how frequent each category is, as those of `LVIS` do, is evaluated by it.

    Args:
        root: the folder below which the files are.
        split: takes the place of `{split}` in `annotations` and `images`.
        annotations: the annotation file: COCO's JSON, or CVAT's XML (`formats.cvat`). If not given, the first of the
            `USUAL` ones that is there.
        images: the folder of the images. If not given, that of `.`, `images`, `{split}2017` and `{split}` which
            holds the first image that one of them has.
        background: the name of one more class, of the pixels outside all objects. With it there is a semantic
            map as well: of objects that overlap the smaller is on top, crowds are ignored.
        channels, dtype, value_range, shown: of the images, see `ImageSpace`: 8-bit RGB if not given.

    Raises:
        SegfolioError: a file that is missing, is no JSON, or lacks what a COCO file has; no folder of images; a
            `background` where objects have no masks, or where images were searched for some of the classes alone.
    """

    usual: ClassVar[tuple[str, ...]] = USUAL

    info = DatasetInfo(
        title="COCO",
        url="https://cocodataset.org",
        licence="annotations CC BY 4.0, images of Flickr under their own terms",
        splits={"train": 118287, "val": 5000},
        adjustable=True,
        tasks=("semantic", "instance"),
        layout="annotations/instances_{split}2017.json and {split}2017/*.jpg, or the names that the arguments give",
        disk="20 GB",
        files=(
            *IMAGES,
            RemoteFile(
                f"{_SERVER}/annotations/annotations_trainval2017.zip",
                "sha256:113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
            ),
        ),
    )

    def __init__(
        self,
        root: str | Path,
        split: str,
        annotations: str | None = None,
        images: str | None = None,
        background: str | None = None,
        channels: int = 3,
        dtype: Dtype = "uint8",
        value_range: tuple[float, float] | None = None,
        shown: Sequence[int] = (),
    ) -> None:
        names = [name.replace("{split}", split) for name in ([annotations] if annotations else self.usual)]
        found = next((name for name in names if root is not None and (Path(root) / name).is_file()), names[0])
        root = self.expect_files(root, found)
        self.file = coco.load(root / found)
        if background and self.file.not_federated is None:
            raise SegfolioError(
                f"{self.file.path}: images were searched for some of the classes alone, so that what is no object need "
                "not be background; leave out background"
            )
        self.labels = _label_space(self.file, background)
        self.image_space = ImageSpace(channels, dtype, value_range or (), tuple(shown))
        folders = [".", "images", f"{split}2017", split] if images is None else [images.replace("{split}", split)]
        self.folder, self._by_name = self._find_images(root, folders)
        if background and (said := self.without_masks()):
            raise SegfolioError(f"{said}; a semantic map is made of masks: leave out background")

    def _find_images(self, root: Path, folders: list[str]) -> tuple[Path, dict[str, Path]]:
        """The folder of the images; and its files by name where the annotations name them without a suffix."""
        for image in self.file.images:
            for folder in folders:
                if (root / folder / image.path).is_file():
                    return root / folder, {}
        if not any(PurePosixPath(image.path).suffix for image in self.file.images):
            names = {image.path for image in self.file.images}
            for folder in folders:
                found = files_by_id(root / folder)
                if names & found.keys():
                    return root / folder, found
        first = self.file.images[0].path if self.file.images else ""
        elsewhere = first.startswith("/") or ":" in first  # on another machine, as no file of this one
        do = "make their names relative to that folder" if elsewhere else "say in which folder they are (images)"
        raise SegfolioError(
            f"{self.file.path} names {counted(len(self.file.images), 'image')}, none of which is below {root} in "
            f"{' or '.join(folders)} (the first is {first}); {do}"
        )

    def __len__(self) -> int:
        return len(self.file.images)

    def image_id(self, index: int) -> str:
        return self.file.images[index].stem

    def image_number(self, index: int) -> int:
        return self.file.images[index].id

    def image_file(self, index: int) -> Path:
        path = self.file.images[index].path
        return self._by_name.get(path, self.folder / path)

    def without_masks(self) -> str | None:
        number, first = self.file.box_only
        if not number:
            return None
        annotations = counted(number, "annotation")
        return f"{self.file.path} has {annotations} without a segmentation, with a box alone (annotation {first})"

    def read(self, index: int) -> Sample:
        """Decode one image and its masks.

        Raises:
            SegfolioError: an image that cannot be decoded, a segmentation that is none; which one.
        """
        image = self.file.images[index]
        pixels = to_image(read_image(self.image_file(index), self.image_space))
        size = (pixels.shape[-2], pixels.shape[-1])
        segments = coco.segments(self.file, image, size, self.labels)
        semantic = None
        if self.labels.background:
            semantic = Mask(torch.from_numpy(coco.semantic(segments, self.labels)))
        searched = coco.federated(self.file, image, self.labels)
        target = Target(semantic, segments, ignore_index=self.labels.ignore_index, number=image.id, federated=searched)
        return Sample(pixels, image.stem, size, target)

    def files(self) -> Iterator[Path]:
        yield self.file.path
        yield from self._image_files()

    def _image_files(self) -> list[Path]:
        return [self.image_file(index) for index in range(len(self))]

    def problems(self) -> Iterator[Problem]:
        paths = self._image_files()
        pairs = [FilePair(image.stem, path, None) for image, path in zip(self.file.images, paths, strict=True)]
        yield from header_problems(pairs, self.image_space)
        read_by = map(Path, (coco.__file__, coco_problems.__file__, cvat.__file__, rle.__file__))
        files = [*read_by, self.file.path, *paths]
        yield from remembered_problems(str(self.folder), files, lambda: problems(self.file, paths))


def _label_space(file: coco.CocoFile, background: str | None) -> LabelSpace:
    names, ids = tuple(file.categories.values()), tuple(file.categories)
    if background:
        ids += (next(i for i in count() if i not in ids),)
    frequencies = tuple(file.frequencies.values()) if file.not_federated is None else ()
    try:
        return LabelSpace(
            names=(*names, background) if background else names,
            ids=ids,
            things=names,
            background=background,
            ignore_index=max(255, len(ids)),
            frequencies=frequencies,
        )
    except SegfolioError as error:
        raise SegfolioError(f"{file.path}, categories: {error}") from None
