"""Generates client/doherty/v1 and the descriptor set for Envoy; with --check, only tells whether they are fresh.

Runs in an environment of its own (`make proto`): grpcio-tools 1.71.2 makes code that every protobuf from 5.29 to 7
loads, and is itself held to protobuf 5.
"""

import filecmp
import shutil
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

PROTO = Path(__file__).parent
PACKAGE = Path("doherty/v1")
TARGET = PROTO.parent / "client" / PACKAGE
DESCRIPTORS = PROTO.parent / "deploy" / "envoy" / "doherty.binpb"
INIT = '"""Generated from proto/doherty/v1 by `make proto`: the messages and stubs of the API. Do not edit."""\n'


def generate(out: Path) -> None:
    """Writes the package doherty.v1 and the descriptor set below `out`; exits where protoc does not succeed."""
    sources = sorted(str(path.relative_to(PROTO)) for path in (PROTO / PACKAGE).glob("*.proto"))
    run_protoc(*(f"--{plugin}_out={out}" for plugin in ("python", "grpc_python", "mypy", "mypy_grpc")), *sources)
    # Who turns errors into JSON has to know their details as well.
    written = f"--descriptor_set_out={out / DESCRIPTORS.name}"
    run_protoc(written, "--include_imports", *sources, "google/rpc/error_details.proto")
    package = out / PACKAGE
    package.joinpath("__init__.py").write_text(INIT)
    for stub in package.glob("*_pb2_grpc.py*"):
        # A file without a service gives an empty gRPC stub that only a reader would stumble over.
        if "Stub" not in stub.read_text():
            stub.unlink()


def run_protoc(*arguments: str) -> None:
    """Runs protoc."""
    includes = [f"-I{folder}" for folder in (PROTO, files("grpc_tools") / "_proto")]
    if protoc.main(["protoc", *includes, *arguments]) != 0:
        sys.exit("protoc failed")


def names(folder: Path) -> set[str]:
    """The names of the generated files in `folder`."""
    return {path.name for path in folder.glob("*.py*")}


def main() -> None:
    """Generates, and replaces or compares."""
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        made, made_descriptors = Path(scratch) / PACKAGE, Path(scratch) / DESCRIPTORS.name
        if "--check" not in sys.argv[1:]:
            shutil.rmtree(TARGET, ignore_errors=True)
            shutil.copytree(made, TARGET)
            shutil.copyfile(made_descriptors, DESCRIPTORS)
            return
        _, changed, missing = filecmp.cmpfiles(made, TARGET, names(made) | names(TARGET), shallow=False)
        if made_descriptors.read_bytes() != DESCRIPTORS.read_bytes():
            changed.append(DESCRIPTORS.name)
        if changed or missing:
            sys.exit(f"stale, run `make proto`: {', '.join(sorted(changed + missing))}")


if __name__ == "__main__":
    main()
