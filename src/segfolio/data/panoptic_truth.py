"""`panoptic_truth`: what panoptic evaluation compares with, whichever annotation a dataset has."""

from collections.abc import Iterator

import numpy as np
import torch

from segfolio.data.checks.problems import Problem
from segfolio.data.formats import rle
from segfolio.data.formats.panoptic import runs
from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Target
from segfolio.data.segments import Segments, is_id_map


def panoptic_truth(target: Target, labels: LabelSpace) -> Segments:
    """The segments of an image that do not overlap, things and stuff, as an id map.

    Segments among which is stuff, or beside which there is no semantic map, are the truth as they are. Where they
    are things alone, each stuff class that the semantic map has outside them is one segment more; pixels of a
    thing class outside them are void. Of segments that overlap the later is seen; one that no pixel is left of
    is dropped.

    Raises:
        ValueError: neither segments nor a semantic map.
    """
    segments, semantic = target.segments, target.semantic
    if segments is None:
        if semantic is None:
            raise ValueError("panoptic truth is derived from segments or a semantic map; this dataset has neither")
        none = torch.zeros(0, dtype=torch.int64)
        segments = Segments(torch.zeros(semantic.shape, dtype=torch.int32), none, none.bool())
    ids, classes, crowd = segments.id_map.cpu(), segments.labels.cpu(), segments.crowd.cpu()
    tracks = None if segments.tracks is None else segments.tracks.cpu()

    stuff = torch.tensor(labels.is_thing).logical_not().nonzero()[:, 0]
    if semantic is not None and not torch.isin(classes, stuff).any():
        table = np.zeros(labels.ignore_index + 1, np.int32)
        table[stuff.numpy()] = len(classes) + 1 + np.arange(len(stuff))
        ids = torch.from_numpy(np.where(ids.numpy() == 0, table[semantic.cpu().numpy()], ids.numpy()))
        classes, crowd = torch.cat([classes, stuff]), torch.cat([crowd, torch.zeros(len(stuff), dtype=torch.bool)])
        tracks = None if tracks is None else torch.cat([tracks, torch.full((len(stuff),), -1)])

    truth, flat = Segments(ids, classes, crowd, tracks=tracks), ids.numpy().reshape(-1)
    seen = np.bincount(flat[runs(ids.numpy())[0]], minlength=len(classes) + 1)[1:] > 0
    return truth if seen.all() else truth[torch.from_numpy(seen)]


def panoptic_losses(target: Target, labels: LabelSpace, where: str) -> Iterator[Problem]:
    """What `panoptic_truth` cannot keep of an image: remarks, as training goes on without it.

    Args:
        where: the image.
    """
    segments, semantic = target.segments, target.semantic
    if segments is None:
        return
    seen = segments.id_map > 0
    stuff = [labels.names[c] for c in segments.labels[~segments.crowd].tolist() if not labels.is_thing[c]]
    if overlap := _overlap(segments):
        what = "whose segments overlap, of which panoptic truth shows the later"
        yield Problem("image", what, f"{where} ({overlap} pixels)", fatal=False)
    if semantic is not None:
        outside = np.bincount(semantic.numpy()[~seen.numpy()], minlength=labels.num_classes)
        lost = {name for name, n in zip(labels.names, outside, strict=False) if n}
        if things := sorted(lost & set(labels.things)):
            what = "with things outside all segments, which panoptic truth takes for void (are they stuff?)"
            yield Problem("image", what, f"{where} ({', '.join(things)})", fatal=False)
        if stuff and (rest := sorted(lost - set(labels.things))):
            what = "with stuff outside all segments, which panoptic truth takes for void, as other stuff has segments"
            yield Problem("image", what, f"{where} ({', '.join(rest)})", fatal=False)
    if twice := sorted({name for name in stuff if stuff.count(name) > 1}):
        what = "with several segments of one class that is stuff (is it a thing?)"
        yield Problem("image", what, f"{where} ({', '.join(twice)})", fatal=False)


def _overlap(segments: Segments) -> int:
    """Pixels that more than one segment claims, crowds aside, each as often as it is one too many."""
    if is_id_map(segments.form):
        return 0
    told_apart = segments[~segments.crowd]
    return int(rle.areas(told_apart.rles).sum()) - int((told_apart.id_map > 0).sum())
