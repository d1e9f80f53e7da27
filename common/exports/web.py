"""A page that enlarges pictures in the browser: an ONNX file, onnxruntime-web, HTML, JavaScript."""

import json
import shlex
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from common.errors import UserError
from common.files import filled_folder
from common.network import SuperResolutionModel

PACKAGE = "onnxruntime-web@1.30.0"
# The build for WebAssembly alone: 14 MB, where those for GPUs have 27.
RUNTIME = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
PAGE = Path(__file__).parent / "web"


def fetch_runtime() -> dict[str, bytes]:
    """Fetches onnxruntime-web by npm: the files of `RUNTIME`, by name.

    Raises:
        UserError: There is no npm, or it cannot fetch the package.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise UserError(
            f"--web needs npm, which fetches {PACKAGE}, 33 MB. It comes with Node.js, "
            "https://nodejs.org."
        )
    print(f"Fetching {PACKAGE} by npm, 33 MB.")
    with tempfile.TemporaryDirectory() as folder:
        end = subprocess.run([npm, "pack", PACKAGE], cwd=folder, capture_output=True, text=True)
        archives = list(Path(folder).glob("*.tgz"))
        if end.returncode or not archives:
            lines = [line for line in end.stderr.splitlines() if "error" in line.lower()]
            raise UserError(
                f"npm cannot fetch {PACKAGE}: {' '.join(lines[:3]) or 'it wrote no file'}. Look at "
                f"`npm pack {PACKAGE}`."
            )
        with tarfile.open(archives[0]) as archive:
            files = {name: archive.extractfile(f"package/dist/{name}") for name in RUNTIME}
            return {name: file.read() for name, file in files.items() if file}


def write_page(
    folder: Path, model: SuperResolutionModel, file: bytes, runtime: dict[str, bytes]
) -> None:
    """Writes the page into a new or empty folder, whole or not at all.

    Args:
        folder: Folder.
        model: Network, with the attention window that it was exported with.
        file: Its ONNX file.
        runtime: Files of onnxruntime-web, by name.

    Raises:
        UserError: The files cannot be written.
    """
    facts = {
        "network": type(model).__name__,
        "scale": model.scale,
        "margin": model.margin,
        "megabytes": float(f"{len(file) / 1e6:.2g}"),
    }
    with filled_folder(folder) as new:
        for path in PAGE.iterdir():
            shutil.copy(path, new)
        for name, content in runtime.items():
            (new / name).write_bytes(content)
        (new / "network.onnx").write_bytes(file)
        (new / "network.json").write_text(json.dumps(facts, indent=2) + "\n")
    size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    print(f"{folder}: a page for {facts['network']} x{model.scale}, {size:.1f} MB. Look at it by")
    print(f"    python -m http.server --bind 127.0.0.1 --directory {shlex.quote(str(folder))}")
    print("and open http://127.0.0.1:8000 in a browser. To share it, put it on any web server.")
