"""The documentation as data: its pages, their code, commands, links and sentences."""

import dataclasses
import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
_FENCE = re.compile(
    r"^```(\w*)(?: title=\"([^\"\n]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block: its language, the file it belongs into or "", and its text."""

    language: str
    title: str
    text: str


def blocks(page: Path, language: str) -> list[Block]:
    """Those in one language, in order."""
    found = [Block(*match) for match in _FENCE.findall(page.read_text())]
    return [block for block in found if block.language == language]


def prose(page: Path) -> str:
    """A page without its blocks."""
    return _FENCE.sub("", page.read_text())


def commands(page: Path) -> list[tuple[list[str], str]]:
    """The words of every command, without what sets its environment, and its comment."""
    found = []
    for block in blocks(page, "bash"):
        for line in block.text.replace("\\\n", " ").splitlines():
            code, _, comment = line.partition("  #")
            for command in code.split("&&"):
                words = shlex.split(command, comments=True)
                if words:
                    found.append((words, comment.strip()))
    return found


def anchors(page: Path) -> set[str]:
    """What a link can jump to: headings as GitHub names them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    kept = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in kept}


def links(page: Path) -> list[str]:
    """Targets of links and pictures."""
    text = prose(page)
    return re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text)


def sentences(page: Path) -> set[str]:
    """The sentences of a page that have eight words or more."""
    text = re.sub(r"^(#.*|\|.*)$", "", prose(page), flags=re.MULTILINE)
    paragraphs = [" ".join(part.split()) for part in text.split("\n\n")]
    found = {s for part in paragraphs for s in re.split(r"(?<=[.:;!?]) ", part)}
    return {sentence for sentence in found if len(sentence.split()) >= 8}
