"""Fetches vLLM's front-end in Rust, with which this server is compared: `python benchmarks/transport/fetch_vllm.py`.

The program is one file in vLLM's wheel for Linux on x86-64. The wheel (340 MB) is downloaded into .cache/transport, the
program (60 MB) taken out of it, and the wheel deleted. Nothing is installed.
"""

import platform
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from transport_bench.build import CACHE, VLLM
from transport_bench.vllm import RELEASE

_MEMBER = "vllm/vllm-rs"


def main() -> None:
    """Downloads and unpacks, unless it is there."""
    if VLLM.exists():
        print(f"{VLLM} is there")
        return
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        sys.exit("vLLM's wheel with this program is for Linux on x86-64.")
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        _download(folder)
        (wheel,) = Path(folder).glob("vllm-*.whl")
        with zipfile.ZipFile(wheel) as members:
            program = Path(members.extract(_MEMBER, folder))
        program.chmod(0o755)
        program.rename(VLLM)
    print(f"{VLLM} is vLLM's front-end, release {RELEASE}")


def _download(folder: str) -> None:
    which = ["--platform=manylinux_2_28_x86_64", "--python-version=3.12", "--only-binary=:all:", "--no-deps"]
    command = [sys.executable, "-m", "pip", "download", *which, f"--dest={folder}", f"vllm=={RELEASE}"]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
