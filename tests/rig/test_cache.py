"""Layers are made once, never half, and anew when something they depend on has changed."""

from __future__ import annotations

import os

import pytest

from tests.rig import cache as caching
from tests.rig.cache import Cache, key_of


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(caching, "said", lambda text: None)
    return Cache(tmp_path / "cache")


def test_a_layer_is_made_once(cache):
    made = []
    for _ in range(2):
        path = cache.layer("root", "1", lambda path: made.append((path / "file").write_text("x")))
    assert (path / "file").read_text() == "x"
    assert len(made) == 1


def test_one_that_was_cut_off_is_made_anew(cache):
    def cut_off(path):
        (path / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.layer("root", "1", cut_off)
    path = cache.layer("root", "1", lambda path: (path / "whole").touch())
    assert [each.name for each in path.iterdir()] == ["whole"]


def test_what_was_not_used_for_long_goes_and_what_was_stays(cache):
    old, new = (cache.layer("root", key, lambda path: None) for key in ("old", "new"))
    os.utime(old, (0, 0))
    last = cache.layer("root", "last", lambda path: None)
    assert (old.exists(), new.exists(), last.exists()) == (False, True, True)


def test_a_key_follows_names_and_contents(tmp_path):
    (tmp_path / "a").write_text("1")
    first = key_of(tmp_path, "text")
    assert key_of(tmp_path, "text") == first
    assert key_of(tmp_path, "other") != first
    (tmp_path / "a").write_text("2")
    assert key_of(tmp_path, "text") != first
    (tmp_path / "a").write_text("1")
    (tmp_path / "a").rename(tmp_path / "b")
    assert key_of(tmp_path, "text") != first
