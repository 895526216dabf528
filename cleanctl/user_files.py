"""What a person wrote in a TOML or JSON file → a typed record, or an InputError that names each wrong field.

The record is a dataclass whose annotations say type and range (`Annotated[int, Field(ge=1)]`); pydantic checks it.
"""

from __future__ import annotations

import json
import tomllib
from typing import Any, TypeVar

from cleanctl.errors import InputError

Record = TypeVar("Record")


def read_toml(what: str, text: str) -> dict[str, Any]:
    """The values of a TOML document; InputError that begins with `what` where it is none."""
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as exc:
        raise InputError(f"{what} is not valid TOML: {exc}") from exc


def checked(what: str, values: Any, record: type[Record]) -> Record:
    """`values` (tables, lists, numbers, text) as a `record`; nothing is converted but whole numbers to fractions.

    what: begins the message, e.g. "The recipe mine.toml". Raises InputError with the fields that are wrong or unknown,
    their values, and what is allowed.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        # As JSON, because strict checks take lists for tuples and tables for records there.
        text = json.dumps(values, default=str).encode()
        return TypeAdapter(record).validate_json(text, strict=True)
    except ValidationError as exc:
        fields = TypeAdapter(record).json_schema().get("properties", {})
        wrong = [_told(error, fields) for error in exc.errors(include_url=False)]
    except RecursionError as exc:
        raise InputError(f"{what} is nested too deeply.") from exc
    raise InputError(
        f"{what}: {'; '.join(wrong[:5])}{' …' if len(wrong) > 5 else ''}.",
        do=f"Its keys are: {', '.join(sorted(fields))}." if fields else "",
    )


def _told(error: Any, fields: dict[str, Any]) -> str:
    place = ".".join(str(part) for part in error["loc"])
    if error["type"] == "missing":
        return f"{place} is missing"
    if error["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"the key {place} is unknown"
    if error["type"] == "json_invalid":
        deep = "recursion" in str(error["msg"])
        return "it is nested too deeply" if deep else "it holds text that is not valid Unicode"
    value = repr(error["input"])
    allowed = _allowed(fields.get(place.partition(".")[0], {})) or str(error["msg"]).removeprefix("Value error, ")
    return f"{place or 'it'} is {value if len(value) <= 60 else value[:57] + '...'}; allowed: {allowed}"


def _allowed(schema: dict[str, Any]) -> str:
    """A field's JSON schema in words: its type, and its range where it has one."""
    if "enum" in schema:
        return "one of " + ", ".join(map(str, schema["enum"]))
    if schema.get("type") == "array":
        items: dict[str, Any] = schema.get("items") or next(iter(schema.get("prefixItems", ())), {})
        count = f" of {schema['maxItems']} values" if "maxItems" in schema else ""
        return f"a list{count}, each {_allowed(items)}"
    if schema.get("type") == "object":
        return f"a table, each value {_allowed(schema.get('additionalProperties') or {})}"
    words = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "string": "text"}
    bounds = (("from", "minimum"), ("above", "exclusiveMinimum"), ("to", "maximum"), ("below", "exclusiveMaximum"))
    limits = [f"{word} {schema[key]:,g}" for word, key in bounds if key in schema]
    return " ".join([words.get(schema.get("type", ""), ""), *limits]).strip()
