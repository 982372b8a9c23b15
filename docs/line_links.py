"""Write the line of each function, class and method into the links of the pages that point to them.

    uv run --all-extras python docs/line_links.py

Such a link is [`danet/model/attention.py:PositionAttention.forward`](../danet/model/attention.py#L57).
"""

import ast
import re
from pathlib import Path

DOCS = Path(__file__).parent
LINK = re.compile(r"\[`([\w/]+\.py):([\w.]+)`\]\([^)]*\)")


def line_of(file: Path, name: str) -> int:
    """Return the line on which a function, a class, a method "Class.method" or a constant is defined.

    Raises:
        LookupError: the file has no such definition.
    """
    node: ast.AST = ast.parse(file.read_text())
    for part in name.split("."):
        found = [child for child in ast.iter_child_nodes(node) if part in _names(child)]
        if not found:
            raise LookupError(f"{file}: {name} is not defined")
        node = found[0]
    assert isinstance(node, ast.stmt)
    return node.lineno


def updated(text: str) -> str:
    """Return the text of a page with the current lines in its links."""

    def link(match: re.Match[str]) -> str:
        file, name = match.groups()
        return f"[`{file}:{name}`](../{file}#L{line_of(DOCS.parent / file, name)})"

    return LINK.sub(link, text)


def _names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


if __name__ == "__main__":
    for page in sorted(DOCS.glob("*.md")):
        page.write_text(updated(page.read_text()))
