"""Compares the fake of vLLM with the real package: `python tests/fakes/check_vllm.py WHEEL...`.

A wheel is read, not imported, so neither a GPU nor torch is needed. The fake contains only what the oldest and the
newest supported vLLM have in common, so an engine that works with it uses nothing that one of them lacks. Reported
are: parameters and fields of the fake that the real package does not have, required parameters of the real package
that the fake does not have, parameters in another order, and errors with another base class.
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
    "outputs.py": ("CompletionOutput", "RequestStateStats", "Logprob"),
    "usage/usage_lib.py": ("UsageContext",),
    "config.py": ("StructuredOutputsConfig", "SpeculativeConfig"),
    "v1/metrics/stats.py": ("SpecDecodingStats", "SchedulerStats", "RequestSpecDecodeMetrics"),
}
NEWER = {
    "outputs.py CompletionOutput": {"spec_decode_metrics"},
    "v1/metrics/stats.py RequestSpecDecodeMetrics": {"num_spec_tokens"},
}
"""Names that exist only in the newest vLLM."""
OURS = {"config.py SpeculativeConfig": {"target_config", "draft_config"}}
"""Names that exist only in the fake."""
BASES = {"0.26": "ValueError", "0.33": "VLLMClientError"}
"""The base class of VLLMValidationError, by version."""
ELSEWHERE = {
    "inputs.py tokens_input": "inputs/engine.py",
    "config.py StructuredOutputsConfig": "config/structured_outputs.py",
    "config.py SpeculativeConfig": "config/speculative.py",
    "v1/metrics/stats.py SpecDecodingStats": "v1/spec_decode/metrics.py",
    "outputs.py RequestStateStats": "v1/metrics/stats.py",
    "outputs.py Logprob": "logprobs.py",
    "v1/engine/async_llm.py RequestOutputCollector.put": "v1/engine/output_processor.py",
    "v1/engine/async_llm.py RequestOutputCollector.get_nowait": "v1/engine/output_processor.py",
}
"""Modules of the real package whose path differs from that in the fake."""


def main() -> int:
    """Returns the number of differences."""
    differences = 0
    for name in sys.argv[1:]:
        with zipfile.ZipFile(name) as wheel:
            differing = [
                *calls(wheel),
                *classes(wheel),
                *arguments(wheel),
                *errors(wheel, Path(name).name.split("-")[1]),
            ]
        differences += len(differing)
        print("\n".join([*differing, f"{len(differing)} differences from {Path(name).name}"]))  # noqa: T201 - that is what it is for
    return differences


def calls(wheel: zipfile.ZipFile) -> Iterator[str]:
    """Yields functions that cannot be called like those of the fake."""
    collector = ("RequestOutputCollector.put", "RequestOutputCollector.get_nowait")
    for path, names in (*CALLS.items(), ("v1/engine/async_llm.py", collector)):
        for name in names:
            mine, theirs = parameters(fake(path), name), parameters(real(wheel, path, name), name)
            if not is_part(mine, theirs):
                yield f"{path} {name}\n  fake: {mine}\n  vLLM: {theirs}"


def is_part(mine: list[str], theirs: list[str]) -> bool:
    """Whether the parameters are the same without new optional ones."""
    return mine == [entry for entry in theirs if entry in mine or not entry.endswith("=")]


def classes(wheel: zipfile.ZipFile) -> Iterator[str]:
    """Yields fields of classes that vLLM's classes do not have."""
    for path, names in FIELDS.items():
        for name in names:
            place = f"{path} {name}"
            newer = NEWER.get(place, set())
            theirs = fields(real(wheel, path, name), name, missing_is_empty=bool(newer))
            mine = [field for field in fields(fake(path), name) if field not in OURS.get(place, ())]
            if not theirs and newer:
                continue  # the whole class is newer
            lacking = [entry for entry in mine if entry not in theirs and entry not in newer]
            if lacking:
                yield f"{place}: vLLM has no {', '.join(lacking)}"


def arguments(wheel: zipfile.ZipFile) -> Iterator[str]:
    """Yields fields of AsyncEngineArgs that vLLM's class does not have."""
    tree = real(wheel, "engine/arg_utils.py", "")
    theirs = {*fields(tree, "EngineArgs"), *fields(tree, "AsyncEngineArgs")}
    if lacking := argument_names() - theirs:
        yield f"engine/arg_utils.py AsyncEngineArgs: vLLM has no {', '.join(sorted(lacking))}"


def errors(wheel: zipfile.ZipFile, version: str) -> Iterator[str]:
    """Yields an error if a mistake of a caller is not a ValueError."""
    (base,) = find(real(wheel, "exceptions.py", ""), "VLLMValidationError").bases
    expected = BASES[".".join(version.split(".")[:2])]
    if ast.unparse(base) != expected:
        yield f"exceptions.py VLLMValidationError: vLLM's is a {ast.unparse(base)}, not a {expected}"


def fake(path: str) -> ast.Module:
    """Returns a module of the fake."""
    return ast.parse((FAKE / path).read_text())


def real(wheel: zipfile.ZipFile, path: str, name: str) -> ast.Module:
    """Returns the module of vLLM that corresponds to `path` in the fake."""
    return ast.parse(wheel.read(f"vllm/{ELSEWHERE.get(f'{path} {name}', path)}"))


def parameters(tree: ast.Module, name: str) -> list[str]:
    """Returns the names of a function's parameters, and whether each has a default."""
    *owner, function = name.split(".")
    body = find(tree, owner[0]).body if owner else tree.body
    definition = next(
        node for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == function
    )
    given = definition.args
    positional = [*given.posonlyargs, *given.args]
    required = len(positional) - len(given.defaults)
    kind = "async " if isinstance(definition, ast.AsyncFunctionDef) else ""
    return [
        kind + "positional",
        *(argument.arg + ("" if index < required else "=") for index, argument in enumerate(positional)),
        *(
            f"keyword {argument.arg}{'' if default is None else '='}"
            for argument, default in zip(given.kwonlyargs, given.kw_defaults, strict=True)
        ),
        *(f"*{argument.arg}" for argument in (given.vararg, given.kwarg) if argument is not None),
    ]


def fields(tree: ast.Module, name: str, *, missing_is_empty: bool = False) -> list[str]:
    """Returns the names of a class's fields, or of an enumeration's members."""
    names: list[str] = []
    if missing_is_empty and not any(isinstance(node, ast.ClassDef) and node.name == name for node in tree.body):
        return names
    for node in find(tree, name).body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.append(node.target.id)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            names.append(node.targets[0].id)
    return names


def find(tree: ast.Module, name: str) -> ast.ClassDef:
    """Returns a class of a module."""
    return next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)


def argument_names() -> set[str]:
    """Returns the fields of AsyncEngineArgs that the fake knows."""
    for node in fake("engine/arg_utils.py").body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "_NAMES":
            return set(str(ast.literal_eval(node.value)).split())
    raise AssertionError("the fake has no list of them")


if __name__ == "__main__":
    sys.exit(min(main(), 1))
