"""OneFormer: One Transformer to Rule Universal Image Segmentation
(Jitesh Jain, Jiachen Li, MangTik Chiu, Ali Hassani, Nikita Orlov, Humphrey Shi, CVPR 2023), arXiv 2211.06220.

Follows section 3 and the authors' release (SHI-Labs/OneFormer): Mask2Former's pixel decoder and decoder of masked
attention, and a token of the task, from which the queries start and which is one of them. They look at the finest
features first. In training each image has one task of three, drawn by the family, and texts: one for each segment that
the task asks for, the others of the task, which a text encoder turns into as many vectors as there are queries, some of
them learnt; a contrastive loss compares the two (`OneFormerLoss`). The layers are transformers' modules under their own
names, so that a state dict of `OneFormerForUniversalSegmentation` loads.

Deviates:
- Initial values are the authors', not transformers', in the pixel decoder's convolutions and encoder and in what is
  looked up.
- The pixel decoder computes in float32 whatever the precision, and so does what reads the numbers of the task's words.
- Images are padded with zeros to a multiple of 32, in training too, and masks cropped to a quarter of the image.
- Deformable attention is sampled by `grid_sample`, whose gradient is not deterministic on CUDA.
- Each text of a batch is encoded once, however many segments have it.
- Transformers' releases are without the text encoder, whose weights then start anew.
- Neighbourhood attention (DiNAT) is not among the backbones: timm has none.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from segfolio.architectures.mask_classification.mask2former import initialise_pixels
from segfolio.errors import SegfolioError
from segfolio.layers.again import keep_less, through
from segfolio.layers.backbones import backbone_config, check_features, crop_quarter, freeze_unused, pad_to
from segfolio.layers.outputs import MaskOutput, QueryLayer
from segfolio.precision import without_autocast
from segfolio.weights.backbones import load_encoder, load_pretrained, released_state
from segfolio.weights.clip_words import as_words
from segfolio.weights.files import load_weights, read_file

TASKS = ("semantic", "instance", "panoptic")
TASK_TEXTS = ("a semantic photo", "an instance photo", "a panoptic photo")
LENGTH, WORDS = 77, 49408  # of a text, and of CLIP's vocabulary
TEMPERATURE = 0.07
TRAINING_ONLY = ("model.text_mapper.", "logit_scale")  # what answers do not need


class OneFormer(nn.Module):
    """Q queries, each with a class and a mask, of the task that is asked for.

    Args:
        backbone: timm's name of any network with features of strides 4 to 32; `swin_...` is transformers' Swin.
        num_queries: Q, one of which is the task's token.
        width: channels of the pixel decoder, the queries, the mask embeddings and the text encoder, 64 or more.
        encoder_layers: of the pixel decoder.
        query_layers: of what makes the queries from the task's token.
        contexts: of the texts' vectors those that are learnt.
        text_layers: of the text encoder.
        vocabulary: see `as_words`; the release has CLIP's, e.g. `openai/clip-vit-base-patch32`.
        task: that is answered where none is asked for.
        checkpointing: in training, keep the inputs alone of the backbone's blocks, of the pixel decoder and of the
            decoder, and compute each again in the backward pass.
        weights: None; or a tag of timm's weights for `backbone`, e.g. `ms_in22k`; or a released model, e.g.
            `shi-labs/oneformer_coco_swin_large`; or a file with a state dict of one of these.

    Raises:
        SegfolioError: an unknown backbone, width or task, fewer queries than learnt vectors, no vocabulary; weights
            that are not to be had or do not fit.
    """

    paper: ClassVar[str] = "OneFormer (Jain et al., 2023), arXiv 2211.06220"
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "OneFormer, Swin-L": {},
        "OneFormer, Swin-L, 250 queries": {"num_queries": 250},
        "OneFormer, ConvNeXt-L, 250 queries": {"backbone": "convnext_large", "num_queries": 250},
        "OneFormer, ConvNeXt-XL, 250 queries": {"backbone": "convnext_xlarge", "num_queries": 250},
        "OneFormer, Swin-T": {"backbone": "swin_tiny_patch4_window7_224"},
        "OneFormer, R50": {"backbone": "resnet50"},
    }
    tiny: ClassVar[dict[str, Any]] = {
        "backbone": "test_efficientnet",
        "num_queries": 16,
        "width": 64,
        "encoder_layers": 1,
        "decoder_layers": 3,
        "heads": 4,
        "encoder_feedforward": 64,
        "feedforward": 64,
        "dropout": 0.0,
        "contexts": 4,
        "text_layers": 1,
        "vocabulary": None,
    }
    takes_tasks: ClassVar[bool] = True
    beside: ClassVar[tuple[str, ...]] = ("queries", "texts", "log_scale")

    def __init__(
        self,
        num_classes: int,
        backbone: str = "swin_large_patch4_window12_384",
        num_queries: int = 150,
        width: int = 256,
        encoder_layers: int = 6,
        decoder_layers: int = 9,
        heads: int = 8,
        encoder_feedforward: int = 1024,
        feedforward: int = 2048,
        query_layers: int = 2,
        dropout: float = 0.1,
        contexts: int = 16,
        text_layers: int = 6,
        vocabulary: str | None = None,
        task: Literal["semantic", "instance", "panoptic"] = "panoptic",
        checkpointing: bool = False,
        weights: str | None = None,
    ) -> None:
        from transformers import OneFormerConfig, OneFormerModel

        super().__init__()
        if width < 64 or width % heads:
            raise SegfolioError(
                f"width of OneFormer is {width}, of which its text encoder makes heads of 64 channels and its decoder "
                f"{heads} heads; give 64 or more, a multiple of {heads}"
            )
        if task not in TASKS:
            raise SegfolioError(f"task of OneFormer is {task!r}; give one of {', '.join(TASKS)}")
        if num_queries <= contexts:
            raise SegfolioError(
                f"num_queries of OneFormer is {num_queries} and contexts {contexts}, which leaves no query for a "
                "segment's text; give more queries, or fewer contexts"
            )
        config = OneFormerConfig(
            num_queries=num_queries,
            num_labels=num_classes,  # type: ignore[call-arg]
            conv_dim=width,
            mask_dim=width,
            hidden_dim=width,
            encoder_layers=encoder_layers,
            decoder_layers=decoder_layers + 1,  # transformers counts the prediction of the first queries
            num_attention_heads=heads,
            encoder_feedforward_dim=encoder_feedforward,
            dim_feedforward=feedforward,
            query_dec_layers=query_layers,
            dropout=dropout,
            text_encoder_width=width,
            text_encoder_num_layers=text_layers,
            text_encoder_n_ctx=contexts,
            text_encoder_vocab_size=WORDS,
            is_training=True,  # with the text encoder
        )
        config.backbone_config = backbone_config(backbone)  # set later, as the constructor warns of timm's
        self.model: Any = OneFormerModel(config)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / TEMPERATURE)))
        self.num_classes, self.vocabulary, self.task = num_classes, vocabulary, task
        self.num_queries = num_queries
        self.num_texts = num_queries - contexts  # that are read; the other vectors are learnt
        self.task_words: Tensor
        self.texts: Tensor  # of each class, then of each task
        asked = as_words([f"the task is {name}" for name in TASKS], vocabulary, LENGTH)
        self.register_buffer("task_words", asked, persistent=False)
        self.register_buffer("texts", as_words(TASK_TEXTS, vocabulary, LENGTH), persistent=False)
        freeze_unused(self.model.pixel_level_module.encoder)
        self.checkpointing = checkpointing
        if checkpointing:
            keep_less(self.model.pixel_level_module.encoder)
        _initialise(self.model)
        if weights is not None:
            self.load(weights, backbone)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for layer in self.model.pixel_level_module.decoder.encoder.layers:
            layer.is_training = mode  # by which transformers' drops, whatever the mode of the module
        return self

    def read(self, names: Sequence[str]) -> None:
        """Learn what the classes are called, by which segments are told in training.

        Raises:
            SegfolioError: not as many names as classes.
        """
        if len(names) != self.num_classes:
            raise SegfolioError(
                f"OneFormer has {self.num_classes} classes and is told {len(names)} names; give as many"
            )
        said = [*(f"a photo with a {name}" for name in names), *TASK_TEXTS]
        self.texts = as_words(said, self.vocabulary, LENGTH).to(self.texts.device)

    def forward(
        self, images: Tensor, tasks: Tensor | None = None, labels: Sequence[Tensor] | None = None
    ) -> MaskOutput:
        """`[B, 3, H, W]`, of any size, to class logits and masks of a quarter of it: `embed`, and `answer`.

        Args:
            tasks: `[B]` int64, of each image the place of its task in `TASKS`.
            labels: of each image the classes `[N]` of its segments, for the texts that its queries are compared with in
                training; without them, or before `read` is called, these are of the task alone.
        """
        if tasks is None:
            tasks = torch.full((len(images),), TASKS.index(self.task), device=images.device)
        return self.answer(self.embed(images), images, tasks, labels)

    def embed(self, images: Tensor) -> Any:
        """The pixel decoder's maps of `[B, 3, H, W]`, which are the same for every task.

        Raises:
            SegfolioError: images of 32 pixels or less on each side.
        """
        check_features("OneFormer", images)
        features = self.model.pixel_level_module.encoder(pad_to(images, 32)).feature_maps
        with without_autocast(images.device):
            given = [f.to(self.logit_scale.dtype) for f in features]
            return through(self, self.model.pixel_level_module.decoder, given, output_hidden_states=False)

    def answer(self, pixels: Any, images: Tensor, tasks: Tensor, labels: Sequence[Tensor] | None = None) -> MaskOutput:
        """What `forward` says, of the maps that `embed` makes of the images."""
        with without_autocast(images.device):
            token = self.model.task_encoder(self.task_words[tasks].to(self.logit_scale.dtype))
        decoded = through(self, self.model.transformer_module, pixels.multi_scale_features, pixels.mask_features, token)
        last = {"class_queries_logits": decoded.prediction_class, "masks_queries_logits": decoded.prediction_masks}
        output = MaskOutput.of(
            [
                QueryLayer(layer["class_queries_logits"], crop_quarter(layer["masks_queries_logits"], images))
                for layer in ((*decoded.auxiliary_predictions, last) if self.training else (last,))
            ]
        )
        if not self.training:
            return output
        said = {"queries": decoded.contrastive_logits, "texts": self.of_texts(tasks, labels)}
        return output._replace(dense={**said, "log_scale": self.logit_scale})

    def of_texts(self, tasks: Tensor, labels: Sequence[Tensor] | None) -> Tensor:
        """`[B, Q, D]`: of each segment's text, by class, as many as there is room for, of the task's, and learnt."""
        mapper, classes = self.model.text_mapper, len(self.texts) - len(TASKS)
        rows = (classes + tasks)[:, None].repeat(1, self.num_texts)
        known = labels if labels is not None and classes else [rows.new_empty(0)] * len(rows)
        for row, found in zip(rows, known, strict=True):
            told = found.sort().values[: self.num_texts]
            row[: len(told)] = told
        used, place = rows.unique(return_inverse=True)
        said = mapper.text_projector(mapper.text_encoder(self.texts[used]))[place]
        learnt = mapper.prompt_ctx.weight.to(said.dtype).expand(len(rows), -1, -1)
        return torch.cat([said, learnt], 1)

    def load(self, weights: str, backbone: str) -> None:
        """Load weights of all, with or without the text encoder, or of the backbone alone.

        Raises:
            SegfolioError: weights that are not to be had, or do not fit.
        """
        from transformers import OneFormerForUniversalSegmentation as Released

        state: dict[str, Tensor] = {}
        if Path(weights).is_file():
            state = read_file(Path(weights))
        elif "/" in weights or Path(weights).is_dir():
            state = released_state(Released, weights)
        if any(key.startswith("model.task_encoder.") for key in state):
            state = {k.removeprefix("criterion."): v for k, v in state.items() if k != "criterion.empty_weight"}
            load_weights(self, state, weights, new=TRAINING_ONLY)
            return

        def load_backbone(found: dict[str, Tensor]) -> None:
            load_encoder(self.model.pixel_level_module.encoder, found, weights, backbone)

        load_pretrained(self, weights, backbone, Released, load_backbone)


def _initialise(model: Any) -> None:
    """The authors' initial values, where transformers' are others."""
    initialise_pixels(model.pixel_level_module.decoder)
    module = model.transformer_module
    for table in (module.queries_embedder, module.level_embed, model.text_mapper.prompt_ctx):
        nn.init.normal_(table.weight)
