"""What `segfolio prompt` leaves on disk."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from segfolio.data.formats import coco, rle
from segfolio.data.formats.images import write_id_map, write_image
from segfolio.data.labels import ANYTHING
from segfolio.data.sample import Instances, Prediction, Size
from segfolio.files import OutputFolder, write_atomically
from segfolio.inference.everything import Found
from segfolio.inference.interactive import Answer
from segfolio.viz.objects import object_colors
from segfolio.viz.overlay import Pixels, paint
from segfolio.viz.prompted import Asked, overlay_prompts
from segfolio.viz.views import stacked


def write_objects(folder: OutputFolder, name: str, image: Pixels, answers: Sequence[Answer]) -> list[dict[str, Any]]:
    """Of each object of an image, counted from 1, `masks/<image>_<object>.png`, 255 on it and 0 elsewhere; after a
    single click `candidates/<image>_<object>_<n>.png`, all that it can mean, in the order of `scores` in
    `prompts/<image>.json`; and `overlay/<image>.png`.

    Returns:
        The objects as COCO results.
    """
    for number, answer in enumerate(answers, 1):
        write_image(folder.path("masks", f"{name}_{number}.png"), _white(answer.mask))
        if len(answer.rles) > 1:
            for place, mask in enumerate(answer.candidates):
                write_image(folder.path("candidates", f"{name}_{number}_{place}.png"), _white(mask))
    asked = [
        {"object": n, "points": x.clicks, "box": x.box, "scores": x.scores, "chosen": x.chosen}
        for n, x in enumerate(answers, 1)
    ]
    write_atomically(folder.path("prompts", f"{name}.json"), (json.dumps(asked, indent=2) + "\n").encode())
    drawn = [Asked(x.rle, x.score, [(a + 0.5, b + 0.5, kind) for a, b, kind in x.clicks], x.box) for x in answers]
    write_image(folder.path("overlay", f"{name}.png"), overlay_prompts(image, drawn))
    scores = torch.tensor([x.score for x in answers])
    instances = Instances([x.rle for x in answers], torch.zeros(len(answers), dtype=torch.int64), scores)
    return _results(name, (image.shape[0], image.shape[1]), instances)


def write_everything(folder: OutputFolder, name: str, image: Pixels, found: Found) -> list[dict[str, Any]]:
    """`instances/<image>.png` of 16 bits, 1 for the first mask, 0 for none, of two that overlap the smaller is seen;
    and `overlay/<image>.png`.

    Returns:
        The masks as COCO results, in the same order, each with its stability and the point that was asked for it.
    """
    size = image.shape[0], image.shape[1]
    ids = stacked(found.rles, size)
    write_id_map(folder.path("instances", f"{name}.png"), ids.astype(np.uint16))
    colors = object_colors([0] * len(found.rles), ANYTHING)
    write_image(folder.path("overlay", f"{name}.png"), paint(image, ids, colors))
    results = _results(name, size, found.instances())
    points, stability = (found.points - 0.5).tolist(), found.stability.tolist()
    for result, point, value in zip(results, points, stability, strict=True):
        result |= {"point": point, "stability": value}
    return results


def _results(name: str, size: Size, instances: Instances) -> list[dict[str, Any]]:
    return coco.results(Prediction(name, size, instances=instances), name, ANYTHING)


def _white(mask: rle.Bools) -> Pixels:
    return np.where(mask, 255, 0).astype(np.uint8)[..., None]
