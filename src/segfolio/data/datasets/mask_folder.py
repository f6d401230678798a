"""A user's own images and masks."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segfolio.data.checks.headers import FilePair, header_problems
from segfolio.data.checks.problems import Problem
from segfolio.data.dataset import DatasetInfo, PairedFiles, files_by_id, listed
from segfolio.data.formats.colors import ColorTable, read_color_rows
from segfolio.data.image_space import Dtype, ImageSpace
from segfolio.data.labels import LabelSpace
from segfolio.errors import SegfolioError
from segfolio.files import making_many
from segfolio.yaml_file import read_yaml


class MaskFolder(PairedFiles):
    """Images with an id map of the same name beside each, and a file that names the classes.

    ```
    root/classes.yaml                 see `read_classes`
    root/images/train/a.jpg           root/masks/train/a.png
    root/images/val/street/b.jpg      root/masks/val/street/b.png
    ```

    Masks are grey or palette PNGs of class ids; or PNGs in colours, where the classes file is a table of colours, as
    `label_colors.txt` or `labelmap.txt` (see `read_color_rows`), or a YAML with a `palette` and the first mask is RGB.

    A split is a folder below `images/` and `masks/`. To split without moving files, as for cross-validation,
    list the paths below `images/`, without suffix, one per line in `root/splits/<split>.txt`; a list goes
    before a folder of that name.

    Args:
        split: the folder or the list.
        classes: the file that names the classes, below `root`; in a table of colours `void` is no class.
        channels, dtype, value_range, shown: of the images, see `ImageSpace`: 8-bit RGB if not given. `channels: 1`
            reads colour images as grey; satellite images of four bands may be `channels: 4, dtype: uint16,
            value_range: [0, 10000], shown: [2, 1, 0]`. Files are PNG or TIFF, of more than four channels TIFF or NPY.

    Raises:
        SegfolioError: another layout, an unknown split, images without mask or masks without image, a mistake
            in the classes file.
    """

    info = DatasetInfo(
        title="a folder of images and masks",
        url="the docstring of segfolio.data.datasets.MaskFolder",
        licence="yours",
        layout="classes.yaml or a table of colours, images/<split>/* and masks/<split>/*.png (or splits/<split>.txt)",
    )

    def __init__(
        self,
        root: str | Path,
        split: str,
        classes: str = "classes.yaml",
        channels: int = 3,
        dtype: Dtype = "uint8",
        value_range: tuple[float, float] | None = None,
        shown: Sequence[int] = (),
    ) -> None:
        root = self.expect_files(root, classes, "images", "masks")
        self.classes = root / classes
        self.labels = read_classes(self.classes)
        self.image_space = ImageSpace(channels, dtype, value_range or (), tuple(shown))
        lists = {path.stem: path for path in (root / "splits").glob("[!.]*.txt")}
        folders = {path.name for path in (root / "images").glob("[!.]*") if path.is_dir()}
        self.expect_split(split, lists.keys() | folders)
        below = "" if split in lists else split
        images = files_by_id(root / "images" / below)
        masks = files_by_id(root / "masks" / below, [".png"])
        if split in lists:
            wanted = [line.strip().replace("\\", "/") for line in lists[split].read_text().splitlines() if line.strip()]
        else:
            wanted = sorted(images.keys() | masks.keys())
        if not wanted:
            raise SegfolioError(f"{root}: the split {split!r} is empty, expected {self.info.layout}")
        said = [
            f"no {what} for {len(gaps)} of {len(wanted)}: {listed(gaps, 3)}"
            for what, files in (("image", images), ("PNG mask", masks))
            if (gaps := [image_id for image_id in wanted if image_id not in files])
        ]
        if said:
            raise SegfolioError(
                f"{root}, split {split!r}: {'; '.join(said)}; images and masks share a path below images/ "
                "and masks/, in lists without suffix"
            )
        with making_many():
            self.pairs = [FilePair(image_id, images[image_id], masks[image_id]) for image_id in wanted]
        self.expect_once(lists.get(split, root))
        self.colors = read_colors(self.classes, self.labels, masks[wanted[0]])

    def read_ids(self, path: Path) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
        return self.colors.read(path) if self.colors else super().read_ids(path)

    def files(self) -> Iterable[Path]:
        return [*([self.classes] if self.colors else []), *super().files()]  # what colours mean is data

    def problems(self) -> Iterable[Problem]:
        return header_problems(self.pairs, self.image_space, in_colors=self.colors is not None)


def read_classes(path: Path) -> LabelSpace:
    """The label space that a YAML file, or a table of colours, describes.

    ```yaml
    names: [road, car]              # of the ids 0, 1, ...; with other ids: `classes: {7: road, 26: car}`
    void: [255]                     # ids that mean "no class"; optional, as are the following
    things: [car]                   # countable classes
    background: road                # the class that is no object of its own
    palette: [[128, 64, 128], [0, 0, 142]]   # also the colours of masks in RGB
    void_colors: [[224, 224, 192]]           # those of "no class"
    ```

    Raises:
        SegfolioError: the file is no YAML, or which key in it is wrong and why.
    """
    if not _is_yaml(path):
        return _of_colors(path)
    content = read_yaml(path, ", ".join(_KEYS))
    for key, value in content.items():
        if key not in _KEYS:
            raise SegfolioError(f"{path}: unknown key {key!r}, expected {', '.join(_KEYS)}")
        expected, fits = _KEYS[key]
        if not fits(value):
            raise SegfolioError(f"{path}: {key} is {value!r}, expected {expected}")
    if ("names" in content) == ("classes" in content):
        raise SegfolioError(f"{path}: expected either names or classes, found {listed(content)}")
    classes = content.get("classes") or dict(enumerate(content["names"]))
    void = content.get("void") or [max(255, *classes) + 1] * bool(content.get("void_colors"))
    try:
        return LabelSpace(
            names=tuple(classes.values()),
            ids=tuple(classes),
            void_ids=tuple(void),
            things=tuple(content.get("things", ())),
            background=content.get("background"),
            palette=tuple(content.get("palette", ())),
            ignore_index=max(255, len(classes)),
        )
    except SegfolioError as error:
        raise SegfolioError(f"{path}: {error}") from None


def read_colors(path: Path, labels: LabelSpace, mask: Path) -> ColorTable | None:
    """What colours mean in the masks of which `mask` is one; None where they are ids."""
    if _is_yaml(path):
        content = read_yaml(path, ", ".join(_KEYS))
        if "palette" not in content or not _is_rgb(mask):
            return None
        void = content.get("void_colors", [])
    else:
        void = [color for name, color in read_color_rows(path).items() if name.lower() == _VOID]
    rows = zip([*labels.palette, *void], [*labels.ids, *labels.void_ids[:1] * len(void)], strict=True)
    return ColorTable.of(path, rows)


def _of_colors(path: Path) -> LabelSpace:
    found = read_color_rows(path)
    rows = {name: color for name, color in found.items() if name.lower() != _VOID}
    ignore_index = max(255, len(rows))
    try:
        return LabelSpace(
            names=tuple(rows),
            void_ids=(ignore_index,) if len(rows) < len(found) else (),
            palette=tuple(rows.values()),
            ignore_index=ignore_index,
        )
    except SegfolioError as error:
        raise SegfolioError(f"{path}: {error}") from None


_VOID = "void"
"""The class of a table of colours that is none."""


def _is_yaml(path: Path) -> bool:
    return path.suffix.lower() in (".yaml", ".yml")


def _is_rgb(path: Path) -> bool:
    with path.open("rb") as file:
        header = file.read(26)
    return header[25:] in (b"\2", b"\6")  # RGB and RGBA, PNG specification 11.2.2


def _are(kind: type, values: Any) -> bool:
    return isinstance(values, list) and all(type(v) is kind for v in values)  # True is an int as well


def _are_colors(values: Any) -> bool:
    return _are(list, values) and all(_are(int, color) and len(color) == 3 for color in values)


_COLORS = "a list of [red, green, blue]"
_TEXTS = "a list of texts; put yes, no, on, off and numbers in quotes"
_KEYS = {  # what is expected, and whether a value is that
    "names": (_TEXTS, lambda v: _are(str, v) and v),
    "classes": (
        "a mapping of ids to names, like {0: road, 1: car}; put yes, no, on, off and numbers in quotes",
        lambda v: isinstance(v, dict) and v and _are(int, list(v)) and _are(str, list(v.values())),
    ),
    "void": ("a list of ids", lambda v: _are(int, v)),
    "things": (_TEXTS, lambda v: _are(str, v)),
    "background": ("the name of a class", lambda v: isinstance(v, str)),
    "palette": (_COLORS, _are_colors),
    "void_colors": (_COLORS, _are_colors),
}
