"""JSON documents for programs."""

import json
from typing import Any


def dump(document: dict[str, Any]) -> str:
    """The text of a document, with a newline at its end. ASCII only: bytes of a file that are not UTF-8 are surrogates
    here, which JSON cannot contain, so they become question marks."""
    sound = json.dumps(document, ensure_ascii=False).encode(errors="replace")
    return json.dumps(json.loads(sound), indent=2) + "\n"
