"""Pretrained weights: where they come from, and that nothing loads by halves."""

from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torch import nn

from segfolio.errors import SegfolioError
from segfolio.weights.files import load_weights, read_weights

VGG16 = "vgg16-397923af.pth"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    return tmp_path / "checkpoints"


def test_checkpoint_gives_the_network_alone(tmp_path: Path) -> None:
    state = {"network.score.weight": torch.ones(2), "losses.ce.weight": torch.zeros(3)}
    torch.save({"state_dict": state, "global_step": 7}, tmp_path / "last.ckpt")
    read = read_weights(str(tmp_path / "last.ckpt"), "vgg16")
    assert list(read) == ["score.weight"]
    assert read["score.weight"].tolist() == [1, 1]


def test_checkpoint_of_an_adapted_network_gives_it_with_the_products_added(tmp_path: Path) -> None:
    down, up = torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0], [0.0], [-1.0]])
    factors = {"lora_A.default.weight": down, "lora_B.default.weight": up}
    layer = {"base_layer.weight": torch.ones(3, 2), "base_layer.bias": torch.zeros(3), **factors}
    state = {f"network.score.{name}": value for name, value in layer.items()}
    torch.save({"state_dict": state, "segfolio": {"lora_scale": 3.0}}, tmp_path / "last.ckpt")
    read = read_weights(str(tmp_path / "last.ckpt"), "vgg16")
    assert list(read) == ["score.weight", "score.bias"]
    assert read["score.weight"].tolist() == [[4, 7], [1, 1], [-2, -5]]


def test_plain_state_dict_is_read_as_it_is(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 1).state_dict(), tmp_path / "linear.pth")
    assert list(read_weights(str(tmp_path / "linear.pth"), "vgg16")) == ["weight", "bias"]
    torch.save({"model": nn.DataParallel(nn.Linear(2, 1)).state_dict()}, tmp_path / "parallel.pth")
    assert list(read_weights(str(tmp_path / "parallel.pth"), "vgg16")) == ["weight", "bias"]


def test_name_is_read_from_the_cache_before_the_network(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *_, **__: pytest.fail("downloads"))
    hub.mkdir()
    torch.save({"features.0.bias": torch.ones(1)}, hub / VGG16)
    assert read_weights("IMAGENET1K_V1", "vgg16") == {"features.0.bias": torch.ones(1)}


def test_download_lands_in_the_cache_and_is_checked(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(url: str, file: str, hash_prefix: str) -> None:
        assert (url.rsplit("/", 1)[1], hash_prefix) == (VGG16, "397923af")
        torch.save({"features.0.bias": torch.ones(1)}, file)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    assert "features.0.bias" in read_weights("IMAGENET1K_V1", "vgg16")
    assert (hub / VGG16).is_file()


@pytest.mark.parametrize("failure", [URLError("no route to host"), RuntimeError("invalid hash value")])
def test_no_network_names_file_and_folder(hub: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception) -> None:
    def download(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    with pytest.raises(SegfolioError) as error:
        read_weights("IMAGENET1K_V1", "vgg16")
    assert f"put {VGG16} into {hub}" in str(error.value)


def test_unknown_name_lists_the_names() -> None:
    with pytest.raises(SegfolioError, match=r"IMAGENET is neither.*IMAGENET1K_V1, IMAGENET1K_FEATURES"):
        read_weights("IMAGENET", "vgg16")


@pytest.mark.parametrize("content", [b"", b"hello world", "object", "list", "nested"])
def test_unreadable_file_is_one_sentence(tmp_path: Path, content: bytes | str) -> None:
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        objects = {"object": {"a": Path()}, "list": [torch.ones(1)], "nested": {"epoch": 3}}
        torch.save(objects[content], path)
    with pytest.raises(SegfolioError, match=r"weights\.pth is damaged or holds more than weights"):
        read_weights(str(path), "vgg16")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": None}, "1 of the weights are missing: weight"),
        ({"extra": torch.ones(1)}, "1 of the weights are not of this network: extra"),
        ({"weight": torch.ones(3, 2)}, r"another shape: weight \[3, 2\] for \[2, 3\]"),
        ({"bias": torch.tensor([0.0, torch.nan])}, "1 of the weights are not finite: bias"),
    ],
)
def test_weights_that_do_not_fit_are_an_error(change: dict[str, torch.Tensor | None], message: str) -> None:
    layer = nn.Linear(3, 2)
    before = layer.weight.clone()
    state = {k: v for k, v in (layer.state_dict() | change).items() if v is not None}
    with pytest.raises(SegfolioError, match=f"^file.pth: .*{message}"):
        load_weights(layer, state, "file.pth")
    assert torch.equal(layer.weight, before)


def test_only_new_layers_may_be_missing() -> None:
    net = nn.ModuleDict({"old": nn.Linear(1, 1), "new": nn.Linear(1, 1)})
    state = {"old.weight": torch.full((1, 1), 5.0), "old.bias": torch.zeros(1)}
    load_weights(net, state, "file.pth", new=("new.",))
    assert net["old"].weight.item() == 5
    with pytest.raises(SegfolioError, match=r"2 of the weights are missing: new.weight, new.bias;"):
        load_weights(net, state, "file.pth")
