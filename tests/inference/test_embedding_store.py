"""Embeddings are computed once, by however many processes and runs, and never taken for those of something else."""

import multiprocessing
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from segfolio.architectures.promptable.mobile_sam import MobileSAM
from segfolio.data.sample import Batch
from segfolio.errors import SegfolioError
from segfolio.inference.embedding_store import EmbeddingStore, origin_of
from segfolio.layers.prompting import Embedding

ORIGIN = {"weights": "0" * 64, "image_size": 64, "mean": [0.5]}


def image(number: int) -> Tensor:
    return torch.randint(256, (3, 6, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(number))


def batches(*numbers: int) -> list[Batch]:
    return [Batch(image(n)[None], [str(n)], [(6, 8)]) for n in numbers]


def embed(batch: Batch) -> Embedding:
    """Two tensors of an image that tell it from others."""
    mean = batch.images.float().mean((2, 3), keepdim=True)
    return mean, mean[:, :, 0, 0] / 3


def counting(computed: list[str], until: int | None = None) -> Callable[[Batch], Embedding]:
    def of(batch: Batch) -> Embedding:
        if len(computed) == until:
            raise KeyboardInterrupt
        computed.extend(batch.image_ids)
        return embed(batch)

    return of


def filled(folder: Path, numbers: range) -> None:
    """In a process of its own."""
    EmbeddingStore(folder, ORIGIN).fill(batches(*numbers), embed)


def test_what_is_kept_is_what_was_computed_to_half_precision(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path / "kept", ORIGIN)
    assert store.get(image(0)) is None
    store.fill(batches(0, 1), embed)
    for n in (0, 1):
        kept, whole = store.get(image(n)), embed(batches(n)[0])
        assert kept is not None
        assert [each.dtype for each in kept] == [torch.float16] * 2
        torch.testing.assert_close(kept, tuple(each[0].half() for each in whole), rtol=0, atol=0)


def test_an_interrupted_pass_goes_on(tmp_path: Path) -> None:
    first: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        EmbeddingStore(tmp_path, ORIGIN).fill(batches(*range(5)), counting(first, until=3))
    second: list[str] = []
    EmbeddingStore(tmp_path, ORIGIN).fill(batches(*range(5)), counting(second))
    assert (first, second) == (["0", "1", "2"], ["3", "4"])


def test_processes_share_a_folder(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=filled, args=(tmp_path, numbers)) for numbers in (range(30), range(20, 40))]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    computed: list[str] = []
    EmbeddingStore(tmp_path, ORIGIN).fill(batches(*range(40)), counting(computed))
    assert computed == []
    assert not [path for path in tmp_path.rglob(".*") if path.is_file()]  # nothing unfinished is left


def test_an_image_is_known_by_its_values(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path, ORIGIN)
    store.put(image(0), (torch.zeros(1),))
    other = image(0)
    other[0, 0, 0] ^= 1
    assert other not in store
    assert image(0).reshape(3, 8, 6) not in store
    assert image(0).int() not in store
    assert image(0) in store


@pytest.mark.parametrize("key", ["weights", "image_size", "mean"])
def test_embeddings_of_another_network_are_refused(tmp_path: Path, key: str) -> None:
    EmbeddingStore(tmp_path, ORIGIN).put(image(0), (torch.zeros(1),))
    other = {**ORIGIN, key: {"weights": "1" * 64, "image_size": 96, "mean": [0.4]}[key]}
    with pytest.raises(SegfolioError, match=f"{re.escape(str(tmp_path))} holds embeddings of another.*{key}") as told:
        EmbeddingStore(tmp_path, other)
    assert "\n" not in str(told.value)
    EmbeddingStore(tmp_path, ORIGIN)


def test_the_origin_tells_encoders_apart_and_no_decoders() -> None:
    torch.manual_seed(0)
    network, mean = MobileSAM(0, **MobileSAM.tiny), torch.tensor([100.0, 110.0, 120.0])[:, None, None]
    origin = origin_of(network, mean, mean)
    with torch.no_grad():
        next(network.mask_decoder.parameters()).add_(1)
        assert origin_of(network, mean, mean) == origin
        next(network.image_encoder.parameters()).flatten()[0].add_(1e-3)
    other = origin_of(network, mean, mean)
    assert {key for key in origin if origin[key] != other[key]} == {"weights"}
    assert origin_of(network, mean + 1, mean) != other


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path, ORIGIN)
    store.put(image(0), (torch.zeros(100),))
    (file,) = tmp_path.rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(SegfolioError, match=re.escape(f"{file} is damaged")):
        store.get(image(0))


def test_what_float16_does_not_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SegfolioError, match=r"not finite in float16"):
        EmbeddingStore(tmp_path, ORIGIN).put(image(0), (torch.full((4,), 1e6),))
