"""Data sets larger than the disk: read as a stream, of which one part at a time is decoded.

found = hub_pictures("user/name", [2], streaming=True)
stream = PictureStream(found, [2], part_size=500, seed=0, folder=folder)
for part in stream.parts():
    ...  # training patches from part.pictures, while a process decodes the next part
"""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

from common.data.cache import Pictures, decode_pictures
from common.data.find import Listing, Source
from common.data.patches import PatchDataset
from common.data.waiting import SLICE, WorkerError, wait_for
from common.errors import UserError
from common.files import checksum
from common.signals import ignore_signals

if TYPE_CHECKING:
    import datasets

# What comes next: the number of the shard, counted over all passes, and the row in it.
Position = Sequence[int]


class Part(NamedTuple):
    """Part of a stream.

    Attributes:
        pictures: Decoded pictures.
        errors: Reason for each picture that could not be read, by its name.
        end: Position of the next part.
    """

    pictures: Pictures
    errors: dict[str, str]
    end: Position


class PictureStream(IterableDataset[Part | str]):
    """One part after the other; instead of a part that cannot be had, the reason, as the last.

    Every pass takes the shards (files) of the data set in an order of its own, a function of seed
    and pass, and each shard from its first row to the last. A part holds the next pictures in that
    order. So a part is a function of data set, seed and position, and a run that resumes gets the
    same part again. A part is decoded into a file, once for all processes of a machine.

    Attributes:
        begin: Position of the first part.
        count: Number of parts to give.
    """

    def __init__(
        self,
        found: Listing,
        scales: Sequence[int],
        part_size: int,
        seed: int,
        folder: Path,
    ) -> None:
        """
        Args:
            found: Data set with columns of undecoded pictures, `hr`, and `lr_x2` and so on.
            scales: Factors from LR to HR.
            part_size: Pictures of a part.
            seed: Whole number, at least 0.
            folder: Folder for the decoded parts of this stream alone.
        """
        self.table, self.identity, self.roots, _ = found
        self.scales, self.part_size, self.seed = scales, part_size, seed
        self.folder = folder
        self.begin: Position = (0, 0)
        self.count = 1

    def parts(self, stops: Callable[[], object] = bool) -> Iterator[Part | str]:
        """Gives the parts, while a process decodes the next one.

        Args:
            stops: Function that says whether somebody has asked this process to stop.
        """
        loader: DataLoader[Part | str] = DataLoader(
            self,
            batch_size=None,
            num_workers=1,
            prefetch_factor=1,
            # Without it, the loader would draw from the generator that resuming restores.
            generator=torch.Generator(),
            worker_init_fn=ignore_signals,
            # A fork would lack the threads with which `datasets` has read before.
            multiprocessing_context="spawn",
            timeout=SLICE,
        )
        try:
            yield from wait_for(loader, stops, patience=inf)
        except WorkerError as error:
            yield f"{error}"

    def __iter__(self) -> Iterator[Part | str]:
        position = self.begin
        for _ in range(self.count):
            try:
                part = self._decode(position)
            except (UserError, Exception) as error:
                yield f"{error}" or type(error).__name__
                return
            yield part
            position = part.end

    def _decode(self, position: Position) -> Part:
        folder = self._folder(position)
        folder.mkdir(parents=True, exist_ok=True)
        rows = _Rows(self.table, self.seed, position, self.part_size, folder / "end.json")
        identity = [self.identity, self.part_size, self.seed, position]
        pictures, errors = decode_pictures(rows, self.scales, identity, folder, self.roots)
        return Part(pictures, errors, json.loads(rows.end_file.read_text()))

    def delete(self, position: Position) -> None:
        """Deletes the decoded part at a position; all processes must have opened its file."""
        shutil.rmtree(self._folder(position), ignore_errors=True)

    def _folder(self, position: Position) -> Path:
        return self.folder / "-".join(map(str, position))


