"""`SegmentationDataset`: one split of one dataset, read and nothing else."""

import os
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torchvision.tv_tensors import Mask

from segfolio.data.checks.headers import FilePair, header_problems
from segfolio.data.checks.problems import Problem, raise_problems
from segfolio.data.formats.images import read_id_map, read_image
from segfolio.data.image_space import RGB, ImageSpace
from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Sample, Target, to_image
from segfolio.errors import SegfolioError
from segfolio.files import making_many
from segfolio.words import counted

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".npy")


@dataclass(frozen=True)
class RemoteFile:
    """A file that the publisher serves to everyone.

    Attributes:
        url: where it is.
        checksum: `md5:...` or `sha256:...`, as published.
        unpack: the folder below `root` that an archive is unpacked into; "" is `root`, None keeps the file as it is.
    """

    url: str
    checksum: str
    unpack: str | None = ""


@dataclass(frozen=True)
class DatasetInfo:
    """What `segfolio datasets` says of a dataset.

    Attributes:
        title: the name in papers.
        url: where it is described, and where its files come from.
        licence: in the publisher's words.
        splits: images of each split as published.
        adjustable: whether the dataset's arguments decide, and `splits` is their default.
        tasks: of semantic, instance, panoptic.
        layout: the files below `root`, in a line or two.
        disk: room that the files take, in words.
        files: what `segfolio download` fetches; without a published checksum a file is not among them.
        access: what needs a registration or a click: which files, from which page, to which folder.
    """

    title: str
    url: str
    licence: str
    splits: dict[str, int] = field(default_factory=dict)
    adjustable: bool = False
    tasks: tuple[str, ...] = ("semantic",)
    layout: str = ""
    disk: str = ""
    files: tuple[RemoteFile, ...] = ()
    access: str = ""


class UnknownSplit(SegfolioError):
    """A name that is none of a dataset's splits, whatever files there are."""


class SegmentationDataset(torch.utils.data.Dataset[Sample]):
    """One split of a dataset: where the files are, and how one becomes a `Sample`.

    A dataset is a subclass in a file of its own under `data/datasets/`. Its constructor takes
    `(root, split, ...)`, finds the files and raises `SegfolioError` where they are not as they should be;
    `read` parses one of them. Randomness, transforms and batches are the `DataModule`'s.

    Attributes:
        has_labels: False of images alone, of which `labels` are not to be asked.
        clips: of a split of videos the places of each clip's frames, in their order: a clip is drawn, augmented and
            evaluated as a whole. In training they may overlap; in evaluation each image is in one. None where every
            image is by itself.
    """

    info: DatasetInfo
    labels: LabelSpace
    has_labels: bool = True
    image_space: ImageSpace = RGB
    clips: Sequence[Sequence[int]] | None = None

    def __len__(self) -> int:
        raise NotImplementedError

    @property
    def clip_count(self) -> int:
        """What there is to be drawn: clips, or images that are by themselves."""
        return len(self) if self.clips is None else len(self.clips)

    def frames_of(self, clip: int, rng: np.random.Generator | None = None) -> Sequence[int]:
        """The places of a clip's frames; one of an image by itself.

        Args:
            rng: in training, where a dataset may draw some of them (8 of many, at a drawn stride); None in evaluation,
                which sees all.
        """
        return range(clip, clip + 1) if self.clips is None else self.clips[clip]

    def read(self, index: int) -> Sample:
        raise NotImplementedError

    def __getitem__(self, index: int) -> Sample:
        """Raises a `SegfolioError` of a segment whose class is none of the dataset's."""
        sample = self.read(index)
        if sample.target is not None and (segments := sample.target.segments) is not None:
            labels, count = segments.labels, self.labels.num_classes
            if len(wrong := labels[(labels < 0) | (labels >= count)]):
                raise SegfolioError(
                    f"{sample.image_id}: a segment has the class {int(wrong[0])}, expected 0 to {count - 1}; `read` "
                    "returns class indices, see LabelSpace.encode"
                )
        return sample

    def image_id(self, index: int) -> str | None:
        """That of `read`'s sample and of `problems`, where it is known without reading."""
        return None

    def image_number(self, index: int) -> int | None:
        """That of `read`'s target, where it is known without reading."""
        return None

    def image_file(self, index: int) -> Path | None:
        """That of an image, where it has one of its own."""
        return None

    def without_masks(self) -> str | None:
        """Where objects have a box and no mask: which file and how many of them, in words."""
        return None

    def files(self) -> Iterable[Path]:
        """All that the split is read from, in order; none where samples are drawn."""
        return ()

    def problems(self) -> Iterable[Problem]:
        """What is wrong with the files, as far as it shows without decoding an image."""
        return ()

    def check(self) -> None:
        """Before training: raise a `SegfolioError` of the `problems` that are fatal, warn of the others."""
        raise_problems(self.problems(), of=counted(len(self), "image"))

    def unlike_published(self, split: str) -> str | None:
        """Where this, the dataset's `split`, has another number of images than was published: both, in words."""
        if not hasattr(self, "info") or self.info.adjustable:
            return None
        if (published := self.info.splits.get(split, len(self))) == len(self):
            return None
        return f"{self.info.title} {split} has {counted(len(self), 'image')} here, {published} as published"

    def expect_split(self, split: str, splits: Collection[str]) -> None:
        """Raise an `UnknownSplit` for a split that is not one of `splits`."""
        if split not in splits:
            raise UnknownSplit(f"{self.info.title} has no split {split!r}; it has {listed(splits)}")

    def expect_files(self, root: str | Path | None, *names: str) -> Path:
        """The folder `root`, or a `SegfolioError` that says what it holds in place of the files `names`."""
        if root is None:
            raise SegfolioError(f"data.root is not set; expected the folder of {self.info.title}: {self.info.layout}")
        root = Path(root)
        if missing := [name for name in names if not (root / name).exists()]:
            found = listed(os.listdir(root)) if root.is_dir() else "no such folder"
            raise SegfolioError(
                f"{root} lacks {listed(missing)} of {self.info.title}: found {found}, expected "
                f"{self.info.layout}; see {self.info.url}"
            )
        return root


