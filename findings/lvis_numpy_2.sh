#!/usr/bin/env bash
# lvis==0.5.3, pycocotools==2.0.11, numpy==2.4.6
#
# Behaviour: the newest lvis on the package index (2020) declares numpy >= 1.18.2 and evaluates with none of today: its
# accumulation asks for np.float, which numpy dropped in 1.24. Nor does it declare pycocotools, without which it cannot
# be imported.
#
# Output seen:
#   declares pycocotools: False; numpy as numpy >=1.18.2
#   evaluation: AttributeError: module 'numpy' has no attribute 'float'.
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
from importlib.metadata import requires
from types import SimpleNamespace

sys.modules["lvis.vis"] = SimpleNamespace(LVISVis=None)
from lvis import LVIS, LVISEval, LVISResults

needed = requires("lvis")
declared = any(name.startswith("pycocotools") for name in needed)
(of_numpy,) = (name for name in needed if name.startswith("numpy"))
print(f"declares pycocotools: {declared}; numpy as {of_numpy.replace('(', '').replace(')', '')}")
box = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10]}
truth = {
    "images": [{"id": 1, "height": 100, "width": 100, "neg_category_ids": [], "not_exhaustive_category_ids": []}],
    "categories": [{"id": 1, "name": "a", "frequency": "f"}],
    "annotations": [{**box, "id": 1, "area": 100}],
}
with open("truth.json", "w") as file:
    json.dump(truth, file)
annotations = LVIS("truth.json")
try:
    LVISEval(annotations, LVISResults(annotations, [{**box, "score": 0.9}]), "bbox").run()
    raise SystemExit("it evaluates")
except AttributeError as error:
    said = str(error).splitlines()[0]
print(f"evaluation: AttributeError: {said}")
raise SystemExit(declared or "'float'" not in said)
P
