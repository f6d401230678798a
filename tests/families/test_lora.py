"""Parts of a network that are frozen, or adapted by low rank, of any family."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from segfolio.architectures.promptable.sam import SAM
from segfolio.data.labels import LabelSpace
from segfolio.errors import SegfolioError
from segfolio.families import PerPixel
from segfolio.families.lora import LoRA, add_lora
from segfolio.families.optimization import ParameterRules
from segfolio.losses import CrossEntropy
from segfolio.weights.low_rank import merged
from tests.families.test_promptable_training import batch, family

LORA = LoRA(("image_encoder",), ("qkv", "lin1"), rank=2, alpha=6)


class Vit(nn.Module):
    """A stem, two blocks with everything that trains otherwise than it evaluates, and a head."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.norm = nn.BatchNorm2d(8)
        self.blocks = nn.ModuleList(nn.ModuleDict({"qkv": nn.Linear(8, 8), "drop": nn.Dropout()}) for _ in range(2))
        self.head = nn.Conv2d(8, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        x = self.norm(self.stem(images)).permute(0, 2, 3, 1)
        for block in self.blocks:
            x = x + block["drop"](block["qkv"](x))
        return self.head(x.permute(0, 3, 1, 2))


def per_pixel(network: Callable[[int], nn.Module] = Vit, seed: int = 0, **arguments: Any) -> PerPixel:
    torch.manual_seed(seed)
    optimizer = partial(torch.optim.AdamW, lr=0.01)
    return PerPixel(LabelSpace(("a", "b")), network, {"ce": CrossEntropy()}, optimizer=optimizer, **arguments)


def step(model: Any, loss: Callable[[], Tensor]) -> set[str]:
    """One of the optimiser; the parameters and buffers of the network that it has changed."""
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    (optimizer,), _ = model.configure_optimizers()
    model.zero_grad()
    loss().backward()
    optimizer.step()
    return {name for name, value in model.network.state_dict().items() if not torch.equal(value, before[name])}


def of_images(model: PerPixel) -> Tensor:
    return model(torch.rand(2, 3, 6, 5, generator=torch.Generator().manual_seed(0))).square().mean()


def saved(model: Any, path: Path) -> str:
    checkpoint = {"state_dict": model.state_dict()}
    model.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, path)
    return str(path)


def learned(model: PerPixel) -> PerPixel:
    for _ in range(3):
        step(model, lambda: of_images(model))
    return model.eval()


@pytest.mark.parametrize("frozen", [("stem", "norm"), ("blocks.1",), ("head",)])
def test_a_frozen_part_neither_learns_nor_counts(frozen: tuple[str, ...]) -> None:
    model = per_pixel(parameters=ParameterRules(frozen=frozen))
    model.train()
    changed = step(model, lambda: of_images(model))
    assert changed
    assert not {name for name in changed if name.startswith(frozen)}
    of_parts = {name: m.training for name, m in model.network.named_modules() if name}
    assert of_parts == {name: not name.startswith(frozen) for name in of_parts}


def test_a_part_that_is_not_there_is_told() -> None:
    with pytest.raises(SegfolioError, match=r"model.parameters.frozen names 'backbone'; the network has stem, norm,"):
        per_pixel(parameters=ParameterRules(frozen=["backbone"]))
    everything = per_pixel(parameters=ParameterRules(frozen=["stem", "norm", "blocks", "head"]))
    with pytest.raises(SegfolioError, match="which leaves nothing to train"):
        everything.configure_optimizers()


def test_a_frozen_encoder_of_sam_leaves_its_decoder_to_learn() -> None:
    model = family(parameters=ParameterRules(frozen=["image_encoder"]))
    changed = step(model, lambda: torch.stack([*model.compute_losses(batch()).values()]).sum())
    assert changed
    assert not {name for name in changed if name.startswith("image_encoder")}


def test_of_an_adapted_part_only_the_products_learn_and_the_rest_as_it_is() -> None:
    model = family(lora=LORA)
    step(model, lambda: torch.stack([*model.compute_losses(batch()).values()]).sum())  # the second factor is 0 at first
    changed = step(model, lambda: torch.stack([*model.compute_losses(batch()).values()]).sum())
    inside = {name for name in changed if name.startswith("image_encoder")}
    block = "image_encoder.blocks.0"
    assert inside == {
        f"{block}.{layer}.lora_{factor}.default.weight" for layer in ("attn.qkv", "mlp.lin1") for factor in "AB"
    }
    assert "mask_decoder.iou_token.weight" in changed
    assert {p.shape[0] for name, p in model.network.named_parameters() if "lora_A" in name} == {2}


def test_statistics_of_an_adapted_part_stay_and_dropout_does_not() -> None:
    lora = LoRA(("norm", "blocks"), ("qkv",))
    model = per_pixel(lora=lora)
    model.train()
    changed = step(model, lambda: of_images(model))
    assert not {name for name in changed if name.startswith("norm.")}
    assert model.network.blocks[0]["drop"].training
    assert "head.weight" in changed


