"""A configuration as a tracker shows it: dotted keys, and nothing that is secret."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from dtp_dist.loggers.base import Parameters
from dtp_dist.text.dotted import flat

CONCEALED = "(concealed)"
LONGEST = 500
"""Characters of a value: what every version of MLflow takes."""

_WORDS = "token|secret|password|passwd|passphrase|credentials?|auth|(?:api|access|private|secret)_?key"
_SECRET_KEY = re.compile(rf"(?:^|[._-])(?:{_WORDS})(?:$|[._-])", re.IGNORECASE)
_SECRET_NAME = re.compile(rf"(?:^|_)(?:{_WORDS}|key)(?:$|_)", re.IGNORECASE)
_USER = re.compile(r"(?<=://)[^/@\s]+@")
_SHORTEST = 6
"""Characters of what may be looked for within other texts."""


def parameters_of(
    config: Mapping[str, Any], environment: Mapping[str, str], conceal: Callable[[str], str]
) -> Parameters:
    """Return a nested configuration's values by dotted key, those alone that are set.

    Secrets are concealed: values of keys that are called so (``token``, ``password``, ``api_key``), what an
    environment variable holds that is called so, user names and passwords in addresses, and what ``conceal``
    takes out of a text.
    """
    secrets = {
        value: name
        for name, value in environment.items()
        if len(value) >= _SHORTEST and _SECRET_NAME.search(name)
    }
    found: dict[str, str | int | float | bool] = {}
    for key, value in flat(dict(config)).items():
        if value is None:
            continue
        if _SECRET_KEY.search(key):
            found[key] = CONCEALED
        elif isinstance(value, bool | int | float):
            found[key] = value
        else:
            text = value if isinstance(value, str) else json.dumps(value)
            for secret, name in secrets.items():
                text = text.replace(secret, f"${{{name}}}")
            found[key] = _cut(_USER.sub(f"{CONCEALED}@", conceal(text)))
    return found


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
