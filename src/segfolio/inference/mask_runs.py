"""`MaskRuns`: from the logits that a network that is prompted draws to run lengths at an image's own size.

The pixels are those of `EmbeddedImages.enlarge(logits) > 0`, which enlarges to the padded square and resizes what is
cut from it, but for rounding: the two steps are one sparse matrix for each direction, whose float32 weights are theirs.
Where there is no such square, the masks themselves stand for it.

Only the rows and columns in which a pixel can be on the object are computed, one mask after the other, so that no stack
of masks of the image's size is ever held.
"""

from typing import Self

import cv2
import numpy as np
import numpy.typing as npt
from scipy import sparse

from segfolio.data.formats.rle import RLE
from segfolio.data.sample import Size
from segfolio.inference.paste_masks import place
from segfolio.inference.prompting import EmbeddedImages

Floats = npt.NDArray[np.float32]


class MaskRuns:
    """Reads masks over what one image of an embedding shows.

    Args:
        cells: side of the masks.
        side: of the padded square, in pixels.
        fit: height and width of the image in it.
        size: height and width of the image itself.
        corner: where that lies in a larger one: its first row and its first column there.
        whole: height and width of the larger one, and of the result; `size` if not given.
    """

    def __init__(
        self, cells: int, side: int, fit: Size, size: Size, corner: Size = (0, 0), whole: Size | None = None
    ) -> None:
        self.y, self.x = (_Axis(cells, side, *lengths) for lengths in zip(fit, size, strict=True))
        self.corner, self.whole = corner, whole or size
        self._reach = np.ones((self.y.reach, self.x.reach), np.uint8)

    @classmethod
    def of(cls, embedded: EmbeddedImages, image: int, corner: Size = (0, 0), whole: Size | None = None) -> Self:
        network, cells = embedded.network, embedded.network.mask_size
        side, fit = (network.image_size, embedded.seen[image]) if network.through_square else (cells, (cells, cells))
        return cls(cells, side, fit, embedded.sizes[image], corner, whole)

    def runs(self, logits: Floats) -> RLE:
        """Where a mask `[cells, cells]` is above 0."""
        return self._placed(*self._near(logits, self._highest(logits) > -_slack(logits)))

    def stable(self, logits: Floats, offset: float, threshold: float, strict: bool) -> tuple[float, RLE] | None:
        """A mask that stays nearly the same where a pixel has to be above `offset`, or above `-offset`.

        Args:
            logits: `[cells, cells]`.
            threshold: of the stability, the pixels above `offset` as a part of those above `-offset`; 0 to take all.
            strict: whether the stability must be above the threshold, and not equal to it.

        Returns:
            Its stability, NaN where no pixel is above `-offset`, and its run lengths; None of one that is not stable.
        """
        slack, highest = _slack(logits), self._highest(logits)
        if threshold > 0:  # often what the cells say is enough: a pixel lies between the cells that it is read from
            lowest = cv2.erode(logits, self._reach, anchor=(0, 0))
            most, least = self._count(highest > offset - slack), self._count(lowest > slack - offset)
            if most < (threshold - 1e-6) * least:
                return None
        values, rows, columns = self._near(logits, highest > -offset - slack)
        inner, outer = (np.count_nonzero(values > level) for level in (offset, -offset))
        stability = np.float32(inner) / np.float32(outer) if outer else np.float32("nan")
        least_stability = np.float32(threshold)
        if threshold > 0 and not (stability > least_stability if strict else stability >= least_stability):
            return None
        return float(stability), self._placed(values, rows, columns)

    def _highest(self, logits: Floats) -> Floats:
        """Of the cells that a pixel can be read from, at the first of them."""
        return cv2.dilate(logits, self._reach, anchor=(0, 0))

    def _count(self, cells: npt.NDArray[np.bool_]) -> float:
        """The pixels that are read from some cells and those next to them."""
        return float(self.y.pixels_of @ (cells @ self.x.pixels_of))

    def _near(self, logits: Floats, cells: npt.NDArray[np.bool_]) -> tuple[Floats, slice, slice]:
        """The pixels of the rows and the columns of `cells`, `[columns, rows]` as runs go, and which these are."""
        rows, columns = self.y.pixels(cells.any(1)), self.x.pixels(cells.any(0))
        if rows.start == rows.stop:
            return np.zeros((0, 0), np.float32), rows, columns
        stretched = cv2.transpose(self.y.matrix[rows] @ logits)
        return self.x.matrix[columns] @ stretched, rows, columns

    def _placed(self, values: Floats, rows: slice, columns: slice) -> RLE:
        return place((values > 0).T, self.corner[0] + rows.start, self.corner[1] + columns.start, self.whole)


class _Axis:
    """From the cells of a mask to the pixels of an image, along one side.

    Attributes:
        matrix: `[pixels, cells]`, of each pixel the weights of the cells that it is read from.
        reach: how many cells in a row that is at most.
        pixels_of: `[cells]`, how many pixels have each as their first.
    """

    def __init__(self, cells: int, side: int, fit: int, pixels: int) -> None:
        self.matrix = _linear(fit, pixels) @ _linear(cells, side)[:fit]
        self.matrix.eliminate_zeros()
        self.matrix.sort_indices()
        starts = self.matrix.indptr
        self._first, last = self.matrix.indices[starts[:-1]], self.matrix.indices[starts[1:] - 1]
        self.reach = int((last - self._first).max()) + 1
        self.pixels_of = np.bincount(self._first, minlength=cells).astype(np.float64)

    def pixels(self, cells: npt.ArrayLike) -> slice:
        """From the first to the last that is read from one of `cells`, `[cells]`, as its first."""
        found = np.flatnonzero(cells)
        if not len(found):
            return slice(0, 0)
        return slice(*np.searchsorted(self._first, (found[0], found[-1] + 1)).tolist())


def _linear(before: int, after: int) -> sparse.csr_matrix:
    """`[after, before]`: linear interpolation with the weights that torch has, whose FMA rounds to float32 once."""
    scale = np.float64(np.float32(before) / np.float32(after))
    at = (scale * (np.arange(after) + 0.5) - 0.5).astype(np.float32).clip(min=0)
    low = at.astype(np.int64)
    weight = at - low.astype(np.float32)
    column = np.concatenate([low, np.minimum(low + 1, before - 1)])
    row = np.tile(np.arange(after), 2)
    return sparse.csr_matrix((np.concatenate([1 - weight, weight]), (row, column)), shape=(after, before))


def _slack(logits: Floats) -> float:
    """More than rounding can take a weighted mean beyond what it is the mean of."""
    return 1e-5 * float(np.abs(logits).max())
