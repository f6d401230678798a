"""Masks in colours, as RGB exports have them, and the tables that say which colour is which class."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from segfolio.data.formats.images import read_image
from segfolio.data.labels import Color
from segfolio.errors import SegfolioError

_NUMBERS = r"(\d+)[\s,;]+(\d+)[\s,;]+(\d+)"
_ROWS = (
    re.compile(rf"{_NUMBERS}[\s,;]+(?P<name>\S.*)"),  # 64 128 64	Animal
    re.compile(rf"(?P<name>\S.*?)\s*[\s:,;]\s*{_NUMBERS}\s*([:,;].*)?"),  # car:128,128,128:: and car,128,128,128
)


class ColorTable(NamedTuple):
    """What each colour of a mask means.

    Attributes:
        source: the file that says so.
        colors: `[N]` uint32, red, green and blue as one number, rising.
        ids: `[N]` uint16, the class id or void id of each.
    """

    source: Path
    colors: npt.NDArray[np.uint32]
    ids: npt.NDArray[np.uint16]

    @classmethod
    def of(cls, source: Path, rows: Iterable[tuple[Color, int]]) -> "ColorTable":
        """From colours and their ids.

        Raises:
            SegfolioError: a colour with two meanings.
        """
        table: dict[int, int] = {}
        for color, number in rows:
            red, green, blue = color
            if table.setdefault(red << 16 | green << 8 | blue, number) != number:
                raise SegfolioError(f"{source}: the colour {tuple(color)} is given to two classes; give each its own")
        keys = sorted(table)
        return cls(source, np.array(keys, np.uint32), np.array([table[key] for key in keys], np.uint16))

    def read(self, path: Path) -> npt.NDArray[np.uint16]:
        """The ids `[H, W]` of a mask in colours; a palette's indices are not looked at.

        Raises:
            SegfolioError: a file that cannot be decoded, a colour that the table lacks: the first pixel that has one.
        """
        pixels = read_image(path).astype(np.uint32)
        packed = pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]
        places = np.searchsorted(self.colors, packed).clip(max=len(self.colors) - 1)
        if (strange := self.colors[places] != packed).any():
            y, x = (int(place[0]) for place in np.nonzero(strange))
            raise SegfolioError(
                f"{path}: the pixel in row {y}, column {x} has the colour {tuple(pixels[y, x].tolist())}, which "
                f"{self.source} does not name ({int(strange.sum())} of {strange.size} pixels have such); add it there"
            )
        return self.ids[places]


def read_color_rows(path: Path) -> dict[str, Color]:
    """The names and colours of a text file, in its order, one class a line.

    `label_colors.txt` (CamVid) has `64 128 64 Animal`, `labelmap.txt` (CVAT) `car:128,128,128::`, `class_dict.csv`
    `car,128,128,128` below a line that names the columns. Lines that begin with # are left out.

    Raises:
        SegfolioError: a file that cannot be read, a line that is none of these, a name twice, no class.
    """
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SegfolioError(f"{path} cannot be read as text: {error}") from None
    numbered = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    rows: dict[str, Color] = {}
    for place, (number, line) in enumerate((n, line) for n, line in numbered if not line.startswith("#")):
        match = next(filter(None, (row.fullmatch(line) for row in _ROWS)), None)
        if match is None:
            if place == 0 and not re.search(r"\d", line):
                continue  # the names of the columns
            raise SegfolioError(
                f"{path}, line {number}: {line[:60]!r} is no class and colour; expected 64 128 64 name, name:64,128,64 "
                "or name,64,128,64"
            )
        red, green, blue = (int(group) for group in match.groups() if group and group.isdecimal())
        name = match["name"].strip()
        if name in rows:
            raise SegfolioError(f"{path}, line {number}: the class {name!r} occurs twice; name each once")
        rows[name] = red, green, blue
    if not rows:
        raise SegfolioError(f"{path} names no class; expected lines as 64 128 64 name or name:64,128,64")
    return rows
