"""prepare_dataset.py: pictures become rows of pairs."""

import shutil
from pathlib import Path

import datasets
import huggingface_hub
import numpy as np
from PIL import Image

from common.images.formats import read_rgb
from common.images.resize import imresize
from common.images.tensors import to_tensor
from running import refusal, run_here, train_from_hub


def test_a_prepared_data_set(pictures_dir, hub, tmp_path):
    shutil.copytree(pictures_dir, tmp_path / "photos")
    (tmp_path / "photos" / "text.png").write_text("no picture")
    Image.new("RGB", (30, 90)).save(tmp_path / "photos" / "narrow.png")
    command = ("prepare_dataset.py", tmp_path / "photos", "--output_dir", tmp_path / "set")
    options = ("--patch_size", 48, "--patch_step", 32, "--push_to_hub", "user/prepared")
    process = run_here(*command, *options, HF_TOKEN="hf_test")
    assert "text.png: it is no PNG, JPEG, BMP, WebP, TIFF, GIF" in process.stdout
    assert "narrow.png: it is smaller than 48 pixels" in process.stdout
    # Of 96x80, at 0, 32, 48 and at 0, 32.
    assert f"48 rows are in {tmp_path / 'set'}" in process.stdout
    assert f"It is on the Hub now: {hub.url}/datasets/user/prepared" in process.stdout
    card = huggingface_hub.DatasetCard.load("user/prepared")
    assert card.data.tags == ["super-resolution"]
    assert "\n48 pictures for " in card.text
    assert "--dataset_name user/prepared\n" in card.text
    table = datasets.Dataset.from_parquet(str(tmp_path / "set" / "train.parquet"))
    assert table.column_names == ["hr", "lr_x2", "lr_x3", "lr_x4"]
    picture = read_rgb(pictures_dir / "0.png")
    expected = picture[32:80, 48:96]
    assert np.array_equal(np.asarray(table[5]["hr"]), expected)
    for scale in (2, 3, 4):
        lr = imresize(to_tensor(expected.copy()), 1 / scale).movedim(0, -1).numpy()
        assert np.array_equal(np.asarray(table[5][f"lr_x{scale}"]), lr)
    private = refusal(*command[:3], tmp_path / "private", "--hub_private")
    assert "--hub_private belongs to --push_to_hub" in private
    message = refusal(*command)
    assert (
        f"--output_dir {tmp_path / 'set'} is not empty (README.md, train.parquet); name an"
        in message
    )
    for file in sorted((tmp_path / "photos").glob("?.png")):
        Image.new("RGB", (48, 48), "blue").save(file)  # other pictures of the same names
    process = run_here(*command[:3], tmp_path / "blue", *options[:4])
    assert "text.png: it is no PNG, JPEG, BMP, WebP, TIFF, GIF" in process.stdout
    assert {path.name for path in (tmp_path / "blue").iterdir()} == {"train.parquet", "README.md"}
    table = datasets.Dataset.from_parquet(str(tmp_path / "blue" / "train.parquet"))
    assert np.unique(np.asarray(table[0]["hr"]).reshape(-1, 3), axis=0).tolist() == [[0, 0, 255]]
    for name in (tmp_path / "set", "user/prepared"):
        run_dir = tmp_path / f"run-{Path(name).name}"
        assert (
            "44 to train on" in train_from_hub(run_dir, "--dataset_name", name, "--scale", 3).stdout
        )
