"""Pictures of a folder: which there are, and which belong together as HR and LR."""

from pathlib import Path

import pytest
import torch

from common.data.cache import decode_pictures
from common.data.find import SAMPLE_BENCHMARK, SAMPLE_TRAIN, find_pictures, sample_pictures
from common.data.patches import BenchmarkDataset
from common.errors import UserError
from common.images.formats import read_rgb
from common.images.resize import imresize
from common.images.tensors import to_tensor
from helpers.pictures import write


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
    with pytest.raises(UserError, match=r"There is no folder .*nowhere\..* docs/data\.md"):
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
