"""Seconds until a dataset of 120,000 images is found and checked, at its first start and at every later one.

    python -m benchmarks.large_dataset

A folder of images and masks, and a COCO file with 7 objects per image as large as that of COCO's training set; the
files are hard links to a few tiny ones. Every start is a process of its own, imports are not counted. Seconds are of
the processor: other processes on the machine do not count.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from segfolio.data.formats.images import write_id_map, write_image

AIMS = {f"{name}, later start (s)": "< 3" for name in ("MaskFolder", "CocoInstances")}
IMAGES = 120_000
LINKS = 50_000  # file systems allow some 65,000 to one file

START = """if True:
    import sys, time
    from segfolio.data.datasets import CocoInstances, MaskFolder
    start = time.process_time()
    {"MaskFolder": MaskFolder, "CocoInstances": CocoInstances}[sys.argv[1]](sys.argv[2], "train").check()
    print(time.process_time() - start)
"""


def write_folder(root: Path) -> None:
    write_image(root / "image.jpg", np.zeros((48, 64, 3), np.uint8))
    write_id_map(root / "mask.png", np.zeros((48, 64), np.uint8))
    (root / "classes.yaml").write_text("names: [ground, tree]")
    for folder, source in (("images", root / "image.jpg"), ("masks", root / "mask.png")):
        place = root / folder / "train"
        place.mkdir(parents=True)
        for i in range(IMAGES):
            if i % LINKS == 0:
                (linked := root / f"{i}{source.suffix}").write_bytes(source.read_bytes())
            os.link(linked, place / f"{i:012d}{source.suffix}")


def write_coco(root: Path) -> None:
    """Of the images of `write_folder`."""
    rng = np.random.default_rng(0)
    names = [f"{i:012d}.jpg" for i in range(IMAGES)]
    images = [{"id": i, "file_name": name, "height": 48, "width": 64} for i, name in enumerate(names)]
    objects = []
    for _ in range(100):
        x, y = rng.uniform((0, 0), (40, 30)).round(2)
        angles = np.linspace(0, 2 * np.pi, 25, endpoint=False)
        polygon = (np.stack([x + 8 + 8 * np.cos(angles), y + 8 + 8 * np.sin(angles)], 1)).round(2).reshape(-1).tolist()
        box = [x, y, 16.0, 16.0]
        objects.append(json.dumps({"segmentation": [polygon], "bbox": box, "area": 200.0, "iscrowd": 0})[1:-1])
    order = rng.permutation(7 * IMAGES)  # as in COCO, an image's objects lie apart
    lines = (f'{{"id": {i}, "image_id": {i % IMAGES}, "category_id": 1, {objects[i % 100]}}}' for i in order.tolist())
    (root / "annotations").mkdir()
    with (root / "annotations" / "instances_train2017.json").open("w") as file:
        file.write(f'{{"images": {json.dumps(images)}, "categories": [{{"id": 1, "name": "a"}}], "annotations": [')
        file.write(",".join(lines) + "]}")
    (root / "train2017").symlink_to(root / "images" / "train")


def start(name: str, root: Path) -> float:
    environment = {**os.environ, "XDG_CACHE_HOME": str(root / "cache"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", START, name, str(root)]
    return float(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


def main() -> dict[str, float]:
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_folder(root)
        write_coco(root)
        for name in ("MaskFolder", "CocoInstances"):
            seconds[f"{name}, first start (s)"] = start(name, root)
            seconds[f"{name}, later start (s)"] = min(start(name, root) for _ in range(3))
    return seconds


if __name__ == "__main__":
    for name, value in main().items():
        print(f"{name}: {value:.2f} (aim {AIMS.get(name, 'none')})")
