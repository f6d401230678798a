"""Weights & Biases' images, with masks and boxes to switch on and off."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from segfolio.data.formats import rle
from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Prediction, Size, Target
from segfolio.viz.overlay import IGNORED, Pixels, fit, fit_map
from segfolio.viz.regions import Regions
from segfolio.viz.views import View

_OTHERS, _IGNORED = 254, 255  # W&B's masks have 8 bits


def switchable(
    image: Pixels,
    views: Sequence[View],
    prediction: Prediction,
    target: Target | None,
    labels: LabelSpace,
    max_width: int,
    min_score: float = 0.5,
) -> Any:
    """`wandb.Image` with the regions of each view as masks, and each object as a box with its class and score.

    W&B keeps one list of names per mask for the whole run. So a value is a class or a true region; what was found and
    is none of them shares one more value, as does what lies beyond 253.

    Args:
        image: `[H, W, 3]`, reduced to `max_width`; the masks have the same size, which keeps them aligned.
        min_score: of the predicted boxes.
    """
    import wandb

    height, width = image.shape[:2]
    scale = min(1.0, max_width / width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    masks: dict[str, Any] = {}
    for view in views:
        names = _names(view, labels)
        maps = {f"{view.name}_prediction": view.prediction, f"{view.name}_truth": view.truth}
        masks |= {key: _mask(regions, names, size) for key, regions in maps.items() if regions is not None}
    boxes = {}
    if found := prediction.instances:
        found = found.above(min_score)
        boxes["prediction"] = _boxes(found.rles, found.boxes, found.labels, prediction.size, labels, found.scores)
        if target and (truth := target.segments):
            boxes["truth"] = _boxes(truth.rles, truth.boxes, truth.labels, prediction.size, labels)
    return wandb.Image(fit(image, size), masks=masks, boxes=boxes or None, file_type="jpg")


def _names(view: View, labels: LabelSpace) -> dict[int, str]:
    """Of regions, those that are the same throughout a run."""
    if view.name == "semantic":
        return {number: labels.names[c] for number, c in enumerate(view.classes, 1)}
    captions = view.truth.captions if view.truth else {}
    return {number: f"{number} {texts[0]}" for number, texts in captions.items()}


def _mask(regions: Regions, names: dict[int, str], size: tuple[int, int]) -> dict[str, Any]:
    ids, last = fit_map(regions.ids, size), min(len(names) + 1, _OTHERS)
    values = np.where(ids == IGNORED, _IGNORED, np.minimum(ids, last))
    named = {number: name for number, name in names.items() if number < last}
    return {"mask_data": values, "class_labels": {**named, last: "others", _IGNORED: "ignored"}}


def _boxes(
    rles: Sequence[rle.RLE],
    boxes: Tensor | None,
    classes: Tensor,
    size: Size,
    labels: LabelSpace,
    scores: Tensor | None = None,
) -> dict[str, Any]:
    found = rle.boxes(rles) if boxes is None else boxes.cpu().double().numpy()
    corners = np.concatenate([found[:, :2], found[:, :2] + found[:, 2:]], 1) / (size[::-1] * 2)
    entries = []
    for i, (c, corner) in enumerate(zip(classes.tolist(), corners.tolist(), strict=True)):
        entry = {"position": dict(zip(("minX", "minY", "maxX", "maxY"), corner, strict=True)), "class_id": c}
        if scores is not None:
            entry |= {"box_caption": f"{labels.names[c]} {scores[i]:.2f}", "scores": {"score": float(scores[i])}}
        entries.append(entry)
    return {"box_data": entries, "class_labels": dict(enumerate(labels.names))}
