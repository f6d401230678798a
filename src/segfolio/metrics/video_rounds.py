"""How well an object is followed through a clip as more and more of its frames are prompted."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segfolio.data.formats import rle
from segfolio.data.formats.rle import RLE
from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Prediction, Target
from segfolio.errors import SegfolioError
from segfolio.figure import of_house
from segfolio.metrics.interactive import clicks_needed
from segfolio.metrics.records import RecordMetric
from segfolio.metrics.video import boundary_f, by_track, check_tracks, jaccard

_NAMES = {1: "J_and_F_1frame", 3: "J_and_F_3frames", 8: "J_and_F_8frames"}
_ENOUGH = 0.75


class VideoRoundsMetric(RecordMetric):
    """J&F of each object after each round in which one frame more of its clip was prompted, as SAM 2 measures it
    (arXiv 2408.00714, section 6.1): the mean of J and F over all annotated frames from the one on in which the object
    is first seen, those that were prompted among them.

    `J_and_F_1frame`, `J_and_F_3frames` and `J_and_F_8frames` are means over all objects of all clips after so many
    rounds, as far as there are; `J_and_F_rounds` is the mean over the rounds. `NoP75` is the number of prompted frames
    with which an object first reaches 0.75; that of all rounds where it does not.

    Args:
        rounds: that each object gets.

    Raises:
        SegfolioError: fewer than 1.
    """

    def __init__(self, labels: LabelSpace, rounds: int = 8) -> None:
        super().__init__()
        if rounds < 1:
            raise SegfolioError(f"rounds of VideoRoundsMetric is {rounds}; give at least 1")
        self.rounds = rounds
        self.shown = {name: k for k, name in _NAMES.items() if k <= rounds}
        self.figures = of_house(*self.shown, "J_and_F_rounds", "NoP75")

    def update_clip(self, predictions: Sequence[Prediction], targets: Sequence[Target]) -> None:
        """See `update`."""
        self.update(predictions, targets)

    def update(self, predictions: Sequence[Prediction], targets: Sequence[Target]) -> None:
        """Keep one clip.

        Raises:
            SegfolioError: a mask that is not of the truth's size, an object that no frame of the truth has.
            ValueError: a prediction with another number of rounds, one that does not say which object is which.
        """
        pairs = [(p, t.segments) for p, t in zip(predictions, targets, strict=True) if t.segments is not None]
        truth = [by_track(segments, p.image_id) for p, segments in pairs]
        tracks = sorted({track for frame in truth for track in frame})
        found = list[list[dict[int, RLE]]]()
        for prediction, segments in pairs:
            if (rounds := len(prediction.tracked_rounds)) != self.rounds:
                raise ValueError(f"{prediction.image_id} has {rounds} rounds, the metric measures {self.rounds}")
            found.append([by_track(each, prediction.image_id) for each in prediction.tracked_rounds])
            for masks in found[-1]:
                check_tracks(prediction.image_id, masks, segments.size, set(tracks))
        values = [self._of_object([f.get(t) for f in truth], [[m.get(t) for m in f] for f in found]) for t in tracks]
        self.keep(predictions[0].image_id, np.array(values).reshape(-1, self.rounds), targets[0].number)

    def _of_object(self, truth: Sequence[RLE | None], found: Sequence[Sequence[RLE | None]]) -> npt.NDArray[np.float64]:
        """J&F `[rounds]` of one object, whose masks in T frames are `[T]` and `[T][rounds]`."""
        first = next(frame for frame, mask in enumerate(truth) if mask is not None)
        height, width = next(mask for mask in truth if mask is not None)["size"]
        empty = rle.from_counts([height * width], (height, width))
        pairs = [[(mask or empty, truth[t] or empty) for mask in found[t]] for t in range(first, len(truth))]
        values = np.array([[(jaccard(*pair) + boundary_f(*pair)) / 2 for pair in frame] for frame in pairs])
        return values.mean(0)

    def compute(self) -> dict[str, Tensor]:
        every = np.concatenate([np.zeros((0, self.rounds)), *self.records().values()])
        figures = {name: every[:, k - 1] for name, k in self.shown.items()}
        figures |= {"J_and_F_rounds": every.mean(1), "NoP75": clicks_needed(every, _ENOUGH)}
        return {name: torch.from_numpy(values).double().mean() for name, values in figures.items()}
