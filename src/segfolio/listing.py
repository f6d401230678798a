"""What the folio holds, by discovery: every architecture and every dataset."""

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any

from segfolio import architectures as _architectures
from segfolio.data import datasets as _datasets
from segfolio.data.dataset import SegmentationDataset
from segfolio.layers.hollow import hollow


def architecture_classes() -> Iterator[Any]:
    """Every class with `variants` in a file under `architectures/`."""
    for module_info in pkgutil.walk_packages(_architectures.__path__, _architectures.__name__ + "."):
        module = importlib.import_module(module_info.name)
        for value in vars(module).values():
            if isinstance(value, type) and value.__module__ == module.__name__ and "variants" in vars(value):
                yield value


def architecture_rows() -> Iterator[tuple[str, ...]]:
    """Of every variant: name, paper, parameters at 21 classes, receptive field, stride, class path in the package."""
    for cls in architecture_classes():
        for name, variant in cls.variants.items():
            with hollow():
                network = cls(21, **variant)
            parameters = sum(p.numel() for p in network.parameters())
            field, stride = map(str, network.geometry()) if hasattr(network, "geometry") else ("-", "-")
            path = class_path(cls).removeprefix(_architectures.__name__ + ".")
            yield name, cls.paper, f"{parameters / 1e6:.2f} M", field, stride, path


def class_path(cls: Any) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def dataset_classes() -> dict[str, type[SegmentationDataset]]:
    """The datasets that say what they are, by name."""
    classes = {name: getattr(_datasets, name) for name in _datasets.__all__}
    return {name: cls for name, cls in classes.items() if hasattr(cls, "info")}


def dataset_rows() -> Iterator[tuple[str, ...]]:
    """Of every dataset: name, classes, images, tasks, size on disk, how its files come; last, a note on all of it."""
    for name, cls in sorted(dataset_classes().items(), key=lambda item: item[0].lower()):
        info = cls.info
        classes = str(cls.labels.num_classes) if hasattr(cls, "labels") else "yours"
        splits = " / ".join(f"{split} {n}" for split, n in info.splits.items()) or "yours"
        files = "download" if info.files else "by hand" if info.access else "-"
        said = {
            "licence": info.licence,
            "from": info.url,
            "layout": info.layout,
            "get": f"segfolio download {name} --root DIR" if info.files else "",
            "access": info.access,
        }
        note = "\n".join([f"{name}: {info.title}", *(f"  {key}: {text}" for key, text in said.items() if text)])
        yield name, classes, splits, ", ".join(info.tasks), info.disk or "-", files, note
