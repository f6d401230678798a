"""What a split holds, as one number: equal for equal data wherever it lies."""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from segfolio.data.dataset import PairedFiles, SegmentationDataset

_DRAWN = 4
"""Samples of a dataset without files that are looked at."""


def fingerprint(dataset: SegmentationDataset) -> str:
    """sha256 over a split: its classes, and of each image in order the id and the bytes of image and id map.

    A dataset without files is known by its class, its arguments and its first samples. Files are read once;
    after that their paths, sizes and times answer, from `$XDG_CACHE_HOME/segfolio` (`~/.cache/segfolio`).
    """
    labels = {k: v for k, v in asdict(dataset.labels).items() if k != "palette"}  # colours are no data
    if not isinstance(dataset, PairedFiles):
        return _sha256([labels, *_drawn(dataset)])
    pairs = dataset.pairs
    files = list(dict.fromkeys(path for pair in pairs for path in pair[1:] if path))
    known = _cache() / _sha256([labels, [pair.image_id for pair in pairs], _stamps(files)])
    if known.exists():
        return known.read_text()
    with ThreadPoolExecutor() as pool:
        content: dict[Path | None, str | None] = dict(zip(files, pool.map(_content, files), strict=True))
    found = _sha256([labels, [(p.image_id, content[p.image], content.get(p.mask)) for p in pairs]])
    _keep(known, found)
    return found


def _drawn(dataset: SegmentationDataset) -> Iterable[Any]:
    arguments = {k: v for k, v in vars(dataset).items() if isinstance(v, (int, float, str, tuple)) and k != "root"}
    yield f"{type(dataset).__module__}.{type(dataset).__qualname__}", len(dataset), arguments
    for i in range(min(_DRAWN, len(dataset))):
        sample = dataset[i]
        maps = [sample.image, *([sample.target.semantic] if sample.target else [])]
        yield sample.image_id, [hashlib.sha256(m.numpy().tobytes()).hexdigest() for m in maps if m is not None]


def _stamps(files: Sequence[Path]) -> list[tuple[str, int, int, int]]:
    """Path, size and times; the time of the last change of state sees what keeps the other, as `cp -p` does."""
    stats = ((path, path.stat()) for path in files)
    return [(os.path.abspath(path), s.st_size, s.st_mtime_ns, s.st_ctime_ns) for path, s in stats]


def _content(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sha256(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "segfolio" / "fingerprints"


def _keep(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"{path.name}.{os.getpid()}")
        unfinished.write_text(text)
        os.replace(unfinished, path)
    except OSError:  # no room to remember: read again next time
        pass
