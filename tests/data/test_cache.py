import io
import pickle
import shutil
from multiprocessing import get_context
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, default_convert

import common.data.cache
from common.data.cache import decode_pictures
from common.data.find import SAMPLE_BENCHMARK, SAMPLE_TRAIN, find_pictures, sample_pictures
from common.data.hub_sets import hub_pictures
from common.data.patches import BenchmarkDataset, PatchDataset
from common.errors import UserError
from common.images.formats import read_rgb
from common.images.resize import imresize
from common.images.tensors import to_float, to_tensor
from helpers.forked import PATIENCE

GRADIENT = np.arange(12 * 10 * 3, dtype=np.uint8).reshape(12, 10, 3)


def saved(image: Image.Image, **options) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, **{"format": "PNG"} | options)
    file.seek(0)
    return file


# ------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "WebP"])
def test_lossless_formats(format):
    options = {"lossless": True} if format == "WebP" else {}
    file = saved(Image.fromarray(GRADIENT), format=format, **options)
    assert np.array_equal(read_rgb(file), GRADIENT)


def test_gray_becomes_three_equal_channels():
    gray = GRADIENT[..., 0]
    assert np.array_equal(read_rgb(saved(Image.fromarray(gray))), np.stack([gray] * 3, axis=2))


def test_black_and_white():
    bits = GRADIENT[..., 0] > 100
    pixels = read_rgb(saved(Image.fromarray(bits)))
    assert np.array_equal(pixels, np.stack([bits * np.uint8(255)] * 3, axis=2))


def test_palette():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([1, 0])
    assert read_rgb(saved(image)).tolist() == [[[200, 100, 50], [10, 20, 30]]]


def test_transparency_shows_white():
    image = Image.new("RGBA", (3, 1))
    image.putdata([(255, 0, 0, 255), (255, 0, 0, 0), (0, 0, 0, 51)])
    assert read_rgb(saved(image)).tolist() == [[[255, 0, 0], [255, 255, 255], [204, 204, 204]]]


def test_cmyk():
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    pixels = read_rgb(saved(image, format="TIFF"))
    assert pixels[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bit_gray(format):
    values = np.array([[0, 257, 128 * 257, 65535, 300]], dtype=np.uint16)
    pixels = read_rgb(saved(Image.fromarray(values), format=format))
    assert pixels[0, :, 0].tolist() == [0, 1, 128, 255, 1]
    assert pixels.shape == (1, 5, 3)


def test_16_bit_color(tmp_path):
    import tifffile

    values = np.array([[[0, 128 * 257, 65535]]], dtype=np.uint16)
    tifffile.imwrite(tmp_path / "deep.tif", values, photometric="rgb")
    assert read_rgb(tmp_path / "deep.tif").tolist() == [[[0, 128, 255]]]


def test_exif_orientation():
    image = Image.fromarray(GRADIENT)
    exif = image.getexif()
    exif[0x0112] = 6  # the camera was turned: show it a quarter to the right
    pixels = read_rgb(saved(image, exif=exif))
    assert np.array_equal(pixels, np.rot90(GRADIENT, k=-1))


def test_32_bits_are_refused():
    with pytest.raises(ValueError, match="32 bits"):
        read_rgb(saved(Image.fromarray(GRADIENT[..., 0].astype(np.float32)), format="TIFF"))


def test_bytes_become_floats_in_0_1():
    floats = to_float(torch.tensor([0, 51, 255], dtype=torch.uint8), torch.device("cpu"))
    assert torch.equal(floats, torch.tensor([0, 0.2, 1.0]))


# ------------------------------------------------------------------------------------- finding


def write(path: Path, size: tuple[int, int] = (24, 20)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)


def names(sources) -> list[str]:
    return [source["name"] for source in sources]


def test_folder_is_searched_below_and_in_order(tmp_path):
    for name in ("b.PNG", "a/z.jpg", "a/y.webp", "c.tiff", "d.bmp"):
        write(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "._b.png").write_text("what macOS leaves")
    assert names(find_pictures(tmp_path, [2])) == [
        "a/y.webp",
        "a/z.jpg",
        "b.PNG",
        "c.tiff",
        "d.bmp",
    ]


def test_links_to_folders_are_followed(tmp_path):
    write(tmp_path / "elsewhere" / "a.png")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "link").symlink_to(tmp_path / "elsewhere")
    assert names(find_pictures(tmp_path / "data", [2])) == ["link/a.png"]


