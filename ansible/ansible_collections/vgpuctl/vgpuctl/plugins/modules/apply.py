#!/usr/bin/python
"""Module: documents."""

from __future__ import annotations

DOCUMENTATION = r"""
module: apply
short_description: Put vgpuctl documents in force
description:
  - Hands documents of any kind (V(Gpu), V(Vgpu), V(Desktop), V(Profile)) to the vgpuctl daemon, which makes the host agree with them.
  - Documents that are not listed are left alone, unless O(prune) says otherwise.
author: vgpuctl contributors (!UNKNOWN)
extends_documentation_fragment:
  - vgpuctl.vgpuctl.daemon
  - vgpuctl.vgpuctl.daemon.change
options:
  documents:
    description:
      - The documents.
      - V(apiVersion) may be left out.
    type: list
    elements: dict
  source:
    description: The documents as YAML or JSON text, with V(---) between them.
    type: str
  prune:
    description: Whether documents of the same kinds that are not listed go.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Forty desktops have their vGPU
  vgpuctl.vgpuctl.apply:
    documents:
      - kind: Desktop
        name: win11-042
        vgpus: [{profile: designer}]

- name: What stands in a file is in force, and nothing else of its kinds
  vgpuctl.vgpuctl.apply:
    source: "{{ lookup('ansible.builtin.file', 'desktops.yaml') }}"
    prune: true
"""

RETURN = r"""
plan:
  description: The daemon's plan as C(POST /v1/plans) returns it; V(verdict), V(steps), V(changes), V(touches) and more.
  returned: success
  type: dict
operation:
  description: The operation that ran it, with all of its steps. None where nothing was to be done, and in check mode.
  returned: success
  type: dict
"""

from ansible_collections.vgpuctl.vgpuctl.plugins.module_utils.change import (
    API_VERSION,
    given,
    make,
    module_of,
)
from ansible_collections.vgpuctl.vgpuctl.plugins.module_utils.daemon import Problem


def main():
    """Run the module."""
    module = module_of(
        {
            "documents": {"type": "list", "elements": "dict"},
            "source": {"type": "str"},
            "prune": {"type": "bool", "default": False},
        },
        mutually_exclusive=[("documents", "source")],
        required_one_of=[("documents", "source")],
    )
    edit = dict(given(module.params, ("source", "prune")), action="apply")
    if module.params["documents"] is not None:
        edit["documents"] = [dict({"apiVersion": API_VERSION}, **each) for each in module.params["documents"]]
    make(module, lambda _daemon: _sensible(edit))


def _sensible(edit):
    source = edit.get("source")
    if source and "\n" not in source and ":" not in source:
        raise Problem(
            "invalid-input",
            f"source is the text of documents, and {source!r} is none",
            f"lookup('ansible.builtin.file', {source!r}) is what stands in the file of that name",
        )
    return edit


if __name__ == "__main__":
    main()
