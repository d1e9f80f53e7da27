"""Pictures of a run, as its command line names them: a folder, a data set, or a stream."""

import argparse
from collections.abc import Callable, Sequence, Sized
from pathlib import Path
from typing import NamedTuple

from common.data.cache import Pictures, decode_pictures
from common.data.degradation import (
    MADE,
    degradation_refused,
    open_degradation,
    origin_of_lr,
)
from common.data.find import SAMPLE_TRAIN, Listing, has_split, list_folder, sample_pictures
from common.data.hub_sets import hub_pictures
from common.data.layouts import describe_kinds
from common.data.patches import BenchmarkDataset, PatchDataset, too_small_to_score
from common.data.stream import Part, PatchStream, PictureStream
from common.errors import UserError
from common.files import checksum, last_name
from common.tables import enumerate_first, plural


class TrainingPictures(NamedTuple):
    """Pictures of a run.

    Attributes:
        patches: Training patches, from decoded pictures or from a stream.
        validation: Validation pictures, at each scale.
        source: Name of the data set or folder.
        lr: Where the LR that is trained on comes from, in words.
    """

    patches: PatchDataset | PatchStream
    validation: list[BenchmarkDataset]
    source: str
    lr: str = MADE

    def in_card(self) -> str:
        return f"{self.patches.in_card(last_name(self.source))} (LR {self.lr})"


def load_pictures(
    args: argparse.Namespace, scales: Sequence[int], say: Callable[[str], None]
) -> TrainingPictures:
    """Decodes the pictures that a command line names, or finds them in the cache.

    Args:
        args: Options of a training script.
        scales: Factors that the network is trained for.
        say: Function that prints a line for the user.

    Raises:
        UserError: The pictures cannot be had or used.
    """
    return _Loader(args, scales, say).load()


