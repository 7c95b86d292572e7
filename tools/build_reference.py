#!/usr/bin/env python3
"""Build `docs/reference/` from the commands, `surface`, `errors` and the shapes of documents.

    tools/build_reference.py

What the code does not say of a key stands in `tools/keys.yaml`.  `tests/docs/test_reference.py` fails
when a page is not what this makes.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import yaml
from pydantic import BaseModel

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from vgpuctl import errors  # noqa: E402
from vgpuctl.api.openapi import describe  # noqa: E402
from vgpuctl.api.query import PARAMETERS  # noqa: E402
from vgpuctl.api.schema import DOCUMENTS, EDITS, PlacementShape, PlanReferenceShape  # noqa: E402
from vgpuctl.cli.command import common_options  # noqa: E402
from vgpuctl.cli.daemon import daemon  # noqa: E402
from vgpuctl.cli.main import Root, cli  # noqa: E402
from vgpuctl.daemon.config import AT_START, ConfigFile  # noqa: E402
from vgpuctl.model.finding import MEANINGS  # noqa: E402
from vgpuctl.surface import RESOURCES, ROUTES, Field, Route  # noqa: E402

REFERENCE = HERE.parent / "docs" / "reference"
KEYS: dict[str, dict[str, str]] = yaml.safe_load((HERE / "keys.yaml").read_text(encoding="utf-8"))
MADE = "<!-- Made by tools/build_reference.py (make docs); what is changed here is lost. -->\n"
EXAMPLES = {
    "Profile": """\
apiVersion: vgpuctl/v1
kind: Profile
name: cad
description: CAD on one of these cards, near the guest's memory.
types: [L40S-8Q, A40-8Q, RTX6000-Ada-8Q]
placement: {policy: spread, numa: prefer}
params: {frame_rate_limiter: 0}
""",
    "Gpu": """\
apiVersion: vgpuctl/v1
kind: Gpu
name: "0000:41:00.0"
mig: {vgpus: {A100D-2-20C: 2, A100D-1-10C: 3}}
""",
    "Vgpu": """\
apiVersion: vgpuctl/v1
kind: Vgpu
name: render-1
type: L40S-16Q
gpu: "0000:41:00.0"
""",
    "Desktop": """\
apiVersion: vgpuctl/v1
kind: Desktop
name: win11-042
vgpus:
  - {profile: designer}
  - {name: win11-042-compute, type: A40-8C, affect: [config]}
  - {vgpu: render-1}
""",
}
API_TEXT = """\
`GET /v1/openapi.json` is the same as OpenAPI 3.1. What is refused is answered with
`application/problem+json`; its `code` is one of [errors.md](errors.md). What is stable is in
[stability.md](../stability.md).
"""
EDITS_TEXT = """\
The body of `POST /v1/plans` is one of these; that of `POST /v1/operations` too, or a plan that was shown.
"""
RESOURCES_TEXT = """\
Every field is always there. One that is null and stands under `unknown` could not be read; the reason is
there. The columns are those of tables; *wide* ones show with `-o wide`.
"""
DOCUMENTS_TEXT = """\
A file holds one or several documents, as YAML (with `---` between them) or JSON. Unknown keys are
refused. How they belong together is in [profiles-and-documents.md](../profiles-and-documents.md).
"""
CONFIGURATION_TEXT = """\
`/etc/vgpuctl/vgpuctl.toml`, and the files `conf.d/*.toml` beside it, by name; a later one wins, and the
command line of `vgpuctl daemon` over all. Every key may be left out, and so may the file. A key that there
is not, or a value of the wrong kind, is refused with all other faults of all files; the daemon does not
start then, and one that runs goes on with what it has.
"""
RELOAD_TEXT = """\
`systemctl reload vgpuctl` reads the files and the profiles again. What counts at a *start* needs a restart;
the log names it when it has changed. Guests notice nothing of either.
"""
ELSEWHERE_TEXT = """\
## What is set elsewhere

