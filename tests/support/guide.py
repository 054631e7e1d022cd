"""The code in docs/sdk.md."""

import re
from pathlib import Path
from typing import Final

GUIDE: Final = Path(__file__).parents[2] / "docs" / "sdk.md"


def blocks(language: str) -> list[str]:
    """Returns the code blocks in a language."""
    return re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text(), re.DOTALL)


def program() -> str:
    """Returns all Python of the page as one program. Its lines keep the numbers that they have on the page."""
    lines: list[str] = []
    is_code = False
    for line in GUIDE.read_text().splitlines():
        if line.startswith("```"):
            is_code = line == "```python"
        lines.append(line if is_code and not line.startswith("```") else "")
    return "\n".join(lines) + "\n"
