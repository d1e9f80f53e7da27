"""Pages: one file, nothing from outside, and names that are text whatever they hold."""

import base64
import hashlib
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

import common.page.page
from common.curves import draw_panel
from common.page.page import FOLDER, Page, PagePicture, as_code, as_table, is_page
from running import ROOT

ARROWS = ("Left", "Right", "Up", "Down")
HOSTILE = "<script>alert(1)</script><!--DATA--><img src=x onerror=alert(1)>\u202e\x1b[2J.png"


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


def pixels(value: int, height: int = 6, width: int = 9) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def data_of(text: str) -> list[dict]:
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])


def test_a_page_has_its_pictures_without_loss(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    page = Page("A page")
    page.add(PagePicture.of("one", [("Bicubic", pixels(1)), ("Ours", noise)]))
    page.write(tmp_path / "new" / "page.html")
    assert is_page(tmp_path / "new" / "page.html")
    (picture,) = data_of((tmp_path / "new" / "page.html").read_text())
    assert (picture["width"], picture["height"], picture["shown"]) == (9, 6, 1)
    kind, _, content = picture["versions"][1]["source"].partition(",")
    assert kind == "data:image/webp;base64"
    image = Image.open(io.BytesIO(base64.b64decode(content)))
    assert np.array_equal(np.asarray(image.convert("RGB")), noise)


def test_nothing_comes_from_outside_and_only_its_own_script_runs():
    page = Page("A page")
    page.add(PagePicture.of("one", [("Bicubic", pixels(1)), ("Ours", pixels(2))]))
    text = page.html()
    tags = Tags(text).found
    assert not [each for _, each in tags if each.get("src") or each.get("href")]
    (policy,) = (each["content"] for _, each in tags if "http-equiv" in each)
    script = text.rpartition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; img-src data:;")


@pytest.mark.parametrize(("number", "taken"), [(1, ["Left", "Right"]), (2, [*ARROWS])])
def test_arrows_that_the_page_leaves_to_the_browser(number, taken):
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node, which runs the page's JavaScript")
    command = [node, ROOT / "tests" / "helpers" / "keys.mjs", FOLDER / "page.js", f"{number}"]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    # On the picture; elsewhere when it is enlarged; on the enlarged picture, which they move.
    assert json.loads(process.stdout) == [taken, taken, []]


def test_names_are_text():
    page = Page(HOSTILE, HOSTILE)
    page.add(PagePicture.of(HOSTILE, [(HOSTILE, pixels(1)), ("b", pixels(2))]))
    page.add_section(HOSTILE, as_table([[HOSTILE], [HOSTILE]]) + as_code(HOSTILE))
    page.add_section("Curves", draw_panel({HOSTILE: [(1, 2)], "b": [(1, 2)]}, HOSTILE, HOSTILE))
    text = page.html()
    tags = [name for name, _ in Tags(text).found]
    assert tags.count("script") == 2  # the data and the page's own
    assert tags.count("img") == 2
    assert "alert(1)</script>" not in text
    assert "\x1b" not in text
    assert data_of(text)[0]["name"].startswith("<script>alert(1)</script>")  # put in as text


def test_a_page_has_an_end(monkeypatch):
    monkeypatch.setattr(common.page.page, "MOST_BYTES", 500)
    page = Page("A page")
    for number in range(9):
        page.add(PagePicture.of(f"{number}", [("a", pixels(1)), ("b", pixels(2))]))
    shown = len(data_of(page.html()))
    assert 0 < shown < 9
    assert page.left_out == 9 - shown
    assert f"{shown} of 9 pictures are shown" in page.html()


def test_large_pictures_are_jpeg(monkeypatch):
    monkeypatch.setattr(common.page.page, "MOST_LOSSLESS", 50)
    picture = PagePicture.of("one", [("a", pixels(1)), ("b", pixels(2))])
    assert picture.versions[0][1].startswith("data:image/jpeg;base64,")
