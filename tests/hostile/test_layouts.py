"""Layouts of folders: LR is read where it lies, or refused in words; it never counts as HR."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.data.benchmarks import open_benchmark
from common.data.find import find_pictures, has_split, list_folder
from common.data.hub_sets import hub_pictures
from common.data.layouts import picture_files
from common.data.twins import find_twins
from common.errors import UserError
from helpers.pictures import write
from running import SMALL, refusal, run_here


def draw(path: Path, scale: int = 1, seed: str = "", size: tuple[int, int] = (48, 40)) -> None:
    """Writes a picture that shows the same at every scale, and another for each seed."""
    noise = np.random.default_rng(list(seed.encode())).integers(0, 256, (5, 6, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    small = (size[0] // scale, size[1] // scale)
    Image.fromarray(noise).resize(small, Image.Resampling.NEAREST).save(path)


def make(folder: Path, files: str) -> None:
    """Draws `path` in the size of HR, `path|N` in 1/N of it."""
    for word in files.split():
        name, _, scale = word.partition("|")
        draw(folder / name, int(scale or 1), name.partition("/")[0][:1] + Path(name).stem[:1])


# The HR that must be found, its LR at `|N`, and what else lies there
KNOWN = {
    "hr, lr": "hr/a.png lr/a.png|2",
    "LR of another format": "HR/a.png LR/a.jpg|2",
    "BasicSR": "GT/a.png LQ/a.png|4",
    "BasicSR, benchmark": "GTmod12/a.png LRbicx4/a.png|4 LRbicx2/a.png|2 original/a.png",
    "BasicSR, sub-images": "D_train_HR_sub/a.png D_train_LR_bicubic/X2_sub/a.png|2",
    "traiNNer": "train/hr/a.png train/lr/a.png|2 val/hr/b.png",
    "KAIR": "HQ/a.png LQ/a.png|2",
    "Lornatang": "original/a.png LRbicx4/a.png|4",
    "Lornatang, ESPCN": "LRbicx3/target/a.png LRbicx3/inputs/a.png|3 "
    "LRbicx2/target/a.png LRbicx2/inputs/a.png|2",
    "Lornatang, RealSR": "train/x4/HR/a.png train/x4/LR/a.png|4 test/x4/HR/b.png",
    "SelfExSR": "image_SRF_2/i_SRF_2_HR.png image_SRF_2/i_SRF_2_LR.png|2 "
    "image_SRF_2/i_SRF_2_A+.png image_SRF_4/i_SRF_4_HR.png image_SRF_4/i_SRF_4_LR.png|4",
    "SelfExSR, one folder": "i_SRF_4_HR.png i_SRF_4_LR.png|4",
    "RealSR": "Train/2/C_001_HR.png Train/2/C_001_LR2.png|2 Train/3/C_001_HR.png "
    "Train/3/C_001_LR3.png|3 Test/2/C_002_HR.png Test/2/C_002_LR2.png|2",
    "DRealSR": "train_HR/D_x4.png train_LR/D_x4.png|4 test_HR/E.png test_LR/E.png|4",
    "tutorial of SRGAN": "SRF_4/target/a.png SRF_4/data/a.png|4 SRF_2/target/a.png "
    "SRF_2/data/a.png|2",
    "DIV2K, x8": "D_train_HR/1.png D_train_LR_x8/1x8.png|8",
    "DIV2K, mild": "D_train_HR/1.png D_train_LR_mild/1x4m.png|4",
    "DIV2K, difficult": "D_train_HR/1.png D_train_LR_difficult/1x4d.png|4",
    "DIV2K, wild": "D_train_HR/1.png D_train_LR_wild/1x4w1.png|4 D_train_LR_wild/1x4w2.png|4",
    "DIV2K, wild, validation": "D_valid_HR/1.png D_valid_LR_wild/1x4w.png|4",
    "DIV2K, both splits": "D_train_HR/1.png D_train_LR_unknown/X2/1x2.png|2 "
    "D_valid_HR/8.png D_valid_LR_unknown/X2/8x2.png|2",
    "DIV2K, two tracks": "D_HR/1.png D_LR_bicubic/X2/1x2.png|2 D_LR_unknown/X2/1x2.png|2",
    "HR_train": "HR_train/a.png LR_train/a.png|2 HR_test/b.png LR_test/b.png|2",
    "HR_train, one name": "HR_train/a.png LR_train/a.png|2 HR_val/a.png LR_val/a.png|2",
    "splits inside": "HR/train/a.png LR/train/a.png|2 HR/valid/b.png LR/valid/b.png|2",
    "folders with digits": "hr/2/a.png lr/2/a.png|2",
    "hidden": "hr/a.png lr/a.png|2 hr/@eaDir/a.png hr/.ipynb_checkpoints/a.png __MACOSX/hr/a.png "
    "lr/.thumbnails/a.png",
}


@pytest.mark.parametrize("layout", KNOWN)
def test_known_layouts(layout, tmp_path):
    make(tmp_path / "set", KNOWN[layout])
    hr, lr, *_ = KNOWN[layout].split()
    lr, scale = lr[:-2], int(lr[-1])
    listing = list_folder(tmp_path / "set", [scale], "train")
    (source,) = listing.sources
    assert source["hr"]["path"] == str(tmp_path / "set" / hr)
    assert source[f"lr_x{scale}"]["path"] == str(tmp_path / "set" / lr)
    assert listing.lr == f"read from set/{lr} and so on"


@pytest.mark.parametrize(
    ("files", "scales", "message"),
    [
        # LR that lies there and cannot be read
        ("hr/a.png lr/b.txt", [2], "hr/a.png has no LR picture a.* or ax2.* in {}/lr. Add it, or "),
        ("hr/a.png lr/X4/a.png|4", [2], "name {}/hr alone to have LR made. It holds X4/a.png, for"),
        ("hr/a.png lr/X4/a.png|4", [2, 4], "a.png has no LR picture ax2.* in {}/lr."),
        ("D_HR/1.png D_LR_mild/1x4m.png|4", [2], "It holds 1x4m.png, for example."),
        ("GT/a.png LQ/b.png|2", [2], "GT/a.png has no LR picture a.* or ax2.* in {}/LQ."),
        ("hr/a.png hr/b.png lr/ax2.png|2", [2], "hr/b.png has no LR picture b.* or bx2.*"),
        ("hr/a.png lr/a.png|2", [2, 3], "hr/a.png has no LR picture ax2.* in {}/lr."),
        ("D_HR/1.png D_LR_bicubic/b.txt", [2], "It is empty."),
        ("HR/1.png LR_a/1.png|2 LR_b/1.png|2", [2], "There is LR of x2 in {}/LR_a and in {}/LR_b."),
        ("hr/a.png hr/a.jpg lr/a.png|2", [2], "hr/a.jpg and a.png would both have the LR picture "),
        ("hr/a.png lr/a.png|2 lr/a.jpg|2", [2], "has two LR pictures, {}/lr/a.jpg and a.png."),
        ("a_HR.png b_HR.png a_LR.png|2", [2], "b_HR.png has no LR picture"),
        ("a_HR.png a_LR.png|2 c.png", [2], "and c.png, which belongs to no HR. Move such"),
        ("a_HR.png a_LR.png|2", [], "move the HR to a folder of its own to have LR made."),
        ("hr/a.png lr/a.png|2", [], "{}/lr holds LR pictures, which are not read here: LR is made"),
        # several folders of HR
        ("hr/a.png GT/a.png", [2], "holds several sets of HR pictures (GT, hr). Name one of them."),
        ("D_train_HR/a.png D_valid_HR/b.png", [2], "(D_train_HR, D_valid_HR). Name one of them."),
        ("train/a.png valid/b.png test/c.png", [2], "{} holds test, train, valid. Name one of"),
        ("hr/train/a.png hr/test/b.png", [2], "{}/hr holds test, train. Name one of them."),
        ("x/D_train_HR/a.png x/D_valid_HR/b.png", [2], "{}/x holds D_train_HR, D_valid_HR. Name"),
        ("trainsets/a.png testsets/b.png", [2], "{} holds testsets, trainsets. Name one of them."),
        ("x/train/a.png x/test/b.png", [2], "{}/x holds train, test. Name one of them."),
        (
            "SRF_2/target/a.png SRF_2/data/a.png|2 SRF_4/target/a.png SRF_4/data/a.png|4",
            [2, 4],
            "{} holds HR of its own for each scale (SRF_2, SRF_4). Name one of these folders",
        ),
        ("2/a_HR.png 2/a_LR2.png|2", [4], "HR of its own for each scale (2). Name one of"),
        # pairs in no layout
        ("x/GT/a.png x/LQ/a.png|2", [2], "{}/x holds HR and LR, GT beside LQ. Name {}/x itself"),
        ("a.png a_LR.png|2", [2], "a.png and a_LR.png in {} show the same, as HR and LR do, but"),
        ("a.png ax2.png|2", [2], "a.png and ax2.png in {} show the same"),
        ("i_SRF_2_HR.png i_SRF_2_bicubic.png", [2], "i_SRF_2_HR.png and i_SRF_2_bicubic.png in"),
        ("a.png aLR/a.png|4", [2], "a.png and aLR/a.png in {} show the same"),
        ("sharp/a.png small/a.png|3", [2], "sharp/a.png and small/a.png in {} show the same"),
        ("sharp/0/a.png small/0/a.png|2", [2], "sharp/0/a.png and small/0/a.png in {} show the"),
        ("0/a.png 0/X2/ax2.png|2", [2], "0/X2/ax2.png and 0/a.png in {} show the same"),
        ("photos/a.png pairs/a.jpg", [2], "pairs/a.jpg and photos/a.png in {} show the same"),
        ("hr/a.png small/a.png|2", [2], "hr/a.png and small/a.png in {} show the same"),
    ],
)
def test_what_is_refused(files, scales, message, tmp_path):
    """Pictures of one first letter show the same."""
    for word in files.split():
        name, _, scale = word.partition("|")
        if name.endswith(".txt"):
            (tmp_path / name).parent.mkdir(parents=True)
        else:
            draw(tmp_path / name, int(scale or 1), Path(name).stem[:1], (96, 96))
    with pytest.raises(UserError) as error:
        list_folder(tmp_path, scales)
    assert message.replace("{}", f"{tmp_path}") in f"{error.value}"
    assert len(f"{error.value}".replace(f"{tmp_path}", "folder")) < 400


@pytest.mark.parametrize(
    "files",
    [
        "a.png b.png c.jpg",
        "a.png a.jpg",  # two formats
        "2/a.png 3/b.png 4/c.png",
        "train/a.png stations/b.png",
        "X2/a.png X4/b.png",
        "original/a.png b.png",
        "100CANON/IMG_1.png 101CANON/JMG_1.png",
        "matri.png xmatrix2.png",
        "a.png b.png c.png d.png e.png f.png g.png h.png i.png best/a.png",  # copies
        "lr/a.png b.png",  # (a program is called so)
        "hr/a.png masks/b.png",
    ],
)
def test_hr_alone_is_not_disturbed(files, tmp_path):
    make(tmp_path, files)
    count = 1 if "hr/" in files else len(files.split())
    listing = list_folder(tmp_path, [2])
    assert (len(listing.sources), listing.lr) == (count, "made from HR")


@pytest.mark.parametrize("change", ["brighter", "jpeg", "noise", "gray"])
def test_lr_of_any_kind_is_known_by_what_it_shows(change, tmp_path):
    draw(tmp_path / "sharp" / "a.png", size=(96, 96))
    with Image.open(tmp_path / "sharp" / "a.png") as image:
        pixels = np.asarray(image.resize((48, 48)), float)
    noise = np.random.default_rng(0).normal(0, 25, pixels.shape)
    pixels = {"brighter": pixels / 2 + 120, "noise": pixels + noise}.get(change, pixels)
    lr = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    (tmp_path / "real").mkdir()
    lr = lr.convert("L") if change == "gray" else lr
    lr.save(tmp_path / "real" / ("a.jpg" if change == "jpeg" else "a.png"), quality=20)
    with pytest.raises(UserError, match="show the same"):
        list_folder(tmp_path, [2])


def test_films_and_cameras_repeat_their_names(tmp_path):
    for film in range(4):
        for frame in range(10):
            draw(tmp_path / f"{film}" / f"{frame:08}.png", seed=f"{film}{frame}")
    assert len(find_pictures(tmp_path, [2])) == 40
    # Half of the size of another, by chance:
    draw(tmp_path / "4" / "00000000.png", 2, seed="other")
    assert len(find_pictures(tmp_path, [2])) == 41


def test_pictures_are_opened_only_where_names_are_alike(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr("common.data.twins.check_regular", opened.append)
    for number in range(200):
        write(tmp_path / f"{number}.png", (4, 4))
    assert find_twins(tmp_path, picture_files(tmp_path)) is None
    assert not opened
    for number in range(200):
        write(tmp_path / "other" / f"{number}.png", (3, 4))
    assert find_twins(tmp_path, picture_files(tmp_path)) is None
    assert len(opened) == 2 * 5


def test_lr_of_a_scale_that_bicubic_lacks_is_made(tmp_path):
    for lr in ("D_LR_bicubic/X4/ax4.png|4", "GTmod12/a.png LRbicx4/a.png|4"):
        folder = tmp_path / lr[:2]
        make(folder, f"D_HR/a.png {lr}" if lr[0] == "D" else lr)
        assert list_folder(folder, [2]).lr == list_folder(folder, []).lr == "made from HR"
        listing = list_folder(folder, [2, 4])
        assert listing.lr.startswith(f"x2 made from HR, x4 read from {lr[:2]}/")


def test_hidden_folders_are_not_read(tmp_path):
    make(tmp_path, "a.png b/c.png @eaDir/d.png .x/e.png __MACOSX/f.png b/.ipynb_checkpoints/g.png")
    assert picture_files(tmp_path) == [tmp_path / "a.png", tmp_path / "b/c.png"]


def test_splits_to_train_and_to_validate(tmp_path):
    make(tmp_path, "training/a.png validation/b.png test/c.png")
    assert has_split(tmp_path, "validation")
    for split, name in (("train", "a.png"), ("validation", "b.png"), ("test", "c.png")):
        assert [source["name"] for source in list_folder(tmp_path, [2], split).sources] == [name]
    make(tmp_path / "div2k", "D_train_HR/a.png D_valid_HR/b.png")
    make(tmp_path / "inside", "hr/train/a.png hr/val/b.png")
    for folder in ("div2k", "inside"):
        assert has_split(tmp_path / folder, "validation")
        (source,) = list_folder(tmp_path / folder, [2], "validation").sources
        assert source["name"] == "b.png"
    make(tmp_path / "two", "train/a.png test/b.png")
    assert not has_split(tmp_path / "two", "validation")


@pytest.mark.parametrize(
    "names",
    [
        "HR_train LR_train HR_val LR_val",
        "hr-train lr-train hr-valid lr-valid",
        "HR_train LR_train_bicubic HR_val LR_val_bicubic",
        "HR_training LR_training HR_validation LR_validation",
        "GT_train LQ_train GT_val LQ_val",
        "train_HR train_LR val_HR val_LR",
        "D_train_HR D_train_LR_x2 D_valid_HR D_valid_LR_x2",
    ],
)
def test_lr_is_that_of_the_split(names, tmp_path):
    hr, lr, other_hr, other_lr = names.split()
    make(tmp_path, f"{hr}/a.png {lr}/a.png|2 {other_hr}/a.png {other_lr}/a.png|2")
    for split, folder in (("train", lr), ("validation", other_lr)):
        (source,) = list_folder(tmp_path, [2], split).sources
        assert source["lr_x2"]["path"] == str(tmp_path / folder / "a.png")


@pytest.mark.parametrize(
    "files",
    [
        "HR/a.png LR/a.png|2",
        "GTmod12/a.png LRx2/a.png|2",
        "HR/a.png LR/b.png|2",
        "D_HR/a.png D_LR_mild/ax4m.png|4",
        "a_HR.png a_LR.png|2",
        "SRF_2/target/a.png SRF_2/data/a.png|2 SRF_4/target/a.png SRF_4/data/a.png|4",
    ],
)
def test_a_degradation_leaves_the_lr_of_a_benchmark_alone(files, tmp_path):
    make(tmp_path / "set", files)
    benchmark = open_benchmark("set", 2, tmp_path, "jpeg")
    assert (len(benchmark), benchmark.lr) == (1, "made from HR by --degradation jpeg")
    assert benchmark[0][1].shape == (3, 20, 24)


# ------------------------------------------------------------------------------------- commands


@pytest.fixture
def basicsr(tmp_path) -> Path:
    """Folders GT and LQ in that of a benchmark, five pictures each."""
    for number in range(5):
        draw(tmp_path / "Set5" / "GT" / f"{number}.png", 1, f"{number}", (96, 96))
        draw(tmp_path / "Set5" / "LQ" / f"{number}.png", 2, f"{number}", (96, 96))
    return tmp_path


BICUBIC = ("evaluate.py", "--model", "bicubic", "--scale", 2)


def test_evaluate_says_where_lr_is_from(basicsr):
    options = ("--benchmark_dir", basicsr, "--benchmarks", "Set5", "sample")
    process = run_here(*BICUBIC, *options, "--output", basicsr / "report.json")
    read, made = "read from Set5/LQ/0.png and so on", "made from HR by MATLAB's bicubic"
    assert f"LR of Set5: {read}.\nLR of sample: {made}.\n" in process.stdout
    report = json.loads((basicsr / "report.json").read_text())
    assert report["lr"] == {"Set5": read, "sample": made}
    (basicsr / "Set5/LQ").rename(basicsr / "Set5/small")
    message = refusal(*BICUBIC, *options[:4])
    assert "GT/0.png and small/0.png in" in message
    options = ("--benchmark_dir", basicsr / "Set5", "--benchmarks", "GT")  # the way out
    assert f"LR {made};" in run_here(*BICUBIC, *options).stdout


@pytest.mark.parametrize(
    ("name", "count"), [("Set5", 15), ("set14", 5), ("B100", 99), ("BSDS100", 200), ("Manga109", 3)]
)
def test_a_benchmark_has_as_many_pictures_as_it_is_known_for(name, count, tmp_path):
    for number in range(count):
        write(tmp_path / name / f"{number}.png", (8, 8))
    with pytest.raises(UserError, match=rf"has {count} HR pictures, and the benchmark {name} has "):
        open_benchmark(name, 2, tmp_path)


def test_training_says_where_lr_is_from(basicsr, tmp_path):
    command = ("train_srcnn.py", *SMALL, "--scale", 2, "--max_train_steps", 1)
    train = ("--train_data_dir", basicsr / "Set5")
    process = run_here(*command, *train, "--output_dir", tmp_path / "run")
    assert "4 to train on" in process.stdout
    assert "        LR: read from Set5/LQ/0.png and so on\n" in process.stdout
    alone = ("--train_data_dir", basicsr / "Set5" / "GT")  # the way out of messages
    validate = ("--validation_data_dir", basicsr / "Set5")
    process = run_here(*command, *alone, *validate, "--output_dir", tmp_path / "alone")
    assert (
        "        LR: made from HR by MATLAB's bicubic; to validate on, read from Set5/LQ/0.png and "
        "so on\n" in process.stdout
    )
    make(basicsr / "parts", "train/a.png valid/b.png test/c.png")
    options = ("--train_data_dir", basicsr / "parts", "--output_dir", tmp_path / "splits")
    process = run_here(*command, *options)
    assert "1 to train on (0.0 megapixels), 1 to validate on" in process.stdout
    (basicsr / "Set5/LQ/3.png").unlink()
    message = refusal(*command, *train, "--output_dir", tmp_path / "other")
    assert "GT/3.png has no LR picture 3.* or 3x2.* in" in message
    assert not (tmp_path / "other" / "config.json").exists()


def test_prepare_dataset_refuses_lr_that_it_would_not_read(basicsr):
    options = ("--output_dir", basicsr / "out", "--scales", 2)
    message = refusal("prepare_dataset.py", basicsr / "Set5", *options)
    assert "Set5/LQ holds LR pictures, which are not read here" in message
    assert not (basicsr / "out").exists()
    process = run_here("prepare_dataset.py", basicsr / "Set5" / "GT", *options)
    assert "5 rows are in" in process.stdout


@pytest.mark.parametrize("name", ["a[1]", "a*b", "a?", "~", "a b", "[!a]", "ü", "a#b%20"])
def test_odd_names_of_folders(name, tmp_path):
    for number in range(2):
        draw(tmp_path / name / f"{number}.png", 1, f"{number}", (96, 96))
    command = ("train_srcnn.py", *SMALL, "--scale", 2, "--max_train_steps", 1)
    options = ("--train_data_dir", tmp_path / name, "--output_dir", tmp_path / "out" / name)
    assert "1 to train on" in run_here(*command, *options).stdout
    if any(letter in name for letter in "[*?"):
        assert "for patterns. Name another" in refusal(
            "prepare_dataset.py", tmp_path / name, "--output_dir", tmp_path / name / "set"
        )
        with pytest.raises(UserError, match=r"`datasets` takes \[ \] \* \? :: for patterns"):
            hub_pictures(str(tmp_path / name), [2])
    else:
        assert len(hub_pictures(str(tmp_path / name), [2]).sources) == 2


def test_two_colons_are_refused(tmp_path):
    draw(tmp_path / "a::b" / "c.png")
    for folder in (tmp_path, tmp_path / "a::b"):
        with pytest.raises(UserError, match=r"/a::b/c\.png has :: in it, which means a file in an"):
            list_folder(folder, [2])
    with pytest.raises(UserError, match="/a::b, and `datasets` takes"):
        hub_pictures(str(tmp_path / "a::b"), [2])


def test_a_folder_as_a_data_set_is_no_way_around(basicsr):
    with pytest.raises(UserError, match=r"Set5 holds HR and LR, GT beside LQ\. Name .* itself by"):
        hub_pictures(str(basicsr / "Set5"), [2])
    assert len(hub_pictures(os.path.relpath(basicsr / "Set5" / "GT"), [2]).sources) == 5
    make(basicsr / "parts", "train/a.png validation/b.png")
    assert len(hub_pictures(str(basicsr / "parts"), [2]).sources) == 1
