"""Mapillary Vistas (Neuhold et al., 2017): street scenes from all over the world."""

from pathlib import Path
from typing import Any

from segfolio.data.checks.headers import FilePair
from segfolio.data.dataset import DatasetInfo, files_by_id
from segfolio.data.formats.coco import read_json
from segfolio.data.instance_maps import PairedInstances, read_packed
from segfolio.data.labels import LabelSpace
from segfolio.data.segments import Segments
from segfolio.errors import SegfolioError

_FOLDERS = {"train": "training", "val": "validation", "test": "testing"}
_KEYS = {"name": str, "color": list, "instances": bool, "evaluate": bool}


class MapillaryVistas(PairedInstances):
    """Images of many sizes, with the classes that the distribution's `config_<version>.json` lists.

    The classes that are not evaluated ("unlabeled") are void; those with instances are things. The archive of
    version 1 has `config.json` and no folders of versions; it is read as v1.2.

    Args:
        root: the folder that holds the config, `training`, `validation` and `testing`.
        split: train, val or test; the labels of the test images are not public.
        version: of the classes, v1.2 (65 that are evaluated) or v2.0 (more of them, finer).
        instances: False to read semantic maps alone.

    Raises:
        SegfolioError: an unknown split or version, another folder, a config that describes no classes, an image
            without its annotation.
    """

    info = DatasetInfo(
        title="Mapillary Vistas",
        url="https://www.mapillary.com/dataset/vistas",
        licence="research use, upon registration",
        splits={"train": 18000, "val": 2000, "test": 5000},
        tasks=("semantic", "instance", "panoptic"),
        layout=(
            "config_v1.2.json (or config.json), training/images/*.jpg and training/v1.2/{labels,instances}/*.png (or "
            "training/{labels,instances}), validation and testing likewise"
        ),
        disk="about 30 GB",
        access="Register at the page, then unpack the archive of the research edition into the root folder.",
    )

    def __init__(self, root: str | Path, split: str, version: str = "v1.2", instances: bool = True) -> None:
        self.expect_split(split, _FOLDERS)
        if version not in ("v1.2", "v2.0"):
            raise SegfolioError(f"version is {version!r}, expected v1.2 or v2.0")
        below = version
        if version == "v1.2" and root and not (Path(root) / "config_v1.2.json").exists():
            below = ""  # the archive of version 1
        config, folder = f"config_{below}.json" if below else "config.json", _FOLDERS[split]
        annotated = [] if split == "test" else [f"{folder}/{below}/labels".replace("//", "/")]
        root = self.expect_files(root, config, f"{folder}/images", *annotated)
        self.labels = label_space(read_json(root / config), root / config)
        images = files_by_id(root / folder / "images")
        if not images:
            raise SegfolioError(f"{root / folder / 'images'} holds no image, expected {self.info.layout}")
        truth = root / folder / below
        self.pairs = [
            FilePair(name, path, truth / "labels" / f"{name}.png" if annotated else None)
            for name, path in images.items()
        ]
        self.instance_maps = [truth / "instances" / f"{name}.png" for name in images] if annotated and instances else []
        self.expect_pairs(root / folder)

    def segments(self, path: Path) -> Segments:
        return read_packed(path, self.labels, zero_is_group=False)


def label_space(config: Any, source: Path) -> LabelSpace:
    """The classes of a config: a class's place in the list is its id in the files.

    Args:
        source: the file, for the error.

    Raises:
        SegfolioError: a config without a list of labels, or that no label space can hold.
    """
    found = config.get("labels") if isinstance(config, dict) else None
    if not isinstance(found, list) or not all(map(_is_label, found)):
        raise SegfolioError(
            f"{source} describes no classes, expected a list 'labels' of objects with name, color, instances and "
            "evaluate; copy the file of the distribution again"
        )
    classes = {number: label for number, label in enumerate(found) if label["evaluate"]}
    try:
        return LabelSpace(
            names=tuple(label["name"] for label in classes.values()),
            ids=tuple(classes),
            void_ids=tuple(set(range(len(found))) - set(classes)),
            things=tuple(label["name"] for label in classes.values() if label["instances"]),
            palette=tuple(tuple(label["color"]) for label in classes.values()),
        )
    except SegfolioError as error:
        raise SegfolioError(f"{source}: {error}") from None


def _is_label(label: Any) -> bool:
    return (
        isinstance(label, dict)
        and all(isinstance(label.get(key), kind) for key, kind in _KEYS.items())
        and all(type(value) is int for value in label["color"])
    )
