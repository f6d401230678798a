"""What a split holds, as one number: equal for equal data wherever it lies."""

import hashlib
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from segfolio.data.checks.remembered import remembered, stamps
from segfolio.data.dataset import SegmentationDataset
from segfolio.data.remap import Remapped
from segfolio.data.sample import Target

_DRAWN = 4
"""Samples of a dataset without files that are looked at."""


def fingerprint(dataset: SegmentationDataset) -> str:
    """sha256 over a split: its classes, and of each image in order the id and the bytes of the files it is read from.

    A dataset without files is known by its class, its arguments and its first samples. Large files are read once;
    after that their paths, sizes and times answer (`segfolio.data.checks.remembered`).
    """
    if isinstance(dataset, Remapped):
        return _sha256([list(dataset.remap.items()), fingerprint(dataset.dataset)])
    classes = asdict(dataset.labels) if dataset.has_labels else {}
    labels = {k: v for k, v in classes.items() if k not in ("palette", "frequencies")}  # no data, or in the files
    files = list(dataset.files())
    if not files:
        return _sha256([labels, *_drawn(dataset)])
    ids = [dataset.image_id(i) for i in range(len(dataset))]

    def found() -> bytes:
        with ThreadPoolExecutor() as pool:
            return _sha256([labels, ids, list(pool.map(_content, files))]).encode()

    return remembered([labels, ids, stamps([Path(__file__), *files])], found).decode()


def _drawn(dataset: SegmentationDataset) -> Iterable[Any]:
    arguments = {k: v for k, v in vars(dataset).items() if isinstance(v, (int, float, str, tuple)) and k != "root"}
    yield f"{type(dataset).__module__}.{type(dataset).__qualname__}", len(dataset), arguments
    for i in range(min(_DRAWN, len(dataset))):
        sample = dataset[i]
        target = sample.target or Target()
        segments = target.segments
        parts = () if segments is None else (segments.masks, segments.labels, segments.crowd)
        tensors = [sample.image, target.semantic, *parts]
        yield sample.image_id, [None if t is None else _bytes_sha256(t.numpy().tobytes()) for t in tensors]


def _content(path: Path) -> str:
    return _bytes_sha256(path.read_bytes())


def _sha256(content: Any) -> str:
    return _bytes_sha256(json.dumps(content, sort_keys=True).encode())


def _bytes_sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
