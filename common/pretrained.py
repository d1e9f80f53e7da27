"""Models that this repository trained: the folders of `pretrained/`, found by their names.

`python -m results.publish` makes them. Every folder has checksums, which are tested when it is
loaded.
"""

from pathlib import Path

from common.errors import UserError
from common.files import CHECKSUMS
from common.machine import ROOT
from common.network import CONFIG
from common.sizes import passes
from common.weights import read_config

FOLDER = ROOT / "pretrained"
PHOTO = "-photo"  # end of the names of models for what cameras and web sites have saved
BEST_FIRST = ("a2n", "vdsr", "srcnn")  # networks, as they are chosen where no model is named


def pretrained_names(photo: bool = False) -> list[str]:
    """Names of the models that are there; with `photo`, of those for what cameras have saved."""
    names = sorted(path.parent.name for path in FOLDER.glob(f"*/{CONFIG}"))
    return [name for name in names if name.endswith(PHOTO) or not photo]


def find_pretrained(name: str) -> Path | None:
    """Finds the folder of a model by its name; None if there is none.

    Raises:
        UserError: The folder has lost its checksums.
    """
    if name not in pretrained_names():
        return None
    folder = FOLDER / name
    if not (folder / CHECKSUMS).is_file():
        raise UserError(
            f"{folder} has no {CHECKSUMS}, so nobody knows if it is whole. Get it by `git checkout "
            f"pretrained/{name}`, or load it by its path."
        )
    return folder


def name_of(path: Path) -> str | None:
    """Name of the model of `pretrained/` that a folder is, or that a file lies in; else None."""
    path = path.resolve()
    return path.relative_to(FOLDER).parts[0] if FOLDER in path.parents else None


def scales_of(name: str) -> list[int]:
    """Factors that a model enlarges by."""
    _, arguments = read_config(FOLDER / name / CONFIG)
    return arguments.get("scales") or [arguments["scale"]]


def for_scale(scale: int | None, photo: bool = False) -> list[str]:
    """Names of the models that enlarge by a scale, the best network first.

    Args:
        scale: Factor. Default: the smallest that a model is there for.
        photo: Whether only models are meant that were trained on the pictures of cameras and sites.
    """
    scales = {name: scales_of(name) for name in pretrained_names(photo)}
    wanted = scale or min(map(min, scales.values()), default=None)
    # Among equals by name: a2n-x2 comes before a2n-x2-photo.
    return sorted((name for name in scales if wanted in scales[name]), key=_rank)


def _rank(name: str) -> int:
    architecture, _ = read_config(FOLDER / name / CONFIG)
    return [*BEST_FIRST, architecture].index(architecture)


def choose(scale: int | None, photo: bool = False) -> str:
    """Chooses a model for a command line that names none. Arguments as of `for_scale`.

    Raises:
        UserError: There is none, or none for that scale.
    """
    if found := for_scale(scale, photo):
        return found[0]
    if photo:
        raise UserError(
            f"No model here is for --photo; leave it out, or train one. {models_in_words()}"
        )
    if pretrained_names():
        raise UserError(f"No model here enlarges by {scale}; train one. {models_in_words()}")
    raise UserError(f"Name a model by --model. {models_in_words()}")


def choose_to_reach(factor: float, photo: bool = False) -> str:
    """Chooses the best network that reaches a factor at once, by its smallest scale that does so.

    Where none does, it is the one of the largest scale. (A2N x4 and bicubic down to 3 is far better
    than SRCNN x3: docs/enlarge.md.)

    Raises:
        UserError: There is none.
    """
    ways = {name: passes(scales_of(name), factor) for name in pretrained_names(photo)}
    if at_once := [name for name, way in ways.items() if len(way) == 1]:
        return min(at_once, key=lambda name: (_rank(name), ways[name]))
    return choose(max((way[0] for way in ways.values() if way), default=None), photo)


def choose_all(scale: int | None) -> list[tuple[str, int]]:
    """All models by name, each at all its scales or at one.

    Raises:
        UserError: There is none, or none for that scale.
    """
    choose(scale)
    pairs = [(name, factor) for name in pretrained_names() for factor in scales_of(name)]
    return [(name, factor) for name, factor in pairs if scale in (None, factor)]


def chosen_in_words(name: str) -> str:
    """Says which model was chosen, and for what pictures it is, where there are two kinds."""
    kind = ""
    if name.endswith(PHOTO):
        kind = ", for photographs that were saved as JPEG"
    elif f"{name}{PHOTO}" in pretrained_names():
        kind = ", for pictures that were saved without loss; --photo chooses the one for JPEG"
    return f"Model: {name}, of this repository{kind}."


def models_in_words() -> str:
    """Says which models there are, or how to get one."""
    if names := pretrained_names():
        return f"Models of this repository: {', '.join(names)}."
    return "This repository has no trained models yet: `make demo` trains one in minutes, out/demo."
