"""Distillation: a promptable network learns from a larger one, from images without labels."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from segfolio.data.image_space import IMAGENET_MEAN, IMAGENET_STD
from segfolio.data.prompts import OBJECT, Prompts, join
from segfolio.data.sample import Batch, Sample, Size
from segfolio.errors import SegfolioError
from segfolio.families.network_input import check_input
from segfolio.families.trained import Trained
from segfolio.figure import Figure, by_name
from segfolio.inference.embedding_store import EmbeddingStore, origin_of, whole_images
from segfolio.inference.prompting import EmbeddedImages, network_input
from segfolio.layers.prompting import Embedding, PromptableNetwork, best
from segfolio.losses.promptable import PromptLoss
from segfolio.metrics.teacher_agreement import TeacherAgreement

Mode = Literal["decoupled", "semi_coupled", "coupled"]
_ENCODER = "image_encoder."
_GRID = 4  # points of validation in each direction


class Distillation(Trained):
    """A student learns what a teacher says of images (MobileSAM, arXiv 2306.14289, section 3).

    `decoupled` distillation teaches the image encoder the teacher's embeddings, by their mean squared error; no prompt
    is asked. `semi_coupled` teaches it the teacher's masks, which both networks read by the teacher's decoder.
    `coupled` teaches encoder and decoder the teacher's masks. A prompt is a random point, and the truth the mask that
    the teacher thinks fits best. In the first two the student takes over all of the teacher but the image encoder, and
    this stays as it is: the checkpoint is that of a network that can be prompted, which `Promptable` takes as
    `init_from` or as the network's `weights`.

    Validation and test ask both networks at a grid of points, see `TeacherAgreement`.

    Args:
        architecture: the student, a `PromptableNetwork`.
        teacher: another one that sees images in the same size; its `weights` may be a run's checkpoint.
        embeddings: a folder to keep the teacher's embeddings in: they are computed before the first step, as far as
            they are not there, of images as they are stored. None asks the teacher in every step.
        points: prompts of an image, where masks are learned.
        criterion: of the masks; `PromptLoss()`, SAM's, if not given.
        mean, std: of the input of both networks.

    The others, by name, are those of `Trained`.

    Raises:
        SegfolioError: networks that see images in other sizes, or of which one does not take over the other's decoder;
            kept embeddings and transforms that change training images; embeddings of another teacher, or of another
            shape than the student's.
    """

    network: PromptableNetwork
    preparation: "Lesson"
    main_metric = "teacher_mIoU"
    takes_padding = True
    protocol = f"{_GRID} x {_GRID} points, of each the mask that either network prefers, against the teacher's"

    def __init__(
        self,
        architecture: Callable[[int], nn.Module],
        teacher: Callable[[int], nn.Module],
        mode: Mode = "decoupled",
        embeddings: str | None = None,
        points: int = 16,
        criterion: PromptLoss | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        **recipe: Any,
    ) -> None:
        super().__init__(_promptable(architecture, "model.architecture"), mean=mean, std=std, **recipe)
        if points < 1:
            raise SegfolioError(f"model.points is {points}; give at least 1")
        self.mode, self.criterion = mode, criterion or PromptLoss()
        self._teacher = (_promptable(teacher, "model.teacher").eval().requires_grad_(False),)  # in no checkpoint
        check_input(self.teacher, self.image_space, mean, std)
        self._check_sizes()
        if mode != "coupled":
            self._take_over_decoder()
        self.store = None
        if embeddings is not None:
            self.store = EmbeddingStore(embeddings, origin_of(self.teacher, self.mean, self.std))
        self.preparation = Lesson(self.store, 0 if mode == "decoupled" else points)
        self.agreement = TeacherAgreement(embeddings=mode != "coupled")

    @property
    def teacher(self) -> PromptableNetwork:
        return self._teacher[0]

    @property
    def declared(self) -> Mapping[str, Figure]:
        return by_name(self.agreement.figures)

    def _check_sizes(self) -> None:
        student, teacher = self.network, self.teacher
        if student.image_size != teacher.image_size or student.fit(480, 640) != teacher.fit(480, 640):
            raise SegfolioError(
                f"the teacher sees images of {teacher.image_size} pixels and the student of {student.image_size}, or "
                "resizes them otherwise; give both the same image_size"
            )

    def _take_over_decoder(self) -> None:
        own, theirs = (
            {name: value for name, value in network.state_dict().items() if not name.startswith(_ENCODER)}
            for network in (self.network, self.teacher)
        )
        shapes = [{name: value.shape for name, value in state.items()} for state in (own, theirs)]
        if differing := sorted(name for name, _ in shapes[0].items() ^ shapes[1].items()):
            raise SegfolioError(
                f"the student does not take over the teacher's decoder: {differing[0]} is not the same in both; take "
                "networks with one decoder, or mode: coupled"
            )
        self.network.load_state_dict(theirs, strict=False)
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(name.startswith(_ENCODER))

    def setup(self, stage: str) -> None:
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        if stage == "fit" and self.store is not None and data is not None and data.train_transforms:
            raise SegfolioError(
                f"data.train_transforms change the images, and the embeddings in {self.store.folder} are of images as "
                "they are stored; leave the transforms out, or model.embeddings: the teacher is then asked in each step"
            )

    def on_fit_start(self) -> None:
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        if self.store is None or data is None:  # or loaders of a user's own
            return
        if self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            self.preparation = Lesson(None, self.preparation.points)
            return
        if self.mode != "coupled":
            self._check_embeddings()
        for split in data.splits_of("fit"):
            if split != data.train_split and data.eval_transforms:
                continue  # then the teacher is asked
            self.store.keep_split(data, split, self._embedding_to_keep, self.trainer.strategy.barrier)
        self.teacher.image_encoder.cpu()

    @torch.no_grad()
    def _check_embeddings(self) -> None:
        """Compare those of an image without content, before those of all images are computed."""
        side, training = self.network.image_size, self.network.training
        nothing = self.mean.new_zeros(1, self.image_space.channels, side, side)
        self._check_shapes(self.network.eval().embed(nothing), self._taught(nothing))
        self.network.train(training)

    def _embedding_to_keep(self, batch: Batch) -> Embedding:
        return self._taught(self._inputs(batch.images.to(self.device), batch.sizes))

    def compute_losses(self, batch: Batch) -> dict[str, Tensor]:
        inputs = self._inputs(batch.images, batch.sizes)
        kept = batch.extras.get("embedding")
        taught = self._taught(inputs) if kept is None else tuple(each.to(inputs) for each in kept)
        own = self.network.embed(inputs)
        self._check_shapes(own, taught)
        if self.mode == "decoupled":
            errors = [mse_loss(x.float(), y.float()) for x, y in zip(own, taught, strict=True)]
            return {"embedding": torch.stack(errors).sum()}
        prompts, image = join(batch.prompts)
        with torch.no_grad():
            shown, _ = best(self._of_teacher(taught, batch.sizes).ask(prompts, image))
        counts = [len(each) for each in batch.prompts]
        enlarge = partial(self._valid, batch.sizes)
        truths = [enlarge(masks, i) > 0 for i, masks in enumerate(shown.split(counts))]
        answers = EmbeddedImages(self.network, own, batch.sizes).ask(prompts, image)
        losses, _ = self.criterion(*answers, truths, enlarge, answers.iou.argmax(1))
        return losses

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._compare(batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._compare(batch)

    def on_validation_epoch_end(self) -> None:
        self._log_agreement("val")

    def on_test_epoch_end(self) -> None:
        self._log_agreement("test")

    def _log_agreement(self, stage: str) -> None:
        self.log_figures(stage, self.agreement.compute())
        self.agreement.reset()

    def _compare(self, batch: Batch) -> None:
        """The masks of both networks at the same points, at the image's size, and their embeddings."""
        inputs = self._inputs(batch.images, batch.sizes)
        kept = [self.store.get(image) for image in whole_images(batch)] if self.store else []
        found = [each for each in kept if each is not None]
        if len(found) == len(batch):
            taught = tuple(torch.stack([x.to(inputs) for x in each]) for each in zip(*found, strict=True))
        else:
            taught = self._taught(inputs)
        own = self.network.embed(inputs)
        self._check_shapes(own, taught)
        both = EmbeddedImages(self.network, own, batch.sizes), self._of_teacher(taught, batch.sizes)
        prompts, image = join([_grid(size, self.device) for size in batch.sizes])
        masks = [best(images.ask(prompts, image))[0].split(_GRID**2) for images in both]
        for i, image_id in enumerate(batch.image_ids):
            student, teacher = (images.enlarge(each[i], i) > 0 for images, each in zip(both, masks, strict=True))
            embeddings = [tuple(each[i] for each in embedding) for embedding in (own, taught)]
            self.agreement.update(image_id, (student, teacher), (embeddings[0], embeddings[1]))

    def _inputs(self, images: Tensor, sizes: Sequence[Size]) -> Tensor:
        return network_input(self.network, images, sizes, self.normalize)

    def _taught(self, inputs: Tensor) -> Embedding:
        self.teacher.image_encoder.to(self.device, inputs.dtype)  # where it is not
        with torch.no_grad():
            return self.teacher.embed(inputs)

    def _of_teacher(self, taught: Embedding, sizes: Sequence[Size]) -> EmbeddedImages:
        for name, part in self.teacher.named_children():
            if name + "." != _ENCODER:
                part.to(self.device, taught[0].dtype)
        return EmbeddedImages(self.teacher, taught, sizes)

    def _valid(self, sizes: Sequence[Size], masks: Tensor, image: int) -> Tensor:
        """Of masks `[N, h, w]` the cells that have a part of the image."""
        cell = self.network.image_size / masks.shape[-1]
        height, width = (int(np.ceil(side / cell)) for side in self.network.fit(*sizes[image]))
        return masks[:, :height, :width]

    def _check_shapes(self, own: Embedding, taught: Embedding) -> None:
        shapes = [[list(each.shape[1:]) for each in embedding] for embedding in (own, taught)]
        if self.mode != "coupled" and shapes[0] != shapes[1]:
            raise SegfolioError(
                f"the student's embedding of an image is {shapes[0]} and the teacher's {shapes[1]}; take networks of "
                "the same, or mode: coupled"
            )