@pytest.mark.parametrize(
    ("hr", "lr"),
    [
        ("hr/a.png", "lr/a.png"),
        ("HR/a.png", "LR_bicubic/X2/ax2.png"),
        ("DIV2K_train_HR/a.png", "DIV2K_train_LR_bicubic/X2/ax2.png"),
    ],
)
def test_pairs(tmp_path, hr, lr):
    write(tmp_path / hr)
    write(tmp_path / lr, (12, 10))
    (source,) = find_pictures(tmp_path, [2])
    assert source["hr"]["path"] == str(tmp_path / hr)
    assert source["lr_x2"]["path"] == str(tmp_path / lr)


def test_lr_of_another_scale_does_not_count(tmp_path):
    write(tmp_path / "HR/a.png")
    write(tmp_path / "LR_bicubic/X4/ax4.png", (6, 5))
    for scales in ([2], [2, 4]):
        (source,) = find_pictures(tmp_path, scales)
        assert "lr_x2" not in source
        assert ("lr_x4" in source) == (4 in scales)


def test_pairs_of_several_scales(tmp_path):
    write(tmp_path / "HR/a.png")
    write(tmp_path / "LR_bicubic/X2/ax2.png", (12, 10))
    write(tmp_path / "LR_bicubic/X4/ax4.png", (6, 5))
    sources = find_pictures(tmp_path, [2, 3, 4])
    pictures, errors = decode_pictures(sources, [2, 3, 4])
    assert not errors
    made = imresize(to_tensor(read_rgb(tmp_path / "HR/a.png"))[:, :18, :24], 1 / 3)
    for scale, expected in (
        (2, to_tensor(read_rgb(tmp_path / "LR_bicubic/X2/ax2.png"))),
        (3, made),
        (4, to_tensor(read_rgb(tmp_path / "LR_bicubic/X4/ax4.png"))),
    ):
        assert torch.equal(BenchmarkDataset(pictures, scale)[0][1], expected)


def test_links_that_lead_nowhere_or_in_circles(tmp_path):
    write(tmp_path / "a.png")
    (tmp_path / "circle").symlink_to(tmp_path)
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    sources = find_pictures(tmp_path, [2])
    assert names(sources) == ["a.png", "gone.png"]
    pictures, errors = decode_pictures(sources, [2])
    assert pictures.names == ["a.png"]
    assert "No such file" in errors["gone.png"]


def test_folder_mistakes(tmp_path):
    with pytest.raises(UserError, match=r"There is no folder .*nowhere"):
        find_pictures(tmp_path / "nowhere", [2])
    with pytest.raises(UserError, match=r"no picture in .* Known endings: \.png"):
        find_pictures(tmp_path, [2])
    write(tmp_path / "hr/a.png")
    write(tmp_path / "hr/b.png")
    write(tmp_path / "lr/a.png")
    with pytest.raises(UserError, match=r"b\.png has no LR picture b\.\* or bx2\.\*"):
        find_pictures(tmp_path, [2])
    write(tmp_path / "DIV2K_valid_HR/a.png")
    with pytest.raises(UserError, match="DIV2K_valid_HR, hr"):
        find_pictures(tmp_path, [2])


def test_layout_of_the_srgan_tutorial(tmp_path):
    write(tmp_path / "SRF_4/target/a.png")
    write(tmp_path / "SRF_4/data/a.png", (6, 5))
    for folder in (tmp_path, tmp_path / "SRF_4"):
        (source,) = find_pictures(folder, [4])
        assert source["name"] == "a.png"
        assert Path(source["lr_x4"]["path"]) == tmp_path / "SRF_4/data/a.png"


def test_lr_of_several_scales_in_one_folder_is_known_by_its_ending(tmp_path):
    for name in ("hr/a.png", "lr/ax2.png"):
        write(tmp_path / name)
    with pytest.raises(UserError, match=r"a\.png has no LR picture ax3\.\* in .*/lr\. Add it, or"):
        find_pictures(tmp_path, [2, 3])
    write(tmp_path / "lr/ax3.png")
    (source,) = find_pictures(tmp_path, [2, 3])
    assert [Path(source[key]["path"]).name for key in ("lr_x2", "lr_x3")] == ["ax2.png", "ax3.png"]
    (tmp_path / "lr/ax3.png").rename(tmp_path / "lr/a.png")
    with pytest.raises(UserError, match=r"no LR picture ax3\."):
        find_pictures(tmp_path, [2, 3])


def test_sample_keeps_its_benchmark_and_the_two_views_apart():
    assert not set(SAMPLE_TRAIN) & set(SAMPLE_BENCHMARK)
    assert {"motorcycle_left.png", "motorcycle_right.png"} < set(SAMPLE_TRAIN[:-1])
    assert all(Path(source["hr"]["path"]).is_file() for source in sample_pictures(SAMPLE_TRAIN))


