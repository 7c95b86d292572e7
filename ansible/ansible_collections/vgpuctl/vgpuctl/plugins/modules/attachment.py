#!/usr/bin/python
"""Module: a vGPU of a libvirt domain."""

from __future__ import annotations

DOCUMENTATION = r"""
module: attachment
short_description: A vGPU of a libvirt domain
description:
  - Gives a domain a vGPU, of a profile, of a type, or one that there is already, and takes it away; an entry of a V(Desktop) document.
  - Other vGPUs of the domain stay as they are.
author: vgpuctl contributors (!UNKNOWN)
extends_documentation_fragment:
  - vgpuctl.vgpuctl.daemon
  - vgpuctl.vgpuctl.daemon.change
options:
  domain:
    description: The libvirt domain's name.
    type: str
    required: true
  state:
    description: Whether it has the vGPU.
    type: str
    choices: [present, absent]
    default: present
  name:
    description:
      - The vGPU's name. Left out, the domain's.
      - With O(state=absent), left out, every vGPU of the domain goes.
    type: str
  profile:
    description: A vGPU of its own, by profile. With O(state=present) one of this, O(type) and O(vgpu).
    type: str
  type:
    description: A vGPU of its own, by vGPU type, such as V(L40S-8Q).
    type: str
  vgpu:
    description: The vGPU of M(vgpuctl.vgpuctl.vgpu) with this name.
    type: str
  gpu:
    description: Only on this GPU, by address, UUID or index; not beside O(vgpu).
    type: str
  affect:
    description: Where it stands. Left out, in the definition, and in the guest too where it runs.
    type: list
    elements: str
    choices: [live, config]
"""

EXAMPLES = r"""
- name: The desktop has a vGPU
  vgpuctl.vgpuctl.attachment:
    domain: win11-042
    profile: designer

- name: From its next start on it has a second one
  vgpuctl.vgpuctl.attachment:
    domain: win11-042
    name: win11-042-compute
    type: A40-8C
    affect: [config]

- name: It has none
  vgpuctl.vgpuctl.attachment:
    domain: win11-042
    state: absent
"""

RETURN = r"""
vgpus:
  description: The vGPUs of the domain when the task ends, as C(GET /v1/vgpus) returns them.
  returned: success
  type: list
  elements: dict
plan:
  description: The daemon's plan as C(POST /v1/plans) returns it; none where nothing was to be planned.
  returned: success
  type: dict
operation:
  description: The operation that ran it, with all of its steps. None where nothing was to be done, and in check mode.
  returned: success
  type: dict
"""

from ansible_collections.vgpuctl.vgpuctl.plugins.module_utils.change import (
    API_VERSION,
    address_of,
    apply_edit,
    document_of,
    given,
    make,
    module_of,
)


def main():
    """Run the module."""
    module = module_of(
        {
            "domain": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "name": {"type": "str"},
            "profile": {"type": "str"},
            "type": {"type": "str"},
            "vgpu": {"type": "str"},
            "gpu": {"type": "str"},
            "affect": {"type": "list", "elements": "str", "choices": ["live", "config"]},
        },
        mutually_exclusive=[("profile", "type", "vgpu"), ("name", "vgpu"), ("gpu", "vgpu")],
        required_if=[("state", "present", ("profile", "type", "vgpu"), True)],
    )
    edit_of = _attach if module.params["state"] == "present" else _detach
    make(
        module,
        lambda daemon: edit_of(daemon, module.params),
        lambda daemon: {"vgpus": _vgpus(daemon, module)},
    )


def _attach(daemon, params):
    """Put the entry into the document of the domain, in the place of one with its name."""
    entry = given(params, ("profile", "type", "vgpu", "affect"))
    if params["vgpu"] is None:
        entry["name"] = params["name"] or params["domain"]
    if params["gpu"] is not None:
        entry["gpu"] = address_of(daemon, params["gpu"])
    document, generation = document_of(daemon, "Desktop", (params["domain"],))
    document = document or {
        "apiVersion": API_VERSION,
        "kind": "Desktop",
        "name": params["domain"],
        "vgpus": [],
    }
    name = _name_of(entry)
    entries = [entry if _name_of(each) == name else each for each in document["vgpus"]]
    return apply_edit(dict(document, vgpus=entries if entry in entries else [*entries, entry]), generation)


def _detach(daemon, params):
    """Detach what the domain has; None where it has not."""
    name = params["vgpu"] or params["name"]
    has = [each["name"] for each in daemon.get("vgpus") if each["domain"] == params["domain"]]
    if not has or (name and name not in has):
        return None
    edit = {"action": "detach", "domain": params["domain"]}
    return dict(edit, vgpu=name) if name else edit


def _name_of(entry):
    return entry.get("vgpu") or entry.get("name")


def _vgpus(daemon, module):
    return [each for each in daemon.get("vgpus") if each["domain"] == module.params["domain"]]


if __name__ == "__main__":
    main()
