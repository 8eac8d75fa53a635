"""Every name of TensorRT that our code uses exists in the real bindings: TensorRT 10 and 11, and TensorRT-RTX.

    source --syntax tree--> names, calls, overrides      bindings, in a process of their own --> names, signatures

A new use is found automatically: every attribute of a receiver of the table, or of the module, is one. The lean
bindings have the runtime, so every use in the engine is checked in both versions; of the builder they have only the
enumerations.
`.ci/bindings` installs them into build/lean, one version beside the other.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

from tests.support.services import PATIENCE_S, ROOT

RUNNER, BUILDER = "edge_runtime/eye/engine/tensorrt.py", "export/backends/builder.py"
LEAN = ("10.16.1.11", "11.4.0.106")
# A variable or attribute of this name (underscores aside) holds an object of this class, in both files.
RECEIVERS = {
    "runtime": "Runtime",
    "cuda_engine": "ICudaEngine",
    "execution": "IExecutionContext",
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "parser_error": "ParserError",
    "config": "IBuilderConfig",
    "timing_cache": "ITimingCache",
    "plan": "IHostMemory",
    "written": "IHostMemory",
}
PROBE = """
import importlib, inspect, json, sys
module = importlib.import_module(sys.argv[1])
classes = {}
for name, kind in vars(module).items():
    if inspect.isclass(kind):
        found = {attr: getattr(kind, attr, None) for attr in dir(kind)}
        classes[name] = {attr: (value.__doc__ or "") * inspect.isroutine(value) for attr, value in found.items()}
