"""`LabelSpace`: the only place that knows class ids."""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt

from segfolio.errors import SegfolioError

Color = tuple[int, int, int]

FREQUENCIES = ("rare", "common", "frequent")
"""Classes that 1 to 10, 11 to 100, and more training images have (LVIS, arXiv 1908.03195)."""


class UnknownIds(SegfolioError):
    """Ids in a file that are neither class nor void.

    Attributes:
        pixels: of each id.
    """

    def __init__(
        self, source: object, ids: npt.NDArray[np.integer], counts: npt.NDArray[np.integer], labels: "LabelSpace"
    ) -> None:
        self.pixels = dict(zip(ids.tolist(), counts.tolist(), strict=True))
        super().__init__(
            f"{source}: label id {_ranges(list(self.pixels))} is not in the label space (classes "
            f"{_ranges(labels.ids)}; void {_ranges(labels.void_ids) or 'none'}); add the class, or list the id as void"
        )


@dataclass(frozen=True)
class LabelSpace:
    """Names, ids, kinds and colours of a dataset's classes.

    Inside the house a class is its position in `names`, 0 to C - 1, and a pixel without a class is
    `ignore_index`. The ids that the files use are translated once, at load (`encode`), and back when a
    prediction is written (`decode`).

    Args:
        names: class names, in class order.
        ids: the id of each class in the files; 0 to C - 1 if not given.
        void_ids: ids in the files that mean "no class": they become `ignore_index`.
        things: names of the countable classes; all others are stuff.
        background: name of the class that is no object of its own, if there is one.
        palette: one RGB colour per class; distinct colours are made if not given.
        ignore_index: value of a pixel without a class. It is at least C.
        frequencies: of each class one of `FREQUENCIES`, where the dataset is federated: images were searched for some
            of the classes alone, see `sample.Federated`.

    Raises:
        SegfolioError: names or ids that occur twice, unknown things, lengths that disagree, values out of
            range.
    """

    names: tuple[str, ...]
    ids: tuple[int, ...] = ()
    void_ids: tuple[int, ...] = ()
    things: tuple[str, ...] = ()
    background: str | None = None
    palette: tuple[Color, ...] = ()
    ignore_index: int = 255
    frequencies: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.names:
            raise SegfolioError("a label space needs at least one class name")
        _set = object.__setattr__  # frozen; lists become tuples, defaults follow `names`
        _set(self, "names", tuple(self.names))
        _set(self, "ids", tuple(self.ids) or tuple(range(self.num_classes)))
        _set(self, "void_ids", tuple(self.void_ids))
        _set(self, "things", tuple(self.things))
        _set(self, "palette", tuple(map(tuple, self.palette)) or distinct_colors(self.num_classes))
        _set(self, "frequencies", tuple(self.frequencies))
        for field in ("ids", "palette", *(["frequencies"] if self.frequencies else [])):
            if (n := len(getattr(self, field))) != self.num_classes:
                raise SegfolioError(f"the label space has {self.num_classes} names but {n} {field}")
        ids = self.ids + self.void_ids
        for field, values in (("name", self.names), ("id", ids)):
            if twice := sorted({str(v) for v in values if values.count(v) > 1}):
                raise SegfolioError(f"{field} {', '.join(twice)} occurs twice in the label space")
        named = {*self.things, *({self.background} if self.background else ())}
        if unknown := sorted(named - set(self.names)):
            raise SegfolioError(f"{', '.join(unknown)} is no class of the label space {list(self.names)}")
        if unknown := sorted(set(self.frequencies) - set(FREQUENCIES)):
            raise SegfolioError(f"a frequency of the label space is {unknown[0]!r}, expected {', '.join(FREQUENCIES)}")
        if self.ignore_index < self.num_classes:
            raise SegfolioError(
                f"ignore_index {self.ignore_index} is the index of {self.names[self.ignore_index]!r}; "
                f"with {self.num_classes} classes it is {self.num_classes} or more"
            )
        if min(ids) < 0 or max(*ids, self.ignore_index) > 0xFFFF:
            raise SegfolioError("the ids and ignore_index of a label space lie between 0 and 65535")
        for name, color in zip(self.names, self.palette, strict=True):
            if len(color) != 3 or not all(0 <= c <= 255 for c in color):
                raise SegfolioError(f"the colour of {name} is {list(color)}, expected three of 0 to 255")

    @property
    def num_classes(self) -> int:
        return len(self.names)

    @cached_property
    def is_thing(self) -> tuple[bool, ...]:
        return tuple(name in self.things for name in self.names)

    @property
    def dtype(self) -> type[np.uint8] | type[np.uint16]:
        """The type of an encoded map: the smallest that holds every index, `ignore_index` and one more."""
        return np.uint8 if max(self.ignore_index, self._unknown) <= 0xFF else np.uint16

    @property
    def _unknown(self) -> int:
        """A value that is neither a class nor `ignore_index`."""
        return self.num_classes + (self.ignore_index == self.num_classes)

    @cached_property
    def _table(self) -> npt.NDArray[np.integer]:
        table = np.full(0x10000, self._unknown, self.dtype)
        table[list(self.void_ids)] = self.ignore_index
        table[list(self.ids)] = np.arange(self.num_classes)
        return table

    def encode(self, ids: npt.NDArray[np.integer], source: object) -> npt.NDArray[np.integer]:
        """Ids as they are in a file to class indices, `[H, W]` of `dtype`.

        Args:
            ids: `[H, W]`, uint8 or uint16.
            source: the file, for the error.

        Raises:
            UnknownIds: an id that is neither a class nor void.
        """
        indices = cv2.LUT(ids, self._table[:0x100]) if ids.dtype == np.uint8 else np.take(self._table, ids)
        if (stray := indices == self._unknown).any():
            raise UnknownIds(source, *np.unique(ids[stray], return_counts=True), labels=self)
        return indices

    def decode(self, indices: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
        """Class indices to ids as the files use them, uint8 or uint16.

        `ignore_index` becomes the first void id; where there is none, itself or the first id that is free.
        """
        free = (i for i in (self.ignore_index, *range(0x10000)) if i not in self.ids)
        table = np.full(self.ignore_index + 1, self.void_ids[0] if self.void_ids else next(free))
        table[: self.num_classes] = self.ids
        return np.take(table.astype(np.uint8 if table.max() <= 0xFF else np.uint16), indices)

    def colors(self, void: Color = (0, 0, 0)) -> npt.NDArray[np.uint8]:
        """`[ignore_index + 1, 3]` RGB, to be indexed by a map of class indices."""
        table = np.full((self.ignore_index + 1, 3), void, np.uint8)
        table[: self.num_classes] = self.palette
        return table


def distinct_colors(n: int) -> tuple[Color, ...]:
    """`n` RGB colours, neighbours far apart: hues by the golden angle, three levels of brightness."""
    levels = ((0.65, 0.95), (0.85, 0.70), (0.45, 0.80))
    rgb = (colorsys.hsv_to_rgb(i * 0.61803398875 % 1.0, *levels[i % 3]) for i in range(n))
    return tuple((round(r * 255), round(g * 255), round(b * 255)) for r, g, b in rgb)


def _ranges(values: Sequence[int]) -> str:
    """`[0, 1, 2, 5]` -> `"0-2, 5"`."""
    parts: list[list[int]] = []
    for value in sorted(values):
        if parts and value == parts[-1][-1] + 1:
            parts[-1].append(value)
        else:
            parts.append([value])
    return ", ".join(f"{p[0]}-{p[-1]}" if len(p) > 2 else ", ".join(map(str, p)) for p in parts)


ANYTHING = LabelSpace(("object",), ids=(1,), things=("object",))
"""The one class of what is found without being named."""
