"""MIG in documents and requests, and mig-parted's files."""

from __future__ import annotations

import pytest

from vgpuctl.api.documents import dump_documents, parse_documents
from vgpuctl.api.edits import parse_edit
from vgpuctl.api.migparted import parse_mig_parted
from vgpuctl.errors import InvalidInput
from vgpuctl.model.document import ComputeWish, GpuDocument, MigWish
from vgpuctl.model.edit import MigPartedRule, SetMig
from vgpuctl.model.giprofile import GiPlace

HEAD = 'apiVersion: vgpuctl/v1\nkind: Gpu\nname: "0000:41:00.0"\n'


def document(text: str):
    (found,) = parse_documents(HEAD + text, "a test")
    return found


def faults(text: str) -> list[str]:
    with pytest.raises(InvalidInput) as caught:
        document(text)
    return [f"{each['path']}: {each['message']}" for each in caught.value.facts["faults"]]


@pytest.mark.parametrize(
    ("text", "wish"),
    [
        ("mig: {}", MigWish()),
        ("mig: {enabled: false}", MigWish(enabled=False)),
        (
            "mig: {profiles: {2g.20gb: 2, 1g.10gb+ME: 1}}",
            MigWish(profiles=(("1g.10gb+me", 1), ("2g.20gb", 2))),
        ),
        ("mig: {vgpus: {A100D-2-20C: 2}}", MigWish(vgpus=(("A100D-2-20C", 2),))),
        (
            "mig: {instances: [{profile: 1g.24gb+me.all, start: 3}, {profile: 1g.24gb-me, start: 0}]}",
            MigWish(instances=(GiPlace(0, "1g.24gb-me"), GiPlace(3, "1g.24gb+me.all"))),
        ),
        (
            (
                "mig: {instances: [{profile: 3g.40gb, start: 4, compute_instances: {1C.3g.40gb: 2}},"
                " {profile: 2g.20gb, start: 0, compute_instances: {}}, {profile: 1g.10gb, start: 2}]}"
            ),
            MigWish(
                instances=(GiPlace(0, "2g.20gb"), GiPlace(2, "1g.10gb"), GiPlace(4, "3g.40gb")),
                compute=(
                    ComputeWish(GiPlace(0, "2g.20gb"), ()),
                    ComputeWish(GiPlace(4, "3g.40gb"), (("1c.3g.40gb", 2),)),
                ),
            ),
        ),
    ],
)
def test_the_three_levels_go_in_and_out(text, wish):
    found = document(text)
    assert found == GpuDocument(name="0000:41:00.0", mig=wish)
    assert parse_documents(dump_documents([found]), "again") == (found,)


def test_without_mig_it_is_left_alone():
    assert document("vfs: true").mig is None
    assert "mig" not in dump_documents([document("vfs: true")])[0]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("mig: {profiles: {2g.20gb: 2}, vgpus: {A100D-2-20C: 2}}", "mig.vgpus: give at most one of"),
        ("mig: {enabled: false, profiles: {2g.20gb: 2}}", "mig.profiles: has no place where MIG"),
        ("mig: {profiles: {2g: 2}}", "'2g' is no name here; a GPU-instance profile is named like"),
        ("mig: {profiles: {2g.20gb: two}}", "mig.profiles"),
        ("mig: {instances: [{profile: 2g.20gb}]}", "mig.instances[0].start"),
        ("mig: {layout: 3}", "mig.layout"),
        (
            "mig: {instances: [{profile: 3g.40gb, start: 0, compute_instances: {half: 1}}]}",
            "'half' is no name here; a compute-instance profile is named like 1c.3g.40gb",
        ),
    ],
)
def test_faults_are_told_with_their_path(text, fault):
    assert any(fault in each for each in faults(text)), faults(text)


def test_the_request():
    body = {"action": "set-mig", "gpu": "0", "mig": {"profiles": {"2g.20gb": 1}}}
    assert parse_edit(body) == SetMig(gpu="0", mig=MigWish(profiles=(("2g.20gb", 1),)))
    with pytest.raises(InvalidInput, match=r"mig\.vgpus"):
        parse_edit({**body, "mig": {"profiles": {}, "vgpus": {}}})


FILE = """
version: v1
mig-configs:
  all-disabled:
    - devices: all
      mig-enabled: false
  custom:
    - device-filter: ["0x20B510DE", "0x233110DE"]
      devices: [0, 2]
      mig-enabled: true
      mig-devices: {"1g.10gb": 2, "2g.20gb": 1, "1g.10gb+me": 1}
    - device-filter: "0x233110DE"
      devices: all
      mig-enabled: true
      mig-devices: {}
"""


def test_mig_parteds_configurations():
    found = parse_mig_parted(FILE, "custom")
    assert found.rules == (
        MigPartedRule(
            filters=(0x20B510DE, 0x233110DE),
            indices=(0, 2),
            mig=MigWish(profiles=(("1g.10gb", 2), ("1g.10gb+me", 1), ("2g.20gb", 1))),
        ),
        MigPartedRule(filters=(0x233110DE,), indices=None, mig=MigWish(profiles=())),
    )
    shared = FILE.replace('"2g.20gb": 1, "1g.10gb+me": 1', '"1c.3g.40gb": 3, "2c.3g.40gb": 0')
    assert parse_mig_parted(shared, "custom").rules[0] == MigPartedRule(
        filters=(0x20B510DE, 0x233110DE),
        indices=(0, 2),
        mig=MigWish(profiles=(("1g.10gb", 2),)),
        compute=(("1c.3g.40gb", 3),),
    )
    assert parse_mig_parted(FILE, "all-disabled").rules[0].mig == MigWish(enabled=False)


@pytest.mark.parametrize("config", [None, "custm"])
def test_which_configuration_is_to_be_said(config):
    with pytest.raises(InvalidInput, match="all-disabled, custom"):
        parse_mig_parted(FILE, config)


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        ("{devices: all}", "mig-enabled: must be true or false"),
        ("{devices: some, mig-enabled: true}", "devices: must be all, or a list of indices"),
        ("{devices: all, mig-enabled: true, device-filter: A100}", "is no PCI id such as 0x233010DE"),
        ("{devices: all, mig-enabled: true, mig-devices: {1c3g.20gb: 1}}", "is no profile"),
        ("{devices: all, mig-enabled: true, mig-devices: {all: 1}}", "is no profile"),
        ("{devices: all, mig-enabled: true, mig-devices: {1g.10gb: many}}", "must be a number"),
        ("{devices: all, mig-enabled: false, mig-devices: {1g.10gb: 1}}", "has no place where mig-enabled"),
        ("{devices: all, mig-enabled: true, hooks: 1}", "hooks: is not known here"),
        ("text", "must be a mapping"),
    ],
)
def test_what_is_wrong_with_a_mig_parted_file_is_told_with_its_line(entry, fault):
    with pytest.raises(InvalidInput) as caught:
        parse_mig_parted(f"version: v1\nmig-configs:\n  one:\n    - {entry}\n", None)
    told = [f"{each['path']}: {each['message']}" for each in caught.value.facts["faults"]]
    assert any(fault in each for each in told), told
    assert all(each["line"] == 4 for each in caught.value.facts["faults"])


def test_what_is_no_mig_parted_file_is_said():
    with pytest.raises(InvalidInput, match="mig-configs"):
        parse_mig_parted("version: v1\n", None)
