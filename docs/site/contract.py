"""The reference of the contract as Markdown, from the comments of the proto files."""

from collections.abc import Iterator, Sequence
from typing import Final

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)

_PACKAGE: Final = "doherty.v1"
# The numbers of fields in descriptor.proto, of which the paths of comments consist.
_FILE_MESSAGE, _FILE_ENUM, _FILE_SERVICE, _MESSAGE_FIELD, _ENUM_VALUE, _SERVICE_METHOD = 4, 5, 6, 2, 2, 2


def write_reference(descriptors: FileDescriptorSet) -> str:
    """The page: services, then messages and enums, by their files."""
    files = [file for file in descriptors.file if file.package == _PACKAGE]
    files.sort(key=lambda file: not file.service)
    return "\n\n".join(["# The contract doherty.v1", *(part for file in files for part in _File(file).parts())]) + "\n"


class _File:
    """One proto file and its comments."""

    def __init__(self, file: FileDescriptorProto) -> None:
        self._file = file
        self._comments = {
            tuple(location.path): location.leading_comments for location in file.source_code_info.location
        }

    def parts(self) -> Iterator[str]:
        """Everything of the file."""
        for index, service in enumerate(self._file.service):
            yield from self._service(service, (_FILE_SERVICE, index))
        for index, message in enumerate(self._file.message_type):
            yield from self._message(message, (_FILE_MESSAGE, index))
        for index, enum in enumerate(self._file.enum_type):
            yield from self._enum(enum, (_FILE_ENUM, index))

    def _service(self, service: ServiceDescriptorProto, path: tuple[int, ...]) -> Iterator[str]:
        yield f"## {service.name}"
        yield self._comment(path)
        for index, method in enumerate(service.method):
            yield f"### {service.name}.{method.name}"
            request = f"{'stream ' * method.client_streaming}{_reference(method.input_type)}"
            reply = f"{'stream ' * method.server_streaming}{_reference(method.output_type)}"
            yield f"{request} → {reply}"
            yield self._comment((*path, _SERVICE_METHOD, index))

    def _message(self, message: DescriptorProto, path: tuple[int, ...]) -> Iterator[str]:
        yield f"## {message.name}"
        yield self._comment(path)
        fields = [
            (f"`{field.name}`", str(field.number), _type(field), self._comment((*path, _MESSAGE_FIELD, index)))
            for index, field in enumerate(message.field)
        ]
        if fields:
            yield _table(("field", "number", "type", "meaning"), fields)

    def _enum(self, enum: EnumDescriptorProto, path: tuple[int, ...]) -> Iterator[str]:
        yield f"## {enum.name}"
        yield self._comment(path)
        values = [
            (f"`{value.name}`", str(value.number), self._comment((*path, _ENUM_VALUE, index)))
            for index, value in enumerate(enum.value)
        ]
        yield _table(("value", "number", "meaning"), values)

    def _comment(self, path: tuple[int, ...]) -> str:
        lines = self._comments.get(path, "").splitlines()
        return "\n".join(line.removeprefix(" ") for line in lines).strip()


def _type(field: FieldDescriptorProto) -> str:
    name = _reference(field.type_name) if field.type_name else FieldDescriptorProto.Type.Name(field.type)[5:].lower()
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return f"repeated {name}"
    return f"optional {name}" if field.proto3_optional else name


def _reference(type_name: str) -> str:
    """A link to a type of ours; the name of another one."""
    name = type_name.removeprefix(f".{_PACKAGE}.")
    return f"`{name[1:]}`" if name.startswith(".") else f"[{name}](#{name.lower()})"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; comments of several paragraphs stay in their cell."""
    lines = [header, ["---"] * len(header), *rows]
    cells = ([cell.replace("|", "\\|").replace("\n\n", "<br>").replace("\n", " ") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)
