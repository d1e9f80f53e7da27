"""Data sets that are larger than the disk: read as a stream, of which a part is decoded at a time.

stream = PictureStream(table, [2], part_size=500, seed=0, identity=["user/name"], folder=folder)
for part in DataLoader(stream, batch_size=None, num_workers=1, prefetch_factor=1):
    ...  # training patches from part.pictures, while the process decodes the next part
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

from common.data import Pictures, Source, decode_pictures
from common.errors import UserError
from common.stop import ignore_signals

# What comes next: the number of the shard, counted over all passes, and the row in it.
Position = Sequence[int]


class Part(NamedTuple):
    """Decoded pictures, those that could not be read with the reason, and where the next are."""

    pictures: Pictures
    errors: dict[str, str]
    end: Position


class PictureStream(IterableDataset[Part | str]):
    """One part after the other; instead of one that cannot be had, the reason.

    Every pass takes the shards (files) of the data set in an order of its own, a function of seed
    and pass, and each of them from its first row to the last. A part holds the next pictures in
    that order, so it is a function of data set, seed and position, and a run that resumes gets the
    same part again. It is decoded into a file, once for all processes of a machine.

    Attributes:
        begin: Where the first part begins.
        count: How many parts there are to be.
    """

    def __init__(
        self,
        table: datasets.IterableDataset,
        scales: Sequence[int],
        part_size: int,
        seed: int,
        identity: Sequence[Any],
        folder: Path,
    ) -> None:
        """
        Args:
            table: Columns of undecoded pictures, `hr`, and `lr_x2` and so on where it has them.
            scales: Of HR to LR.
            part_size: Pictures of a part.
            seed: At least 0.
            identity: What tells the data set from others; JSON values.
            folder: For the decoded parts of this stream alone.
        """
        self.table, self.scales, self.part_size, self.seed = table, scales, part_size, seed
        self.identity, self.folder = identity, folder
        self.begin: Position = (0, 0)
        self.count = 1

    def parts(self) -> DataLoader[Part | str]:
        """The parts, the next one always being decoded by a process."""
        return DataLoader(
            self,
            batch_size=None,
            num_workers=1,
            prefetch_factor=1,
            generator=torch.Generator(),  # else it would draw from the one that resuming restores
            worker_init_fn=ignore_signals,
            # A fork would lack the threads with which `datasets` has read before.
            multiprocessing_context="spawn",
        )

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
        pictures, errors = decode_pictures(rows, self.scales, identity, folder)
        return Part(pictures, errors, json.loads(rows.end_file.read_text()))

    def delete(self, position: Position) -> None:
        """Deletes the decoded part that begins there, which all processes must have opened."""
        shutil.rmtree(self._folder(position), ignore_errors=True)

    def _folder(self, position: Position) -> Path:
        return self.folder / "-".join(map(str, position))


@dataclass
class _Rows:
    """The rows of a part. When all are read, the position after them is in `end_file`."""

    table: datasets.IterableDataset
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
            # (A third number, to draw others than the patches do.)
            order = np.random.default_rng((self.seed, epoch, 2)).permutation(self.table.num_shards)
            rows = self.table.shard(len(order), int(order[number])).skip(row)
            try:
                for source in islice(rows, left):
                    yield source
                    row, left = row + 1, left - 1
            except Exception as error:  # of the network or a file, of many kinds
                raise UserError(f"{error}" or type(error).__name__) from None
            if left:  # the shard is at its end
                shard, row = shard + 1, 0
            if left == self.count and shard - self.position[0] > len(order):
                raise UserError("there is not one row in it")
        self.end_file.write_text(json.dumps([shard, row]))