def test_at_the_start_nothing_is_added() -> None:
    images = torch.rand(2, 3, 6, 5)
    plain, adapted = per_pixel().eval(), per_pixel(lora=LoRA(("blocks",), ("qkv",))).eval()
    torch.testing.assert_close(adapted(images), plain(images), rtol=1e-6, atol=1e-6)


def test_a_checkpoint_of_an_adapted_network_is_read_by_the_same(tmp_path: Path) -> None:
    lora, images = LoRA(("blocks",), ("qkv",), rank=3, alpha=9), torch.rand(2, 3, 6, 5)
    model, other = learned(per_pixel(lora=lora)), per_pixel(lora=lora, seed=1).eval()
    checkpoint = torch.load(saved(model, tmp_path / "a.ckpt"), weights_only=True)
    other.on_load_checkpoint(checkpoint)
    other.load_state_dict(checkpoint["state_dict"])
    assert torch.equal(model(images), other(images))
    with pytest.raises(SegfolioError, match=r"disagree on \d+ parameters"):
        per_pixel().on_load_checkpoint(checkpoint)


@pytest.mark.parametrize("adapted", [False, True])
def test_a_run_starts_from_an_adapted_one_with_the_products_added(adapted: bool, tmp_path: Path) -> None:
    """Whether it is adapted itself, anew, or not."""
    model = learned(per_pixel(lora=LoRA(("blocks",), ("qkv",), rank=3, alpha=9)))
    lora = LoRA(("blocks",), ("qkv",), rank=1) if adapted else None
    other = per_pixel(seed=1, lora=lora, init_from=saved(model, tmp_path / "a.ckpt")).eval()
    images = torch.rand(2, 3, 6, 5)
    torch.testing.assert_close(other(images), model(images))
    assert not torch.allclose(other(images), per_pixel().eval()(images), atol=1e-3)
    assert any("lora" in name for name in other.network.state_dict()) == adapted


def test_merged_weights_are_those_of_peft() -> None:
    lora = LoRA(("blocks",), ("qkv",), rank=3, alpha=9)
    model = learned(per_pixel(lora=lora))
    ours = merged(model.network.state_dict(), lora.scale)
    assert ours.keys() == Vit(2).state_dict().keys()
    for layer in (block["qkv"] for block in model.network.blocks):
        layer.merge()
    for i, block in enumerate(model.network.blocks):
        torch.testing.assert_close(ours[f"blocks.{i}.qkv.weight"], block["qkv"].base_layer.weight)


@pytest.mark.parametrize(
    ("lora", "says"),
    [
        (LoRA(("encoder",), ("qkv",)), "model.lora.parts names 'encoder'; the network has stem, norm, blocks, head"),
        (LoRA(("blocks",), ("proj",)), "model.lora.targets names 'proj'; the linear layers there end in qkv"),
        (LoRA(("blocks",), ("qkv", "drop")), "model.lora.targets names 'drop'; the linear layers there end in qkv"),
        (LoRA(("stem",), ("qkv",)), "names 'qkv'; the linear layers there end in nothing, as there are none"),
        (LoRA(("blocks",), ()), "model.lora.targets names nothing; the linear layers there end in qkv"),
        (LoRA(("blocks",), ("qkv",), rank=0), "model.lora has rank 0 and dropout 0.0; give a rank of 1 or more"),
    ],
)
def test_what_cannot_be_adapted_is_told_in_a_sentence(lora: LoRA, says: str) -> None:
    with pytest.raises(SegfolioError, match=says):
        per_pixel(lora=lora)


def test_layers_whose_weights_are_read_past_them_are_not_adapted() -> None:
    """PyTorch's attention never calls its last layer: what is added to it would have no effect and no gradient."""
    network = nn.ModuleDict({"attention": nn.MultiheadAttention(8, 2), "mlp": nn.Linear(8, 8)})
    with pytest.raises(SegfolioError, match=r"names 'out_proj'; the linear layers there end in nothing"):
        add_lora(network, LoRA(("attention",), ("out_proj",)))


def test_without_peft_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(SegfolioError, match=r"model.lora needs peft; install it with `pip install 'segfolio\[lora\]'`"):
        per_pixel(lora=LoRA(("blocks",), ("qkv",)))


def test_the_largest_sam_is_adapted_by_a_hundredth() -> None:
    """LoRA of rank 4 on ViT-H's qkv: 4 x (1280 + 3 x 1280) in each of 32 blocks."""
    with torch.device("meta"):
        network = SAM(1, **SAM.variants["SAM, ViT-H"])
    torch.manual_seed(0)
    add_lora(network, LoRA(("image_encoder",), ("qkv",)))
    learns = sum(p.numel() for n, p in network.image_encoder.named_parameters() if p.requires_grad)
    assert learns == 32 * 4 * (1280 + 3 * 1280) == 655_360
