"""Text of unknown origin, made fit to be shown."""

from __future__ import annotations


def printable(text: object, keep: str = "") -> str:
    """Return ``text`` with everything that is no visible character or space as its escape (``\\\\x1b``).

    Names in files, folders and messages of others may hold orders to the terminal, line breaks, or marks that
    turn the direction of reading. Those in ``keep`` stay.
    """
    text = str(text)
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each in keep else ascii(each)[1:-1] for each in text)
