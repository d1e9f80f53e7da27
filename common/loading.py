"""From the command line to the pictures of a run: of a folder, of the Hub, or a stream."""

import argparse
from collections.abc import Callable, Iterable, Sequence, Sized
from pathlib import Path
from typing import Any

import datasets

from common.data import (
    SAMPLE_TRAIN,
    BenchmarkDataset,
    PatchDataset,
    Pictures,
    Source,
    decode_pictures,
    find_pictures,
    sample_pictures,
    too_small_to_score,
)
from common.errors import UserError
from common.files import checksum
from common.hub_data import hub_pictures
from common.stream import PictureStream


class PictureLoader:
    """Loads the pictures that the command line names, and says what it leaves out."""

    def __init__(
        self, args: argparse.Namespace, scales: Sequence[int], say: Callable[[str], None]
    ) -> None:
        """
        Args:
            args: The command line of a training script.
            scales: That the network is trained for.
            say: Gets a line for the user.
        """
        self.args, self.scales, self.say = args, scales, say

    def load(self) -> tuple[PatchDataset | PictureStream, list[BenchmarkDataset]]:
        """The training patches, or the stream they come from; and at each scale the validation.

        Raises:
            UserError: For whatever can be wrong with the pictures.
        """
        args = self.args
        training, identity, validation_dir = self._training()
        is_stream = args.streaming and not args.max_train_images
        if not is_stream:
            pictures = self._decode(training, identity)
        if validation_dir:
            validation = self._decode(find_pictures(validation_dir, self.scales))
        elif args.validation_split:
            validation = self._decode(
                *self._hub_pictures(args.validation_split, args.validation_data_files)
            )
        else:
            pictures, validation = split_off_validation(pictures)
        if too_small := too_small_to_score(validation, self.scales):
            raise UserError(
                f"Too small to validate on: {enumerate_first(too_small)}. Remove them, or name "
                "larger pictures with --validation_data_dir."
            )
        benchmarks = [BenchmarkDataset(validation, scale) for scale in self.scales]
        if is_stream:
            return self._stream(training, identity), benchmarks
        return self.patches_of(pictures), benchmarks

    def patches_of(self, pictures: Pictures) -> PatchDataset:
        """Their training patches.

        Raises:
            UserError: No picture is as large as a patch.
        """
        args = self.args
        patches = PatchDataset(pictures, self.scales, args.patch_size, args.batch_size, args.seed)
        if patches.too_small:
            self.say(
                f"Left out {len(patches.too_small)} of {len(pictures)} pictures, which are smaller "
                f"than a patch of {args.patch_size}x{args.patch_size}: "
                f"{enumerate_first(patches.too_small)}"
            )
        return patches

    def report_errors(self, pictures: Pictures, errors: dict[str, str]) -> None:
        """Says which pictures could not be read besides these.

        Raises:
            UserError: They are too many.
        """
        if not errors:
            return
        all_pictures = len(pictures) + len(errors)
        reasons = enumerate_first([f"{name} ({error})" for name, error in errors.items()])
        message = f"{len(errors)} of {all_pictures} pictures: {reasons}"
        if not len(pictures) or len(errors) > max(3, all_pictures / 100):
            raise UserError(
                f"Cannot read {message}. Up to three, or 1 %, would be left out. "
                "Mend or remove them."
            )
        self.say(f"Left out {message}")

    def _training(self) -> tuple[Any, list[Any] | None, Path | None]:
        """What to train on, what tells it from others, and the folder to validate on."""
        args = self.args
        sources: Any
        identity = None
        validation_dir = args.validation_data_dir
        if args.train_data_dir:
            train_dir = args.train_data_dir
            if all((train_dir / name).is_dir() for name in ("train", "val")):
                validation_dir = validation_dir or train_dir / "val"
                train_dir = train_dir / "train"
            sources = find_pictures(train_dir, self.scales)
        elif args.dataset_name == "sample":
            sources = sample_pictures(SAMPLE_TRAIN)
        else:
            sources, identity = self._hub_pictures(args.train_split, args.data_files)
        if first := args.max_train_images:
            if isinstance(sources, Sized):
                first = min(first, len(sources))
            sources = sources[:first] if isinstance(sources, list) else sources.take(first)
            identity = identity and [*identity, first]
        return sources, identity, validation_dir

    def _hub_pictures(self, split: str, files: Sequence[str]) -> tuple[Iterable[Source], list[Any]]:
        args = self.args
        return hub_pictures(
            *(args.dataset_name, self.scales, args.dataset_config_name, args.image_column),
            *(split, files, args.dataset_revision, args.streaming),
        )

    def _stream(self, table: datasets.IterableDataset, identity: Any) -> PictureStream:
        args = self.args
        size = args.streaming_images
        facts = [identity, self.scales, size, args.seed, str(args.output_dir.resolve())]
        folder = Path(datasets.config.HF_DATASETS_CACHE) / f"stream-{checksum(facts)}"
        return PictureStream(table, self.scales, size, args.seed, identity, folder)

    def _decode(self, sources: Iterable[Source], identity: list[Any] | None = None) -> Pictures:
        pictures, errors = decode_pictures(sources, self.scales, identity)
        self.report_errors(pictures, errors)
        return pictures


def split_off_validation(pictures: Pictures) -> tuple[Pictures, Pictures]:
    """Pictures to train on, and the last ones to validate on: a tenth, but 1 to 10.

    Raises:
        UserError: There is only one.
    """
    if len(pictures) < 2:
        raise UserError(
            "One training picture leaves none to validate on. Add more, or name others with "
            "--validation_data_dir."
        )
    border = len(pictures) - min(10, max(1, len(pictures) // 10))
    return pictures.subset(range(border)), pictures.subset(range(border, len(pictures)))


def enumerate_first(items: list[str]) -> str:
    """The first ten, and how many more there are."""
    return ", ".join(items[:10]) + f" and {len(items) - 10} more" * (len(items) > 10)