def test_no_hub_is_said_at_once():
    with pytest.raises(UserError, match="neither a folder nor a data set of the Hub"):
        hub_pictures("/data/my pics", [2])
    with pytest.raises(UserError) as error:
        hub_pictures("somebody/pictures", [2])
    message = str(error.value)
    assert "Cannot reach http://127.0.0.1:" in message
    assert " for the data set somebody/pictures (" in message
    assert "--train_data_dir FOLDER" in message
    assert "--dataset_name sample" in message


def save_dataset(folder: Path, **columns: list[Path]) -> None:
    """A data set of parquet, as it lies on the Hub."""
    files = {name: [str(path) for path in paths] for name, paths in columns.items()}
    files["label"] = [0] * len(next(iter(files.values())))
    table = datasets.Dataset.from_dict(files)
    for name in columns:
        table = table.cast_column(name, datasets.Image())
    folder.mkdir()
    table.to_parquet(folder / "train.parquet")


def test_dataset_with_one_column_of_pictures(pictures_dir, tmp_path):
    files = sorted(pictures_dir.glob("*.png"))
    save_dataset(tmp_path / "set", photo=files)
    for _ in range(2):
        sources, _ = hub_pictures(str(tmp_path / "set"), [2])
        pictures, errors = decode_pictures(sources, [2])
        assert not errors
        assert pictures.names == [f"row {number} ({number}.png)" for number in range(8)]
        _, lr, hr = BenchmarkDataset(pictures, 2)[3]
        assert torch.equal(hr, to_tensor(read_rgb(files[3])))
        assert torch.equal(lr, imresize(hr, 0.5))


def test_dataset_of_pairs(pictures_dir, tmp_path):
    (tmp_path / "lr").mkdir()
    files = sorted(pictures_dir.glob("*.png"))
    for file in files:
        Image.new("RGB", (48, 40), "green").save(tmp_path / "lr" / file.name)
    save_dataset(tmp_path / "set", lr=sorted((tmp_path / "lr").iterdir()), hr=files)
    sources, identity = hub_pictures(str(tmp_path / "set"), [2])
    pictures, _ = decode_pictures(sources, [2], identity)
    _, lr, hr = BenchmarkDataset(pictures, 2)[7]
    assert torch.equal(hr, to_tensor(read_rgb(files[7])))
    assert lr[:, 0, 0].tolist() == [0, 128, 0]
    with pytest.raises(
        UserError, match=r"column lr of .* of one scale, not of \[2, 3\]. Name it with --scale"
    ):
        hub_pictures(str(tmp_path / "set"), [2, 3])


def test_empty_cell_is_left_out(pictures_dir, tmp_path):
    table = datasets.Dataset.from_dict({"image": [str(pictures_dir / "0.png"), None]})
    (tmp_path / "set").mkdir()
    table.cast_column("image", datasets.Image()).to_parquet(tmp_path / "set" / "train.parquet")
    sources, identity = hub_pictures(str(tmp_path / "set"), [2])
    pictures, errors = decode_pictures(sources, [2], identity)
    assert pictures.names == ["row 0 (0.png)"]
    assert list(errors) == ["row 1 ()"]


def test_dataset_columns_must_be_clear(pictures_dir, tmp_path):
    files = sorted(pictures_dir.glob("*.png"))
    save_dataset(tmp_path / "set", left=files, right=files)
    name = str(tmp_path / "set")
    with pytest.raises(UserError, match=r"are \['left', 'right'\]. Name one with --image_column"):
        hub_pictures(name, [2])
    with pytest.raises(UserError, match="--image_column"):
        hub_pictures(name, [2], column="label")
    assert len(hub_pictures(name, [2], column="right")[0]) == 8


# ------------------------------------------------------------------------------ decoding, caching


