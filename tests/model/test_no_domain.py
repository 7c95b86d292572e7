"""What is said of a domain that libvirt does not have."""

from __future__ import annotations

from vgpuctl.model.situation import no_domain


def test_where_there_is_no_domain_no_list_is_to_be_looked_at() -> None:
    hint = no_domain("win11-042", []).hint or ""
    assert "no domains here" in hint
    assert "vgpuctl host show" in hint
