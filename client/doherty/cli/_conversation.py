"""The conversation of a chat, which can be saved to a file and loaded from one."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from doherty import Message


@dataclass(slots=True)
class Conversation:
    """The messages so far."""

    model: str
    system: str | None
    """The instructions to the model; None is the deployment's."""
    turns: list[Message] = field(default_factory=list)
    unanswered: str | None = None
    """The last question, if no part of an answer to it was received."""
    parameters: dict[str, Any] = field(default_factory=dict)
    """The parameters that were set for the next answers, by their names in the SDK."""
    _taken_back: list[Message] | None = None
    """The last question and its answer while another answer is awaited."""

    def add(self, question: str, answer: str) -> None:
        """Adds a question and the received part of its answer.

        A question without any answer is not a turn: many chat templates refuse two questions in a row.
        """
        taken_back, self._taken_back = self._taken_back, None
        if answer:
            self.turns += (Message("user", question), Message("assistant", answer))
            self.unanswered = None
        elif taken_back:
            self.turns += taken_back
        else:
            self.unanswered = question

    @property
    def last_question(self) -> str | None:
        """Returns the last question, whether it was answered or not."""
        if self.unanswered is not None:
            return self.unanswered
        return next((turn.content for turn in reversed(self.turns) if turn.role == "user"), None)

    def take_back(self) -> None:
        """Removes the last question and the answer to it. They are restored if there is no other answer."""
        if self.unanswered is None:
            questions = [place for place, turn in enumerate(self.turns) if turn.role == "user"]
            last = questions[-1] if questions else 0
            self._taken_back = self.turns[last:]
            del self.turns[last:]
        self.unanswered = None

    def clear(self) -> None:
        """Removes all messages; the instructions and the parameters stay."""
        self.turns.clear()
        self.unanswered = None

    def save(self, path: Path) -> None:
        """Writes everything as Markdown, or as JSON with the messages in the format of the SDK.

        Raises:
            OSError: The file cannot be written.
            ValueError: Its suffix is neither .md nor .json.
        """
        match path.suffix.lower():
            case ".md":
                text = self._markdown()
            case ".json":
                text = self._json()
            case _:
                raise ValueError(f"{path}: a conversation is saved as .md or .json")
        path.write_text(text, encoding="utf-8")

    def load(self, path: Path) -> None:
        """Replaces the messages by those of a JSON file, and the instructions if the file has some.

        Raises:
            OSError: The file cannot be read.
            ValueError: It is not a conversation.
        """
        messages = read_messages(path)
        if messages[0].role == "system":
            self.system = messages.pop(0).content
        self.turns, self.unanswered = messages, None

    def _markdown(self) -> str:
        parts = [f"# A conversation with {self.model}"]
        if self.system is not None:
            parts += ["## Instructions", self.system]
        for turn in self.turns:
            parts += ["## You" if turn.role == "user" else f"## {self.model}", turn.content]
        return "\n\n".join(parts) + "\n"

    def _json(self) -> str:
        conversation = {"model": self.model, "system": self.system, "messages": [asdict(turn) for turn in self.turns]}
        return json.dumps(conversation, ensure_ascii=False, indent=2) + "\n"


def read_messages(path: Path) -> list[Message]:
    """Reads a conversation from JSON: a list of messages, or an object that `Conversation.save` wrote.

    The instructions of such an object are the first message.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not a conversation.
    """
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            return parse_messages(content)
        messages = parse_messages(content.get("messages"))
        system = content.get("system")
        return messages if system is None else [Message("system", parse_text(system)), *messages]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a conversation in JSON: {error}") from error


def parse_messages(value: Any) -> list[Message]:
    """Returns the messages in a list of objects with "role" and "content". Other fields are ignored.

    Raises:
        TypeError: It is not such a list.
        ValueError: There is no such role, or a text cannot be sent.
    """
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise TypeError('"messages" is not a list of messages')
    return [_parse_message(message) for message in value]


def _parse_message(message: Any) -> Message:
    if not isinstance(message, dict) or not {"role", "content"} <= set(message):
        raise TypeError('a message has "role" and "content"')
    return Message(message["role"], parse_text(message["content"]))


def parse_text(value: Any) -> str:
    """Returns a text that can be sent.

    Raises:
        TypeError: It is not a text.
        ValueError: It has half of a surrogate pair.
    """
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a text")
    value.encode()  # JSON can escape half a character, which cannot be sent
    return value
