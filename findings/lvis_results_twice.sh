#!/usr/bin/env bash
# lvis==0.5.3, pycocotools==2.0.11, numpy==2.4.6 (with np.float put back, see lvis_numpy_2.sh)
#
# Behaviour: LVISResults writes into the detections that it is given: to those of masks it adds box, area and id. A second
# LVISResults of the same list then finds boxes, and takes the area of the box for that of the mask. Who evaluates a list
# of masks twice (a second metric, another max_dets) gets other figures by size the second time, without a word. The same
# happens the first time where results hold both masks and boxes. Evaluate a copy, and leave out the boxes.
#
# Output seen:
#   the same masks, evaluated twice: APs 0.5, then 1.0
set -euo pipefail
PINNED="lvis==0.5.3 pycocotools==2.0.11 numpy==2.4.6"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-deps $PINNED # without opencv and matplotlib, which only its drawing needs
cd "$folder"
"$folder/venv/bin/python" - <<'P'
import json
import sys
from types import SimpleNamespace

import numpy as np
import pycocotools.mask as coco

np.float = float
sys.modules["lvis.vis"] = SimpleNamespace(LVISVis=None)
from lvis import LVIS, LVISEval, LVISResults


def mask(*boxes: tuple[int, int, int, int]) -> dict:
    pixels = np.zeros((100, 100), np.uint8, order="F")
    for top, left, bottom, right in boxes:
        pixels[top:bottom, left:right] = 1
    code = coco.encode(pixels)
    return {"size": code["size"], "counts": code["counts"].decode()}


square = mask((0, 0, 10, 10))
bars = mask((20, 20, 80, 24), (20, 76, 80, 80))  # 480 pixels, in a box of 3,600
truth = {
    "images": [{"id": 1, "height": 100, "width": 100, "neg_category_ids": [], "not_exhaustive_category_ids": []}],
    "categories": [{"id": 1, "name": "a", "frequency": "f"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "segmentation": square, "bbox": [0, 0, 10, 10], "area": 100}
    ],
}
found = [
    {"image_id": 1, "category_id": 1, "segmentation": region, "score": score}
    for region, score in ((bars, 0.9), (square, 0.8))
]
with open("truth.json", "w") as file:
    json.dump(truth, file)
small = []
for _ in range(2):
    annotations = LVIS("truth.json")
    evaluation = LVISEval(annotations, LVISResults(annotations, found), "segm")
    evaluation.run()
    small.append(round(float(evaluation.results["APs"]), 3))
print(f"the same masks, evaluated twice: APs {small[0]}, then {small[1]}")
raise SystemExit(small != [0.5, 1.0])
P
