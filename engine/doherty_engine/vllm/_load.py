"""Starts vLLM, which takes from half a minute to several minutes."""

import logging
import signal
from collections.abc import Callable, Coroutine
from multiprocessing import resource_tracker
from typing import Any

from doherty_engine._errors import EngineSetupError
from doherty_engine._paths import expand_user
from doherty_engine._requests import Constraint
from doherty_engine.constraints import TRANSLATIONS, CompiledConstraint, ConstraintCompiler
from doherty_engine.text import HuggingFaceTokenizer, find_model_folder
from doherty_engine.tokens import FairThreads, PromptReader
from doherty_engine.vllm._arguments import engine_arguments
from doherty_engine.vllm._context import VllmContext
from doherty_engine.vllm._guard import Guard
from doherty_engine.vllm._library import EXTRA, Library, first_lines, load_library
from doherty_engine.vllm._options import Options
from doherty_engine.vllm._speculation import first_runner_warning
from doherty_engine.vllm._stats import Board, stat_logger

_log = logging.getLogger("doherty.engine")


def load(options: Options, guard: Guard) -> VllmContext:
    """Loads the model. Blocks.

    Args:
        options: The options of the deployment.
        guard: Ends vLLM's processes.

    Raises:
        EngineSetupError: The model cannot be loaded; the message says what to do.
    """
    library = load_library()
    if not options.model:
        raise EngineSetupError(
            "The engine vllm has no default model; name a folder, or a model on the hub, with `--model org/name`."
        )
    folder = find_model_folder(options.model, options.revision, extra=EXTRA)
    tokenizer = HuggingFaceTokenizer(folder, extra=EXTRA)
    compiler = ConstraintCompiler(extra=EXTRA)
    has_constraints = compiler.supports(tokenizer.library)
    board = Board()
    arguments = engine_arguments(options, folder, library)
    _keep_ctrl_c_from_children()
    with guard.marking():
        llm = _start_vllm(library, arguments, board)
    _warn_of_first_runner(llm.vllm_config, library)
    library.enable_envs_cache()  # otherwise, vLLM reads the environment for every token
    model = llm.vllm_config.model_config
    return VllmContext(
        library=library,
        llm=llm,
        folder=folder,
        reader=PromptReader(tokenizer, model.max_model_len, model.get_vocab_size()),
        tokenizer=tokenizer,
        compile_constraint=_in_turns(compiler) if has_constraints and not model.skip_tokenizer_init else None,
        board=board,
        adapters={
            name: library.LoRARequest(lora_name=name, lora_int_id=number, lora_path=_lora_path(path))
            for number, (name, path) in enumerate(options.adapters, start=1)
        },
        speculates=llm.vllm_config.speculative_config is not None,
    )


def _in_turns(compiler: ConstraintCompiler) -> Callable[[Constraint, str], Coroutine[Any, Any, CompiledConstraint]]:
    threads = FairThreads(TRANSLATIONS, per_key=1)
    return lambda constraint, key: threads.run(key, compiler.compile, constraint)


def _start_vllm(library: Library, arguments: dict[str, object], board: Board) -> Any:
    try:
        return library.AsyncLLM.from_engine_args(
            library.AsyncEngineArgs(**arguments),
            usage_context=library.UsageContext.OPENAI_API_SERVER,  # selects the defaults of servers
            stat_loggers=[stat_logger(library.PrometheusStatLogger, board)],
        )
    except Exception as error:
        raise EngineSetupError(f"vLLM cannot start ({first_lines(error)}); see its own log above.") from error


def _warn_of_first_runner(config: Any, library: Library) -> None:
    drafts = config.speculative_config
    if drafts is not None and not config.use_v2_model_runner:
        _log.warning(first_runner_warning(method=drafts.method, version=library.version))


def _keep_ctrl_c_from_children() -> None:
    """Blocks SIGINT in the processes that this thread starts.

    A terminal sends SIGINT to all processes of the server. vLLM's processes would end immediately, together with the
    requests that should finish during the drain.
    """
    resource_tracker.ensure_running()  # start it now, because its start unblocks SIGINT in this thread
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def _lora_path(path: str) -> str:
    folder = expand_user(path)
    return str(folder.resolve()) if folder.is_dir() else path
