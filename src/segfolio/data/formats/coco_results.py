"""COCO's results files, read for their boxes (cocodataset.org/#format-results)."""

import math
from array import array
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segfolio.data.formats.coco import read_bytes, read_json
from segfolio.data.formats.json_outline import Irregular, outline
from segfolio.errors import SegfolioError

Rows = npt.NDArray[np.float64]


class ResultBoxes:
    """The boxes of a detector, by the numbers of their images.

    Entries are gone through one by one; of each, 56 bytes are kept.

    Args:
        path: a JSON file, a list of `{image_id, category_id, bbox, score}`; what else entries have, as masks, is passed
            over.
        images: the numbers that there are.
        categories: the ids that there are.

    Raises:
        SegfolioError: a file that is no such list; an entry that lacks one of the four, has a box or a score that is
            none, or is of an image or a category that there is not.
    """

    def __init__(self, path: Path, images: Collection[int], categories: Collection[int]) -> None:
        known = {"image_id": frozenset(images), "category_id": frozenset(categories)}
        values = array("d")

        def look(place: int, entry: Any) -> int:
            values.extend(_row(path, place, entry, known))
            return 0

        data = read_bytes(path)
        try:
            if not data.rstrip().endswith(b"]"):
                raise Irregular
            outline(b'{"results": %b}' % data, "results", look)
        except Irregular:
            if not isinstance(content := read_json(path), list):
                raise SegfolioError(
                    f"{path} holds a {type(content).__name__}, expected COCO's results, a list of detections"
                ) from None
            del values[:]
            for place, entry in enumerate(content):
                look(place, entry)
        rows = np.frombuffer(values, np.float64).reshape(-1, 7)
        rows = rows[np.lexsort((-rows[:, 2], rows[:, 0]))]
        self._images, self._rows = rows[:, 0], rows[:, 1:]

    def of(self, number: int) -> Rows:
        """Those of an image, `[N, 6]`: category id, score, x, y, width, height; the one that scores most first, of
        equals the one that comes first in the file."""
        low, high = np.searchsorted(self._images, (number, number + 1))
        return self._rows[low:high]


def _row(path: Path, place: int, entry: Any, known: Mapping[str, Collection[int]]) -> list[float]:
    where, entry = f"{path}: entry {place}", entry if isinstance(entry, dict) else {}
    for name, numbers in known.items():
        if name not in entry:
            raise SegfolioError(
                f"{where} has no {name!r}; COCO's results are a list of image_id, category_id, bbox and score"
            )
        if type(entry[name]) is not int or entry[name] not in numbers:
            raise SegfolioError(
                f"{where} has the {name} {str(entry[name])[:40]}, which the dataset does not know; take the boxes that "
                "were detected in this split, with its own ids"
            )
    score, box = entry.get("score"), entry.get("bbox")
    if not _finite(score):
        raise SegfolioError(f"{where} has the score {str(score)[:40]}, expected a number")
    if not (isinstance(box, list) and len(box) == 4 and all(map(_finite, box)) and min(box[2:]) >= 0):
        raise SegfolioError(f"{where} has the bbox {str(box)[:40]}, expected x, y, width, height in pixels")
    return [entry["image_id"], entry["category_id"], score, *box]


def _finite(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
