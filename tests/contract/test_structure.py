"""The public names of the packages, and their imports."""

import ast
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PUBLIC = {
    "doherty_engine": """
        DEFAULT_ENGINE AnswerPrefix Choices Constraint Conversation Drafting Engine EngineError EngineFailedError
        EngineRequest EngineSetupError Finish FinishReason Grammar Health Input InvalidInputError JsonSchema Message
        ModelInfo OutOfResourcesError RawText Regex RequestHandle Role Sampling SamplingDefaults Speculation Started
        StepOutput StepSink Stopping TokenIds TokenLogprob UnsupportedError create_engine engine_names engine_options
        engine_profiles input_field is_engine_installed is_shortage output_budget prepare_engine read_engine_options
    """,
    "doherty_engine.constraints": """
        CompiledConstraint ConstraintCompiler TRANSLATIONS check_combination check_size constraint_field
        write_for_xgrammar
    """,
    "doherty_engine.models": """
        DFLASH EAGLE3 GIB TEXT BuildCache BuildKey Gpu Head ModelShape Quality as_gib check_digests check_weights
        compare context_length default_cache extend_positions fetch_head fetch_weights read_head visible_gpus
        weights_identity
    """,
    "doherty_engine.text": """
        AnswerText ControlTokens HuggingFaceTokenizer ModelFolder Piece StopMatcher UNUSABLE_TEMPLATE Utf8Detokenizer
        begins_answer can_render encode_exactly find_model_folder join
        known_logprobs looks_like_control render_parts spell_byte_level spell_sentence_piece template_failure
        template_refusal token_logprob
    """,
    "doherty_engine.tokens": """
        CONSTRAINTS EngineContext FairThreads ModelLoader PreparedInput PromptReader RequestOwner TokenAnswer
        TokenEngine TokenRequest Tokenizer common_features
    """,
    "doherty_engine_cli": "engine",
    "doherty_extras": "install_command",
    "doherty_service": "Settings run",
}

MAY_IMPORT = {
    "client/doherty/v1": {"doherty.v1"},
    "client/doherty": {"doherty"},
    "client/doherty_extras": set(),  # so that all other packages may import it
    "engine/doherty_engine": {"doherty_engine"},
    "service/doherty_engine_cli": {"doherty", "doherty_engine", "doherty_engine_cli"},
    "service/doherty_service": {"doherty.v1", "doherty_engine", "doherty_service"},
}
"""The top-level names of our own packages."""


@pytest.mark.parametrize("package", PUBLIC)
def test_the_public_names_are_these(package: str) -> None:
    module = import_module(package)
    assert sorted(module.__all__) == sorted(PUBLIC[package].split())
    assert all(hasattr(module, name) for name in module.__all__)


def imported(source: Path) -> set[str]:
    """Returns the modules that a file names in its import statements."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{source} imports relatively"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def is_in(name: str, package: str) -> bool:
    return f"{name}.".startswith(f"{package}.")


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_imports_go_one_way(folder: str) -> None:
    sources = list((ROOT / folder).rglob("*.py"))
    assert sources
    for source in sources:
        if folder == "client/doherty" and "v1" in source.parts:
            continue
        for name in imported(source):
            if any(is_in(name, ours) for ours in ("doherty", "doherty_engine", "doherty_service")):
                assert any(is_in(name, allowed) for allowed in MAY_IMPORT[folder]), f"{source} imports {name}"


def test_the_engines_do_not_import_grpc() -> None:
    for source in (ROOT / "engine").rglob("*.py"):
        assert not any(is_in(name, "grpc") or is_in(name, "google") for name in imported(source)), source


@pytest.mark.parametrize("folder", [folder for folder in MAY_IMPORT if not folder.endswith("v1")])
def test_there_are_no_import_cycles(folder: str) -> None:
    """Imports for type checkers count, too."""
    root = ROOT / folder
    sources = {".".join(path.relative_to(root.parent).with_suffix("").parts): path for path in root.rglob("*.py")}
    modules = {name.removesuffix(".__init__"): imported(path) for name, path in sources.items()}
    module_graph: dict[str, set[str]] = {}
    package_graph: dict[str, set[str]] = {}
    for module, names in modules.items():
        # An imported name is either a module or a name within a module.
        targets = {name if name in modules else name.rpartition(".")[0] for name in names} & modules.keys() - {module}
        module_graph[module] = targets
        for target in targets:
            package, other = (
                name if f"{name}.__init__" in sources else name.rpartition(".")[0] for name in (module, target)
            )
            if package != other and not is_in(other, package):
                package_graph.setdefault(package, set()).add(other)
    for graph in (module_graph, package_graph):
        TopologicalSorter(graph).prepare()  # raises CycleError, which names the members
