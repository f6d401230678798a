"""Per-pixel classification: encoder-decoder networks, dilated networks and their like."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, Self

from torch import Tensor, nn

from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Batch, Prediction
from segfolio.errors import SegfolioError
from segfolio.families.base import Family
from segfolio.families.batch_norm import batch_statistics, freeze, recompute_statistics
from segfolio.inference.dense_test import DenseTest, Protocols, read
from segfolio.inference.protocols import PRESETS
from segfolio.inference.tiles import Network, Scores, resized
from segfolio.layers.outputs import PixelOutput
from segfolio.losses import Loss
from segfolio.metrics import Evaluation, Evaluator
from segfolio.metrics.evaluator import check_names
from segfolio.metrics.semantic import SemanticMetric


class PerPixel(Family):
    """Networks with `forward(images [B, C_in, H, W]) -> logits [B, C, h, w]`, or `PixelOutput` with auxiliary ones.

    Logits of another size than the truth are resized bilinearly, in training to the truth (but see `label_stride`)
    and in evaluation to the image's original size, before softmax or argmax.

    Args:
        losses: of the logits, by the name under which each is logged.
        auxiliary_losses: of the auxiliary logits, by their names; logged under the same.
        loss_weights: factor of each loss; 1 where none is given.
        label_stride: in training, every so-many-th row and column of the truth counts, and logits are of those pixels:
            8 in DeepLab v1 and v2 and in the SceneParse150 baselines, whose networks have that stride.
        label_offset: the first row and column of them: 0 where logits are upsampled with corners aligned, half of
            the stride where they are not and each is of the middle of its square (SceneParse150).
        bn_mode: batch normalisation. `running`: evaluation by the averages of training, as usual. `recompute`:
            by those over the whole training set, whose images are of one size, before every validation and test,
            and at the end of training (SegNet). `batch`: of the batch at hand (FC-DenseNet); figures then depend on
            `eval_batch_size`. `frozen`: neither statistics nor affine parameters are trained, for networks with
            pretrained weights. Statistics are common to all GPUs with `trainer.sync_batchnorm: true`.
        test: the protocol of test and prediction, and further ones of the same test, see `inference.dense_test`.
            Validation is of the whole image.

    The others, by name, are those of `Family`.

    Raises:
        SegfolioError: a weight for a loss that does not exist, one name for two losses, a name that cannot be part of
            a log key; in training, auxiliary logits without a loss or the reverse, logits of another stride than
            `label_stride`.
    """

    main_metric = "mIoU"
    networks_of = "PerPixel"
    measured_by = "one confusion matrix"

    def __init__(
        self,
        labels: LabelSpace,
        architecture: Callable[[int], nn.Module],
        losses: dict[str, Loss],
        auxiliary_losses: dict[str, Loss] | None = None,
        loss_weights: Mapping[str, float] | None = None,
        label_stride: int = 1,
        label_offset: int = 0,
        bn_mode: Literal["running", "recompute", "batch", "frozen"] = "running",
        test: Protocols = Protocols(),  # noqa: B008  it is immutable
        **recipe: Any,
    ) -> None:
        super().__init__(labels, architecture, **recipe)
        self.tester = DenseTest(test, self.evaluation, lambda: Evaluation(self.make_metrics()))
        auxiliary = auxiliary_losses or {}
        self.losses, self.auxiliary_losses = losses, auxiliary
        self.all_losses = nn.ModuleList([*losses.values(), *auxiliary.values()])  # which go where the network goes
        self.loss_weights, self.bn_mode = dict(loss_weights or {}), bn_mode
        self.label_stride, self.label_offset = label_stride, label_offset
        if twice := losses.keys() & auxiliary.keys():
            raise SegfolioError(
                f"model.losses and model.auxiliary_losses both have {min(twice)!r}; auxiliary losses have the "
                "names of the auxiliary logits: rename the other"
            )
        check_names("model.losses", [*losses, *auxiliary])
        if not losses:
            raise SegfolioError("model.losses is empty; give one by a name, such as ce: segfolio.losses.CrossEntropy")
        if unknown := sorted(self.loss_weights.keys() - losses.keys() - auxiliary.keys()):
            raise SegfolioError(
                f"model.loss_weights names {', '.join(unknown)}, but the losses are "
                f"{', '.join([*losses, *auxiliary]) or 'none'}"
            )
        if label_stride < 1:
            raise SegfolioError(f"model.label_stride is {label_stride}; give 1 for all labels, or more, such as 8")
        if not 0 <= label_offset < label_stride:
            raise SegfolioError(
                f"model.label_offset is {label_offset}; with a label_stride of {label_stride} give 0 to "
                f"{label_stride - 1}"
            )
        self.train()  # what is frozen is not for the optimiser

    @property
    def train_keys(self) -> Sequence[str]:
        return "train/loss", *(f"train/loss_{name}" for name in (*self.losses, *self.auxiliary_losses))

    def compute_losses(self, batch: Batch) -> dict[str, Tensor]:
        logits, auxiliary = outputs(self(batch.images))
        if auxiliary.keys() != self.auxiliary_losses.keys():
            raise SegfolioError(
                f"the network has the auxiliary logits {', '.join(auxiliary) or 'none'}, but model.auxiliary_losses "
                f"has {', '.join(self.auxiliary_losses) or 'none'}; give each its loss, or the network none of them"
            )
        stride, counted = self.label_stride, slice(self.label_offset, None, self.label_stride)
        target, weight = batch.semantic()[:, counted, counted], batch.weight()
        if weight is not None:
            weight = weight[:, counted, counted]

        def weighted(name: str, loss: nn.Module, scores: Tensor) -> Tensor:
            size = (target.shape[-2], target.shape[-1])
            if stride > 1 and scores.ndim == 4 and scores.shape[-2:] != size:
                raise SegfolioError(
                    f"model.label_stride is {stride}, which leaves {size[0]}x{size[1]} labels, but the logits of "
                    f"{name} are {scores.shape[-2]}x{scores.shape[-1]}; give the stride of the network, or 1"
                )
            return self.loss_weights.get(name, 1.0) * loss(scores, target, self.labels.ignore_index, weight)

        main = {name: weighted(name, loss, logits) for name, loss in self.losses.items()}
        return main | {name: weighted(name, loss, auxiliary[name]) for name, loss in self.auxiliary_losses.items()}

    def predict(self, batch: Batch) -> list[Prediction]:
        return read(PRESETS["whole"], self.reader(), batch)

    def reader(self) -> Network:
        return Network(self.scores, logits=True, padding=self.mean, picture=self.image_space.picture)

    def scores(self, images: Tensor) -> Sequence[Scores]:
        with batch_statistics(self.network, enabled=self.bn_mode == "batch"):
            logits, _ = outputs(self(images))
        return [partial(resized, one) for one in logits]

    def make_metrics(self) -> list[Evaluator]:
        return [SemanticMetric(self.labels)]

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.bn_mode == "frozen":
            freeze(self.network)
        return self

    def on_validation_start(self) -> None:
        if self.bn_mode == "recompute" and not self.trainer.sanity_checking:
            self._recompute()

    def on_test_start(self) -> None:
        if self.bn_mode == "recompute":
            self._recompute()

    def before_last_checkpoint(self) -> None:
        if self.bn_mode == "recompute":
            self._recompute()

    def _recompute(self) -> None:
        batches = self.trainer.datamodule.statistics_dataloader()  # type: ignore[attr-defined]
        images = (self.transfer_batch_to_device(batch, self.device, 0).images for batch in batches)
        recompute_statistics(self.network, map(self.normalize, images))


def outputs(found: Tensor | PixelOutput) -> PixelOutput:
    """The network's output with its auxiliary logits, where it has none of them, too."""
    return PixelOutput(found, {}) if isinstance(found, Tensor) else found
