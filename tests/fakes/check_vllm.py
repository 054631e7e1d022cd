"""Compares the stand-in for vLLM with the real package: `python tests/fakes/check_vllm.py WHEEL...`.

A wheel is read, not imported: neither a GPU nor torch is needed. The stand-in has what the oldest and the newest
supported vLLM have in common, so that an engine which works on it uses nothing that one of them lacks. What is told:
parameters and fields of the stand-in that the real one does not have, parameters of the real one that must be given and
that the stand-in does not know, parameters in another order, and errors whose base is another one.
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
"""What the stand-in has for the newest vLLM alone."""
OURS = {"config.py SpeculativeConfig": {"target_config", "draft_config"}}
"""What the stand-in has for itself."""
BASES = {"0.26": "ValueError", "0.33": "VLLMClientError"}
"""Of VLLMValidationError, by the version."""
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
"""Where the real package has what the stand-in has somewhere else."""


def main() -> int:
    """Returns how many differences there are."""
    differences = 0
    for name in sys.argv[1:]:
        with zipfile.ZipFile(name) as wheel:
            found = [*calls(wheel), *classes(wheel), *arguments(wheel), *errors(wheel, Path(name).name.split("-")[1])]
        differences += len(found)
        print("\n".join([*found, f"{len(found)} differences from {Path(name).name}"]))  # noqa: T201 - that is what it is for
    return differences


def calls(wheel: zipfile.ZipFile) -> Iterator[str]:
    """Functions that cannot be called as those of the stand-in."""
    collector = ("RequestOutputCollector.put", "RequestOutputCollector.get_nowait")
    for path, names in (*CALLS.items(), ("v1/engine/async_llm.py", collector)):
        for name in names:
            mine, theirs = parameters(fake(path), name), parameters(real(wheel, path, name), name)
            if not is_part(mine, theirs):
                yield f"{path} {name}\n  stand-in: {mine}\n  vLLM:     {theirs}"


def is_part(mine: list[str], theirs: list[str]) -> bool:
    """Whether what is left when the new optional parameters are taken out is the same."""
    return mine == [one for one in theirs if one in mine or not one.endswith("=")]


def classes(wheel: zipfile.ZipFile) -> Iterator[str]:
    """Fields of classes that vLLM's do not have."""
    for path, names in FIELDS.items():
        for name in names:
            place = f"{path} {name}"
            newer = NEWER.get(place, set())
            theirs = fields(real(wheel, path, name), name, missing_is_empty=bool(newer))
            mine = [one for one in fields(fake(path), name) if one not in OURS.get(place, ())]
            if not theirs and newer:
                continue  # the whole class is newer
            lacking = [one for one in mine if one not in theirs and one not in newer]
            if lacking:
                yield f"{place}: vLLM has no {', '.join(lacking)}"


def arguments(wheel: zipfile.ZipFile) -> Iterator[str]:
    """Fields of AsyncEngineArgs that vLLM's has not."""
    tree = real(wheel, "engine/arg_utils.py", "")
    theirs = {*fields(tree, "EngineArgs"), *fields(tree, "AsyncEngineArgs")}
    if lacking := argument_names() - theirs:
        yield f"engine/arg_utils.py AsyncEngineArgs: vLLM has no {', '.join(sorted(lacking))}"


def errors(wheel: zipfile.ZipFile, version: str) -> Iterator[str]:
    """Whether what a caller got wrong is a ValueError."""
    (base,) = find(real(wheel, "exceptions.py", ""), "VLLMValidationError").bases
    expected = BASES[".".join(version.split(".")[:2])]
    if ast.unparse(base) != expected:
        yield f"exceptions.py VLLMValidationError: vLLM's is a {ast.unparse(base)}, not a {expected}"


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


def fields(tree: ast.Module, name: str, *, missing_is_empty: bool = False) -> list[str]:
    """The names of a class's fields, or of an enumeration's members."""
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
