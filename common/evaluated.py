"""Pictures that evaluate.py writes while it scores a network: SR, strips, and a page."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from accelerate import PartialState
from torch import Tensor

from common.data.patches import BenchmarkDataset
from common.errors import UserError
from common.evaluation import Bicubic, picture_keys
from common.files import cannot_write_any, last_name
from common.gallery import Gallery, fill
from common.images.formats import Picture
from common.images.strip import Versions
from common.images.tensors import to_float
from common.images.writing import write_picture
from common.metrics import to_uint8
from common.network import SuperResolutionModel
from common.page.page import Page, as_code, as_table
from common.tables import format_score, score_name

Subject = Bicubic | SuperResolutionModel


class EvaluatedPictures:
    """Writes the pictures that the command line asks for; all processes have one."""

    def __init__(self, args: argparse.Namespace, network: Subject, other: Subject | None) -> None:
        """
        Args:
            args: Options of evaluate.py.
            network: Network that is scored.
            other: Network of `--comparison_model`, which is shown beside it.
        """
        self._args, self._network, self._other = args, network, other
        self._label = type(network).__name__
        self._page = Page("")
        self._gallery = Gallery(sheet=False, page=False)

    def check(self, benchmarks: Mapping[str, BenchmarkDataset]) -> None:
        """Refuses --save_images over pictures that exist, before any is made.

        Raises:
            UserError: There is one.
        """
        args = self._args
        for name, benchmark in benchmarks.items() if args.save_images else ():
            keys = picture_keys(benchmark.pictures.names)
            names = [f"{name}.png", *(f"{name}/{key}.png" for key in keys)]
            if reason := cannot_write_any([args.save_images / n for n in names], args.overwrite):
                raise UserError(f"--save_images: {reason}.")

    def begin(self, name: str, benchmark: BenchmarkDataset) -> None:
        """Begins a benchmark."""
        self._name, self._benchmark = name, benchmark
        self._keys = picture_keys(benchmark.pictures.names)
        args = self._args
        self._sheets = [args.save_images / f"{name}.png"] if args.save_images else []
        self._sheets += [args.comparison] if args.comparison and name == args.benchmarks[0] else []
        self._gallery = Gallery(sheet=bool(self._sheets), page=bool(args.page))

    def on_image(self, index: int, sr: Tensor) -> None:
        """Takes the SR of a picture, uint8, (3, H, W)."""
        args, name, key = self._args, self._name, self._keys[index]
        if args.save_images:
            path = args.save_images / name / f"{key}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_picture(Picture(sr.permute(1, 2, 0).cpu().numpy()), path)
        if self._gallery.takes(index):
            _, lr, hr = self._benchmark[index]
            versions = Versions.of(lr, self._results(lr, sr), hr)
            self._gallery.add(index, f"{name}: {key}", versions)

    def _results(self, lr: Tensor, sr: Tensor) -> list[tuple[str, Tensor]]:
        if self._other is None:
            return [(self._label, sr.cpu())]
        second = to_uint8(self._other.enlarge(to_float(lr, sr.device)[None])[0]).cpu()
        args = self._args
        names = [Path(folder).resolve().name for folder in (args.comparison_model, args.model)]
        return list(zip(names, (second, sr.cpu()), strict=True))

    def end(self, results: Mapping[str, Mapping[str, float]], bicubic: Mapping[str, float]) -> None:
        """Ends a benchmark; all processes call it.

        Args:
            results: Scores by the name of the picture.
            bicubic: Bicubic's PSNR by the name of the picture.
        """
        for path in self._sheets:
            self._gallery.write_sheet(path)
        pictures = self._gallery.gathered()
        for index, picture in enumerate(pictures):
            if picture:
                name = self._benchmark.pictures.names[index]
                scores = [
                    f"{score_name(key)} {format_score(key, value)}"
                    for key, value in results[name].items()
                    if key != "seconds"
                ]
                over = f"bicubic PSNR-Y {format_score('psnr_y', bicubic[name])}"
                pictures[index] = picture._replace(caption=f"{', '.join(scores)}; {over}")
        fill(self._page, pictures)

    def finish(self, title: str, protocol: str, rows: Sequence[Mapping[str, str]]) -> None:
        """Writes the page, on the first process."""
        if self._args.page and PartialState().is_main_process:
            name = last_name(f"{self._args.model}")
            self._page.title = f"{self._label} x{self._network.scale}, {name}"
            table = as_table([list(rows[0]), *(list(row.values()) for row in rows)])
            self._page.add_section("Scores", f"{table}{as_code(f'{title}. Protocol: {protocol}.')}")
            self._page.write(self._args.page)
