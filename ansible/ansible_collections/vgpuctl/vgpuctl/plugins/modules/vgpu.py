#!/usr/bin/python
"""Module: a vGPU that stands for itself."""

from __future__ import annotations

DOCUMENTATION = r"""
module: vgpu
short_description: A vGPU that stands for itself
description:
  - Makes and removes a vGPU that is there whether or not a domain uses it; a V(Vgpu) document.
  - For the vGPU of a desktop there is M(vgpuctl.vgpuctl.attachment).
author: vgpuctl contributors (!UNKNOWN)
extends_documentation_fragment:
  - vgpuctl.vgpuctl.daemon
  - vgpuctl.vgpuctl.daemon.change
options:
  name:
    description: The vGPU's name.
    type: str
    required: true
  state:
    description: Whether it is there.
    type: str
    choices: [present, absent]
    default: present
  profile:
    description: What it gets, by profile. With O(state=present) either this or O(type).
    type: str
  type:
    description: What it gets, by vGPU type, such as V(L40S-8Q).
    type: str
  gpu:
    description: Only on this GPU, by address, UUID or index. Left out, the daemon chooses, and then keeps its choice.
    type: str
  owner:
    description: Who asked for it. Left out, who it was, or whoever runs the task.
    type: str
"""

EXAMPLES = r"""
- name: A vGPU for the render farm
  vgpuctl.vgpuctl.vgpu:
    name: render-1
    type: L40S-16Q
    gpu: "0000:41:00.0"

- name: It is no longer needed
  vgpuctl.vgpuctl.vgpu:
    name: render-1
    state: absent
"""

RETURN = r"""
vgpu:
  description: The vGPU as it is when the task ends, as C(GET /v1/vgpus/NAME) returns it; none where there is none.
  returned: success
  type: dict
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
    given,
    make,
    module_of,
)


def main():
    """Run the module."""
    module = module_of(
        {
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "profile": {"type": "str"},
            "type": {"type": "str"},
            "gpu": {"type": "str"},
            "owner": {"type": "str"},
        },
        mutually_exclusive=[("profile", "type")],
        required_if=[("state", "present", ("profile", "type"), True)],
    )
    name = module.params["name"]

    def edit_of(daemon):
        if module.params["state"] == "absent":
            return {"action": "delete-vgpu", "vgpu": name} if daemon.find("vgpus", name) else None
        document = dict(apiVersion=API_VERSION, kind="Vgpu", name=name)
        document.update(given(module.params, ("profile", "type", "owner")))
        if module.params["gpu"] is not None:
            document["gpu"] = address_of(daemon, module.params["gpu"])
        return apply_edit(document)

    make(module, edit_of, lambda daemon: {"vgpu": daemon.find("vgpus", name)})


if __name__ == "__main__":
    main()
