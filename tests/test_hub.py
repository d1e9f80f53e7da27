import json
import os
import shlex
import subprocess
import sys

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from safetensors.torch import load_file, save_file

import common.machine
from common.card import add_to_card, give_address, model_card
from common.errors import UserError
from common.hub import find_network, load_matching, load_model
from common.machine import repository_address
from common.metrics import protocol
from running import LATEST, assert_nearly_equal, metrics, refusal, run, run_here, train_from_hub
from train_a2n import A2N
from train_srcnn import SRCNN


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    A2N(2, "a2n-m").save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def edit(folder, **changes):
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))


def test_saved_and_loaded(folder):
    torch.manual_seed(0)
    original, loaded = A2N(2, "a2n-m").eval(), load_model(folder)
    assert json.loads((folder / "config.json").read_text()) == {
        "architecture": "a2n",
        "scale": 2,
        "variant": "a2n-m",
        "num_features": 40,
        "num_upsampler_features": 24,
        "num_blocks": 16,
    }
    assert type(loaded).__name__ == "A2N"
    assert not loaded.training
    lr = torch.rand(1, 3, 9, 7)
    with torch.no_grad():
        assert torch.equal(loaded(lr), original(lr))
    assert "# A2N x2" in (folder / "README.md").read_text()


def test_architecture_survives_another_save(folder, tmp_path):
    A2N.from_pretrained(folder).save_pretrained(tmp_path / "again")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_compiled_network_is_saved_under_plain_names(folder, tmp_path):
    torch.compile(load_model(folder)).save_pretrained(tmp_path / "compiled")
    tensors = load_file(tmp_path / "compiled" / "model.safetensors")
    assert list(tensors) == list(load_file(folder / "model.safetensors"))


def card_of(folder) -> ModelCard:
    return ModelCard.load(folder / "README.md")


def test_the_scales_of_a_benchmark_stay_apart(tmp_path):
    """The Hub tells results apart by the configuration of their data set, not by its name."""
    scores = {scale: {"psnr_y": 30.0 - scale, "ssim_y": 0.9} for scale in (2, 4)}
    card = model_card("VDSR", "vdsr", [2, 4], scores=scores, license="cc-by-4.0")
    (tmp_path / "README.md").write_text(card)
    for scale in (2, 4, 2):
        add_to_card(tmp_path, scale, {"Set5": scores[scale]}, "Y")
    found = card_of(tmp_path)
    assert found.data.license == "cc-by-4.0"
    names = ["validation pictures x2", "validation pictures x4", "Set5 x4", "Set5 x2"]
    results = found.data.eval_results
    assert [r.dataset_name for r in results if r.metric_name == "psnr_y"] == names
    assert [r.metric_value for r in results if r.metric_name == "psnr_y"] == [28, 26, 26, 28]
    assert {r.dataset_config for r in results} == {"x2", "x4"}
    assert "| Set5 x2 | 28.00 | 0.9000 |\n| Set5 x4 | 26.00 | 0.9000 |\n" in found.text


