"""Pictures of docs/: readable in light and dark, with words for whoever does not see them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from lxml import etree

DOCS = Path(__file__).parents[2] / "docs"
PICTURES = sorted(DOCS.glob("*.svg"))
SVG = "{http://www.w3.org/2000/svg}"


def names_of(picture: Path) -> list[str]:
    """What the boxes of a picture are called."""
    found = etree.parse(picture).iter(f"{SVG}text")
    return [each.text or "" for each in found if each.get("class") == "name"]


@pytest.mark.parametrize("picture", PICTURES, ids=lambda each: each.name)
def test_a_picture_has_words(picture: Path) -> None:
    """In itself, where it is shown, and on the page, which speaks of everything in it."""
    root = etree.parse(picture).getroot()
    assert root.get("role") == "img"
    assert root.findtext(f"{SVG}title")
    assert root.findtext(f"{SVG}desc")
    pages = [
        text
        for text in (each.read_text() for each in DOCS.glob("*.md"))
        if re.search(rf"!\[[^\]]{{40,}}\]\({re.escape(picture.name)}\)", text)
    ]
    assert pages
    words = " ".join(pages).lower()
    assert [each for each in names_of(picture) if each.lower().split(",")[0] not in words] == []


@pytest.mark.parametrize("picture", PICTURES, ids=lambda each: each.name)
def test_a_picture_has_its_own_ground_and_colours_for_the_dark(picture: Path) -> None:
    text = picture.read_text()
    light, _, dark = text.partition("@media (prefers-color-scheme: dark)")
    assert 'class="ground"' in text
    used = set(re.findall(r'class="([a-z]+)', text))
    assert [each for each in used - {"dash"} if f".{each} " not in light or f".{each}" not in dark] == []


def test_there_are_pictures() -> None:
    assert PICTURES
