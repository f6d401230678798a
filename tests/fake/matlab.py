"""MATLAB files of version 7.3: HDF5 behind a header of 512 bytes, axes reversed, cells as references."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

Cells = Iterable[np.ndarray]


def write_hdf5(path: Path, variables: Mapping[str, np.ndarray], cells: Mapping[str, Cells] | None = None) -> None:
    """Variables in MATLAB's order of axes; under the names of `cells`, columns of references to arrays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, value in variables.items():
            file[name] = value.T
        for name, column in (cells or {}).items():
            refs: list[Any] = []
            for place, value in enumerate(column):
                file[f"#refs#/{place}"] = value.T
                refs.append([file[f"#refs#/{place}"].ref])
            file.create_dataset(name, data=np.array(refs, dtype=object), dtype=h5py.ref_dtype)
    with path.open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")
