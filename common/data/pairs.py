"""HR pictures and the LR that lies beside them."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from common.data.layouts import HR_NAME, LR_NAMES, of_one_scale, picture_files
from common.errors import UserError


class Pairs:
    """HR pictures, and the folders that hold their LR."""

    def __init__(
        self, hr_folder: Path, paths: Sequence[Path], lr_folders: Sequence[Path], one_scale: bool
    ) -> None:
        """
        Args:
            hr_folder: Folder of HR.
            paths: HR pictures in it.
            lr_folders: Folders of LR; the folder of HR itself, where the names tell them apart.
            one_scale: Whether only one scale is wanted, so that LR need not say its scale.
        """
        self.hr_folder, self.paths, self.lr_folders = hr_folder, paths, lr_folders
        self.one_scale = one_scale
        self.is_bicubic = all("bic" in folder.name.lower() for folder in lr_folders)

    def refuse_unread(self) -> None:
        """Refuses LR that bicubic has not made, for a program that makes LR from HR."""
        if not self.is_bicubic:
            raise UserError(
                f"{self.lr_folders[0]} holds LR pictures, which are not read here: LR is made from "
                f"HR. To have that, {self._way_out()}"
            )

    def lr_of(self, scale: int) -> list[Path]:
        """Finds the LR of each picture; none where it is to be made from HR.

        Raises:
            UserError: A picture has no LR, or two; or two pictures have the same.
        """
        found = {}
        for folder, one_scale in self._folders(scale):
            files: dict[str, list[Path]] = {}
            for path in set(picture_files(folder)).difference(self.paths):
                files.setdefault(str(path.relative_to(folder).with_suffix("")), []).append(path)
            matches = [self._match(path, files, scale, one_scale) for path in self.paths]
            if any(matches):
                found[folder] = matches
        if len(found) > 1:  # of DIV2K's tracks, bicubic is the one that the papers are about
            found = {f: m for f, m in found.items() if "bic" in f"{f.name}{f.parent.name}"} or found
        if len(found) > 1:
            raise UserError(
                f"There is LR of x{scale} in {' and in '.join(map(str, found))}. Which is to be "
                "read? Move the others elsewhere."
            )
        if not found:
            if self.is_bicubic and not list(self._folders(scale)) and self._example():
                return []
            self._refuse_missing(self.paths[0], self.lr_folders[0], scale)
        ((folder, matches),) = found.items()
        used: dict[Path, Path] = {}
        for path, match in zip(self.paths, matches, strict=True):
            if not match:
                self._refuse_missing(path, folder, scale)
            if len(match) > 1:
                raise UserError(f"{path} has two LR pictures, {match[0]} and {match[1].name}.")
            if (other := used.setdefault(match[0], path)) != path:
                raise UserError(
                    f"{other} and {path.name} would both have the LR picture {match[0]}. Remove "
                    "one of them, and so for others of one name."
                )
        return list(used)

    def _folders(self, scale: int) -> Iterator[tuple[Path, bool]]:
        """Folders that may have LR of a scale, and whether they have no other."""
        for folder in self.lr_folders:
            children = [
                (child, int(match[1]))
                for child, match in of_one_scale(folder)
                if not (self.hr_folder / child.name).is_dir()
            ]
            told = re.search(r"x([2-8])(?:_sub)?$", folder.name, re.I)
            if not children:
                children = [(folder, int(told[1]) if told else 0)]
            for child, its_scale in children:
                if its_scale in (scale, 0):
                    yield child, self.one_scale or its_scale == scale

    def _match(
        self, path: Path, files: dict[str, list[Path]], scale: int, one_scale: bool
    ) -> list[Path]:
        stem = str(path.relative_to(self.hr_folder).with_suffix(""))
        named = re.fullmatch(HR_NAME, stem, re.I)
        for pattern in LR_NAMES:
            if one_scale or "{scale}" in pattern:
                base = named[1] if named else stem
                name = pattern.format(stem=stem, base=base, scale=scale)
                if name in files:
                    return sorted(files[name])
        return []

    def _refuse_missing(self, path: Path, folder: Path, scale: int) -> NoReturn:
        stem = path.relative_to(self.hr_folder).with_suffix("")
        names = [f"{stem}.*"] * self.one_scale + [f"{stem}x{scale}.*"]
        example = self._example()
        others = f" It holds {example}, for example." if example else " It is empty."
        raise UserError(
            f"{path} has no LR picture {' or '.join(names)} in {folder}. Add it, or "
            f"{self._way_out()}{others}"
        )

    def _example(self) -> str:
        """An LR picture of any scale; "" if there is none."""
        for folder in self.lr_folders:
            for path in picture_files(folder):
                if path not in self.paths:
                    return f"{path.relative_to(folder)}"
        return ""

    def _way_out(self) -> str:
        if self.hr_folder in self.lr_folders:
            return "move the HR to a folder of its own to have LR made."
        return f"name {self.hr_folder} alone to have LR made."
