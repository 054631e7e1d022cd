"""Packs vLLM 0.26 and what the measurements need into parts for a GPU machine that reaches no package index.

`python benchmarks/gpu/pack.py FOLDER [FILE...]` writes FOLDER/00, FOLDER/01, ...: an archive in parts of at most 52
MiB. Further files, such as the GGUF file of SmolLM2 (98 MB, two parts more), lie in SITE/files. On the other machine,

    mkdir -p SITE && cat PARTS/* | xz -T0 -dc | tar -C SITE -xf -
    export PYTHONPATH=SITE:$PWD/client:$PWD/engine:$PWD/service VLLM_USE_FLASHINFER_SAMPLER=0 HF_HUB_OFFLINE=1

in a checkout. Made for x86-64 Linux, CPython 3.12, a PyTorch image (torch 2.11 for CUDA 13, transformers 5, triton 3.6)
and one Hopper GPU. Of vLLM it leaves out what a dense model on Hopper does not load: FlashAttention 2, the kernels of
mixtures of experts, MLA and DeepGEMM. FlashInfer is not in it, hence the variable, and attention_backend=FLASH_ATTN.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from importlib.metadata import metadata
from pathlib import Path

PART_BYTES = 52 << 20
VLLM = """
    vllm==0.26.0 annotated-types==0.8.0 annotated-doc anyio apache-tvm-ffi==0.1.10 astor attrs cachetools==8.0.1
    cbor2==6.3.0 compressed-tensors==0.17.0 depyf==0.20.0 dill distro fastapi==0.136.3 gguf h11 httpcore2==2.16.2
    httpx2==2.16.2 idna jiter jmespath==1.1.0 jsonschema jsonschema-specifications llguidance>=1.7,<1.8 loguru==0.7.3
    interegular lm-format-enforcer model-hosting-container-standards==0.1.16 msgspec==0.22.0 openai==3.54.0
    openai-harmony==0.0.8
    opentelemetry-api==1.45.2 opentelemetry-sdk==1.45.2 opentelemetry-semantic-conventions==0.66b2
    opentelemetry-semantic-conventions-ai==0.5.1 partial-json-parser pybase64==1.5.1 pydantic==2.14.3
    pydantic_core==2.50.4 python-multipart==0.0.34 pyzmq==27.3.0 referencing rpds-py sniffio==1.3.1 starlette==1.10.0
    truststore==0.10.5 typing-extensions typing-inspection==0.4.5 uvicorn==0.54.0 watchfiles==1.3.0 xgrammar==0.2.1
"""
"""Packages that vLLM imports and such an image lacks."""
OPENAI_SERVER = """
    anthropic blake3 docstring-parser httpx-sse ijson lark==1.2.2 mcp mcp-types prometheus-fastapi-instrumentator pyjwt
    python-json-logger setproctitle sse-starlette
"""
"""Further packages for vLLM's OpenAI server, which is measured beside ours."""
OURS = """
    click googleapis-common-protos grpcio<1.84 grpcio-channelz<1.84 grpcio-health-checking<1.84 grpcio-reflection<1.84
    grpcio-status<1.84 markdown-it-py mdurl ngh2<0.4 prometheus-client protobuf pydantic-settings pygments
    python-dotenv rich uvloop
"""
"""The extras `server`, `http2` and `cli` of this distribution."""
LEFT_OUT = (
    "vllm/third_party/deep_gemm",
    "vllm/third_party/fmha_sm100",
    "vllm/vllm_flash_attn/_vllm_fa2_C*",
    "vllm/_moe_C*",
    "vllm/_flashmla*",
    "vllm/_qutlass*",
    "xgrammar/lib/*.a",
)
_PACK = 'set -o pipefail; tar -C "$0" -cf - . | xz -T0 -6 | split -b "$1" -d - "$2/"'
PLATFORMS = (
    *(f"manylinux_2_{minor}_x86_64" for minor in (5, 17, 24, 26, 27, 28, 31, 34, 35)),
    *("manylinux2014_x86_64", "manylinux1_x86_64", "any"),
)


def main() -> None:
    """Packs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("files", type=Path, nargs="*")
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    with tempfile.TemporaryDirectory() as work:
        wheels, site = Path(work, "wheels"), Path(work, "site")
        download(wheels)
        for wheel in sorted(wheels.glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(site)
        thin_out(site, LEFT_OUT)
        write_metadata(site)
        for file in arguments.files:
            (site / "files").mkdir(exist_ok=True)
            shutil.copy(file, site / "files")
        compress(site, folder)


def compress(site: Path, folder: Path) -> None:
    """Writes the parts into `folder`, replaces older ones, and prints their sizes."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("[0-9][0-9]"):
        old.unlink()
    subprocess.run(["bash", "-c", _PACK, str(site), str(PART_BYTES), str(folder)], check=True)
    for part in sorted(folder.glob("[0-9][0-9]")):
        print(f"{part} {part.stat().st_size / (1 << 20):.1f} MiB")


def download(folder: Path) -> None:
    """Downloads the wheels for the GPU machine. Our dependencies have the tested versions of constraints.txt."""
    ours = Path(__file__).parents[2] / "constraints.txt"
    for names, constraint in ((VLLM + OPENAI_SERVER, []), (OURS, ["--constraint", str(ours)])):
        subprocess.run(
            [
                *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"),
                *("--python-version=3.12", "--implementation=cp", "--abi=cp312", "--abi=abi3", "--abi=none"),
                *(f"--platform={platform}" for platform in PLATFORMS),
                *("--dest", str(folder), *constraint, *names.split()),
            ],
            check=True,
        )


def write_metadata(site: Path) -> None:
    """Writes the metadata of this distribution, in which the server finds its version. The code is in a checkout."""
    ours = metadata("doherty")
    folder = site / f"doherty-{ours['Version']}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(str(ours), encoding="utf-8")


def thin_out(site: Path, patterns: Iterable[str]) -> None:
    """Deletes unnecessary files, and makes vLLM's Rust front-end executable, because the wheel loses the mode."""
    for pattern in patterns:
        for path in list(site.glob(pattern)):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
    subprocess.run(
        ["find", str(site), "-name", "*.so*", "-type", "f", "-exec", "strip", "--strip-unneeded", "{}", "+"],
        check=False,
    )
    front_end = site / "vllm" / "vllm-rs"
    subprocess.run(["strip", str(front_end)], check=True)
    front_end.chmod(0o755)


if __name__ == "__main__":
    main()
