"""Domain XML is edited, not rewritten."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lxml import etree

from tests.support.libvirtd import require
from vgpuctl.errors import Conflict, InvalidInput
from vgpuctl.host.libvirt import domain_xml, hostdev_xml, xml_text
from vgpuctl.host.libvirt.example_domain import example_domain, names
from vgpuctl.model.domain import Hostdev, MdevSource, PciSource, alias_for
from vgpuctl.model.pci import PciAddress

DUMPS = sorted((Path(__file__).parent / "domains").glob("*.xml"))
SCHEMA = Path("/usr/share/libvirt/schemas/domain.rng")
ID = UUID("5bfcd486-c5eb-43e4-a5ee-97366690106f")
MDEV = Hostdev(MdevSource(ID), alias_for(ID))
VF = Hostdev(PciSource(PciAddress(0, 0x41, 0, 4)), alias_for(ID))


def c14n(text: str) -> bytes:
    tree = etree.fromstring(text.encode(), etree.XMLParser(resolve_entities=False)).getroottree()
    return etree.tostring(tree, method="c14n", with_comments=True)


def domain(devices: str) -> str:
    return f"<domain type='kvm'>\n  <name>d</name>\n  <devices>{devices}</devices>\n</domain>"


# What may stand between devices: white space in any shape, comments, CDATA, instructions, foreign elements.
_BLANK = st.sampled_from(["", "\n", "\n    ", "\r\n\t", " ", "\n\n      "])
_TEXT = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"), exclude_characters="<&>]?-"), max_size=8
)
_NODE = st.one_of(
    _TEXT.map(lambda text: f"<!--{text}-->"),
    _TEXT.map(lambda text: f"<![CDATA[{text}]]>"),
    _TEXT.map(lambda text: f"<?virt {text}?>"),
    _TEXT,
    st.sampled_from(
        [
            "<disk/>",
            "<disk type='file'><source file='/a&amp;b'/></disk>",
            "<x:y xmlns:x='http://example.org/x' x:z='1'> <x:w/> </x:y>",
            "<hostdev mode='subsystem' type='usb'><source/></hostdev>",
            "<hostdev type='pci'>\n<source><address bus='1' slot='2' function='3'/></source></hostdev>",
            f"<hostdev type='mdev'><source><address uuid='{UUID(int=1)}'/></source></hostdev>",
        ]
    ),
)
_CONTENT = st.lists(st.one_of(_BLANK, _NODE), max_size=8).map("".join)
DOMAINS = st.builds(
    lambda before, head, devices, tail, after: (
        f"{before}<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>{head}"
        f"<devices>{devices}</devices>{tail}<qemu:commandline><qemu:arg value='-x'/></qemu:commandline>"
        f"</domain>{after}"
    ),
    st.sampled_from(["", "<!-- made by hand -->\n", "<?pi before?>"]),
    _CONTENT,
    _CONTENT,
    _CONTENT,
    st.sampled_from(["", "\n<!-- after -->", "<?pi after?>"]),
)
HOSTDEVS = st.builds(
    Hostdev,
    st.one_of(
        st.uuids().map(MdevSource),
        st.builds(
            PciAddress, st.integers(0, 0xFFFF), st.integers(0, 0xFF), st.integers(0, 0x1F), st.integers(0, 7)
        ).map(PciSource),
    ),
    st.one_of(st.none(), st.uuids().map(alias_for)),
    st.booleans(),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(DOMAINS, HOSTDEVS)
def test_putting_in_and_taking_out_gives_the_same_document(text: str, hostdev: Hostdev) -> None:
    if domain_xml.find(domain_xml.hostdevs_of(text), hostdev) is not None:
        return
    edited = domain_xml.with_hostdev(text, hostdev)
    assert domain_xml.hostdevs_of(edited) == (*domain_xml.hostdevs_of(text), hostdev)
    assert c14n(domain_xml.without_hostdev(edited, hostdev)) == c14n(text)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(DOMAINS, HOSTDEVS)
def test_taking_out_and_putting_in_gives_the_same_document(text: str, hostdev: Hostdev) -> None:
    edited = domain_xml.with_hostdev(text, hostdev)
    if edited == text:
        return
    again = domain_xml.with_hostdev(domain_xml.without_hostdev(edited, hostdev), hostdev)
    assert c14n(again) == c14n(edited)


@pytest.mark.parametrize("path", DUMPS, ids=lambda path: path.stem)
@pytest.mark.parametrize("hostdev", [MDEV, VF], ids=["mdev", "vf"])
def test_real_domains_keep_everything_else(path: Path, hostdev: Hostdev) -> None:
    text = path.read_text(encoding="utf-8")
    edited = domain_xml.with_hostdev(text, hostdev)
    assert edited != text
    assert c14n(domain_xml.without_hostdev(edited, hostdev)) == c14n(text)


def test_cdata_stays_cdata() -> None:
    text = (Path(__file__).parent / "domains/by-hand.xml").read_text(encoding="utf-8")
    assert "<![CDATA[a < b && c]]>" in domain_xml.with_hostdev(text, MDEV)


@pytest.mark.parametrize("example", names())
def test_examples_keep_everything_else(example: str) -> None:
    text = example_domain(example, "d")
    assert c14n(domain_xml.without_hostdev(domain_xml.with_hostdev(text, MDEV), MDEV)) == c14n(text)


def test_is_indented_like_its_siblings() -> None:
    edited = domain_xml.with_hostdev(domain("\n    <disk/>\n  "), MDEV)
    assert edited == (
        "<domain type='kvm'>\n  <name>d</name>\n  <devices>\n    <disk/>\n"
        '    <hostdev mode="subsystem" type="mdev" managed="no" model="vfio-pci">\n'
        "      <source>\n"
        f'        <address uuid="{ID}"/>\n'
        "      </source>\n"
        f'      <alias name="{alias_for(ID)}"/>\n'
        "    </hostdev>\n  </devices>\n</domain>"
    ).replace("'kvm'", '"kvm"')


def test_the_first_device_is_indented_deeper_than_devices() -> None:
    edited = domain_xml.with_hostdev(domain("\n  "), MDEV)
    assert "<devices>\n    <hostdev " in edited
    assert "    </hostdev>\n  </devices>" in edited


def test_there_already_stays_as_it_is() -> None:
    text = domain_xml.with_hostdev(domain(""), MDEV)
    assert domain_xml.with_hostdev(text, MDEV) == text
    by_somebody_else = Hostdev(MDEV.source, "ua-theirs")
    assert domain_xml.with_hostdev(text, by_somebody_else) == text


def test_an_alias_of_another_device_is_a_conflict() -> None:
    text = domain_xml.with_hostdev(domain(""), MDEV)
    with pytest.raises(Conflict):
        domain_xml.with_hostdev(text, Hostdev(MdevSource(UUID(int=1)), MDEV.alias))


def test_is_found_by_alias_before_source() -> None:
    """hardware.md T11: a VF path is reused, so the alias says whose hostdev it is."""
    other = Hostdev(VF.source, "ua-vgpuctl-00000000-0000-0000-0000-000000000002")
    both = (other, Hostdev(PciSource(PciAddress(0, 0x41, 0, 5)), VF.alias))
    assert domain_xml.find(both, VF) is both[1]
    assert domain_xml.find((other,), VF) is None
    assert domain_xml.find((Hostdev(VF.source, None),), VF) == Hostdev(VF.source, None)


def test_what_somebody_edited_goes_and_what_stands_beside_it_stays() -> None:
    device = f"<hostdev type='mdev'><source><address uuid='{ID}'/></source><rom bar='off'/></hostdev>"
    text = domain(f"\n    <disk/>\n    words\n    {device}\n    <!-- mine -->\n  ")
    assert "rom" in str(domain_xml.device_xml(text, MDEV))
    assert c14n(domain_xml.without_hostdev(text, MDEV)) == c14n(
        domain("\n    <disk/>\n    words\n    \n    <!-- mine -->\n  ")
    )


def test_no_devices_is_refused() -> None:
    with pytest.raises(InvalidInput):
        domain_xml.with_hostdev("<domain/>", MDEV)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("bus='0x41' slot='0x1f' function='7'", "0000:41:1f.7"),
        ("domain='1' bus='65' slot='0' function='0'", "0001:41:00.0"),
    ],
)
def test_numbers_are_read_as_libvirt_reads_them(address: str, expected: str) -> None:
    device = f"<hostdev type='pci'><source><address {address}/></source></hostdev>"
    assert domain_xml.hostdevs_of(domain(device)) == (Hostdev(PciSource(PciAddress.parse(expected))),)


@pytest.mark.parametrize(
    "device",
    [
        "<hostdev mode='subsystem' type='usb'><source><vendor id='1'/></source></hostdev>",
        "<hostdev mode='capabilities' type='misc'><source><char>/dev/x</char></source></hostdev>",
        "<hostdev mode='subsystem' type='mdev'><source><address uuid='no'/></source></hostdev>",
        "<hostdev mode='subsystem' type='pci'/>",
    ],
)
def test_other_hostdevs_are_left_out(device: str) -> None:
    assert domain_xml.hostdevs_of(domain(device)) == ()


@pytest.mark.parametrize(
    "text",
    [
        "<!DOCTYPE domain [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><domain><devices>&x;</devices></domain>",
        "<!DOCTYPE domain SYSTEM 'http://example.org/x.dtd'><domain><devices/></domain>",
        "<!DOCTYPE domain [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;'>]><domain>&b;</domain>",
        "<domain>",
        "",
        "<domain>\ud800</domain>",
    ],
)
def test_what_libvirt_never_writes_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        xml_text.parse(text)


@pytest.fixture(scope="module")
def schema() -> etree.RelaxNG:
    require(None if SCHEMA.exists() else f"no {SCHEMA} (libvirt0)")
    return etree.RelaxNG(etree.parse(SCHEMA))


@pytest.mark.parametrize(
    "hostdev",
    [MDEV, VF, Hostdev(VF.source, None, managed=True)],
    ids=["mdev", "vendor-vfio", "passthrough"],
)
@pytest.mark.parametrize("example", names())
def test_libvirts_schema_takes_what_we_write(example: str, hostdev: Hostdev, schema: etree.RelaxNG) -> None:
    """hardware.md 1.4.14, 1.4.9, T10: a VF stays bound to nvidia, hence managed='no'."""
    text = domain_xml.with_hostdev(example_domain(example, "d"), hostdev)
    schema.assertValid(xml_text.parse(text).getroottree())
    managed = "yes" if hostdev.managed else "no"
    assert f'managed="{managed}"' in hostdev_xml.text_of(hostdev)


@pytest.mark.parametrize("example", names())
def test_examples_cannot_clash(example: str) -> None:
    root = xml_text.parse(example_domain(example, "desk", kind="test"))
    assert root.get("type") == "test"
    assert root.findtext("name") == "desk"
    assert root.findall(".//devices/*/address") == []
    assert root.find("devices/disk/source").get("file") == "/var/lib/libvirt/images/desk.qcow2"
