# SPDX-License-Identifier: Apache-2.0
"""Makes the secret that all services of a cluster share."""

from __future__ import annotations

import secrets
import string
from typing import Final

LENGTH: Final = 32
"""Characters, each one of 36: 165 bits."""


def make() -> str:
    """A new secret for the `secret` parameter of both services."""
    return "".join(secrets.choice(string.ascii_uppercase + string.digits) for _ in range(LENGTH))