class _Loader:
    """Loads the pictures that a command line names, and says which ones it leaves out."""

    def __init__(
        self, args: argparse.Namespace, scales: Sequence[int], say: Callable[[str], None]
    ) -> None:
        self.args, self.scales, self.say = args, scales, say
        self.degradation = open_degradation(args.degradation)

    def load(self) -> TrainingPictures:
        args = self.args
        training, validation_dir = self._training()
        is_stream = args.streaming and not args.max_train_images
        lr = validation_lr = origin_of_lr(training.lr, args.degradation)
        if not is_stream:
            pictures = self._decode(training)
        if validation_dir or args.validation_split:
            found = self._validation(validation_dir)
            validation_lr = origin_of_lr(found.lr, args.degradation)
            validation = self._decode(found)
        else:
            pictures, validation = split_off_validation(pictures)
        if too_small := too_small_to_score(validation, self.scales):
            raise UserError(
                f"Too small to validate on: {enumerate_first(too_small)}. Remove them, or name "
                "larger pictures with --validation_data_dir."
            )
        patches = self._stream(training) if is_stream else self._patches_of(pictures)
        benchmarks = [
            BenchmarkDataset(validation, scale, self.degradation, validation_lr)
            for scale in self.scales
        ]
        source = f"{args.train_data_dir or args.dataset_name}"
        return TrainingPictures(patches, benchmarks, source, lr)

    def _training(self) -> tuple[Listing, Path | None]:
        """(training pictures, folder to validate on)."""
        args = self.args
        validation_dir = args.validation_data_dir
        if args.train_data_dir:
            found = self._folder(args.train_data_dir, "train")
            if has_split(args.train_data_dir, "validation"):
                validation_dir = validation_dir or args.train_data_dir
        elif args.dataset_name == "sample":
            found = Listing(sample_pictures(SAMPLE_TRAIN))
        else:
            found = self._hub_pictures(args.train_split, args.data_files)
        if first := args.max_train_images:
            sources = found.sources
            if isinstance(sources, Sized):
                first = min(first, len(sources))
            found = found._replace(
                sources=sources[:first] if isinstance(sources, list) else sources.take(first),
                identity=found.identity and [*found.identity, first],
            )
        return found, validation_dir

    def _folder(self, folder: Path, split: str) -> Listing:
        found = list_folder(folder, self.scales, split)
        if said := describe_kinds(folder):
            self.say(f"{folder}: {said}")
        return found

    def _validation(self, folder: Path | None) -> Listing:
        if folder and folder == self.args.train_data_dir:  # whose kinds were described
            return list_folder(folder, self.scales, "validation")
        if folder:
            return self._folder(folder, "validation")
        return self._hub_pictures(self.args.validation_split, self.args.validation_data_files)

    def _hub_pictures(self, split: str, files: Sequence[str]) -> Listing:
        args = self.args
        hr_alone = self.degradation and args.image_column  # whatever LR lies in other columns
        return hub_pictures(
            args.dataset_name,
            [] if hr_alone else self.scales,
            config=args.dataset_config_name,
            column=args.image_column,
            split=split,
            data_files=files,
            revision=args.dataset_revision,
            streaming=args.streaming,
        )

    def _decode(self, found: Listing) -> Pictures:
        pictures, errors = decode_pictures(
            found.sources, self.scales, found.identity, roots=found.roots
        )
        self._report_errors(pictures, errors)
        return pictures

    def _patches_of(self, pictures: Pictures) -> PatchDataset:
        args = self.args
        patches = PatchDataset(
            pictures,
            self.scales,
            args.patch_size,
            args.batch_size,
            args.seed,
            self.degradation,
            args.permute_channels,
        )
        if self.degradation:
            with degradation_refused():
                patches[0]  # here, since the mistakes of a function must not wait for a worker
        if patches.too_small:
            self.say(
                f"Left out {len(patches.too_small)} of {plural(len(pictures), 'picture')}, which "
                f"are smaller than a patch of {args.patch_size}x{args.patch_size}: "
                f"{enumerate_first(patches.too_small)}"
            )
        return patches

    def _patches_of_part(self, part: Part) -> PatchDataset:
        self._report_errors(part.pictures, part.errors)
        return self._patches_of(part.pictures)

    def _report_errors(self, pictures: Pictures, errors: dict[str, str]) -> None:
        """Says which pictures could not be read.

        Raises:
            UserError: Too many pictures cannot be read.
        """
        if not errors:
            return
        all_pictures = len(pictures) + len(errors)
        reasons = enumerate_first([f"{name} ({error})" for name, error in errors.items()])
        message = f"{len(errors)} of {plural(all_pictures, 'picture')}: {reasons}"
        if not len(pictures):
            raise UserError(f"Cannot read {message}. None is left. Mend them, or name others.")
        if len(errors) > max(3, all_pictures / 100):
            raise UserError(
                f"Cannot read {message}. Up to three, or 1 %, would be left out. Mend or remove "
                "them."
            )
        self.say(f"Left out {message}")

    def _stream(self, found: Listing) -> PatchStream:
        import datasets

        args = self.args
        size = args.streaming_images
        facts = [found.identity, self.scales, size, args.seed, str(args.output_dir.resolve())]
        folder = Path(datasets.config.HF_DATASETS_CACHE) / f"stream-{checksum(facts)}"
        stream = PictureStream(found, self.scales, size, args.seed, folder)
        steps_per_part = max(1, size * args.patches_per_image // args.batch_size)
        return PatchStream(stream, steps_per_part, self._patches_of_part)


def split_off_validation(pictures: Pictures) -> tuple[Pictures, Pictures]:
    """Divides pictures into those to train on and the last ones, a tenth but 1 to 10, to validate.

    Raises:
        UserError: There is only one picture.
    """
    if len(pictures) < 2:
        raise UserError(
            "One training picture leaves none to validate on. Add more, or name others with "
            "--validation_data_dir."
        )
    border = len(pictures) - min(10, max(1, len(pictures) // 10))
    return pictures.subset(range(border)), pictures.subset(range(border, len(pictures)))
