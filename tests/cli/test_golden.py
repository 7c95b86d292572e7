"""What every reading command prints, text and JSON.  Regenerate: VGPUCTL_TEST_REGENERATE=1."""

from __future__ import annotations

import json

import pytest

from tests.cli import canned
from tests.cli.conftest import Run, check_golden
from tests.cli.fakedaemon import FakeDaemon

READS = {
    "host-show": "host show",
    "gpu-list": "gpu list",
    "gpu-show": "gpu show 0",
    "gpu-show-unknown": "gpu show 2",
    "type-list": "type list",
    "profile-list": "profile list",
    "profile-show": "profile show designer",
    "vgpu-list": "vgpu list",
    "vgpu-show": "vgpu show win11-042",
    "vgpu-show-problem": "vgpu show cad-1",
    "vgpu-show-foreign": "vgpu show 0000:41:00.5",
    "domain-list": "domain list",
    "domain-show": "domain show win11-042",
    "operation-list": "operation list",
    "operation-show": f"operation show {canned.OPERATION_ID}",
    "events": "events",
}


@pytest.mark.parametrize("name", READS)
def test_text(name: str, vgpuctl: Run) -> None:
    result = vgpuctl(*READS[name].split())
    assert (result.status, result.err) == (0, "")
    check_golden(f"{name}.txt", result.out)


@pytest.mark.parametrize("name", READS)
def test_json_is_what_the_daemon_says(name: str, vgpuctl: Run, daemon: FakeDaemon) -> None:
    result = vgpuctl(*READS[name].split(), "--json")
    assert result.status == 0
    assert json.loads(result.out) == daemon.answers["GET", daemon.requests[-1].path]


@pytest.mark.parametrize("format_", ["wide", "json", "yaml", "csv", "name"])
def test_formats(format_: str, vgpuctl: Run) -> None:
    result = vgpuctl("vgpu", "list", "-o", format_)
    assert result.status == 0
    check_golden(f"vgpu-list.{format_}", result.out)


@pytest.mark.parametrize(
    ("name", "plan", "status"),
    [("match", canned.MATCH, 0), ("touching", canned.REFUSED, 5), ("unknown", canned.UNREADABLE, 7)],
)
def test_plan(name: str, plan: canned.Item, status: int, process: Run, daemon: FakeDaemon) -> None:
    daemon.answers["POST", "/v1/plans"] = plan
    result = process("plan", "-f", "-", stdin="kind: Vgpu\n")
    assert result.status == status
    assert daemon.requests[-1].body == {"action": "apply", "source": "kind: Vgpu\n", "prune": False}
    check_golden(f"plan-{name}.txt", result.out)


def test_export(vgpuctl: Run) -> None:
    check_golden("export.yaml", vgpuctl("export").out)
    assert json.loads(vgpuctl("export", "-o", "json").out) == canned.DOCUMENTS


def test_xml(vgpuctl: Run, daemon: FakeDaemon) -> None:
    assert vgpuctl("domain", "xml", "win11-042", "--live").out == "<domain type='kvm'>\n</domain>\n"
    assert daemon.requests[-1].query == {"live": "1"}


def test_columns_and_headers(vgpuctl: Run) -> None:
    result = vgpuctl("gpu", "list", "--columns", "address,MIG,used_mib", "--no-headers")
    assert result.out.splitlines() == [
        "0000:41:00.0  no  24576",
        "0000:61:00.0  -       0",
        "0000:c1:00.0  ?       0",
    ]


def test_an_unknown_column_lists_those_that_there_are(vgpuctl: Run) -> None:
    result = vgpuctl("gpu", "list", "--columns", "adress")
    assert result.status == 2
    assert "'adress'" in result.err
    assert "address, uuid" in result.err


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("--gpu 0", ["win11-042", "cad-1", "0000:41:00.5"]),
        ("--gpu 1", []),
        ("--domain win11-042", ["win11-042"]),
        ("--state absent", ["cad-1"]),
        ("--gpu 0000:41:00.0 --state present --domain win11-042", ["win11-042"]),
        ("--state absent --domain win11-042", []),
    ],
)
def test_vgpus_by_gpu_domain_and_state(options: str, expected: list[str], vgpuctl: Run) -> None:
    result = vgpuctl("vgpu", "list", "-o", "name", *options.split())
    assert (result.status, result.out.split()) == (0, expected)


def test_vgpus_of_no_gpu_and_in_no_state(vgpuctl: Run, daemon: FakeDaemon) -> None:
    assert vgpuctl("vgpu", "list", "--gpu", "9").status == 3
    assert vgpuctl("vgpu", "list", "--state", "lost").status == 2
    assert vgpuctl("vgpu", "list", "--foreign", "--state", "foreign").status == 0
    assert daemon.requests[-1].query == {"foreign": "1"}


def test_type_filters_reach_the_daemon(vgpuctl: Run, daemon: FakeDaemon) -> None:
    assert vgpuctl("type", "list", "--gpu", "0", "--creatable").status == 0
    assert daemon.requests[-1].query == {"gpu": "0", "creatable": "1"}
    assert vgpuctl("type", "list", "--catalog", "--creatable").status == 2


def test_operations_show_when_who_and_as_much_of_the_id_as_tells_them_apart(
    vgpuctl: Run, daemon: FakeDaemon
) -> None:
    nameless = {"uid": 1000, "pid": 7, "name": None}
    alike = canned.OPERATION_ID[:-1]
    daemon.answers["GET", "/v1/operations"] = [
        canned.operation(),
        canned.operation(id="12345678-9000-4000-8000-00000000000b", requester=nameless),
    ]
    shown = vgpuctl("operation", "list", "--limit", "2").out.splitlines()
    assert daemon.requests[-1].query == {"limit": "2"}
    assert [each.split()[0] for each in shown] == ["ID", "00000000", "12345678"]
    assert "2026-11-09T10:11:12Z  uid 1000 " in shown[2]
    assert vgpuctl("operation", "list", "-o", "wide").out.splitlines() == shown
    assert canned.OPERATION_ID in vgpuctl("operation", "list", "--columns", "id").out
    assert canned.OPERATION_ID in vgpuctl("operation", "list", "-o", "csv").out
    assert vgpuctl("operation", "list", "-o", "name").out.splitlines()[0] == canned.OPERATION_ID
    daemon.answers["GET", "/v1/operations"] += [canned.operation(id=f"{alike}b")]
    assert f"\n{canned.OPERATION_ID} " in vgpuctl("operation", "list").out
    assert vgpuctl("operation", "list", "--limit", "0").status == 2
