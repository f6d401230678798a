"""MATLAB files: those up to version 7 through SciPy, those of 7.3, which are HDF5, through h5py."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.io

from segfolio.errors import SegfolioError


def is_hdf5(path: Path) -> bool:
    """Whether a MATLAB file is of version 7.3; False of what cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(10) == b"MATLAB 7.3"
    except OSError:
        return False


def read_mat(path: Path, *names: str) -> dict[str, npt.NDArray[Any]]:
    """The variables `names` of a MATLAB file up to version 7.

    Raises:
        SegfolioError: a file that is missing, damaged or of version 7.3, or lacks a variable.
    """
    try:
        content = scipy.io.loadmat(path, variable_names=names)
    except NotImplementedError:
        raise SegfolioError(f"{path} is a MATLAB 7.3 file, expected an older version, as published") from None
    except Exception as error:  # SciPy raises all sorts on damage
        raise SegfolioError(
            f"{path} is missing or no whole MATLAB file ({type(error).__name__}); copy it again"
        ) from None
    _expect(path, [name for name in names if name not in content])
    return content


@contextmanager
def open_hdf5(path: Path, *names: str) -> Iterator[Any]:
    """A MATLAB file of version 7.3, open, with the variables `names` in it. Axes are in reverse order there.

    Raises:
        SegfolioError: no h5py, a file that is missing, damaged or of another version, or lacks a variable.
    """
    try:
        import h5py
    except ImportError:
        raise SegfolioError(f"{path} is read with h5py, which is not installed; run `pip install h5py`") from None
    try:
        file = h5py.File(path, "r")
    except OSError:
        raise SegfolioError(f"{path} is missing or no whole MATLAB 7.3 file (HDF5); copy it again") from None
    with file:
        _expect(path, [name for name in names if name not in file])
        yield file


def as_ids(values: Any, source: object) -> npt.NDArray[np.uint16]:
    """`[H, W]` class ids of whatever number type MATLAB stored.

    Raises:
        SegfolioError: values that are no whole numbers of 0 to 65535.
    """
    ids = np.asarray(values)
    if ids.dtype.kind not in "uif" or not np.array_equal(found := ids.astype(np.uint16), ids):
        raise SegfolioError(f"{source} holds values that are no class ids, expected whole numbers of 0 to 65535")
    return np.ascontiguousarray(found)


def _expect(path: Path, missing: list[str]) -> None:
    if missing:
        raise SegfolioError(f"{path} lacks the variable {', '.join(missing)}; expected the file as published")
