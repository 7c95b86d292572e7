"""The profiles that come with the package."""

from __future__ import annotations

import pytest
import yaml

from tests.support.cards import CATALOG
from vgpuctl.model.document import NumaPolicy, PlacementPolicy
from vgpuctl.resources import profiles_directory

FILES = sorted(profiles_directory().glob("*.yaml"))


def test_there_are_some():
    assert {"office", "designer", "engineer", "compute", "kiosk"} <= {path.stem for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_profile_is_a_document_whose_types_the_catalogue_has(path):
    document = yaml.safe_load(path.read_text())
    assert set(document) <= {"apiVersion", "kind", "name", "description", "types", "placement", "params"}
    assert (document["apiVersion"], document["kind"], document["name"]) == (
        "vgpuctl/v1",
        "Profile",
        path.stem,
    )
    assert document["description"]
    PlacementPolicy(document["placement"]["policy"])
    NumaPolicy(document["placement"]["numa"])
    for name in document["types"]:
        _model, found = CATALOG.type_named(name)
        assert found.name == name


@pytest.mark.parametrize(
    ("profile", "series"),
    [("designer", "Q"), ("engineer", "Q"), ("compute", "C"), ("kiosk", "A"), ("office", "B")],
)
def test_a_profile_keeps_to_one_series(profile, series):
    document = yaml.safe_load((profiles_directory() / f"{profile}.yaml").read_text())
    assert {CATALOG.type_named(name)[1].series for name in document["types"]} == {series}
