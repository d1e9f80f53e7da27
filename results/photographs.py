"""Enlarges photographs that Python packages ship as JPEG: the picture of docs/degradation.md.

    pip install scikit-learn matplotlib
    python -m results.photographs

writes assets/photographs.jpg: of each photograph the middle, and a detail of it as it is, and as
bicubic and the two models enlarge it by 2. Neither was trained on these photographs.
"""

import common.start

import argparse
import io
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from accelerate import PartialState
from PIL import Image

from common.errors import UserError
from common.evaluation import load_subject
from common.files import replace_file
from common.images.formats import read_rgb
from common.images.strip import Versions, make_strip, stack_strips
from common.images.tensors import to_float, to_tensor
from common.machine import ROOT, set_up_cpu
from common.metrics import to_uint8

SCALE = 2
MODELS = ("a2n-x2", "a2n-x2-photo")
# Files of packages; docs/degradation.md names their makers and licenses.
PHOTOGRAPHS = (
    "skimage/data/rocket.jpg",
    "skimage/data/hubble_deep_field.jpg",
    "sklearn/datasets/images/china.jpg",
    "sklearn/datasets/images/flower.jpg",
    "matplotlib/mpl-data/sample_data/grace_hopper.jpg",
)
SIDE = 256  # of the middle that is enlarged
DETAIL = 80  # side of the detail, in pixels of the result


def find_photograph(name: str) -> Path:
    """Finds a file of a package.

    Raises:
        UserError: The package is not installed, or has no such file.
    """
    package, _, rest = name.partition("/")
    spec = find_spec(package)
    file = Path(spec.origin).parent / rest if spec and spec.origin else None
    if file is None or not file.is_file():
        raise UserError(
            f"{name} is not there. It comes with a package: `pip install scikit-image scikit-learn "
            "matplotlib`."
        )
    return file


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--output", type=Path, default=ROOT / "assets" / "photographs.jpg", help="file to write"
    )
    args = parser.parse_args(argv)
    files = [find_photograph(name) for name in PHOTOGRAPHS]
    set_up_cpu()
    device = PartialState().device
    networks = {model: load_subject(model, SCALE, device) for model in MODELS}
    strips = list[Image.Image]()
    for file in files:
        pixels = to_tensor(read_rgb(file))
        top, left = ((side - SIDE) // 2 for side in pixels.shape[1:])
        lr = pixels[:, top : top + SIDE, left : left + SIDE].contiguous()
        results = [
            (model, to_uint8(network.enlarge(to_float(lr, device)[None])[0]).cpu())
            for model, network in networks.items()
        ]
        strips.append(make_strip(Versions.of(lr, results), DETAIL, most=1))
        print(f"{file.name} is enlarged.", flush=True)
    content = io.BytesIO()
    stack_strips(strips).save(content, "jpeg", quality=75)
    replace_file(args.output, content.getvalue())
    print(f"Written to {args.output}: {len(content.getvalue()):,} bytes.")


if __name__ == "__main__":
    main()
