"""Decoded pictures are found again as long as the code that decodes them is the same."""

import inspect

from common.data import cache
from common.data.cache import DECODING, KNOWN_CODE, LAYOUT
from common.files import checksum


def test_the_code_that_decodes_is_known():
    code = checksum([inspect.getsource(part) for part in DECODING])
    assert code == KNOWN_CODE, f"{cache.__file__}: what does a table hold now? KNOWN_CODE = {code}"
    assert cache._layout() == LAYOUT


def test_edited_code_has_tables_of_its_own(monkeypatch):
    def edited(file):
        return None

    monkeypatch.setattr(cache, "DECODING", (edited, *DECODING[1:]))
    assert cache._layout() != LAYOUT
