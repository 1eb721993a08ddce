"""A page that names a test as its evidence names one that exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.tree import ROOT

_NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
_PAGES = [*sorted(ROOT.glob("docs/*.md")), ROOT / "SECURITY.md"]


@pytest.mark.parametrize("page", [pytest.param(page, id=page.name) for page in _PAGES])
def test_every_test_that_a_page_names_exists(page: Path) -> None:
    missing = []
    for file, name in _NAMED.findall(page.read_text(encoding="utf-8")):
        path = ROOT / file
        if not path.is_file() or (name and f"def {name}(" not in path.read_text(encoding="utf-8")):
            missing.append(f"{file}::{name}" if name else file)
    assert not missing


def test_the_page_on_crdts_names_some() -> None:
    assert len(_NAMED.findall((ROOT / "docs/crdt.md").read_text(encoding="utf-8"))) > 15


def test_every_threat_names_a_test() -> None:
    lines = (ROOT / "SECURITY.md").read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("| ") and not line.startswith("| threat")]
    assert len(rows) > 20
    assert [row for row in rows if not _NAMED.search(row.split("|")[4])] == []
