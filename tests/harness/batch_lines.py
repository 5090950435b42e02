"""Lines of a batch's input."""

import json
from typing import Any

ENDPOINT = "/v1/chat/completions"
BODY: dict[str, Any] = {"model": "k2think", "messages": [{"role": "user", "content": "What is 1 + 1?"}]}


def line(custom_id: Any = "a", **fields: Any) -> dict[str, Any]:
    """A good line, or one that is not for the fields that are given."""
    return {"custom_id": custom_id, "method": "POST", "url": ENDPOINT, "body": BODY, **fields}


def raw(*lines: dict[str, Any]) -> bytes:
    """The lines as a file has them."""
    return b"".join(json.dumps(item).encode() + b"\n" for item in lines)
