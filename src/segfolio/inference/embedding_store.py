"""`EmbeddingStore`: what a frozen image encoder says of images, computed once and kept in files."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor
from tqdm import tqdm

from segfolio.data.checks.fingerprint import fingerprint
from segfolio.data.sample import Batch, Sample
from segfolio.errors import SegfolioError
from segfolio.files import write_atomically
from segfolio.layers.prompting import Embedding, PromptableNetwork

_ORIGIN = "origin.json"
_FORM = 1  # of the files, and of how images are brought to the network's size


class EmbeddingStore:
    """Embeddings in float16 in a folder that runs and processes may share: a file of each image, whole or not there.

    An image is known by its values, whatever it is called and in whichever split it is.

    Args:
        folder: is made when something is kept.
        origin: what an embedding depends on beside the image, see `origin_of`.

    Raises:
        SegfolioError: a folder with embeddings of another origin.
    """

    def __init__(self, folder: str | Path, origin: Mapping[str, Any]) -> None:
        self.folder, self.origin = Path(folder), json.loads(json.dumps(origin))
        if (there := self.folder / _ORIGIN).is_file():
            then = json.loads(there.read_bytes())
            if other := [name for name in {**then, **self.origin} if then.get(name) != self.origin.get(name)]:
                told = [f"{name} {_short(then.get(name))}, here {_short(self.origin.get(name))}" for name in other]
                raise SegfolioError(
                    f"{self.folder} holds embeddings of another network or other preprocessing ({'; '.join(told)}); "
                    "give another folder, or remove this one to have them computed anew"
                )

    def __contains__(self, image: Tensor) -> bool:
        return self._file(image).is_file()

    def get(self, image: Tensor) -> Embedding | None:
        """The embedding of an image `[C, H, W]` of the dataset's values, without a first dimension; None if there is
        none.

        Raises:
            SegfolioError: a file that is damaged.
        """
        try:
            kept = load((file := self._file(image)).read_bytes())
        except FileNotFoundError:
            return None
        except SafetensorError as error:
            raise SegfolioError(f"{file} is damaged ({error}); remove it to have it computed anew") from error
        return tuple(kept[str(place)] for place in range(len(kept)))

    def put(self, image: Tensor, embedding: Embedding) -> None:
        """Keep the embedding of an image.

        Raises:
            SegfolioError: values that float16 does not hold.
        """
        kept = {str(place): each.detach().half().cpu().contiguous() for place, each in enumerate(embedding)}
        if not all(each.isfinite().all() for each in kept.values()):
            raise SegfolioError(f"an embedding for {self.folder} is not finite in float16; it cannot be kept")
        if not (there := self.folder / _ORIGIN).is_file():
            write_atomically(there, json.dumps(self.origin, indent=1).encode())
        write_atomically(self._file(image), save(kept))

    def fill(self, batches: Iterable[Batch], embed: Callable[[Batch], Embedding], of: str = "") -> None:
        """Compute what is missing; a pass that was interrupted goes on where it was.

        Args:
            batches: images as the dataset has them.
            embed: the embedding of a batch.
            of: what is embedded, for the line that shows how far it is.
        """
        for batch in tqdm(batches, desc=f"embedding {of}".strip(), unit=" images", disable=None):  # of a terminal alone
            images = whole_images(batch)
            if all(image in self for image in images):
                continue
            with torch.no_grad():
                embedding = embed(batch)
            for place, image in enumerate(images):
                self.put(image, tuple(each[place] for each in embedding))

    def keep_split(self, data: Any, split: str, embed: Callable[[Batch], Embedding], wait: Callable[[], Any]) -> None:
        """`fill` with the images of a split as they are stored, once, by all processes together.

        Args:
            data: the data module.
            wait: for the other processes.
        """
        whole = self.folder / f"all_of_{fingerprint(data.split(split))[:16]}"
        if not whole.is_file():
            self.fill(data.stored_images(split), embed, of=split)
        wait()
        write_atomically(whole, b"")

    def of_sample(self, sample: Sample) -> list[Tensor]:
        """For the `extras` of a sample of a split that was kept.

        Raises:
            SegfolioError: its embedding is not there.
        """
        if (embedding := self.get(sample.image)) is None:
            raise SegfolioError(
                f"{self.folder} has no embedding of {sample.image_id}, though it had one of each image; remove the "
                "files all_of_* there, and what is missing is computed"
            )
        return list(embedding)

    def _file(self, image: Tensor) -> Path:
        pixels = image.as_subclass(Tensor).cpu().contiguous()
        known = hashlib.sha256(f"{pixels.dtype} {list(pixels.shape)}".encode())
        known.update(pixels.view(torch.uint8).numpy().data)
        name = known.hexdigest()
        return self.folder / name[:2] / f"{name[2:]}.safetensors"


def origin_of(network: PromptableNetwork, mean: Tensor, std: Tensor) -> dict[str, Any]:
    """What embeddings depend on: the image encoder, its weights, and how images are brought to it.

    Args:
        mean, std: by which images are normalised, `[C, 1, 1]`, in units of their values.
    """
    encoder = network.image_encoder
    weights = hashlib.sha256()
    for name, value in sorted(encoder.state_dict().items()):
        value = value.detach().cpu().contiguous()
        weights.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        weights.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return {
        "network": f"{type(network).__module__}.{type(network).__qualname__}",
        "weights": weights.hexdigest(),
        "image_size": network.image_size,
        "mean": mean.flatten().tolist(),
        "std": std.flatten().tolist(),
        "form": _FORM,
    }


def whole_images(batch: Batch) -> list[Tensor]:
    """Each image of a batch without the padding."""
    return [image[:, :height, :width] for image, (height, width) in zip(batch.images, batch.sizes, strict=True)]


def _short(value: Any) -> str:
    return f"{value[:12]}..." if isinstance(value, str) and len(value) == 64 else str(value)
