"""Pasted text as the program printed it: without the marks of the page, the terminal and the mail that it went through."""

import html
import re

from dlhealth.lazy import regex

_BYTE_ORDERS = ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"), (b"\xef\xbb\xbf", "utf-8-sig"))
_TERMINAL = regex(
    r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[()][A-Z0-9]"
    # Colors whose escape character was lost on the way.
    r"|\[(?:0|0?1|[39][0-7])?(?:;\d{1,3})*m(?=[^\s\]]|$)",
    re.MULTILINE,
)
_BLOCKS = regex(
    r"</?(?:pre|p|div|blockquote|li|ul|ol|h[1-6]|details|summary|table|tr|br)(?: [^<>\n]*)?/?>", re.IGNORECASE
)
_INLINE = regex(r"</?(?:code|span|a|em|strong|b|i|tt|kbd|td|th|tbody)(?: [^<>\n]*)?>", re.IGNORECASE)
_ENTITIES = regex(r"&(?:lt|gt|amp|quot|nbsp|#\d{1,4}|#x[0-9a-f]{1,4});", re.IGNORECASE)
_QUOTED = regex(r"^(?:> ?)+(?=\S)", re.MULTILINE)
_PARAGRAPH = regex(r"(?:^(?: {4}|\t).*\n?)+", re.MULTILINE)
_OF_A_BUILD = regex(
    r"^(?:#\d+ \d+\.\d+ |(?:\d{4}-\d\d-\d\dT\S+: )?==> [\w-]+\.[\w-]+: |\d{4}-\d\d-\d\dT[\d:.]{8,18}Z (?!\S+ (?:kernel|[\w.@/-]+\[\d+\]): ))",
    re.MULTILINE,
)
"""What docker build, Packer and GitHub Actions write before each line."""
_LIMIT = 4 << 20
"""Characters. Nobody pastes more; a longer text is a log that was saved as a file."""


def decode(content: bytes) -> str:
    """The text of a file in the encoding that its first bytes show."""
    order = next((name for mark, name in _BYTE_ORDERS if content.startswith(mark)), "")
    if not order and content[1:400:2].count(0) > 100:
        order = "utf-16-le"
    return content.decode(order or "utf-8", errors="replace")


def plain(text: str) -> str:
    """A text without the marks of terminals, web pages, mails and Markdown. Fences of code blocks stay: they end an
    output."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\u00a0", " ").replace("\u200b", "")
    if "\x1b" in text or ("[0m" in text and len(text) < _LIMIT):
        text = _TERMINAL.sub("", text)
    if len(text) > _LIMIT:
        return text
    if "</" in text:
        text = _INLINE.sub("", _BLOCKS.sub("\n", text))
    if _ENTITIES.search(text):
        text = html.unescape(text)
    text = _OF_A_BUILD.sub("", text)
    if len(_QUOTED.findall(text)) > 2:
        text = _QUOTED.sub("", text)
    return _without_indent(text)


def _without_indent(text: str) -> str:
    """Markdown's other way to mark code: paragraphs that are indented as a whole, and follow an empty line."""
    parts, end = [], 0
    for match in _PARAGRAPH.finditer(text):
        before = text[: match.start()].rstrip(" \t") if match.start() < 3 else text[match.start() - 2 : match.start()]
        if before not in ("", "\n", "\n\n"):
            continue
        parts += [text[end : match.start()], re.sub(r"^(?: {4}|\t)", "", match[0], flags=re.MULTILINE)]
        end = match.end()
    return "".join([*parts, text[end:]]) if parts else text
