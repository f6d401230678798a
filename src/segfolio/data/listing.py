"""Every dataset that the folio holds, by discovery."""

from collections.abc import Iterator

from segfolio.data import datasets as _datasets
from segfolio.data.dataset import SegmentationDataset
from segfolio.data.labels import LabelSpace


def dataset_classes() -> dict[str, type[SegmentationDataset]]:
    """The datasets that say what they are, by name."""
    classes = {name: getattr(_datasets, name) for name in _datasets.__all__}
    return {name: cls for name, cls in classes.items() if hasattr(cls, "info")}


def dataset_rows() -> Iterator[tuple[str, ...]]:
    """Of every dataset: name, classes, images, tasks, size on disk, how its files come; last, a note on all of it."""
    for name, cls in sorted(dataset_classes().items(), key=lambda item: item[0].lower()):
        info = cls.info
        labels = getattr(cls, "labels", None)  # of some each object has its own
        classes = str(labels.num_classes) if isinstance(labels, LabelSpace) else "yours"
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