class PairedFiles(SegmentationDataset):
    """A dataset of image files with an id map beside each: the reading that CamVid, ISBI and users share.

    A subclass sets `labels` and fills `pairs`.
    """

    pairs: list[FilePair]

    def expect_pairs(self, source: Path) -> None:
        """Raise a `SegfolioError` if `pairs`, which `source` names, repeats an image or a file is missing."""
        self.expect_once(source)
        said = []
        for kind in ("image", "mask"):
            paths = filter(None, (getattr(pair, kind) for pair in self.pairs))
            if missing := [str(path) for path in paths if not os.path.isfile(path)]:
                said.append(f"{counted(len(missing), kind)} missing: {listed(missing, 3)}")
        if said:
            raise SegfolioError(f"{source}: {'; '.join(said)}; copy the data again")

    def pair_folders(self, images: Path, masks: Path) -> None:
        """Fill `pairs` with the JPEGs below one folder and the PNGs below another, by their names in either.

        Raises:
            SegfolioError: both are empty.
        """
        names = sorted(files_by_id(images, [".jpg"]).keys() | files_by_id(masks, [".png"]).keys())
        if not names:
            raise SegfolioError(f"{images} holds no image, expected {self.info.layout}")
        self.pairs = [FilePair(name, images / f"{name}.jpg", masks / f"{name}.png") for name in names]

    def expect_once(self, source: Path) -> None:
        """Raise a `SegfolioError` if `pairs`, which `source` names, repeats an image."""
        counts = Counter(pair.image_id for pair in self.pairs)
        if twice := [image_id for image_id, n in counts.items() if n > 1]:
            number = counted(len(twice), "image")
            raise SegfolioError(f"{source} names {number} twice: {listed(twice, 3)}; name each once")

    def __len__(self) -> int:
        return len(self.pairs)

    def image_id(self, index: int) -> str:
        return self.pairs[index].image_id

    def image_file(self, index: int) -> Path:
        return self.pairs[index].image

    def files(self) -> Iterable[Path]:
        return (path for pair in self.pairs for path in pair[1:] if path)

    def problems(self) -> Iterable[Problem]:
        return header_problems(self.pairs, self.image_space)

    def read(self, index: int) -> Sample:
        """Decode one pair.

        Raises:
            SegfolioError: a file that cannot be decoded, sizes that differ, an id outside the label space.
        """
        pair = self.pairs[index]
        image = to_image(read_image(pair.image, self.image_space))
        size = (image.shape[-2], image.shape[-1])
        if pair.mask is None:
            return Sample(image, pair.image_id, size)
        ids = self.read_ids(pair.mask)
        if ids.shape != size:
            raise SegfolioError(
                f"{pair.mask} is {ids.shape[1]}x{ids.shape[0]} pixels but its image {pair.image} is "
                f"{size[1]}x{size[0]}; an id map has the size of its image"
            )
        semantic = Mask(torch.from_numpy(self.labels.encode(ids, pair.mask)))
        return Sample(image, pair.image_id, size, Target(semantic, ignore_index=self.labels.ignore_index))

    def read_ids(self, path: Path) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
        """The ids of a pair's mask, `[H, W]`; a subclass whose masks are no PNGs of ids overrides it."""
        return read_id_map(path)


_OF_SYSTEMS = {"__MACOSX", "@eaDir", "$RECYCLE.BIN"}
"""Folders of their own in a user's: of macOS's archives, Synology's thumbnails, what Windows has thrown away."""


@making_many()
def files_by_id(folder: Path, suffixes: Collection[str] = IMAGE_SUFFIXES) -> dict[str, Path]:
    """The files below a folder in order, each under its relative path without suffix; what is hidden is left out, and
    what a system keeps beside them.

    Raises:
        SegfolioError: two files that differ in their suffix alone.
    """
    files: dict[str, Path] = {}
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = (name for name in folders if not name.startswith(".") and name not in _OF_SYSTEMS)
        below = Path(parent)
        prefix = "" if below == folder else f"{below.relative_to(folder).as_posix()}/"
        for name in names:
            stem, suffix = os.path.splitext(name)
            if suffix.lower() in suffixes and not name.startswith("."):
                key, path = prefix + stem, below / name
                if key in files:
                    raise SegfolioError(f"{files[key]} and {path} differ only in suffix; rename one")
                files[key] = path
    return dict(sorted(files.items()))


def held_out(names: Iterable[str], val_every: int, split: str) -> list[str]:
    """The names of `split` where every `val_every`th is for `val` and all others are not.

    Raises:
        SegfolioError: nothing would be left to train on.
    """
    if val_every < 2:
        raise SegfolioError(f"val_every is {val_every}, expected 2 or more")
    return [name for place, name in enumerate(names, 1) if (place % val_every == 0) == (split == "val")]


def listed(names: Iterable[str], most: int = 6) -> str:
    """`a, b, c`, cut after `most`, or `nothing`."""
    names = sorted(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more or "nothing"
