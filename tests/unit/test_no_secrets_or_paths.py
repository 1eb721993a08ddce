"""Nothing of one machine gets into the tree: no registry hosts, no home folders, no keys."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.tree import ROOT, project_files

# In pieces, so that this file does not contain what it looks for.
_SLASH = "/"
_REGISTRY_HOSTS = (
    "py" + "pi.org",
    "python" + "hosted.org",
    "maven" + ".org",
    "maven." + "apache.org/maven2",
    "maven" + ".google.com",
    "npm" + "js.org",
    "jfrog" + ".io",
)
_INDEX_OPTIONS = ("--index" + "-url", "--extra-index" + "-url", "--find" + "-links")
_HOMES = ("work", "farm", "root", "home", "Users")

_FORBIDDEN = {
    "the host of a package registry": "|".join(map(re.escape, _REGISTRY_HOSTS)),
    "an option naming a package index": "(?m)^(?:" + "|".join(map(re.escape, _INDEX_OPTIONS)) + ")",
    # A folder directly below the root of one machine, followed by a name in it.
    "a path of one machine": rf"(?<![\w.~$}})\]-]){_SLASH}(?:{'|'.join(_HOMES)}){_SLASH}[A-Za-z.]",
    "a lab folder": _SLASH + "tmp" + _SLASH + "[a-z]+" + _SLASH,
    "a private key": "-----BEGIN " + "[A-Z ]*PRIVATE KEY-----",
    "an access token": r"\b(?:gh[pousr]_|glpat-|xox[abp]-|sk-ant-)[A-Za-z0-9_-]{16,}",
}

_FILES = project_files()


def _found(pattern: str, text: str) -> str | None:
    match = re.search(pattern, text)
    return match[0] if match else None


@pytest.mark.parametrize("what", _FORBIDDEN)
def test_no_file_of_the_project_contains(what: str) -> None:
    assert _FILES, "no files found to look at"
    hits = []
    for path in _FILES:
        hit = _found(_FORBIDDEN[what], _text(path))
        if hit is not None:
            hits.append(f"{path.relative_to(ROOT)}: {hit}")
    assert not hits, f"these contain {what}:\n" + "\n".join(hits)


def _text(path: Path) -> str:
    # Binary files are looked at too: what is text in them stays readable.
    return path.read_bytes().decode("utf-8", errors="replace")


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("the host of a package registry", "https://" + _REGISTRY_HOSTS[0] + "/simple"),
        ("an option naming a package index", "x\n" + _INDEX_OPTIONS[0] + " somewhere"),
        ("a path of one machine", "open('" + _SLASH + "root" + _SLASH + "notes')"),
        ("a path of one machine", "cd " + _SLASH + "home" + _SLASH + "me"),
        ("a lab folder", _SLASH + "tmp" + _SLASH + "lab" + _SLASH + "v"),
        ("a private key", "-----BEGIN " + "RSA PRIVATE KEY-----"),
        ("an access token", "ghp" + "_" + "a" * 36),
    ],
)
def test_what_must_not_be_there_would_be_found(what: str, text: str) -> None:
    assert _found(_FORBIDDEN[what], text)


@pytest.mark.parametrize("text", ["docs/home/page", "~/work/x", "$HOME/root/x", "${base}/work/file", "a/tmp"])
def test_relative_paths_are_not_mistaken_for_paths_of_one_machine(text: str) -> None:
    assert not any(_found(pattern, text) for pattern in _FORBIDDEN.values())
