"""The checks before TensorRT-LLM loads anything: GPUs, memory, weights, and the package."""

import errno
import struct
from pathlib import Path

import pytest

from doherty_engine import EngineSetupError
from doherty_engine.models import GIB, BuildCache, BuildKey, ModelShape, check_weights, visible_gpus
from doherty_engine.text import ModelFolder
from doherty_engine.trtllm import check_contract, profiles
from doherty_engine.trtllm._knobs import Knobs
from doherty_engine.trtllm._memory import estimate
from support.gpu import A100, H100, L4, FakeGpu, write_model, write_safetensors
from support.hugging_face import Folder

LLAMA3_8B = ModelShape(
    vocabulary=128256,
    hidden=4096,
    layers=32,
    heads=32,
    kv_heads=8,
    head_size=128,
    intermediate=14336,
    context=8192,
    tied=False,
)


@pytest.mark.parametrize(
    ("visible", "names"),
    [
        (None, ["H100", "L4", "A100"]),
        ("1", ["L4"]),
        ("2,0", ["A100", "H100"]),
        ("GPU-2", ["L4"]),
        ("GPU-3,1", ["A100", "L4"]),
        ("GPU-", []),
        ("0,9,1", ["H100"]),
        ("0,-1,1", ["H100"]),
        ("", []),
    ],
)
def test_the_gpus_are_those_that_are_visible_to_cuda(
    gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch, visible: str | None, names: list[str]
) -> None:
    """CUDA's rules apply: the order of the variable, up to the first GPU that does not exist."""
    cards = [{**card, "uuid": f"GPU-{number}-a"} for number, card in enumerate([H100, L4, A100], start=1)]
    gpu.be(cards=cards)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    if not names:
        with pytest.raises(EngineSetupError, match=rf"CUDA_VISIBLE_DEVICES is '{visible}'"):
            visible_gpus(extra="trtllm")
        return
    assert [card.name.split()[1].split("-")[0] for card in visible_gpus(extra="trtllm")] == names


def test_the_memory_of_llama_3_8b_is_estimated() -> None:
    """It has 8,030,261,248 parameters. The embeddings and norms stay in bfloat16 when the rest is FP8."""
    assert LLAMA3_8B.linear_parameters + LLAMA3_8B.embedding_parameters == 8_030_261_248
    fast, interactive = (Knobs(**profiles()[name]) for name in ("fast", "interactive"))  # type: ignore[arg-type]
    fp8 = estimate(LLAMA3_8B, fast, 1, is_fp8=True)
    half = estimate(LLAMA3_8B, interactive, 1, is_fp8=False)
    assert fp8.weights == 6_979_321_856 + 2 * 1_050_939_392
    assert half.weights == 2 * 8_030_261_248
    assert half.kv_cache == 8192 * 128 * 1024
    assert fp8.building == half.weights + 2 * GIB
    assert half.building == 0
    assert estimate(LLAMA3_8B, interactive, 2, is_fp8=False).weights == 8_030_261_248


def test_there_is_no_estimate_for_another_type_of_model() -> None:
    assert ModelShape.read({"hidden_size": 1}) is None


@pytest.fixture
def weights(tmp_path: Path) -> Folder:
    return write_model(tmp_path / "model")


def check(weights: Folder) -> int:
    return check_weights(ModelFolder(weights.path, str(weights.path), ""))


def test_complete_weights_are_accepted(weights: Folder) -> None:
    assert check(weights) == sum(path.stat().st_size for path in weights.path.glob("*.safetensors"))
    (weights.path / "model.safetensors.index.json").unlink()
    assert check(weights) > 2000


def test_incomplete_weights_are_refused(weights: Folder) -> None:
    second = weights.path / "model-00002-of-00002.safetensors"
    whole = second.read_bytes()
    second.write_bytes(whole[:-1])
    with pytest.raises(
        EngineSetupError, match=r"model-00002-of-00002\.safetensors of .* are incomplete; download them again"
    ):
        check(weights)
    for bytes_ in (b"", whole[:5], struct.pack("<Q", 9) + b"no header", b"version https://git-lfs.github.com/spec/v1"):
        second.write_bytes(bytes_)
        with pytest.raises(EngineSetupError, match="are damaged"):
            check(weights)
    second.unlink()
    with pytest.raises(EngineSetupError, match="are missing"):
        check(weights)
    write_safetensors(second, 1)
    for path in weights.path.glob("*.safetensors*"):
        path.unlink()
    with pytest.raises(EngineSetupError, match="has no weights in safetensors"):
        check(weights)


def test_engines_that_cannot_be_stored_are_reported(tmp_path: Path) -> None:
    key = BuildKey({"model": "org/m"}, ("m", "1.2.1"))
    (tmp_path / "file").touch()
    cannot = "Engines cannot be stored in .*; set engine_cache to another folder"
    with (
        pytest.raises(EngineSetupError, match=cannot),
        BuildCache(tmp_path / "file", what="engine", option="engine_cache").locked(key, print),
    ):
        pass
    cache = BuildCache(tmp_path / "engines", what="engine", option="engine_cache")

    def fill_the_disk(_: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(EngineSetupError, match=cannot), cache.locked(key, print):
        cache.add(key, fill_the_disk)
    assert [path.name for path in cache.folder.iterdir()] == [f".{key.name}.lock"]


@pytest.mark.usefixtures("gpu")
def test_missing_functions_of_the_library_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorrt_llm  # noqa: PLC0415 - the fake is importable only now
    from tensorrt_llm import llmapi  # noqa: PLC0415

    assert [result for result in check_contract() if result.problem] == []
    monkeypatch.setattr(tensorrt_llm, "__version__", "1.3.0")
    monkeypatch.delitem(llmapi.KvCacheConfig.model_fields, "host_cache_size")
    monkeypatch.delattr(llmapi, "AutoDecodingConfig")

    async def generate_async(inputs: object, sampling_params: object) -> None:
        """A coroutine with two of the five parameters."""

    monkeypatch.setattr(tensorrt_llm.LLM, "generate_async", generate_async)
    problems = {result.name: result.problem for result in check_contract() if result.problem}
    assert problems["the version of TensorRT-LLM"] == "it is 1.3.0, and this engine is written for 1.2.1"
    assert problems["tensorrt_llm.llmapi.KvCacheConfig"] == "it has no host_cache_size"
    assert "it is not there" in problems["tensorrt_llm.llmapi.AutoDecodingConfig"]
    assert problems["tensorrt_llm.LLM.generate_async"] == "it has no cache_salt, lora_request, streaming"
    assert problems["generate_async is a plain function"] == "it is a coroutine"