@dataclass
class _Rows:
    """Rows of a part. When all are read, `end_file` holds the position after them."""

    table: "datasets.IterableDataset"
    seed: int
    position: Position
    count: int
    end_file: Path

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Source]:
        (shard, row), left = self.position, self.count
        while left:
            epoch, number = divmod(shard, self.table.num_shards)
            # The third number gives other draws than those of the patches.
            order = np.random.default_rng((self.seed, epoch, 2)).permutation(self.table.num_shards)
            rows = self.table.shard(len(order), int(order[number])).skip(row)
            try:
                for source in islice(rows, left):
                    yield source
                    row, left = row + 1, left - 1
            except Exception as error:  # errors of many kinds: network, file
                raise UserError(f"{error}" or type(error).__name__) from None
            if left:  # the shard is at its end
                shard, row = shard + 1, 0
            if left == self.count and shard - self.position[0] > len(order):
                raise UserError("there is not one row in it")
        self.end_file.write_text(json.dumps([shard, row]))


class StreamError(Exception):
    """Reason why no process can go on in the stream."""


class PatchStream:
    """Training patches from a stream: every part serves for a fixed number of steps.

    Attributes:
        positions: Positions of this part and the next, by the steps at which they begin; a
            checkpoint holds them.
    """

    def __init__(
        self,
        stream: PictureStream,
        steps_per_part: int,
        patches_of: Callable[[Part], PatchDataset],
    ) -> None:
        """
        Args:
            stream: Parts of the data set.
            steps_per_part: Optimizer steps until the next part takes the place of a part.
            patches_of: Function that makes the patches of a part. It raises a UserError if the
                part has too few pictures that can be used.
        """
        self.stream, self.steps_per_part, self.patches_of = stream, steps_per_part, patches_of
        self.positions: dict[int, Position] = {}

    def portions(
        self,
        begin: int,
        end: int,
        agree: Callable[[str], str],
        deletes: bool,
        stops: Callable[[], object] = bool,
    ) -> Iterator[tuple[PatchDataset, range]]:
        """Gives the patches of the steps from `begin` to `end` and the steps that they are for.

        Args:
            begin: Step to begin with.
            end: Step that is not done any more.
            agree: Function that all processes call together: gets an error, or "", and returns the
                first error of any process. When it returns, all processes have opened their part.
            deletes: Whether this process deletes the parts of its machine that have served.
            stops: Function that says whether somebody has asked this process to stop.

        Raises:
            StreamError: A process could not get its part.
        """
        if begin >= end:  # no process must begin to read for nothing
            return
        length = self.steps_per_part
        first = begin // length * length
        self.stream.count = -(-(end - first) // length)
        if self.positions:  # after a change of recipe, `first` may be missing: go on at the newest
            newest = self.positions[max(self.positions)]
            self.stream.begin = self.positions.get(first, newest)
        here = self.stream.begin
        for start, part in zip(count(first, length), self.stream.parts(stops), strict=False):
            patches, error = None, part if isinstance(part, str) else ""
            try:
                if isinstance(part, Part):
                    patches = self.patches_of(part)
            except UserError as unusable:
                error = f"{unusable}"
            if error := agree(error):
                raise StreamError(error)
            assert isinstance(part, Part)
            assert patches
            if deletes and start - length in self.positions:
                self.stream.delete(self.positions[start - length])
            self.positions = {start: here, start + length: part.end}
            here = part.end
            yield patches, range(max(begin, start), min(start + length, end))

    def clear(self) -> None:
        """Deletes all decoded parts, when the run is done."""
        shutil.rmtree(self.stream.folder, ignore_errors=True)

    def fingerprint(self) -> list[int | str]:
        """Size of a part and checksum of the data set, by which a checkpoint knows it."""
        return [self.stream.part_size, checksum(self.stream.identity)[:8]]

    def difference_from(self, fingerprint: Sequence[int | str]) -> str:
        """Says how this data set differs from that of a fingerprint; "" if it does not."""
        same = fingerprint[1] == self.fingerprint()[1]
        return "" if same else "the data set is another, or its --dataset_revision"

    def in_banner(self) -> str:
        return f"a stream, {self.stream.part_size} to train on at a time"

    def in_card(self, source: str) -> str:
        return f"the stream of {source}, {self.stream.part_size} pictures at a time"
