#!/usr/bin/python
"""Module: a physical GPU."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu
short_description: What a GPU is to be, its VFs, MIG mode and GPU instances
description:
  - Says what is wanted of a GPU; a V(Gpu) document, which holds after a reboot too.
  - Options that are left out stay as they are.
author: vgpuctl contributors (!UNKNOWN)
extends_documentation_fragment:
  - vgpuctl.vgpuctl.daemon
  - vgpuctl.vgpuctl.daemon.change
options:
  gpu:
    description: The GPU, by address, UUID or index.
    type: str
    required: true
  vfs:
    description: Whether its VFs are on; V(leave) leaves them as they are.
    type: str
    choices: ["true", "false", leave]
  repair:
    description: What is done about drift on it.
    type: str
    choices: [auto, ask, never]
  mig:
    description: MIG mode and GPU instances, the layout in at most one of the three ways.
    type: dict
    suboptions:
      enabled:
        description:
          - Whether MIG mode is on. It changes only while the GPU carries no vGPU.
          - On and without a layout, a layout that was given before stays.
        type: bool
        default: true
      instances:
        description: GPU instances at these places, and no others.
        type: list
        elements: dict
        suboptions:
          profile:
            description: GPU-instance profile, such as V(2g.20gb).
            type: str
            required: true
          start:
            description: The first memory slice, from 0.
            type: int
            required: true
          compute_instances:
            description:
              - Its compute instances, so many of each profile such as V(1c.3g.40gb).
              - Left out, nothing is said of them; a vGPU needs none.
            type: dict
      profiles:
        description: So many GPU instances of each profile, and no others.
        type: dict
      vgpus:
        description: GPU instances for so many vGPUs of each type; others stay while there is room.
        type: dict
"""

EXAMPLES = r"""
- name: Two desktops of a quarter each, and three small ones
  vgpuctl.vgpuctl.gpu:
    gpu: "0000:41:00.0"
    mig:
      profiles: {2g.20gb: 2, 1g.10gb: 3}

- name: MIG mode is off
  vgpuctl.vgpuctl.gpu:
    gpu: "0000:41:00.0"
    mig: {enabled: false}
"""

RETURN = r"""
gpu:
  description: The GPU as it is when the task ends, as C(GET /v1/gpus/GPU) returns it.
  returned: success
  type: dict
plan:
  description: The daemon's plan as C(POST /v1/plans) returns it; V(mig) in it says which instances are kept, destroyed, created.
  returned: success
  type: dict
operation:
  description: The operation that ran it, with all of its steps. None where nothing was to be done, and in check mode.
  returned: success
  type: dict
"""

from ansible_collections.vgpuctl.vgpuctl.plugins.module_utils.change import (
    API_VERSION,
    apply_edit,
    document_of,
    given,
    make,
    module_of,
)

VFS = {"true": True, "false": False, "leave": None}
LAYOUTS = ("instances", "profiles", "vgpus")


def main():
    """Run the module."""
    instance = {
        "profile": {"type": "str", "required": True},
        "start": {"type": "int", "required": True},
        "compute_instances": {"type": "dict"},
    }
    mig = {
        "enabled": {"type": "bool", "default": True},
        "instances": {"type": "list", "elements": "dict", "options": instance},
        "profiles": {"type": "dict"},
        "vgpus": {"type": "dict"},
    }
    module = module_of(
        {
            "gpu": {"type": "str", "required": True},
            "vfs": {"type": "str", "choices": list(VFS)},
            "repair": {"type": "str", "choices": ["auto", "ask", "never"]},
            "mig": {"type": "dict", "options": mig, "mutually_exclusive": [LAYOUTS]},
        },
        required_one_of=[("vfs", "repair", "mig")],
    )
    make(
        module,
        lambda daemon: _edit(daemon, module.params),
        lambda daemon: {"gpu": daemon.get("gpus", module.params["gpu"])},
    )


def _edit(daemon, params):
    found = daemon.get("gpus", params["gpu"])
    document, generation = document_of(daemon, "Gpu", (found["address"], found["uuid"]))
    document = document or {"apiVersion": API_VERSION, "kind": "Gpu", "name": found["address"]}
    changed = given(params, ("repair",))
    if params["vfs"] is not None:
        changed["vfs"] = VFS[params["vfs"]]
    if params["mig"] is not None:
        changed["mig"] = _mig(params["mig"], document.get("mig") or {})
    return apply_edit(dict(document, **changed), generation)


def _mig(wanted, before):
    """The `mig` of the document: on without a layout keeps the one that is there."""
    wish = given(wanted, ("enabled", *LAYOUTS))
    if wish == {"enabled": True} and before.get("enabled"):
        return before
    for each in ("profiles", "vgpus"):
        if each in wish:
            wish[each] = _counts(wish[each])
    if "instances" in wish:
        wish["instances"] = [_instance(each) for each in wish["instances"]]
    return wish


def _instance(wanted):
    """An instance as a document has it: without what was not said."""
    found = given(wanted, ("profile", "start", "compute_instances"))
    if "compute_instances" in found:
        found["compute_instances"] = _counts(found["compute_instances"])
    return found


def _counts(wanted):
    return {name: _count(count) for name, count in wanted.items()}


def _count(value):
    """A number that a template made text of, as a number; the daemon says what is wrong with anything else."""
    return int(value) if isinstance(value, str) and value.isdigit() else value


if __name__ == "__main__":
    main()
