"""The contract does not break."""

import hashlib
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.rpc import error_details_pb2, status_pb2

ROOT = Path(__file__).parents[2]
BASELINE = ROOT / "proto" / "baseline.binpb"


def breaking(proto: Path) -> subprocess.CompletedProcess[str]:
    """Compares the proto files in a folder with the baseline, as `make check` does."""
    command = [f"{sysconfig.get_path('scripts')}/buf", "breaking", str(proto), "--against", str(BASELINE)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_baseline_moves_only_with_a_changelog_line() -> None:
    expected = f"Contract baseline: sha256 {hashlib.sha256(BASELINE.read_bytes()).hexdigest()}"
    lines = (ROOT / "CHANGELOG.md").read_text().splitlines()
    recorded = [line for line in lines if "Contract baseline:" in line]
    assert recorded[:1] == [f"- {expected}"], "the newest CHANGELOG entry must say that the baseline moved, and why"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("optional string prompt = 3;", "optional string prompt = 30;"),
        ("optional uint32 top_k = 3;", "optional int32 top_k = 3;"),
        ("  ROLE_ASSISTANT = 3;", ""),
    ],
)
def test_a_breaking_change_is_refused(tmp_path: Path, old: str, new: str) -> None:
    proto = tmp_path / "proto"
    shutil.copytree(ROOT / "proto", proto)
    assert breaking(proto).returncode == 0
    source = proto / "doherty" / "v1" / "request.proto"
    text = source.read_text()
    assert old in text
    source.write_text(text.replace(old, new))
    assert "request.proto" in breaking(proto).stdout


def test_the_copied_googleapis_files_are_unchanged() -> None:
    shipped = FileDescriptorSet.FromString((ROOT / "deploy" / "envoy" / "doherty.binpb").read_bytes())
    pool = DescriptorPool()
    for file in shipped.file:
        pool.AddSerializedFile(file.SerializeToString())
    for original in (status_pb2.DESCRIPTOR, error_details_pb2.DESCRIPTOR):
        assert contents(pool.FindFileByName(original.name)) == contents(original)


def contents(file: FileDescriptor) -> str:
    """Returns a file as text, without the JSON names, which only some generators write."""
    copy = FileDescriptorProto()
    file.CopyToProto(copy)
    return re.sub(r" *json_name: .*\n", "", str(copy))