def test_cache_holds_hr_and_matlabs_lr(pictures_dir):
    pictures, errors = decode_pictures(find_pictures(pictures_dir, [2]), [2, 3])
    assert not errors
    assert pictures.names == [f"{number}.png" for number in range(8)]
    assert pictures.sizes.tolist() == [[80, 96]] * 8
    for scale in (2, 3):
        _, lr, hr = BenchmarkDataset(pictures, scale)[5]
        original = to_tensor(read_rgb(pictures_dir / "5.png"))[:, : 80 // scale * scale]
        assert torch.equal(hr, original)
        assert torch.equal(lr, imresize(original, 1 / scale))


def test_second_start_decodes_nothing_until_a_file_changes(pictures_dir, tmp_path, monkeypatch):
    folder = tmp_path / "pictures"
    shutil.copytree(pictures_dir, folder)
    decoded = []
    original = common.data.cache._decode_one
    monkeypatch.setattr(
        common.data.cache, "_decode_one", lambda *args: decoded.append(args[1]) or original(*args)
    )
    decode_pictures(find_pictures(folder, [2]), [2])
    assert sorted(decoded) == list(range(8))
    decode_pictures(find_pictures(folder, [2]), [2])
    assert len(decoded) == 8  # from the cache
    Image.new("RGB", (96, 80), "red").save(folder / "3.png")
    pictures, _ = decode_pictures(find_pictures(folder, [2]), [2])
    assert len(decoded) == 16
    assert pictures.hr(3)[0, 0].tobytes() == b"\xff\x00\x00"


def test_bad_files_are_named_also_from_the_cache(pictures_dir, tmp_path):
    folder = tmp_path / "pictures"
    shutil.copytree(pictures_dir, folder)
    Image.open(folder / "0.png").save(folder / "cut.jpg")
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:900])
    (folder / "text.png").write_text("not a picture")
    (folder / "empty.png").touch()
    for _ in range(2):
        pictures, errors = decode_pictures(find_pictures(folder, [2]), [2])
        assert len(pictures) == 8
        assert set(errors) == {"cut.jpg", "text.png", "empty.png"}
        assert "truncated" in errors["cut.jpg"]
        assert "cannot identify" in errors["text.png"]


def test_lr_of_the_wrong_size_is_an_error(tmp_path):
    write(tmp_path / "hr/a.png", (24, 20))
    write(tmp_path / "lr/a.png", (12, 9))
    _, errors = decode_pictures(find_pictures(tmp_path, [2]), [2])
    assert errors == {"a.png": "its LR picture is 12x9, which is not 1/2 of 24x20"}


def _decode_and_count(folder: str, queue) -> None:
    original, count = common.data.cache._decode_one, 0

    def counting(*args):
        nonlocal count
        count += 1
        return original(*args)

    common.data.cache._decode_one = counting
    pictures, _ = decode_pictures(find_pictures(Path(folder), [2]), [2])
    queue.put((count, len(pictures)))