def test_the_card_has_ten_lines_that_need_no_clone_of_this_code(hub, tmp_path):
    pytest.importorskip("onnxruntime")
    folder = tmp_path / "model"
    SRCNN(2).save_pretrained(folder)
    run_here("common.hub", f"{folder}", "user/sharp", "--onnx", HF_TOKEN="hf_test")
    before = (folder / "README.md").read_text()
    give_address(folder, "user/sharp", {2: "model.onnx"})  # in place of the first
    assert (folder / "README.md").read_text() == before
    card = card_of(hub.folder / "models" / "user" / "sharp").text
    assert card.count("## Without this repository") == 1
    code = card.split("## Without this repository")[1].split("```python\n")[1].split("```")[0]
    lines = [line for line in code.splitlines() if line]
    assert len(lines) <= 10
    pixels = np.random.default_rng(0).integers(0, 256, (12, 15, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    code = code.replace("photo.jpg", "photo.png")  # without loss
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    with torch.no_grad():
        lr = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
        sr = load_model(folder)(lr)[0].permute(1, 2, 0).clip(0, 1) * 255
    with Image.open(tmp_path / "photo-sr.png") as image:
        assert_nearly_equal(np.asarray(image), sr.round().numpy())
    # Without the file, nothing is said of it.
    run_here("common.hub", f"{folder}", "user/sharp", HF_TOKEN="hf_test")
    assert "Without this repository" not in card_of(folder).text
    # Under another name, the card tells that one.
    give_address(folder, "team/sharper-x2", {})
    card = card_of(folder).text
    assert "upscale.py photo.jpg --model team/sharper-x2\n" in card
    assert 'load_model("team/sharper-x2")' in card
    assert "user/sharp" not in card


def test_what_an_onnx_file_needs_is_said_before_the_training(hub, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    options = ("--max_train_images", 4, "--push_to_hub", "--push_onnx", "--license", "MIT License")
    message = train_from_hub(tmp_path / "run", *options, runner=refusal, HF_TOKEN="hf_test")
    assert "--license 'MIT License' is no license as the Hub names them: apache-2.0, mit" in message
    message = train_from_hub(tmp_path / "run", *options[:-2], runner=refusal, HF_TOKEN="hf_test")
    assert message.endswith("--push_onnx needs onnxscript: pip install onnxscript")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("remote", "address"),
    [
        ("git@github.com:someone/sr.git", "https://github.com/someone/sr"),
        ("https://name:secret@github.com/someone/sr.git", "https://github.com/someone/sr"),
        ("ssh://git@gitlab.com/a/b/sr", "https://gitlab.com/a/b/sr"),
        ("git@git.firm.example:team/secret.git", ""),
        ("/srv/git/github.com.git", ""),
        ("", ""),
    ],
)
def test_the_address_of_the_code_is_that_of_a_public_host(remote, address, monkeypatch):
    monkeypatch.setattr(common.machine, "_git", lambda *words: f"{remote}\n")
    assert repository_address() == address


def test_results_on_benchmarks_go_into_the_card(tiny_benchmark_dir, tmp_path):
    folder, figures = tmp_path / "model", tmp_path / "figures.json"
    SRCNN(2).save_pretrained(folder)
    options = ("--model", folder, "--benchmark_dir", tiny_benchmark_dir, "--benchmarks", "Tiny")
    for extra in (("--rgb",), ()):  # the second time in place of the first
        run_here(
            "evaluate.py", *options, "--add_to_card", "--output", figures, "--overwrite", *extra
        )
    run_here("evaluate.py", *("--model", folder, "--benchmarks", "sample", "--add_to_card"))
    tiny = json.loads(figures.read_text())["benchmarks"]["Tiny"]
    card = ModelCard.load(folder / "README.md")
    results = [
        (result.dataset_name, result.metric_name, result.metric_type, result.metric_value)
        for result in card.data.eval_results
    ]
    assert results[:2] == [
        ("Tiny x2", "psnr_y", "psnr", round(tiny["psnr_y"], 4)),
        ("Tiny x2", "ssim_y", "ssim", round(tiny["ssim_y"], 4)),
    ]
    assert [result[:2] for result in results[2:]] == [
        ("sample x2", "psnr_y"),
        ("sample x2", "ssim_y"),
    ]
    row = f"| Tiny x2 | {tiny['psnr_y']:.2f} | {tiny['ssim_y']:.4f} |\n"
    assert f"\n\n## Benchmarks\n\n|  | PSNR-Y | SSIM-Y |\n| --- | --- | --- |\n{row}" in card.text
    assert card.text.count("## Benchmarks") == card.text.count("## Use") == 1
    made = "made from HR by MATLAB's bicubic"
    assert f"\n\nProtocol: {protocol(made)}.\n\n## Use\n\nIn a clone" in card.text
    assert load_model(folder).scales == [2]


@pytest.mark.parametrize("name", ["bicubic", "user/name"])
def test_results_need_a_card(name):
    message = refusal("evaluate.py", "--model", name, "--scale", 2, "--add_to_card")
    assert "--add_to_card needs a --model folder that has a README.md" in message


def test_loading_is_strict(folder):
    tensors = load_file(folder / "model.safetensors")
    del tensors["conv_last.bias"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(RuntimeError, match=r"conv_last\.bias"):
        A2N.from_pretrained(folder)


def test_no_model(tmp_path, folder):
    with pytest.raises(UserError, match=r"There is no folder or file .*/nowhere\. "):
        load_model(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r" is no model: it has no config\.json and no model"):
        load_model(tmp_path)
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"has no model\.safetensors"):
        load_model(folder)


def test_foreign_config(folder):
    edit(folder, architecture="os")
    with pytest.raises(UserError, match=r"Unknown architecture 'os'. This repository has: a2n"):
        load_model(folder)
    (folder / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match="does not say which network"):
        load_model(folder)
    (folder / "config.json").write_text("not json")
    with pytest.raises(UserError, match="no configuration of a network: Expecting value"):
        load_model(folder)


def test_config_without_a_scale(folder):
    edit(folder, scale=0)
    with pytest.raises(UserError, match=r"does not fit the network a2n: scales must be 2 or more"):
        load_model(folder)


@pytest.mark.parametrize("name", ["../train_a2n", "a2n.os", "", None, ["a2n"]])
def test_config_can_name_nothing_but_a_script(name):
    with pytest.raises(UserError, match="Unknown architecture"):
        find_network(name)


def test_weights_of_another_shape(folder):
    edit(folder, num_features=36)
    with pytest.raises(
        UserError, match=r"fit the network a2n: \d+ have another shape \(conv_first.weight is 40x3"
    ):
        load_model(folder)
    edit(folder, num_features=40, scale=7)
    with pytest.raises(UserError, match="does not fit the network a2n"):
        load_model(folder)


def test_damaged_weights(folder):
    (folder / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(UserError, match=r"cannot be read as \.safetensors"):
        load_model(folder)
    with pytest.raises(UserError, match="cannot be read"):
        load_matching(A2N(2), folder)


def test_x4_starts_from_x2(folder):
    x2, x4 = load_model(folder), A2N(4, "a2n-m")
    fresh = {name: tensor.clone() for name, tensor in x4.state_dict().items()}
    complete, message = load_matching(x4, folder)
    assert not complete
    assert message.startswith("172 of 178 tensors copied from")
    assert (
        "6 keep their fresh values (0 of them have another shape there); 0 of the file" in message
    )
    for name, tensor in x4.state_dict().items():
        expected = fresh[name] if name.startswith("upsamplers.1.") else x2.state_dict()[name]
        assert torch.equal(tensor, expected)


def test_init_from_a_file_with_some_other_shapes(folder, tmp_path):
    tensors = load_file(folder / "model.safetensors")
    tensors["conv_last.bias"] = torch.zeros(5)
    tensors["unknown"] = torch.zeros(1)
    save_file(tensors, tmp_path / "some.safetensors")
    complete, message = load_matching(A2N(2, "a2n-m"), tmp_path / "some.safetensors")
    assert not complete
    assert message.startswith("171 of 172")
    assert (
        "1 keep their fresh values (1 of them have another shape there); 1 of the file" in message
    )


def test_init_from_refuses_what_does_not_fit(tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"None of the 1 tensors in .*convert_published\.py"):
        load_matching(A2N(2), tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="neither a folder"):
        load_matching(A2N(2), tmp_path)
    with pytest.raises(UserError, match=r"There is no folder or file .*/weights\.pth\. "):
        load_matching(A2N(2), tmp_path / "weights.pth")


def test_a_model_goes_to_the_hub_and_comes_back(hub, tmp_path):
    folder = tmp_path / "tiny"
    options = ("--max_train_images", 4, "--push_to_hub", "--hub_private")
    message = train_from_hub(folder, *options, runner=refusal)
    assert "--push_to_hub needs a token. Log in by `hf auth login`, or set HF_TOKEN." in message
    process = train_from_hub(folder, *options, HF_TOKEN="hf_test")
    assert f"It is on the Hub now: {hub.url}/user/tiny" in process.stdout
    pushed = hub.folder / "models" / "user" / "tiny"
    assert {path.name for path in pushed.iterdir()} == {
        *("README.md", "config.json", "model.safetensors", "example.png", "curves.svg")
    }
    for path in pushed.iterdir():
        assert path.read_bytes() == (folder / path.name).read_bytes()
    card = (pushed / "README.md").read_text()
    psnr = next(row["psnr_y"] for row in metrics(folder) if "psnr_y" in row)
    for text in (
        *("library_name: super-resolution-on-accelerate", "pipeline_tag: image-to-image"),
        *("--model user/tiny", 'load_model("user/tiny")', "No license is claimed for the weights."),
        "for [academic research only](https://data.vision.ee.ethz.ch/cvl/DIV2K/)",
        *("- yangtao9009/DIV2K", "model-index:", "type: psnr", f"value: {round(psnr, 4)}\n"),
        *("Protocol: output rounded to 8 bits", "load_model(", "--max_train_images 4"),
    ):
        assert text in card
    assert not {"license", "base_model"} & card_of(pushed).data.to_dict().keys()

    options = ("--model", "user/tiny", "--benchmarks", "Set5")
    assert "SRCNN x2 (user/tiny)" in run_here("evaluate.py", *options).stdout
    hub.requests.clear()
    process = run("evaluate.py", *options, HF_HUB_OFFLINE="1")
    assert "SRCNN x2 (user/tiny)" in process.stdout
    assert not hub.requests
    process = train_from_hub(tmp_path / "next", "--init_from", "user/tiny", "--revision", "main")
    assert "6 of 6 tensors copied from" in process.stdout
    assert card_of(tmp_path / "next").data.base_model == "user/tiny"
    for weights in ((), ("--init_from", "user/other")):  # the weights are those of the checkpoint
        for name in ("model.safetensors", "README.md"):
            (tmp_path / "next" / name).unlink()
        process = train_from_hub(tmp_path / "next", *LATEST, *weights)
        assert "copied from" not in process.stdout
        assert card_of(tmp_path / "next").data.base_model == "user/tiny"
    message = refusal("evaluate.py", *options, "--revision", "v9")
    assert "There is no model user/tiny at revision v9 on" in message


def test_a_push_that_fails_loses_nothing(hub, tmp_path):
    options = ("--max_train_images", 4, "--push_to_hub", "--hub_model_id", "no/such/name")
    message = train_from_hub(tmp_path / "run", *options, runner=refusal, HF_TOKEN="hf_test")
    folder = tmp_path / "run"
    assert f"Could not push {folder} to no/such/name on the Hub: " in message
    assert f"try again by\n    python -m common.hub {folder} no/such/name" in message
    process = run_here("common.hub", f"{folder}", "again", HF_TOKEN="hf_test")
    assert process.stdout == f"{hub.url}/user/again\n"
    pushed = load_file(hub.folder / "models" / "user" / "again" / "model.safetensors")
    for name, tensor in load_file(folder / "model.safetensors").items():
        assert torch.equal(pushed[name], tensor)


def test_a_push_goes_on_where_it_broke_off(hub, tmp_path):
    hub.large, hub.cut["commit"] = ".safetensors", 1
    folder = tmp_path / "a run"
    options = ("--max_train_images", 4, "--push_to_hub", "--hub_private")
    options += ("--hub_model_id", "user/again")
    message = train_from_hub(folder, *options, runner=refusal, HF_TOKEN="hf_test")
    assert "on the Hub: 403" in message
    assert len(message[message.index("Could not push") :].replace(f"{folder}", "out/a")) < 400
    command = message.split("try again by\n")[1].split("\n")[0].strip()
    assert command == f"python -m common.hub '{folder}' user/again --private"
    assert load_model(folder).scale == 2  # the result is there, and so is the last checkpoint
    assert (folder / "checkpoint-2").is_dir()

    def uploads() -> list[str]:
        """What was sent, and whether a commit was made, since the last call."""
        found = [kind for kind, path, _ in hub.requests if kind == "PUT" or "/commit/" in path]
        hub.requests.clear()
        return found

    assert uploads() == ["PUT", "POST"]
    again = (*options, "--resume_from_checkpoint", "latest")
    output = train_from_hub(folder, *again, HF_TOKEN="hf_test").stdout
    assert f"It is on the Hub now: {hub.url}/user/again" in output
    assert uploads() == ["POST"]  # the weights were there already
    pushed = hub.folder / "models" / "user" / "again"
    for path in pushed.iterdir():
        assert path.read_bytes() == (folder / path.name).read_bytes()
    assert {path.name for path in pushed.iterdir()} == {
        *("README.md", "config.json", "model.safetensors", "example.png", "curves.svg")
    }

    run_here("common.hub", *shlex.split(command)[3:], HF_TOKEN="hf_test")
    assert uploads() == []  # nothing is missing


def test_without_the_hub_the_push_comes_later(tmp_path):
    """(Nobody listens where the tests' Hub would be.)"""
    folder, command = tmp_path / "a run", ["--push_to_hub", "--hub_private"]
    message = train_from_hub(
        folder, "--dataset_name", "sample", *command, runner=refusal, HF_TOKEN="hf_x"
    )
    assert "does not accept the token, or cannot be reached" in message
    assert f"push later by\n    python -m common.hub '{folder}' 'a run' --private" in message
    assert " at 0x" not in message
    assert not folder.exists()
    data = tmp_path / "data"
    options = (tmp_path, "--output_dir", data, "--push_to_hub", "user/set", "--hub_private")
    message = refusal("prepare_dataset.py", *options, HF_TOKEN="hf_x")
    again = f"hf upload user/set {data} --repo-type dataset --private"
    assert f"push later by\n    {again}" in message
