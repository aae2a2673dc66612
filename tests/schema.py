"""Compares the JSON documents with docs/schema/."""

import json
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent.parent / "docs/schema"
FORMS = {
    "stages": "prove",
    "plan": "fix",
    "verdict": "doctor",
    "differences": "baseline",
    "inventory": "baseline-file",
    "checked": "status",
    "rules": "rules",
    "transactions": "history",
    "transaction": "undo",
}
"""By a key at the top of a document: the name of its schema. The first key that is there decides."""


def closed(schema: Any) -> Any:
    """The schema without its tolerance of unknown keys: a key that no schema describes is a defect here."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: closed(value) for key, value in schema.items()}
    return {"additionalProperties": False, **inner} if "properties" in schema else inner


@cache
def _validators() -> dict[str, Any]:
    from jsonschema import Draft202012Validator
    from referencing import Registry, Resource

    schemas = {path.stem: closed(json.loads(path.read_text())) for path in FOLDER.glob("*.json")}
    known: Registry[Any] = Registry().with_resources(
        (f"{name}.json", Resource.from_contents(schema)) for name, schema in schemas.items()
    )
    return {name: Draft202012Validator(schema, registry=known) for name, schema in schemas.items()}


def violations(document: dict[str, Any], form: str = "") -> list[str]:
    """Where a document differs from its schema, or from the named one."""
    form = form or next(FORMS[key] for key in FORMS if key in document)
    return [f"{form}: {error.json_path}: {error.message}" for error in _validators()[form].iter_errors(document)]