def test_processes_that_start_together_decode_once(pictures_dir, tmp_path):
    shutil.copytree(pictures_dir, tmp_path / "pictures")
    context = get_context("spawn")
    queue = context.Queue()
    workers = [
        context.Process(target=_decode_and_count, args=(str(tmp_path / "pictures"), queue))
        for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    results = sorted(queue.get(timeout=PATIENCE) for _ in workers)
    for worker in workers:
        worker.join()
    assert results == [(0, 8), (8, 8)]


# ------------------------------------------------------------------------------------- patches


@pytest.fixture
def pictures(pictures_dir):
    return decode_pictures(find_pictures(pictures_dir, [2]), [2, 3])[0]


def test_patch_is_where_its_lr_is(pictures):
    patches = PatchDataset(pictures, [2], patch_size=80, batch_size=4, seed=0)
    # Away from the borders of a patch, LR is the bicubic of HR in whatever orientation it came.
    # MATLAB rounds after the pass over the rows, which in a transposed patch are the columns.
    inside = (slice(None), slice(4, -4), slice(4, -4))
    transposed = 0
    for index in range(40):
        lr, hr = patches[index]
        assert (lr.dtype, lr.shape, hr.shape) == (torch.uint8, (3, 40, 40), (3, 80, 80))
        if not torch.equal(imresize(hr, 0.5)[inside], lr[inside]):
            assert torch.equal(imresize(hr.mT, 0.5).mT[inside], lr[inside])
            transposed += 1
    assert 10 < transposed < 30


def test_all_positions_orientations_and_pictures_occur(tmp_path):
    # Every pixel of these pictures is its own: a patch tells where it was cut.
    for number in range(3):
        row, column = np.mgrid[:10, :10]
        pixels = np.stack([row, column, np.full_like(row, number)], axis=2).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    pictures, _ = decode_pictures(find_pictures(tmp_path, [2]), [2])
    patches = PatchDataset(pictures, [2], patch_size=4, batch_size=4, seed=0)
    seen = set()
    for index in range(12_000):
        hr = patches[index][1]
        rows, columns = hr[0], hr[1]
        corners = (int(hr[0, 0, 0]), int(hr[1, 0, 0]), int(hr[0, 0, 1]), int(hr[1, 0, 1]))
        assert rows.min() % 2 == columns.min() % 2 == 0  # on the LR grid
        turned = bool(rows[0, 0] != rows[0, 1])
        seen.add((int(hr[2, 0, 0]), corners, turned, bool(rows[0, 0] < rows[-1, -1])))
    assert len(seen) == 3 * 4 * 4 * 8


def test_patch_depends_on_seed_and_index_alone(pictures):
    first = PatchDataset(pictures, [2], 32, batch_size=4, seed=1)
    again = PatchDataset(pictures, [2], 32, batch_size=4, seed=1)
    assert first.scale(7) == 2
    batch = first.__getitems__([9000, 3, 70000])
    for position, index in enumerate([9000, 3, 70000]):
        for ours, theirs in zip(batch, again[index], strict=True):
            assert torch.equal(ours[position], theirs)
    assert not torch.equal(PatchDataset(pictures, [2], 32, batch_size=4, seed=2)[3][1], again[3][1])


def test_scale_of_a_batch_depends_on_seed_and_step_alone(pictures):
    patches = PatchDataset(pictures, [2, 3], 24, batch_size=4, seed=1)
    scales = [patches.scale(step) for step in range(1000)]
    assert scales == [patches.scale(step) for step in range(1000)]
    assert 440 < scales.count(2) < 560
    assert scales.count(2) + scales.count(3) == 1000
    other = PatchDataset(pictures, [2, 3], 24, batch_size=4, seed=2)
    assert scales != [other.scale(step) for step in range(1000)]
    for step in range(6):
        # A whole step, and the halves of two processes.
        lr, hr = patches.__getitems__(range(4 * step, 4 * step + 4))
        assert lr.shape == (4, 3, 24 // scales[step], 24 // scales[step])
        assert hr.shape == (4, 3, 24, 24)
        halves = [
            patches.__getitems__(range(4 * step + start, 4 * step + start + 2)) for start in (0, 2)
        ]
        assert torch.equal(torch.cat([half for half, _ in halves]), lr)


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_bring_the_same_bytes(pictures, context):
    patches = PatchDataset(pictures, [2], 32, batch_size=4, seed=0)
    loader = DataLoader(
        patches,
        batch_sampler=[range(8 * step, 8 * step + 8) for step in range(6)],
        num_workers=2,
        collate_fn=default_convert,
        multiprocessing_context=context,
    )
    for step, (lr, hr) in enumerate(loader):
        expected_lr, expected_hr = patches.__getitems__(range(8 * step, 8 * step + 8))
        assert torch.equal(lr, expected_lr)
        assert torch.equal(hr, expected_hr)


def test_batches_are_channels_last(pictures):
    for images in PatchDataset(pictures, [2], 32, batch_size=4, seed=0).__getitems__(range(4)):
        assert images.is_contiguous(memory_format=torch.channels_last)


def test_pixels_are_those_of_the_mapped_file(pictures):
    # Two looks at a picture must be at the same memory; copies would fill it in the end.
    for index in (0, 7):
        again = pictures.subset([index])
        assert np.shares_memory(pictures.hr(index), again.hr(0))
        assert np.shares_memory(pictures.lr(index, 3), again.lr(0, 3))


def test_pictures_travel_to_a_worker_without_their_pixels(pictures):
    pictures.hr(0)
    assert len(pickle.dumps(pictures)) < 20_000
    assert np.array_equal(pickle.loads(pickle.dumps(pictures)).hr(0), pictures.hr(0))


def test_small_pictures_are_left_out_by_name(pictures_dir, tmp_path):
    shutil.copytree(pictures_dir, tmp_path, dirs_exist_ok=True)
    write(tmp_path / "small.png", (100, 31))
    pictures, _ = decode_pictures(find_pictures(tmp_path, [2]), [2])
    patches = PatchDataset(pictures, [2], 32, batch_size=4, seed=0)
    assert patches.too_small == ["small.png"]
    assert len(patches.pictures) == 8
    with pytest.raises(UserError, match=r"All 9 training pictures are smaller than .* 98x98"):
        PatchDataset(pictures, [2], 98, batch_size=4, seed=0)
    with pytest.raises(ValueError, match="33 is not a multiple of scale 2"):
        PatchDataset(pictures, [2], 33, batch_size=4, seed=0)


def test_unwritable_cache_is_said(pictures_dir, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "file" / "cache")
    with pytest.raises(UserError, match="Set HF_DATASETS_CACHE to a folder with room"):
        decode_pictures(find_pictures(pictures_dir, [2]), [4])
