"""Every architecture that the folio holds, by discovery."""

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any

from segfolio import architectures as _architectures
from segfolio.layers.counting import parameters
from segfolio.layers.hollow import hollow


def architecture_classes() -> Iterator[Any]:
    """Every class with `variants` in a file under `architectures/`."""
    for module_info in pkgutil.walk_packages(_architectures.__path__, _architectures.__name__ + "."):
        yield from _classes(module_info.name)


def _classes(name: str) -> Iterator[Any]:
    module = importlib.import_module(name)
    for value in vars(module).values():
        if isinstance(value, type) and value.__module__ == module.__name__ and "variants" in vars(value):
            yield value


def architecture_rows(module: str) -> Iterator[tuple[str, ...]]:
    """Of every variant of a module's classes: name, paper, parameters at 21 classes, receptive field, stride, class
    path in the package."""
    for cls in _classes(module):
        for name, variant in cls.variants.items():
            with hollow():
                network = cls(21, **variant)
            field, stride = map(str, network.geometry()) if hasattr(network, "geometry") else ("-", "-")
            path = class_path(cls).removeprefix(_architectures.__name__ + ".")
            yield name, cls.paper, f"{parameters(network) / 1e6:.2f} M", field, stride, path


def class_path(cls: Any) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
