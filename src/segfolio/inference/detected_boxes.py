"""`DetectedBoxes`: boxes of a detector become instances, each with the mask that a promptable network finds in it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from segfolio.data.dataset import SegmentationDataset
from segfolio.data.formats.coco_results import ResultBoxes
from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Batch, Instances, Prediction
from segfolio.errors import SegfolioError
from segfolio.inference.asking import Answer, Asked, PromptProtocol, Wanted, ask_boxes, in_passes
from segfolio.inference.prompt_protocols import check_numbers
from segfolio.inference.seen import Seen
from segfolio.metrics import Evaluator, InstanceMetric, instance_metric


class DetectedBoxes(PromptProtocol):
    """Zero-shot instance segmentation (2304.02643, section 7.4, appendix D.4): classes and scores are the detector's.

    Args:
        path: the detector's results in COCO's format, JSON: a list of image_id, category_id, bbox and score, with the
            ids of the dataset's own annotation file.
        refine: ask a second time with the first mask, as the paper does it, see `ask_boxes`.
        max_detections: of an image, those that score most; so many are evaluated, too (300 of LVIS, whatever is said).
        prompts_per_pass: boxes that are asked for at once.

    Raises:
        SegfolioError: a number below 1; before the test, a file that cannot be read, is of other images or of other
            categories, or a dataset whose images have no numbers.
    """

    main_metric = "AP"

    def __init__(self, path: str, refine: bool = True, max_detections: int = 100, prompts_per_pass: int = 64) -> None:
        check_numbers(self, max_detections=max_detections, prompts_per_pass=prompts_per_pass)
        self.path, self.refine = Path(path), refine
        self.max_detections, self.prompts_per_pass = max_detections, prompts_per_pass
        self._boxes: ResultBoxes | None = None
        self._measured_by = InstanceMetric.words

    @property
    def words(self) -> str:
        again = ", asked again with the first mask" if self.refine else ""
        return f"the boxes of {self.path.name}, at most {self.max_detections} of an image{again}, {self._measured_by}"

    def evaluators(self, labels: LabelSpace) -> list[Evaluator]:
        most = self.max_detections
        metric = instance_metric(labels, max_dets=[*(n for n in (1, 10) if n < most), most])
        self._measured_by = metric.words
        return [metric]

    def check(self, dataset: SegmentationDataset, split: str) -> None:
        numbers = [dataset.image_number(i) for i in range(len(dataset))]
        images = [number for number in numbers if number is not None]
        if len(images) < len(numbers):
            raise SegfolioError(
                f"the images of {split} have no numbers by which {self.path} could name them; test a dataset in COCO's "
                "format, as CocoInstances reads it"
            )
        self._boxes = ResultBoxes(self.path, images, dataset.labels.ids)

    def answer(self, family: Asked, batch: Batch) -> list[Prediction]:
        if self._boxes is None:
            raise ValueError("DetectedBoxes reads its file in `check(dataset, split)`, which was not called")
        places = {category: place for place, category in enumerate(family.labels.ids)}
        objects, labels, scores = list[Wanted](), list[int](), list[float]()
        for image, target in enumerate(batch.targets):
            assert target.number is not None
            for category, score, *box in self._boxes.of(target.number)[: self.max_detections].tolist():
                objects.append(Wanted(image, len(objects), np.array(box)))
                labels.append(places[int(category)])
                scores.append(score)
        answers = in_passes(self._ask, family, batch, objects, None, self.prompts_per_pass)
        found = []
        for image, (image_id, size) in enumerate(zip(batch.image_ids, batch.original_sizes, strict=True)):
            mine = [wanted.of for wanted in objects if wanted.image == image]
            masks = [answers[i].rles[0] for i in mine]
            columns = torch.tensor([labels[i] for i in mine]).long(), torch.tensor([scores[i] for i in mine]).float()
            found.append(Prediction(image_id, size, instances=Instances(masks, *columns)))
        return found

    def _ask(self, seen: Seen, objects: Sequence[Wanted]) -> list[Answer]:
        return ask_boxes(seen, objects, self.refine)
