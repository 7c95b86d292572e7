"""The one way in which a module changes something: plan, look, run exactly that plan."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule, env_fallback
from ansible_collections.vgpuctl.vgpuctl.plugins.module_utils.daemon import Daemon, Problem

API_VERSION = "vgpuctl/v1"
ATTEMPTS = 3
OUTDATED = ("plan-stale", "generation-mismatch")
NOTICING = ("running", "paused")

DAEMON = {
    "socket": {
        "type": "path",
        "default": "/run/vgpuctl/vgpuctl.sock",
        "fallback": (env_fallback, ["VGPUCTL_HOST"]),
    },
}
CHANGE = dict(
    DAEMON,
    timeout={"type": "int", "default": 600},
    touch_running={"type": "bool", "default": False},
)


def module_of(options, **rules):
    """A module with these options beside those of every change."""
    return AnsibleModule(argument_spec=dict(CHANGE, **options), supports_check_mode=True, **rules)


def make(module, edit_of, after=lambda _daemon: {}):
    """Make the change that `edit_of(daemon)` asks for, and exit; None there means that there is nothing to do.

    `after(daemon)` is what the task returns beside the plan and the operation.
    """
    daemon = Daemon(module.params["socket"])
    try:
        result = _attempts(module, daemon, edit_of)
        result.update(after(daemon))
    except Problem as problem:
        module.fail_json(**problem.as_result())
    module.exit_json(**result)


def given(params, names):
    """Those options that the task gives, without the others."""
    return {name: params[name] for name in names if params[name] is not None}


def address_of(daemon, gpu):
    """A GPU as documents name it: an index, which changes with the cards, becomes the address."""
    return daemon.get("gpus", gpu)["address"] if gpu and gpu.isdigit() else gpu


def document_of(daemon, kind, names):
    """The document in force of that kind with one of these names, and its generation; None, None without one."""
    # Generations first: a document that changes in between is then refused, and not overwritten.
    generations = daemon.get("generations")
    for document in daemon.get("documents"):
        if document["kind"] == kind and document["name"] in names:
            return document, generations.get("{}/{}".format(kind, document["name"]), 0)
    return None, None


def apply_edit(document, generation=None):
    """The edit that puts `document` in force, in the place of one of that generation."""
    edit = {"action": "apply", "documents": [document]}
    if generation is not None:
        edit["generations"] = {"{}/{}".format(document["kind"], document["name"]): generation}
    return edit


def _attempts(module, daemon, edit_of):
    for left in reversed(range(ATTEMPTS)):
        try:
            return _attempt(module, daemon, edit_of(daemon))
        except Problem as problem:
            # Nobody has seen the plan: a newer one is as good.
            if problem.code not in OUTDATED or not left:
                raise
    raise AssertionError("the last attempt returns or raises")


def _attempt(module, daemon, edit):
    if edit is None:
        return {"changed": False, "plan": None, "operation": None, "diff": []}
    plan = daemon.plan(edit)
    if plan["problems"]:
        first = Problem.of(plan["problems"][0])
        first.where = [each["subject"] for each in plan["problems"]]
        first.facts = dict(first.facts, problems=plan["problems"])
        raise first
    if not module.params["touch_running"]:
        _refuse_running(daemon, plan)
    changed = plan["verdict"] != "match" or bool(plan["changes"])
    operation = daemon.run(plan, module.params["timeout"]) if changed and not module.check_mode else None
    return {"changed": changed, "plan": plan, "operation": operation, "diff": _diff(plan) if changed else []}


def _refuse_running(daemon, plan):
    """Refuse what a running guest would notice.  A plan that is not complete may still come to its domains."""
    touched = set(plan["touches"])
    if plan["incomplete"]:
        touched.update(_desktops_of(plan))
    if not touched:
        return
    running = [each["name"] for each in daemon.get("domains") if each["state"] in NOTICING]
    noticing = sorted(touched.intersection(running))
    if noticing:
        raise Problem(
            "domain-state",
            "running guests would notice this: {}".format(", ".join(noticing)),
            "shut them off first, or allow it with touch_running: true",
            noticing,
            {"plan": plan},
        )


def _desktops_of(plan):
    """The domains whose documents change, but for those that change for their next start only."""
    for change in plan["changes"]:
        kind, _slash, name = change["key"].partition("/")
        after = change["after"] or {"vgpus": [{}]}
        if kind == "Desktop" and any(each.get("affect") != ["config"] for each in after["vgpus"]):
            yield name


def _diff(plan):
    """For `--diff`: each document before and after, then the steps, and what was chosen."""
    documents = [
        {
            "before_header": change["key"],
            "after_header": change["key"],
            "before": change["before"] or {},
            "after": change["after"] or {},
        }
        for change in plan["changes"]
    ]
    lines = ["{} ({})".format(each["summary"], each["reason"]) for each in plan["steps"]]
    if plan["incomplete"]:
        lines.append("... then the host is read again, and what is left is planned")
    lines += [
        "vGPU {}: {} on {}".format(each["name"], each["type"], each["vf"] or each["gpu"])
        for each in plan["vgpus"]
    ]
    for layout in plan["mig"]:
        for what in ("kept", "destroyed", "created"):
            instances = ", ".join("{}@{}".format(each["profile"], each["start"]) for each in layout[what])
            lines += ["GPU {}: {} {}".format(layout["gpu"], what, instances)] if instances else []
    return documents + ([{"prepared": "\n".join(lines) + "\n"}] if lines else [])
