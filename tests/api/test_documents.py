"""Documents and edits: what is taken, what is refused, and that every fault is told."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from vgpuctl.api.documents import dump_documents, parse_documents
from vgpuctl.api.edits import parse_edit
from vgpuctl.errors import InvalidInput
from vgpuctl.model.document import (
    Affect,
    DesktopDocument,
    DesktopVgpu,
    Document,
    DocumentKey,
    DocumentKind,
    GpuDocument,
    NumaPolicy,
    Placement,
    PlacementPolicy,
    ProfileDocument,
    VgpuDocument,
    key_of,
)
from vgpuctl.model.edit import (
    AdoptVgpus,
    ApplyDocuments,
    AttachVgpu,
    CreateVgpus,
    DeleteVgpu,
    DetachVgpu,
    PruneVgpus,
    RepairDrift,
    ReplaceGpu,
)

PROFILE = """
apiVersion: vgpuctl/v1
kind: Profile
name: designer
types: [L40S-8Q, A40-8Q]     # in order of preference
placement: {policy: pack, numa: prefer}
params: {frame_rate_limiter: 0}
"""


def vgpu(**values: Any) -> dict[str, Any]:
    made = {"apiVersion": "vgpuctl/v1", "kind": "Vgpu", "name": "foo", "type": "L40S-8Q"} | values
    return {key: value for key, value in made.items() if value is not ...}


def faults(text: Any) -> dict[tuple[str, str], str]:
    with pytest.raises(InvalidInput) as caught:
        parse_documents(text, "site.yaml")
    return {(each["document"], each["path"]): each["message"] for each in caught.value.facts["faults"]}


def lines(text: Any) -> list[str]:
    with pytest.raises(InvalidInput) as caught:
        parse_documents(text, "site.yaml")
    return [f"line {each['line']}" for each in caught.value.facts["faults"] if "line" in each]


def test_a_profile_as_the_design_shows_it() -> None:
    (profile,) = parse_documents(PROFILE, "site.yaml")
    assert profile == ProfileDocument(
        name="designer",
        types=("L40S-8Q", "A40-8Q"),
        placement=Placement(PlacementPolicy.PACK, NumaPolicy.PREFER),
        params=(("frame_rate_limiter", "0"),),
    )


def test_the_order_of_parameters_makes_no_difference() -> None:
    one, two = (
        parse_documents(PROFILE.replace("{frame_rate_limiter: 0}", text), "x")
        for text in ("{a: 1, b: true}", "{b: 1, a: 1}")
    )
    assert one == two


def test_every_fault_of_every_document_is_told() -> None:
    text = """
apiVersion: vgpuctl/v1
kind: Profile
name: 12
types: [L40S-8Q, L40S-8Q]
placement: {policyy: pack}
params: {a: "0,1", b: "x\\ny", c: [1]}
---
apiVersion: vgpuctl/v2
kind: Vgpu
name: foo
profil: x
---
apiVersion: vgpuctl/v1
kind: Desktop
name: a/b
vgpus:
  - {profile: x, type: y}
  - {vgpu: a, gpu: 0000:41:00.0, affect: [now]}