print(json.dumps({"version": module.__version__, "classes": classes}))
"""


@dataclass
class Bindings:
    """The content of a module: class -> attribute -> docstring, "" for what is not called."""

    version: str
    classes: dict[str, dict[str, str]]

    def signatures(self, kind: str, name: str) -> Iterator[tuple[list[str], list[str], str]]:
        """(parameters, those without a default, class that is returned) of each overload."""
        text = self.classes[kind].get(name, "")
        for inside, returned in re.findall(rf"^(?:\d+\. )?{name}\((.*)\) -> (.*)$", text, re.M):
            given = list(split(inside))[1:]  # without self
            needed = [part.split(":")[0] for part in given if "=" not in part]
            yield [part.split(":")[0] for part in given], needed, returned.split(".")[-1]


def split(text: str) -> Iterator[str]:
    """Parameters of a signature, by the commas outside of brackets."""
    depth, begin = 0, 0
    for at, letter in enumerate(text):
        depth += (letter in "([<") - (letter in ")]>")
        if letter == "," and depth == 0:
            yield text[begin:at].strip()
            begin = at + 1
    if text[begin:].strip():
        yield text[begin:].strip()


@cache
def load(module: str, place: Path | None) -> Bindings:
    """The module's names, found in a process of its own; skips the test where the module is missing."""
    if place is not None and not place.is_dir():
        pytest.skip(f"{place.relative_to(ROOT)} is missing: .ci/bindings installs it")
    path = f"sys.path.insert(0, {str(place)!r})\n" if place else ""
    result = subprocess.run(
        [sys.executable, "-c", f"import sys\n{path}{PROBE}", module],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    if "No module named" in result.stderr:
        pytest.skip(f"{module} is not installed: pip install 'veilsight[rtx]'")
    assert result.returncode == 0, result.stderr
    return Bindings(**json.loads(result.stdout))


def lean(version: str) -> Bindings:
    found = load("tensorrt_lean_bindings", ROOT / "build" / "lean" / version)
    assert found.version == version
    return found


def rtx() -> Bindings:
    return load("tensorrt_rtx_bindings", None)


@dataclass
class Uses:
    """How a source file uses TensorRT: (line, class, attribute), calls, assignments, subclasses."""

    names: list[tuple[int, str, str]] = field(default_factory=list)
    calls: list[tuple[int, str, str, int, list[str]]] = field(default_factory=list)
    targets: list[tuple[int, str, str, str]] = field(default_factory=list)  # a name that gets what a method returns
    subclasses: list[tuple[int, str, set[str]]] = field(default_factory=list)


def receiver(node: ast.expr) -> str | None:
    """The class of what `node` holds, by its name: "" for the module itself; None for anything else."""
    name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
    name = name.lstrip("_")
    return "" if name == "trt" else RECEIVERS.get(name)


def chain(node: ast.Attribute) -> tuple[str, str] | None:
    """(class, attribute) of an attribute of a receiver, or of a class of the module."""
    kind = receiver(node.value)
    if kind:
        return kind, node.attr
    if kind == "":
        return node.attr, ""
    if isinstance(node.value, ast.Attribute) and receiver(node.value.value) == "":
        return node.value.attr, node.attr
    return None


def uses(source: str) -> Uses:
    found = Uses()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and (named := chain(node)) and named[0] != "__version__":
            found.names.append((node.lineno, *named))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and (named := chain(node.func)):
            kind, name = named[0], named[1] or "__init__"
            count = len(node.args) - (named[1] == "__init__")  # a base class's is given self
            found.calls.append((node.lineno, kind, name, count, [word.arg or "" for word in node.keywords]))
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            func, target = node.value.func, node.targets[0]
            if isinstance(func, ast.Attribute) and (named := chain(func)):
                found.targets.append((node.lineno, *named, ast.unparse(target).split(".")[-1]))
        if isinstance(node, ast.ClassDef):
            for base in node.bases:
                if isinstance(base, ast.Attribute) and receiver(base.value) == "":
                    methods = {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
                    found.subclasses.append((node.lineno, base.attr, methods))
    return found


def faults(found: Uses, bindings: Bindings, only: set[str] | None = None) -> list[str]:
    """Uses that the bindings do not support; `only` of these classes."""
    problems, classes = [], bindings.classes
    names = [use for use in found.names if only is None or use[1] in only]
    for line, kind, name in names:
        if kind not in classes:
            problems.append(f"line {line}: no {kind}")
        elif name and name not in classes[kind]:
            problems.append(f"line {line}: {kind} has no {name}")
    for line, kind, name, count, words in found.calls:
        overloads = list(bindings.signatures(kind, name)) if kind in classes and (only is None or kind in only) else []
        fits = (count <= len(p) and set(words) <= set(p) and set(r) <= {*p[:count], *words} for p, r, _ in overloads)
        if overloads and not any(fits):
            problems.append(f"line {line}: {kind}.{name} takes {[p for p, *_ in overloads]}, given {count} and {words}")
    for line, kind, name, target in found.targets:
        made = {kind} if not name else {r for *_, r in bindings.signatures(kind, name)} if kind in classes else set()
        known = (made & set(classes)) - {"Dims"}
        if known and RECEIVERS.get(target.lstrip("_")) not in known:
            problems.append(
                f"line {line}: {target!r} gets a {known}; name it as RECEIVERS does, so that its uses are seen"
            )
    for line, base, methods in found.subclasses:
        if base in classes:
            wanted = {name for name, text in classes[base].items() if text and not name.startswith("_")}
            problems += [f"line {line}: {base}.{name} is not overridden" for name in sorted(wanted - methods)]
    return problems


def read(file: str) -> Uses:
    return uses((ROOT / file).read_text())


def test_the_uses_are_found() -> None:
    """The table and the syntax tree find the uses in both files: if a count drops, they miss some."""
    runner, builder = read(RUNNER), read(BUILDER)
    assert {kind for _, kind, _ in runner.names} >= {"Runtime", "ICudaEngine", "IExecutionContext", "DataType"}
    assert {kind for _, kind, _ in builder.names} >= {"Builder", "OnnxParser", "IBuilderConfig", "ITimingCache"}
    assert len(runner.names) >= 25 and len(builder.names) >= 25
    assert len(runner.calls) >= 10 and len(builder.calls) >= 12


@pytest.mark.parametrize("version", LEAN)
def test_every_name_that_the_runner_uses_is_in_tensorrt(version: str) -> None:
    assert not faults(read(RUNNER), lean(version))


@pytest.mark.parametrize("version", LEAN)
def test_names_of_the_builder_in_the_lean_bindings_are_used_correctly(version: str) -> None:
    found, bindings = read(BUILDER), lean(version)
    shared = {kind for _, kind, _ in found.names} & set(bindings.classes)
    assert {"BuilderFlag", "MemoryPoolType", "IProgressMonitor", "ITimingCache"} <= shared
    assert not faults(found, bindings, shared)


def test_every_name_that_the_builder_uses_is_in_tensorrt_rtx() -> None:
    assert not faults(read(BUILDER), rtx())


PLANTED = {
    "a method that is gone": ("def f(execution): execution.execute_async_v2(1)", "no execute_async_v2"),
    "a flag that is gone": ("def f(trt): trt.DataType.INT3", "no INT3"),
    "a class that is gone": ("def f(trt): trt.IInt8EntropyCalibrator2", "no IInt8EntropyCalibrator2"),
    "an argument too many": ("def f(execution): execution.execute_async_v3(1, 2)", "execute_async_v3 takes"),
    "an argument too few": ("def f(self): self._execution.set_tensor_address('z')", "set_tensor_address takes"),
    "another keyword": ("def f(runtime): runtime.deserialize_cuda_engine(blob=b'')", "deserialize_cuda_engine"),
    "a name that hides the class": ("def f(runtime): e = runtime.deserialize_cuda_engine(b'')", "'e' gets a"),
    "a class without its method": ("class A(trt.IProgressMonitor):\n  def phase_start(self): ...", "not overridden"),
}


@pytest.mark.parametrize("what", PLANTED)
@pytest.mark.parametrize("version", LEAN)
def test_a_planted_fault_is_found(what: str, version: str) -> None:
    source, says = PLANTED[what]
    problems = faults(uses(source), lean(version))
    assert any(says in line for line in problems), problems


def test_names_that_tensorrt_11_dropped_are_found() -> None:
    """The control: the two versions differ, for example in the builder flags of implicit precision."""
    old, new = lean(LEAN[0]), lean(LEAN[1])
    gone = {name for name in old.classes["BuilderFlag"] if name not in new.classes["BuilderFlag"]}
    assert {"FP16", "INT8", "OBEY_PRECISION_CONSTRAINTS"} <= gone
    source = "def f(trt): trt.BuilderFlag.FP16"
    assert not faults(uses(source), old) and faults(uses(source), new)
