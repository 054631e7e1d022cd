"""The conversation of a chat, which can be saved to a file."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from doherty import Message


@dataclass(slots=True)
class Conversation:
    """The messages so far."""

    model: str
    system: str | None
    """The instructions to the model; None is the deployment's."""
    turns: list[Message] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Writes all of it as Markdown, or as JSON with the messages as the SDK takes them.

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
