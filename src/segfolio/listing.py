"""What the folio holds: `segfolio architectures` and `segfolio datasets`."""

import importlib
import pkgutil
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from segfolio import architectures as _architectures
from segfolio.data import datasets as _datasets
from segfolio.data.dataset import SegmentationDataset
from segfolio.errors import SegfolioError
from segfolio.table import table


def architecture_classes() -> Iterator[Any]:
    """Every class with `variants` in a file under `architectures/`, by discovery."""
    for module_info in pkgutil.walk_packages(_architectures.__path__, _architectures.__name__ + "."):
        module = importlib.import_module(module_info.name)
        for value in vars(module).values():
            if isinstance(value, type) and value.__module__ == module.__name__ and "variants" in vars(value):
                yield value


def architectures(arguments: Sequence[str] = ()) -> str:
    """A table of every variant of every architecture, counted at 21 classes without allocating a weight."""
    _none_expected("architectures", arguments)
    rows = []
    for cls in architecture_classes():
        for name, variant in cls.variants.items():
            with torch.device("meta"):
                network = cls(21, **variant)
            parameters = sum(p.numel() for p in network.parameters())
            field, stride = network.geometry() if hasattr(network, "geometry") else ("-", "-")
            path = class_path(cls).removeprefix(_architectures.__name__ + ".")
            rows.append((name, cls.paper, f"{parameters / 1e6:.2f} M", field, stride, path))
    header = ("name", "paper", "parameters", "receptive field", "stride", "family.file.class")
    note = f"Parameters at 21 classes. class_path: {_architectures.__name__}.<family.file.class>"
    return f"{table(header, rows, right=(2, 3, 4))}\n\n{note}"


def class_path(cls: Any) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def dataset_classes() -> dict[str, type[SegmentationDataset]]:
    """The datasets that say what they are, by name."""
    classes = {name: getattr(_datasets, name) for name in _datasets.__all__}
    return {name: cls for name, cls in classes.items() if hasattr(cls, "info")}


def datasets(arguments: Sequence[str] = ()) -> str:
    """A table of every dataset; below it, where its files come from and are expected."""
    _none_expected("datasets", arguments)
    rows, notes = [], []
    for name, cls in sorted(dataset_classes().items(), key=lambda item: item[0].lower()):
        info = cls.info
        classes = cls.labels.num_classes if hasattr(cls, "labels") else "yours"
        splits = " / ".join(f"{split} {n}" for split, n in info.splits.items()) or "yours"
        files = "download" if info.files else "by hand" if info.access else "-"
        rows.append((name, classes, splits, ", ".join(info.tasks), info.disk or "-", files))
        said = {
            "licence": info.licence,
            "from": info.url,
            "layout": info.layout,
            "get": f"segfolio download {name} --root DIR" if info.files else "",
            "access": info.access,
        }
        notes.append("\n".join([f"{name}: {info.title}", *(f"  {key}: {text}" for key, text in said.items() if text)]))
    header = ("name", "classes", "images", "tasks", "disk", "files")
    return "\n\n".join((table(header, rows, right=(1, 4)), *notes))


def _none_expected(command: str, arguments: Sequence[str]) -> None:
    if arguments:
        raise SegfolioError(f"`segfolio {command}` takes no arguments, but got {' '.join(arguments)}")
