r"""Packs vLLM 0.33, torch 2.14 and what they need into parts for a GPU machine that reaches no package index.

`python benchmarks/gpu/pack_with_torch.py FOLDER` writes FOLDER/00, FOLDER/01, ...: an archive of 360 MB in parts of at
most 52 MiB. It takes ten minutes and 15 GB in the folder for temporary files. On the other machine, in a checkout,

    mkdir -p SITE && cat PARTS/* | xz -T0 -dc | tar -C SITE -xf -
    for folder in OLD/nvidia/*; do ln -sn $folder SITE/nvidia/; done
    export LD_LIBRARY_PATH=$(ls -d OLD/nvidia/*/lib | tr '\n' ':')
    export PYTHONPATH=SITE:$PWD/client:$PWD/engine:$PWD/service VLLM_USE_FLASHINFER_SAMPLER=0 HF_HUB_OFFLINE=1

where OLD is the folder of packages in which that machine has another torch for CUDA 13: cuBLAS, cuDNN and the other
libraries of CUDA come from there. Made for the same machine as pack.py. FlashInfer, CuTe and the other packages of
vLLM with kernels of their own are left out, and of torch and NCCL the code for other GPUs than Hopper.
"""

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

from _fatbin import empty_other_architectures
from pack import OURS, compress, thin_out, write_metadata

HOPPER = 90
REQUIREMENTS = ("vllm==0.33.0", "gguf", "nvidia-modelopt==0.47.0")
ALREADY_THERE = """
    numpy numpy.libs transformers sympy networkx mpmath pillow PIL pillow.libs huggingface_hub tokenizers safetensors
    regex jinja2 markupsafe psutil requests urllib3 certifi pyyaml yaml packaging filelock fsspec tqdm einops setuptools
    hf_xet pygments sentencepiece tiktoken idna charset_normalizer
"""
"""Packages that the image of the GPU machine has in versions that vLLM 0.33 accepts."""
NOT_LOADED = """
    flashinfer nvidia_cutlass_dsl tokenspeed_triton tokenspeed_mla tilelang llvmlite numba cudnn cuda z3 cv2
    opencv_python_headless.libs PyNvVideoCodec torchcodec torchcodec.libs torchaudio nccl instanttensor fastsafetensors
    pip cryptography sentry_sdk quack samples humming
"""
"""Packages and libraries that a dense model in FP8 with FlashAttention 3 does not load."""
LEFT_OUT = (
    *("vllm/third_party/deep_gemm", "vllm/third_party/fmha_sm100", "vllm/vllm_flash_attn/_vllm_fa2_C*"),
    *("vllm/_moe_C*", "vllm/_flashmla*", "vllm/_qutlass*", "vllm/_flashkda*", "vllm/_deepselect*", "xgrammar/lib/*.a"),
    *("torch/include", "torch/share", "torch/test", "torch/lib/*.a", "torch/lib/libtorch_cuda_linalg.so"),
    *("torch/bin/protoc*", "triton/backends/amd/lib/*", "triton/backends/nvidia/lib/cupti*/*.a"),
    *("triton/backends/nvidia/lib/cupti-blackwell", "triton/backends/nvidia/bin/*-blackwell", "triton/instrumentation"),
    *("mistral_common/data/tekken*", "**/__pycache__"),
)
FOR_ALL_GPUS = ("torch/lib/libtorch_cuda.so", "nvidia/nccl/lib/libnccl.so.2", "vllm/_C_stable_libtorch.abi3.so")


def main() -> None:
    """Packs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--python", default="python3.12", help="an interpreter of CPython 3.12 with venv")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        installed, site = install(arguments.python, Path(work, "environment")), Path(work, "site")
        take_along(installed, site)
        for name in FOR_ALL_GPUS:
            empty_other_architectures(site / name, HOPPER)
        thin_out(site, LEFT_OUT)
        write_metadata(site)
        compress(site, arguments.folder)


def install(python: str, environment: Path) -> Path:
    """Installs the packages, and returns their folder."""
    subprocess.run([python, "-m", "venv", environment], check=True)
    pip = [str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, *REQUIREMENTS], check=True)
    # grpcio in the version that our tests run with; vLLM does not need it.
    constraints = Path(__file__).parents[2] / "constraints.txt"
    subprocess.run([*pip, "--no-deps", "--constraint", str(constraints), *OURS.split()], check=True)
    (packages,) = environment.glob("lib/python3.12/site-packages")
    return packages


def take_along(installed: Path, site: Path) -> None:
    """Copies the packages that the GPU machine lacks."""
    site.mkdir()
    unwanted = {name.lower() for name in (ALREADY_THERE + NOT_LOADED).split()}
    for path in installed.iterdir():
        name = path.name.split("-")[0] if path.suffix == ".dist-info" else path.name
        if name.lower() in unwanted or name == "nvidia":
            continue
        if path.is_dir():
            shutil.copytree(path, site / path.name)
        else:
            shutil.copy(path, site)
    shutil.copytree(installed / "nvidia" / "nccl", site / "nvidia" / "nccl")


if __name__ == "__main__":
    main()
