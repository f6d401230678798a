#!/usr/bin/env bash
# lvis==0.5.3, pycocotools==2.0.11, numpy==2.4.6
#
# Behaviour: results without a detection, as a network has them at the start of its training or above a high threshold,
# are an IndexError of LVISResults in place of an AP of 0. Who evaluates while training has to ask first.
#
# Output seen:
#   no detection: IndexError: list index out of range
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

sys.modules["lvis.vis"] = SimpleNamespace(LVISVis=None)
from lvis import LVIS, LVISResults

truth = {
    "images": [{"id": 1, "height": 100, "width": 100, "neg_category_ids": [], "not_exhaustive_category_ids": []}],
    "categories": [{"id": 1, "name": "a", "frequency": "f"}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10], "area": 100}],
}
with open("truth.json", "w") as file:
    json.dump(truth, file)
try:
    LVISResults(LVIS("truth.json"), [])
    raise SystemExit("it takes no detections")
except IndexError as error:
    print(f"no detection: IndexError: {error}")
P
