"""Oxford-IIIT Pet (Parkhi et al., 2012): 37 breeds of cats and dogs, one animal an image."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from segfolio.data.checks.headers import FilePair
from segfolio.data.dataset import DatasetInfo, PairedFiles, RemoteFile, listed
from segfolio.data.labels import LabelSpace
from segfolio.errors import SegfolioError

BREEDS = (  # in the order of the ids in the lists
    *("Abyssinian", "american_bulldog", "american_pit_bull_terrier", "basset_hound", "beagle", "Bengal", "Birman"),
    *("Bombay", "boxer", "British_Shorthair", "chihuahua", "Egyptian_Mau", "english_cocker_spaniel", "english_setter"),
    *("german_shorthaired", "great_pyrenees", "havanese", "japanese_chin", "keeshond", "leonberger", "Maine_Coon"),
    *("miniature_pinscher", "newfoundland", "Persian", "pomeranian", "pug", "Ragdoll", "Russian_Blue"),
    *("saint_bernard", "samoyed", "scottish_terrier", "shiba_inu", "Siamese", "Sphynx"),
    *("staffordshire_bull_terrier", "wheaten_terrier", "yorkshire_terrier"),
)
_PET, _BACKGROUND, _BORDER = 1, 2, 3  # of a trimap
_FIRST_BREED = 256  # a pet's pixels by breed; no pixel of an 8-bit trimap has such a value


class OxfordPet(PairedFiles):
    """The animal and what is behind it; the border between them, where it is not clear, is void.

    Args:
        root: the folder that holds `images/` and `annotations/`.
        split: trainval or test.
        border: whether the border is a third class.
        breeds: whether each breed is a class, in place of `pet`.

    Raises:
        SegfolioError: an unknown split, another folder, a list that is empty, names missing files or no breed.
    """

    info = DatasetInfo(
        title="Oxford-IIIT Pet",
        url="https://www.robots.ox.ac.uk/~vgg/data/pets",
        licence="CC BY-SA 4.0",
        splits={"trainval": 3680, "test": 3669},
        layout="images/*.jpg, annotations/trimaps/*.png and annotations/{trainval,test}.txt",
        disk="800 MB",
        files=(  # checksums as in torchvision, datasets/oxford_iiit_pet.py
            RemoteFile(
                "https://www.robots.ox.ac.uk/~vgg/data/pets/data/images.tar.gz", "md5:5c4f3ee8e5d25df40f4fd59a7f44e54c"
            ),
            RemoteFile(
                "https://www.robots.ox.ac.uk/~vgg/data/pets/data/annotations.tar.gz",
                "md5:95a8c909bbe2e81eed6a22bccdf3f68f",
            ),
        ),
    )
    labels = LabelSpace(("pet", "background"), (_PET, _BACKGROUND), void_ids=(_BORDER,), background="background")

    def __init__(self, root: str | Path, split: str, border: bool = False, breeds: bool = False) -> None:
        self.expect_split(split, self.info.splits)
        listing = f"annotations/{split}.txt"
        root = self.expect_files(root, listing, "annotations/trimaps", "images")
        pets = dict(enumerate(BREEDS, _FIRST_BREED)) if breeds else {_PET: "pet"}
        classes = pets | {_BACKGROUND: "background"} | ({_BORDER: "border"} if border else {})
        void = () if border else (_BORDER,)
        self.labels = LabelSpace(tuple(classes.values()), tuple(classes), void, background="background")
        self.breeds = breeds
        lines = (root / listing).read_text().splitlines()
        names = [line.split()[0] for line in lines if line.strip() and not line.startswith("#")]
        if not names:
            raise SegfolioError(f"{root / listing} is empty, expected the name of an image first on each line")
        if strays := [name for name in names if _breed(name) not in BREEDS]:
            raise SegfolioError(
                f"{root / listing} names images of no known breed: {listed(strays, 3)}; expected names like "
                "Abyssinian_100"
            )
        self.pairs = [
            FilePair(name, root / "images" / f"{name}.jpg", root / "annotations/trimaps" / f"{name}.png")
            for name in names
        ]
        self.expect_pairs(root / listing)

    def read_ids(self, path: Path) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
        """The trimap, with the breed of the file's name in place of the pet where breeds are the classes."""
        ids = super().read_ids(path)
        if not self.breeds:
            return ids
        breed = np.uint16(_FIRST_BREED + BREEDS.index(_breed(path.stem)))
        return np.where(ids == _PET, breed, ids)


def _breed(name: str) -> str:
    return name.rpartition("_")[0]
