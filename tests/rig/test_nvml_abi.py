"""The simulated libnvidia-ml.so.1 has the ABI that NVIDIA's binding expects: told by gcc and by pynvml."""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pynvml
import pytest

from tests.rig.nvml.symbols import exported, without

HERE = Path(__file__).parent
SOURCES = HERE / "nvml"
HEADERS = sorted(SOURCES.glob("abi*.h"))
TEXT = "\n".join(each.read_text() for each in HEADERS)
UNBOUND = {"nvmlInit_v2"}
"""C clients have it; the binding calls nvmlInitWithFlags."""

STRUCTURE = re.compile(r"^(struct|union) (\w+) \{\n(.*?)^\};", re.DOTALL | re.MULTILINE)
FIELD = re.compile(r"^\t[^/\n]*?\*?(\w+)(?:\[\w+\])?;", re.MULTILINE)
CONSTANT = re.compile(r"^\t(NVML_\w+) = ", re.MULTILINE)
VERSION = re.compile(r"^enum \{ (\w+) = VERSION_OF", re.MULTILINE)


def need_gcc() -> None:
    if shutil.which("gcc") is None:
        if os.environ.get("CI"):
            pytest.fail("gcc is not installed")
        pytest.skip("gcc is not installed")


def structures() -> dict[str, tuple[str, list[str]]]:
    return {name: (kind, FIELD.findall(body)) for kind, name, body in STRUCTURE.findall(TEXT)}


def constants() -> list[str]:
    return CONSTANT.findall(TEXT) + VERSION.findall(TEXT)


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> dict[str, int]:
    """Every size, offset and constant, as the compiler sees it."""
    need_gcc()
    values = {}
    for name, (kind, fields) in structures().items():
        values[f"{name} size"] = f"sizeof({kind} {name})"
        for field in fields:
            values[f"{name}.{field}"] = f"__builtin_offsetof({kind} {name}, {field})"
            values[f"{name}.{field} size"] = f"sizeof((({kind} {name} *)0)->{field})"
    values |= {name: name for name in constants()}
    lines = "".join(f'printf("\\"{key}\\": %lld,", (long long){value});\n' for key, value in values.items())
    includes = "".join(f'#include "{each.name}"\n' for each in HEADERS)
    program = f'#include <stdio.h>\n{includes}int main(void) {{ printf("{{");\n{lines}puts("\\"\\": 0}}"); }}'
    directory = tmp_path_factory.mktemp("abi")
    (directory / "abi.c").write_text(program)
    subprocess.run(["gcc", f"-I{SOURCES}", "-o", directory / "abi", directory / "abi.c"], check=True)
    return json.loads(subprocess.run([directory / "abi"], capture_output=True, check=True).stdout)


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Path:
    need_gcc()
    directory = tmp_path_factory.mktemp("nvml")
    tables = [sys.executable, HERE / "nvsim" / "tables.py", directory / "nvsim_tables.h"]
    subprocess.run(tables, check=True)
    make = ["make", "-s", "-C", SOURCES, f"OUT={directory}", f"TABLES={directory}", "CFLAGS=-O1"]
    done = subprocess.run(make, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return directory / "libnvidia-ml.so.1"


def bindings_structure(name: str) -> type[ctypes.Structure | ctypes.Union]:
    for form in (f"c_{name}_t", f"{name}_t"):
        if found := getattr(pynvml, form, None):
            return found
    raise AssertionError(f"pynvml has no structure {name}")


@pytest.mark.parametrize("name", structures())
def test_a_structure_is_laid_out_as_the_bindings(name, measured):
    theirs = bindings_structure(name)
    _kind, fields = structures()[name]
    assert fields == [each[0] for each in theirs._fields_]
    assert measured[f"{name} size"] == ctypes.sizeof(theirs)
    ours = {field: (measured[f"{name}.{field}"], measured[f"{name}.{field} size"]) for field in fields}
    described = {field: getattr(theirs, field) for field in fields}
    assert ours == {field: (each.offset, each.size) for field, each in described.items()}


def test_the_patterns_find_what_the_headers_declare():
    assert len(structures()) == TEXT.count(" {\n") - TEXT.count("enum {\n") > 30
    assert len(VERSION.findall(TEXT)) == TEXT.count("VERSION_OF(") - 1 > 15
    assert {"nvmlPciInfo", "nvmlValue", "nvmlVgpuSchedulerLogInfo_v2"} <= structures().keys()


def test_constants_and_version_numbers_are_the_bindings(measured):
    ours = {name: measured[name] for name in constants()}
    theirs = {name: getattr(pynvml, name) for name in ours}
    tuples = {name: value[0] for name, value in theirs.items() if isinstance(value, tuple)}
    assert ours == theirs | tuples


def test_every_error_of_the_binding_is_known():
    theirs = {name for name in vars(pynvml) if name.startswith("NVML_ERROR_")}
    assert theirs <= set(constants())


def test_exported_is_only_what_the_binding_looks_up(library):
    looked_up = set(re.findall(r'_nvmlGetFunctionPointer\("(\w+)"\)', Path(pynvml.__file__).read_text()))
    names = set(exported(library.read_bytes()))
    assert names - looked_up == UNBOUND
    assert {"nvmlDeviceGetVgpuTypeCreatablePlacements", "nvmlGpuInstanceGetVgpuSchedulerLog_v2"} <= names


def test_every_function_of_the_adapter_is_exported(library):
    """vgpuctl/host/nvml/questions.py asks by the binding's names; NVML's have versions at their end."""
    questions = (HERE.parents[1] / "vgpuctl" / "host" / "nvml" / "questions.py").read_text()
    asked = set(re.findall(r'"(nvml\w+)"', questions))
    bare = {re.sub(r"(_v\d|V|WithFlags)$", "", name) for name in exported(library.read_bytes())}
    assert len(asked) > 25
    assert asked <= bare


PROBE = """
import ctypes, json, sys
library = ctypes.CDLL(sys.argv[1])
zeros = [ctypes.c_void_p(0)] * 6
print(json.dumps({name: getattr(library, name)(*zeros) for name in sys.argv[2:]}))
"""


def called_with_zeros(library: Path, *names: str) -> dict[str, int]:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, library, *names], capture_output=True, check=True, text=True
    )
    return json.loads(done.stdout)


