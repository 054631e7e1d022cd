"""Compares the stand-in for vLLM with the real package: `python tests/fakes/check_vllm.py WHEEL`.

The wheel is read, not imported: neither a GPU nor torch is needed. What is told is every function and every class of
the stand-in whose parameters or fields are not the real one's.
"""

import ast
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

FAKE = Path(__file__).parent / "vllm"

CALLS = {
    "v1/engine/async_llm.py": (
        "AsyncLLM.from_engine_args",
        "AsyncLLM.add_request",
        "AsyncLLM.abort",
        "AsyncLLM.add_lora",
        "AsyncLLM.shutdown",
        "AsyncLLM.errored",
    ),
    "envs.py": ("enable_envs_cache",),
    "v1/engine/exceptions.py": ("EngineDeadError.__init__",),
    "v1/metrics/loggers.py": (
        "StatLoggerBase.__init__",
        "StatLoggerBase.record",
        "StatLoggerBase.log_engine_initialized",
        "StatLoggerBase.log",
        "StatLoggerBase.record_sleep_state",
        "AggregateStatLoggerBase.__init__",
        "PrometheusStatLogger.__init__",
        "PrometheusStatLogger.record",
    ),
    "inputs.py": ("tokens_input",),
    "outputs.py": ("RequestOutput.add",),
}
FIELDS = {
    "sampling_params.py": ("SamplingParams", "StructuredOutputsParams", "RequestOutputKind"),
    "lora/request.py": ("LoRARequest",),
    "outputs.py": ("CompletionOutput",),
    "usage/usage_lib.py": ("UsageContext",),
    "config.py": ("StructuredOutputsConfig",),
    "v1/metrics/stats.py": ("SpecDecodingStats",),
}
SOME_FIELDS = {"v1/metrics/stats.py": ("SchedulerStats",), "outputs.py": ("RequestStateStats", "Logprob")}
"""Classes of which the stand-in has those fields only that matter."""
ELSEWHERE = {
    "inputs.py tokens_input": "inputs/engine.py",
    "config.py StructuredOutputsConfig": "config/structured_outputs.py",
    "v1/metrics/stats.py SpecDecodingStats": "v1/spec_decode/metrics.py",
    "outputs.py RequestStateStats": "v1/metrics/stats.py",
    "outputs.py Logprob": "logprobs.py",
    "v1/engine/async_llm.py RequestOutputCollector.put": "v1/engine/output_processor.py",
    "v1/engine/async_llm.py RequestOutputCollector.get_nowait": "v1/engine/output_processor.py",
}
"""Where the real package has what the stand-in has somewhere else."""


def main() -> int:
    """Returns how many differences there are."""
    differences = 0
    with zipfile.ZipFile(sys.argv[1]) as wheel:
        for place, mine, real in pairs(wheel):
            if mine != real:
                differences += 1
                print(f"{place}\n  stand-in: {mine}\n  vLLM:     {real}")  # noqa: T201 - that is what it is for
    print(f"{differences} differences")  # noqa: T201 - as above
    return differences


def pairs(wheel: zipfile.ZipFile) -> Iterator[tuple[str, object, object]]:
    """What is compared, of the stand-in and of the real package."""
    collector = ("RequestOutputCollector.put", "RequestOutputCollector.get_nowait")
    for path, names in (*CALLS.items(), ("v1/engine/async_llm.py", collector)):
        for name in names:
            place = f"{path} {name}"
            yield place, parameters(fake(path), name), parameters(real(wheel, path, name), name)
    for path, names in FIELDS.items():
        for name in names:
            yield f"{path} {name}", fields(fake(path), name), fields(real(wheel, path, name), name)
    for path, names in SOME_FIELDS.items():
        for name in names:
            mine, theirs = set(fields(fake(path), name)), set(fields(real(wheel, path, name), name))
            yield f"{path} {name}", mine, mine & theirs
    tree = real(wheel, "engine/arg_utils.py", "")
    arguments = {*fields(tree, "EngineArgs"), *fields(tree, "AsyncEngineArgs")}
    yield "engine/arg_utils.py AsyncEngineArgs", argument_names(), arguments


def fake(path: str) -> ast.Module:
    """A module of the stand-in."""
    return ast.parse((FAKE / path).read_text())


def real(wheel: zipfile.ZipFile, path: str, name: str) -> ast.Module:
    """The module of vLLM that has what the stand-in has in `path`."""
    return ast.parse(wheel.read(f"vllm/{ELSEWHERE.get(f'{path} {name}', path)}"))


def parameters(tree: ast.Module, name: str) -> list[str]:
    """The names of a function's parameters, and whether each has a default."""
    *owner, function = name.split(".")
    body = find(tree, owner[0]).body if owner else tree.body
    found = next(
        node for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == function
    )
    given = found.args
    positional = [*given.posonlyargs, *given.args]
    required = len(positional) - len(given.defaults)
    kind = "async " if isinstance(found, ast.AsyncFunctionDef) else ""
    return [
        kind + "positional",
        *(one.arg + ("" if index < required else "=") for index, one in enumerate(positional)),
        *(
            f"keyword {one.arg}{'' if default is None else '='}"
            for one, default in zip(given.kwonlyargs, given.kw_defaults, strict=True)
        ),
        *(f"*{one.arg}" for one in (given.vararg, given.kwarg) if one is not None),
    ]


def fields(tree: ast.Module, name: str) -> list[str]:
    """The names of a class's fields, or of an enumeration's members."""
    names: list[str] = []
    for node in find(tree, name).body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.append(node.target.id)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            names.append(node.targets[0].id)
    return names


def find(tree: ast.Module, name: str) -> ast.ClassDef:
    """A class of a module."""
    return next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)


def argument_names() -> set[str]:
    """The fields of AsyncEngineArgs that the stand-in knows."""
    for node in fake("engine/arg_utils.py").body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "_NAMES":
            return set(str(ast.literal_eval(node.value)).split())
    raise AssertionError("the stand-in has no list of them")


if __name__ == "__main__":
    sys.exit(min(main(), 1))
