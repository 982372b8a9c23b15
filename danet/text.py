"""Read text that other programs wrote, and write text that other programs read."""

import codecs
import shlex
from pathlib import Path

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def decode_text(content: bytes, errors: str = "strict") -> str:
    """Decode a user's text: UTF-8, or UTF-16 with a byte order mark, as some Windows programs write it.

    Raises:
        ValueError: it is in another encoding; the message is one line.
    """
    encoding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        return content.decode(encoding, errors)
    except UnicodeDecodeError as error:
        raise ValueError(f"not {encoding.upper().removesuffix('-SIG')} text (byte {error.start})") from error


def shell_path(path: Path) -> str:
    """Return a path as it is typed in a shell: quoted if necessary, and not read as an option."""
    text = str(path)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


def csv_text(text: str) -> str:
    """Return a text for a cell of a CSV file. What a spreadsheet would run as a formula begins with an apostrophe."""
    return f"'{text}" if text.startswith(_FORMULA) else text
