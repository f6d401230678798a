"""A user's own videos, without truth."""

from bisect import bisect_right
from collections.abc import Iterable
from itertools import accumulate, pairwise
from pathlib import Path

from segfolio.data.checks.problems import Problem
from segfolio.data.dataset import IMAGE_SUFFIXES, DatasetInfo, SegmentationDataset, listed
from segfolio.data.image_space import RGB, ImageSpace
from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Sample, to_image
from segfolio.data.videos import VIDEO_SUFFIXES, FrameFolder, Video, VideoFile, is_video
from segfolio.errors import SegfolioError


class VideoFolder(SegmentationDataset):
    """Each video a clip: one, or all that lie in a folder; a frame's id is `<video>/<frame>`.

    A video is a file or a folder of frames, see `segfolio.data.videos`; its frames are decoded as they are read, a
    file's most cheaply in their order.

    Args:
        root: a video file, a folder of frames, or a folder of those; `{split}` in it stands for the split.
        labels: the label space of the network that will see them; None where it learns without labels.
        image_space: of the frames that it has learned from.

    Raises:
        SegfolioError: no video, a file that cannot be opened, two videos that differ in their suffix alone; a network
            that asks for labels where there are none.
    """

    info = DatasetInfo(
        title="a folder of videos",
        url="the docstring of segfolio.data.datasets.VideoFolder",
        licence="yours",
        tasks=(),
        layout=f"a video ({', '.join(VIDEO_SUFFIXES)}), a folder of frames ({', '.join(IMAGE_SUFFIXES)}), or a folder "
        "of videos of either kind",
    )

    def __init__(
        self, root: str | Path | None, split: str, labels: LabelSpace | None = None, image_space: ImageSpace = RGB
    ) -> None:
        if root is None:
            raise SegfolioError("data.root is not set; expected a video or a folder of videos")
        root = Path(str(root).replace("{split}", split))
        self._labels, self.has_labels, self.image_space = labels, labels is not None, image_space
        self.videos = _found(root, image_space)
        if not self.videos:
            found = listed(path.name for path in root.iterdir()) if root.is_dir() else "it is no video"
            raise SegfolioError(f"{root}: {found if root.exists() else 'no such folder'}; expected {self.info.layout}")
        ends = [0, *accumulate(map(len, self.videos.values()))]
        self.clips = [range(*pair) for pair in pairwise(ends)]
        self._ends = ends

    @property
    def labels(self) -> LabelSpace:  # type: ignore[override]
        if self._labels is None:
            raise SegfolioError("VideoFolder holds videos without a truth; take a dataset with one, as DAVIS2017")
        return self._labels

    def __len__(self) -> int:
        return self._ends[-1]

    def image_id(self, index: int) -> str:
        name, video, frame = self._place(index)
        return f"{name}/{video.names[frame]}"

    def image_file(self, index: int) -> Path | None:
        _, video, frame = self._place(index)
        return video.paths[frame] if isinstance(video, FrameFolder) else None

    def files(self) -> Iterable[Path]:
        return (path for video in self.videos.values() for path in video.files())

    def problems(self) -> Iterable[Problem]:
        for name, video in self.videos.items():
            for problem in video.problems():
                yield problem._replace(image_id=problem.image_id and f"{name}/{problem.image_id}")

    def read(self, index: int) -> Sample:
        """Decode one frame.

        Raises:
            UnreadableFrame: one that is damaged, missing, or of another size than the first of its video.
        """
        _, video, frame = self._place(index)
        image = to_image(video[frame])
        return Sample(image, self.image_id(index), video.size)

    def _place(self, index: int) -> tuple[str, Video, int]:
        """Name of the video, the video, and which of its frames; an index outside is an `IndexError`."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        clip = bisect_right(self._ends, index) - 1
        name = list(self.videos)[clip]
        return name, self.videos[name], index - self._ends[clip]


def _found(root: Path, space: ImageSpace) -> dict[str, Video]:
    """The videos of a folder, or the one that it is, in order, by their names without suffix."""
    if is_video(root):
        return {root.stem: VideoFile(root)}
    if not root.is_dir():
        return {}
    if _holds_frames(root):
        return {root.name: FrameFolder(root, space)}
    videos: dict[str, Video] = {}
    for path in sorted(root.iterdir()):
        name = path.stem if is_video(path) else path.name
        if name in videos:
            raise SegfolioError(f"{videos[name].path} and {path} differ only in suffix; rename one")
        if is_video(path):
            videos[name] = VideoFile(path)
        elif path.is_dir() and not name.startswith(".") and _holds_frames(path):
            videos[name] = FrameFolder(path, space)
    return videos


def _holds_frames(folder: Path) -> bool:
    return any(path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") for path in folder.iterdir())