"""
    found = faults(text)
    one, two, three = "document 1 (Profile/12)", "document 2 (Vgpu/foo)", "document 3 (Desktop/a/b)"
    assert set(found) == {
        (one, "name"),
        (one, "types[1]"),
        (one, "placement.policyy"),
        (one, "params.a"),
        (one, "params.b"),
        (one, "params.c"),
        (two, "apiVersion"),
        (two, "profil"),
        (two, "profile"),
        (three, "name"),
        (three, "vgpus[0].type"),
        (three, "vgpus[1].affect[0]"),
        (three, "vgpus[1].gpu"),
    }
    assert found[two, "profile"] == "give exactly one of profile and type"
    assert found[two, "profil"] == 'unknown key; did you mean "profile"?'
    assert found[one, "placement.policyy"] == 'unknown key; did you mean "policy"?'


def test_a_fault_names_its_line() -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_documents(PROFILE + "colour: red\n", "site.yaml")
    (fault,) = caught.value.facts["faults"]
    assert (fault["path"], fault["line"]) == ("colour", 8)
    assert "site.yaml: document 1 (Profile/designer): colour (line 8): unknown key" in caught.value.message


def test_a_wrong_kind_lists_the_kinds() -> None:
    found = faults("kind: vgpu\nname: x\n")
    assert found["document 1 (vgpu/x)", "kind"] == (
        'must be one of Gpu, Vgpu, Desktop, Profile; did you mean "Vgpu"?'
    )
    assert ("document 1 (vgpu/x)", "apiVersion") in found
    assert faults([{"apiVersion": "vgpuctl/v1", "kind": "List", "items": []}])


@pytest.mark.parametrize("address", ["0000:41:00.0", "41:00.0", "00000000:41:00.0", "0000:C1:00.0"])
def test_an_unquoted_address_stays_an_address(address: str) -> None:
    """YAML 1.1 takes 0000:41:00.0 for the base-60 number 2460.0, as PyYAML by itself does."""
    assert isinstance(yaml.safe_load("gpu: 0000:41:00.0")["gpu"], float)
    (document,) = parse_documents(f"apiVersion: vgpuctl/v1\nkind: Gpu\nname: {address}\n", "x")
    assert document.name == ("0000:c1:00.0" if "C1" in address else "0000:41:00.0")


def test_a_number_that_was_an_address_is_explained() -> None:
    found = faults([{"apiVersion": "vgpuctl/v1", "kind": "Gpu", "name": 2460.0}])
    assert "has to stand in quotes" in found["document 1 (Gpu/2460.0)", "name"]


def test_words_that_yaml_1_1_takes_for_booleans_are_text() -> None:
    (document,) = parse_documents("apiVersion: vgpuctl/v1\nkind: Vgpu\nname: no\nprofile: on\n", "x")
    assert isinstance(document, VgpuDocument)
    assert (document.name, document.profile) == ("no", "on")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a: [1\nb: 2", "line 2"),
        ("a: 'x", "line 1"),
        ("a: 1\na: 2\n", "stands twice"),
        ("a: &x 1\nb: *x\n", "anchors and aliases"),
        ("a: !!python/object:os.system x", "tags such as"),
        ("? [1]\n: 2\n", "no plain text"),
        ("[" * 5000, "nested more than"),
        (b"\xff", "not UTF-8"),
        ("a: \x01", "not YAML"),
        ("", "holds no document"),
        ("---\n---\n", "holds no document"),
        ([], "holds no document"),
        ("just text", "must be a mapping"),
        ('{"kind": "Gpu", "kind": "Gpu"}', "stands twice"),
    ],
)
def test_text_that_is_no_document(text: Any, what: str) -> None:
    assert what in " ".join([*faults(text).values(), *lines(text)])


def test_duplicate_keys_are_faults_beside_the_others() -> None:
    found = faults("apiVersion: vgpuctl/v1\nkind: Vgpu\nname: a\nname: b\ncolour: red\ntype: T4-4Q\n")
    assert found["document 1 (Vgpu/a)", "name"] == "stands twice (first in line 3)"
    assert ("document 1 (Vgpu/a)", "colour") in found


def test_names_stand_once() -> None:
    desktop = {
        "apiVersion": "vgpuctl/v1",
        "kind": "Desktop",
        "name": "w",
        "vgpus": [{"name": "foo", "type": "T4-4Q"}],
    }
    found = faults([vgpu(), vgpu(), desktop])
    assert "document 1 has the same kind and name" in found["document 2 (Vgpu/foo)", "name"]
    assert "stands in Vgpu/foo already" in found["document 3 (Desktop/w)", "vgpus[0].name"]
    both = [{"apiVersion": "vgpuctl/v1", "kind": "Gpu", "name": name} for name in ("41:00.0", "0000:41:00.0")]
    assert faults(both)


def test_a_vgpu_of_a_desktop_is_called_after_it() -> None:
    entries = [{"type": "T4-4Q"}, {"type": "T4-4Q"}, {"vgpu": "own"}, {"type": "T4-4Q", "name": "x"}]
    text = [{"apiVersion": "vgpuctl/v1", "kind": "Desktop", "name": "w", "vgpus": entries}]
    (document,) = parse_documents(text, "x")
    assert isinstance(document, DesktopDocument)
    assert [each.name for each in document.vgpus] == ["w", "w-2", "own", "x"]


def test_lists_and_json_are_taken_too() -> None:
    names = ["a", "b"]
    rows = [vgpu(name=name) for name in names]
    for text in (
        json.dumps(rows),
        yaml.safe_dump(rows),
        yaml.safe_dump_all(rows),
        rows,
        json.dumps(rows).encode(),
    ):
        assert [each.name for each in parse_documents(text, "x")] == names
    assert parse_documents(json.dumps(vgpu(name="a", owner="Zo\u00eb \U0001f600")), "x")


def words(first: str, rest: str) -> st.SearchStrategy[str]:
    return st.builds(str.__add__, st.sampled_from(first), st.text(rest, max_size=8))


_WORD = "aZ09"
NAMES = words(_WORD, _WORD + "._:-")
TYPES = words(_WORD, _WORD + " ._()+-")
DOMAINS = st.text(
    st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp", "Zs"], exclude_characters="/\ufeff"),
    min_size=1,
    max_size=20,
)
GPUS = st.sampled_from(["0000:41:00.0", "GPU-5f7d3c5e-9d4b-4d57-8c5c-0e6d1c1f0a01", "mtty"])
OWNERS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=10)
PARAMS = st.dictionaries(words(_WORD, _WORD + "._-"), words(_WORD + "-.", _WORD + "._:-"), max_size=3)


@st.composite
def one_of_each(draw: st.DrawFn, *keys: str) -> dict[str, Any]:
    key = draw(st.sampled_from(keys))
    chosen: dict[str, Any] = {key: draw(TYPES if key == "type" else NAMES)}
    if key != "vgpu":
        chosen["gpu"] = draw(st.none() | GPUS)
    return chosen


DOCUMENTS: st.SearchStrategy[Document] = st.one_of(
    st.builds(GpuDocument, name=GPUS, vfs=st.booleans()),
    st.builds(
        lambda name, uuid, owner, chosen: VgpuDocument(name=name, uuid=uuid, owner=owner, **chosen),
        NAMES,
        st.none() | st.uuids(),
        OWNERS,
        one_of_each("profile", "type"),
    ),
    st.builds(
        lambda name, owner, entries: DesktopDocument(name=name, owner=owner, vgpus=tuple(entries)),
        DOMAINS,
        OWNERS,
        st.lists(
            st.builds(
                lambda name, affect, chosen: DesktopVgpu(name=name, affect=affect, **chosen),
                DOMAINS,
                st.none() | st.frozensets(st.sampled_from(Affect), min_size=1),
                one_of_each("profile", "type", "vgpu"),
            ),
            max_size=3,
            unique_by=lambda entry: entry.name,
        ),
    ),
    st.builds(
        ProfileDocument,
        name=NAMES,
        types=st.lists(TYPES, min_size=1, max_size=3, unique=True).map(tuple),
        placement=st.builds(Placement, st.sampled_from(PlacementPolicy), st.sampled_from(NumaPolicy)),
        params=PARAMS.map(lambda params: tuple(sorted(params.items()))),
        description=OWNERS,
    ),
)


def vgpu_names(document: Document) -> set[str]:
    match document:
        case VgpuDocument():
            return {document.name}
        case DesktopDocument():
            return {each.name for each in document.vgpus if each.vgpu is None}
        case _:
            return set()


@settings(max_examples=60, deadline=None)
@given(st.lists(DOCUMENTS, min_size=1, max_size=4, unique_by=key_of))
def test_what_is_dumped_parses_back_identically(documents: list[Document]) -> None:
    names = [name for each in documents for name in vgpu_names(each)]
    if len(names) != len(set(names)):
        return
    plain = dump_documents(documents)
    assert parse_documents(plain, "x") == tuple(documents)
    assert parse_documents(json.dumps(plain), "x") == tuple(documents)
    assert parse_documents(yaml.safe_dump_all(plain, allow_unicode=True), "x") == tuple(documents)


KEYS = st.sampled_from(["apiVersion", "kind", "name", "types", "vgpus", "params", "x"])
SCALARS = st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5)


@settings(max_examples=40, deadline=None)
@given(
    st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=3),
        max_leaves=6,
    )
)
def test_nonsense_is_refused_in_words(value: Any) -> None:
    for kind in DocumentKind:
        body = {
            "apiVersion": "vgpuctl/v1",
            "kind": kind.value,
            "name": value,
            "types": value,
            "vgpus": [value],
        }
        with pytest.raises(InvalidInput):
            parse_documents([body, value], "x")
    with pytest.raises(InvalidInput):
        parse_edit({"action": "apply", "documents": [value], "generations": value})
    with pytest.raises(InvalidInput):
        parse_edit({"action": "delete-vgpu", "vgpu": [value]})


@pytest.mark.parametrize(
    ("body", "edit"),
    [
        (
            {"action": "create-vgpu", "profile": "p", "gpu": "41:00.0", "name": "n", "count": 3},
            CreateVgpus(profile="p", gpu="0000:41:00.0", name="n", count=3),
        ),
        ({"action": "create-vgpu", "type": "T4-4Q", "gpu": "0"}, CreateVgpus(type="T4-4Q", gpu="0")),
        ({"action": "delete-vgpu", "vgpu": "0000:41:00.4"}, DeleteVgpu(vgpu="0000:41:00.4")),
        (
            {"action": "attach", "domain": "w 1", "vgpu": "v", "affect": ["live", "config"]},
            AttachVgpu(domain="w 1", vgpu="v", affect=frozenset(Affect)),
        ),
        ({"action": "detach", "domain": "w", "vgpu": None}, DetachVgpu(domain="w")),
        ({"action": "adopt", "vgpu": None}, AdoptVgpus()),
        ({"action": "adopt", "vgpu": "x", "name": "n"}, AdoptVgpus(vgpu="x", name="n")),
        ({"action": "adopt", "vgpu": "x", "sole_starter": True}, AdoptVgpus(vgpu="x", sole_starter=True)),
        ({"action": "repair"}, RepairDrift()),
        ({"action": "repair", "subject": "win1"}, RepairDrift(subject="win1")),
        (
            {"action": "replace-gpu", "old": "41:00.0", "new": "1"},
            ReplaceGpu(old="0000:41:00.0", new="1"),
        ),
        ({"action": "prune"}, PruneVgpus()),
        (
            {"action": "apply", "documents": [vgpu()], "prune": True, "generations": {"Vgpu/foo": 2}},
            ApplyDocuments(
                documents=(VgpuDocument(name="foo", type="L40S-8Q"),),
                prune=True,
                generations=((DocumentKey(DocumentKind.VGPU, "foo"), 2),),
            ),
        ),
        (
            {"action": "apply", "source": yaml.safe_dump(vgpu(uuid=str(UUID(int=7))))},
            ApplyDocuments(documents=(VgpuDocument(name="foo", type="L40S-8Q", uuid=UUID(int=7)),)),
        ),
    ],
)
def test_edits(body: dict[str, Any], edit: Any) -> None:
    assert parse_edit(body) == edit


@pytest.mark.parametrize(
    ("body", "paths"),
    [
        ({"action": "create-vgpu", "profile": "p", "type": "t", "count": 0}, {"count", "type"}),
        ({"action": "create-vgpu", "type": "T4-4Q", "count": True}, {"count"}),
        (
            {"action": "attach", "affect": [], "gpu": "zz:1", "x": 1},
            {"domain", "affect", "gpu", "x", "profile"},
        ),
        ({"action": "attach", "domain": "d", "vgpu": "v", "gpu": "41:00.0"}, {"gpu"}),
        ({"action": "adopt", "name": "n"}, {"name"}),
        ({"action": "apply"}, {"documents"}),
        ({"action": "apply", "documents": [], "source": "x"}, {"source", ""}),
        ({"action": "apply", "source": "kind: Gpu", "prune": "yes"}, {"prune", "apiVersion", "name"}),
        (
            {
                "action": "apply",
                "documents": [vgpu(colour=1)],
                "generations": {"Vgp/foo": 1, "Vgpu/foo": "x"},
            },
            {"colour", "generations.Vgp/foo", "generations.Vgpu/foo"},
        ),
        ({"action": "attachh"}, {"action"}),
        ({}, {"action"}),
        ([], {""}),
    ],
)
def test_faults_of_edits_come_together(body: Any, paths: set[str]) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_edit(body)
    assert {each["path"] for each in caught.value.facts["faults"]} == paths


@pytest.mark.parametrize("name", ["n" * 101, "n" * 129, "-n"])
def test_the_limit_that_is_told_of_a_new_name_is_the_one_that_holds(name: str) -> None:
    create = {"action": "create-vgpu", "type": "T4-4Q"}
    with pytest.raises(InvalidInput, match="use 1 to 100 letters"):
        parse_edit({**create, "name": name})
    assert parse_edit({**create, "name": "n" * 100}) == CreateVgpus(type="T4-4Q", name="n" * 100)


@pytest.mark.parametrize("text", ["-.0", "+.5", "1.0e5", "2.e3"])
def test_text_that_pyyaml_writes_without_quotes_stays_text(text: str) -> None:
    profile = {
        "apiVersion": "vgpuctl/v1",
        "kind": "Profile",
        "name": "p",
        "types": ["a"],
        "params": {"k": text},
    }
    written = yaml.safe_dump(profile)
    assert "'" not in written
    (read,) = parse_documents(written, "x")
    assert isinstance(read, ProfileDocument)
    assert read.params == (("k", text),)