def test_nothing_answers_before_init_and_nothing_crashes(library):
    names = [
        name for name in exported(library.read_bytes()) if name != "nvmlErrorString" and "Init" not in name
    ]
    answers = called_with_zeros(library, *names)
    assert set(answers.values()) == {pynvml.NVML_ERROR_UNINITIALIZED}


def test_without_a_driver_init_says_so(library):
    for path in ("/dev/nvidiactl", "/usr/bin/nvidia-modprobe"):
        if Path(path).exists():
            pytest.skip(f"this machine has {path}")
    answers = called_with_zeros(library, "nvmlInit_v2", "nvmlInitWithFlags", "nvmlDeviceGetCount_v2")
    assert answers == {
        "nvmlInit_v2": pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
        "nvmlInitWithFlags": pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
        "nvmlDeviceGetCount_v2": pynvml.NVML_ERROR_UNINITIALIZED,
    }


LOOK_UP = """
import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
print(" ".join(name for name in sys.argv[2:] if hasattr(library, name)))
"""


def test_a_name_can_be_taken_out(library, tmp_path):
    """For the loader too, which goes by hashes; all other names stay."""
    whole = library.read_bytes()
    gone = {"nvmlDeviceGetVgpuHeterogeneousMode", "nvmlVgpuTypeGetMaxInstancesPerGpuInstance"}
    older = tmp_path / "libnvidia-ml.so.1"
    older.write_bytes(without(whole, gone))
    done = subprocess.run(
        [sys.executable, "-c", LOOK_UP, older, *exported(whole)], capture_output=True, check=True, text=True
    )
    assert set(exported(whole)) - set(done.stdout.split()) == gone
    with pytest.raises(KeyError):
        without(whole, ["nvmlNever"])