class Lesson:
    """A distillation's `preparation`: the teacher's embedding, where it is kept, and random points.

    Args:
        store: None where the teacher is asked in each step.
        points: of an image; 0 for no prompt.
    """

    def __init__(self, store: EmbeddingStore | None, points: int) -> None:
        self.store, self.points = store, points

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """
        Raises:
            SegfolioError: an image whose embedding is not there.
        """
        if self.store is not None:
            sample = replace(sample, extras={"embedding": self.store.of_sample(sample)})
        if self.points:
            height, width = sample.image.shape[-2:]
            places = rng.random((self.points, 1, 2), np.float32) * np.array([width, height], np.float32)
            sample = replace(sample, prompts=_asked(torch.from_numpy(places)))
        return replace(sample, target=None)


def _promptable(architecture: Callable[[int], nn.Module], key: str) -> PromptableNetwork:
    network = architecture(1)  # there are no classes
    if not isinstance(network, PromptableNetwork):
        raise SegfolioError(f"{key} is {type(network).__name__}, which cannot be prompted; take e.g. MobileSAM or SAM")
    return network


def _asked(points: Tensor) -> Prompts:
    """A prompt of each of `[P, 1, 2]` points."""
    none = torch.full((len(points),), -1, device=points.device)
    return Prompts(none, points, torch.full((len(points), 1), OBJECT, device=points.device))


def _grid(size: Size, device: torch.device) -> Prompts:
    """Points at the centres of equal parts of an image."""
    centres = (torch.arange(_GRID, device=device) + 0.5) / _GRID
    y, x = torch.meshgrid(centres * size[0], centres * size[1], indexing="ij")
    return _asked(torch.stack([x, y], -1).reshape(-1, 1, 2))