| what | where |
|---|---|
| what desktops and GPUs get | [documents](documents.md), not in this file |
| who may do what | the groups `vgpuctl` and `vgpuctl-ro` ([threat-model.md](../threat-model.md)) |
| the socket's group and mode | `vgpuctl.socket`: `systemctl edit vgpuctl.socket` |
| watchdog, what the service may do | `vgpuctl.service` ([service.md](../service.md)) |
| which daemon a command speaks to | `VGPUCTL_HOST` in the environment, or `-H` |
| colours, and calls on standard error | `NO_COLOR`; `VGPUCTL_LOG=debug`, or `-v` |
"""
CONFIGURATION_EXAMPLE = """\
# /etc/vgpuctl/vgpuctl.toml
repair = "ask"              # what differs waits for `vgpuctl repair`; what a boot took is made again
wait_for_gpus_s = 120       # a host with eight slow cards
log_level = "warning"
"""
DRIFT_TEXT = """\
Every way in which what is can differ from what should be. `vgpuctl host show`, `gpu show` and `vgpu show`
list what there is, since when, and the steps that would mend it; `vgpuctl events` tells when it came and
when it went. *At most* is the most that is done about it: `auto`, unasked; `ask`, by `vgpuctl repair`;
`never`, only told. The policy `repair` of the GPU's document, else of the configuration, may allow less.
A code is stable.
"""
ERRORS_TEXT = """\
A code is stable, its text is not. What to do about each is in
[troubleshooting.md](../troubleshooting.md#by-code). With `-o json` the CLI prints the problem as JSON on
standard error.
"""


def build() -> dict[str, str]:
    """Every page of the reference, by file name."""
    _check_keys()
    pages = {
        "cli.md": _cli(),
        "api.md": _api(),
        "documents.md": _documents(),
        "errors.md": _errors(),
        "drift.md": _drift(),
        "configuration.md": _configuration(),
    }
    return {name: MADE + "\n" + text.rstrip() + "\n" for name, text in pages.items()}


# Commands --------------------------------------------------------------------------------------------


def _cli() -> str:
    root = click.Context(cli, info_name="vgpuctl")
    parts = ["# Commands\n", _paragraphs(inspect.cleandoc(cli.help or ""))]
    parts += ["## Options of every command\n", _options(root, common_options(hidden=False))]
    parts.append("Every command takes `-h` and `--help`; `vgpuctl --version` prints the version.\n")
    for heading, names in Root.sections.items():
        parts.append(f"## {heading}\n")
        for name in names:
            command = cli.get_command(root, name)
            assert command is not None
            parts += _command(command, click.Context(command, info_name=name, parent=root))
    return "\n".join(parts)


def _command(command: click.Command, context: click.Context) -> Iterator[str]:
    if isinstance(command, click.Group):
        yield f"### {context.command_path}\n"
        yield _paragraphs(inspect.cleandoc(command.help or ""))
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from _command(inner, click.Context(inner, info_name=name, parent=context))
        return
    depth = "####" if context.parent and context.parent.parent else "###"
    yield f"{depth} {context.command_path}\n"
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"    {context.command_path} {usage}".rstrip() + "\n"
    yield _paragraphs(inspect.cleandoc(command.help or ""))
    options = [each for each in command.params if isinstance(each, click.Option) and not each.hidden]
    if options:
        yield _options(context, options)
    examples: list[str] = getattr(command, "examples", [])
    if examples:
        yield "Examples:\n"
        yield "\n".join(f"    {line}" for line in examples) + "\n"


def _options(context: click.Context, options: Iterable[click.Option]) -> str:
    rows = []
    for option in options:
        record = option.get_help_record(context)
        if record is not None:
            rows.append((f"`{record[0]}`", record[1]))
    return _table(("option", "what it does"), rows)


def _paragraphs(text: str) -> str:
    """A help text as Markdown; click's mark for lines that are not to be wrapped goes."""
    return text.replace("\b\n", "") + "\n"


# The API ---------------------------------------------------------------------------------------------


def _api() -> str:
    rows = [
        (route.method, f"`{route.path}`", "operate" if route.operate else "read", route.doc, _returned(route))
        for route in ROUTES
    ]
    parts = [
        "# HTTP API\n",
        describe()["info"]["description"] + "\n",
        "    curl --unix-socket /run/vgpuctl/vgpuctl.sock http://localhost/v1/gpus\n",
        API_TEXT,
        "## Routes\n",
        _table(("method", "path", "right", "what it does", "returns"), rows),
        "## Query parameters\n",
        _table(
            ("route", "parameter", "kind", "what it does"),
            [
                (f"{method} `{path}`", f"`{each.name}`", each.kind, each.doc)
                for (method, path), given in PARAMETERS.items()
                for each in given
            ],
        ),
        "## Headers\n",
        _table(("route", "header", "what it does"), list(_headers())),
        "## Edits\n",
        EDITS_TEXT,
    ]
    for name, shape in EDITS.items():
        parts += [f"### {name}\n", _doc(shape), _keys(shape)]
    parts += ["### A plan that was shown\n", _doc(PlanReferenceShape), _keys(PlanReferenceShape)]
    parts += [
        "## Resources\n",
        RESOURCES_TEXT,
    ]
    for resource in RESOURCES.values():
        rows = [(f"`{f.name}`", _kind(f), f.doc, _column(f)) for f in resource.fields]
        parts += [f"### {resource.name}\n", resource.doc + "\n"]
        parts.append(_table(("field", "kind", "what it is", "column"), rows))
    return "\n".join(parts)


def _returned(route: Route) -> str:
    name = f"[{route.returns}](#{route.returns})" if route.returns in RESOURCES else route.returns
    return f"list of {name}" if route.many else name


def _headers() -> Iterator[tuple[str, str, str]]:
    for path, methods in describe()["paths"].items():
        for method, operation in methods.items():
            for each in operation["parameters"]:
                if each["in"] == "header":
                    yield f"{method.upper()} `{path}`", f"`{each['name']}`", each["description"]


def _kind(field: Field) -> str:
    inner = field.kind.strip("[]")
    name = f"[{inner}](#{inner})" if inner in RESOURCES else inner
    return (f"list of {name}" if field.kind.startswith("[") else name) + (
        " or null" if field.nullable else ""
    )


def _column(field: Field) -> str:
    return "" if field.column is None else f"{field.column}{' (wide)' if field.wide else ''}"


# Documents and configuration -------------------------------------------------------------------------


def _documents() -> str:
    parts = [
        "# Documents\n",
        DOCUMENTS_TEXT,
    ]
    for kind, shape in DOCUMENTS.items():
        parts += [f"## {kind}\n", _doc(shape), _keys(shape)]
        if kind == "Profile":
            parts += ["### placement\n", _keys(PlacementShape)]
        if kind == "Gpu":
            entries = shape.model_json_schema()["$defs"]
            parts += ["### mig\n", entries["MigShape"]["description"] + "\n", _rows_of(entries["MigShape"])]
            parts += ["### An entry of instances\n", _rows_of(entries["GpuInstanceShape"])]
        if kind == "Desktop":
            entry = shape.model_json_schema()["$defs"]["DesktopVgpuShape"]
            parts += ["### An entry of vgpus\n", entry["description"] + "\n", _rows_of(entry)]
        parts += ["Example:\n", _indented(EXAMPLES[kind])]
    return "\n".join(parts)


def _configuration() -> str:
    schema = ConfigFile.model_json_schema()
    said = KEYS[schema["title"]]
    options = {each.name: each.opts[0] for each in daemon.params if isinstance(each, click.Option)}
    rows = [
        (
            f"`{key}`",
            _json_kind(each, schema),
            _default(each, is_needed=False),
            "start" if key in AT_START else "reload",
            f"`{options[key]}`" if key in options else "",
            said[key],
        )
        for key, each in schema["properties"].items()
    ]
    heads = ("key", "kind", "default", "counts at", "option", "what it is")
    return "\n".join(
        [
            "# Configuration\n",
            CONFIGURATION_TEXT,
            _table(heads, rows),
            RELOAD_TEXT,
            "Example:\n",
            _indented(CONFIGURATION_EXAMPLE),
            ELSEWHERE_TEXT,
        ]
    )


def _doc(shape: type[BaseModel]) -> str:
    return inspect.cleandoc(shape.__doc__ or "") + "\n"


def _keys(shape: type[BaseModel]) -> str:
    return _rows_of(shape.model_json_schema())


def _rows_of(schema: Mapping[str, Any]) -> str:
    needed = schema.get("required", [])
    said = KEYS[schema["title"]]
    rows = [
        (f"`{key}`", _json_kind(each, schema), _default(each, is_needed=key in needed), said[key])
        for key, each in schema["properties"].items()
    ]
    return _table(("key", "kind", "default", "what it is"), rows)


def _json_kind(schema: Mapping[str, Any], root: Mapping[str, Any]) -> str:
    """The kind of a key in words."""
    if "anyOf" in schema:
        kinds = [_json_kind(each, root) for each in schema["anyOf"] if each.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "$ref" in schema:
        return "mapping" if schema["$ref"].endswith(("PlacementShape", "MigShape")) else "document"
    if "const" in schema:
        return "text"
    if "enum" in schema:
        return " or ".join(f"`{each}`" for each in schema["enum"])
    match schema.get("type"):
        case "array":
            limit = f", at most {schema['maxItems']}" if "maxItems" in schema else ""
            items = schema["items"]
            entry = items.get("$ref", "").endswith(("DesktopVgpuShape", "GpuInstanceShape"))
            return f"list of {'entries' if entry else _plural(_json_kind(items, root))}{limit}"
        case "object":
            return "mapping"
        case "integer":
            span = f", {schema['minimum']} to {schema['maximum']}" if "maximum" in schema else ""
            return f"whole number{span}"
        case "boolean":
            return "true or false"
        case _:
            return {"uuid": "UUID", "path": "path"}.get(schema.get("format", ""), "text")


def _plural(kind: str) -> str:
    return {"text": "texts", "document": "documents"}.get(kind, kind)


def _default(schema: Mapping[str, Any], *, is_needed: bool) -> str:
    if is_needed:
        return "needed"
    match schema.get("default"):
        case None | "" | {}:
            return ""
        case bool() as flag:
            return str(flag).lower()
        case dict() as mapping:
            return ", ".join(f"{key}: {value}" for key, value in mapping.items())
        case value:
            return f"`{value}`"


def _check_keys() -> None:
    """Raise where `keys.yaml` and the shapes differ."""
    there: dict[str, set[str]] = {}
    for shape in (*DOCUMENTS.values(), *EDITS.values(), PlanReferenceShape, ConfigFile):
        schema = shape.model_json_schema()
        for each in (schema, *schema.get("$defs", {}).values()):
            if "properties" in each:
                there[each["title"]] = set(each["properties"])
    said = {name: set(keys) for name, keys in KEYS.items()}
    if said != there:
        wrong = sorted(
            f"{name}.{key}"
            for name in said.keys() | there.keys()
            for key in said.get(name, set()) ^ there.get(name, set())
        )
        raise SystemExit(f"tools/keys.yaml and the shapes differ in {', '.join(wrong)}")


# Errors ----------------------------------------------------------------------------------------------


def _errors() -> str:
    rows = [
        (
            f"`{kind.code}`",
            str(kind.http_status),
            str(kind.exit_status),
            inspect.cleandoc(kind.__doc__ or "").partition("\n")[0].replace("`", ""),
        )
        for kind in _tree(errors.VgpuctlError)
    ]
    return "\n".join(
        [
            "# Errors\n",
            ERRORS_TEXT,
            _table(("code", "HTTP", "exit", "meaning"), rows),
        ]
    )


def _tree(kind: type[errors.VgpuctlError]) -> Iterator[type[errors.VgpuctlError]]:
    yield kind
    for each in kind.__subclasses__():
        yield from _tree(each)


# Drift -----------------------------------------------------------------------------------------------


def _drift() -> str:
    rows = [
        (
            f"`{code}`",
            each.doc,
            f"`{each.most}`",
            each.unasked,
            each.advice.format(name="NAME", gpu="GPU"),
        )
        for code, each in MEANINGS.items()
    ]
    heads = ("state", "what it is", "at most", "what is done unasked", "what to do")
    return "\n".join(["# Drift\n", DRIFT_TEXT, _table(heads, rows)])


# Markdown --------------------------------------------------------------------------------------------


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    lines += [f"| {' | '.join(_cell(each) for each in row)} |".replace("|  |", "| |") for row in rows]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _indented(text: str) -> str:
    return "".join(f"    {line}\n" if line else "\n" for line in text.splitlines())


def main() -> None:
    """Write every page, and remove what is no page any more."""
    REFERENCE.mkdir(parents=True, exist_ok=True)
    pages = build()
    for path in REFERENCE.glob("*.md"):
        if path.name not in pages:
            path.unlink()
    for name, text in pages.items():
        (REFERENCE / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
