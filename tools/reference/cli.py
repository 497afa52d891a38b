"""docs/reference/cli.md, from the command line itself."""

from __future__ import annotations

from fabstir.cli.app import root

INTRODUCTION = """\
Every command takes `--json`: one JSON object on stdout and nothing else, an error too (`{"error": {"code": ...}}`). Without it errors go to
stderr with their code and the next step. Exit codes: 0 done, 1 an error with a code, 2 wrong usage, 130 interrupted."""


def render() -> str:
    """The page: every command with its options, from its own help."""
    page = root().generate_docs(output_format="markdown")
    heading, _, rest = page.partition("\n")
    return f"{heading}\n\n{INTRODUCTION}\n{rest}"
