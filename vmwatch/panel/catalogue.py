# SPDX-License-Identifier: Apache-2.0
"""All functions of the API, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vmwatch.panel import (
    functions,
    installation_functions,
    node_functions,
    policy_functions,
    problem_functions,
    service_functions,
    statistics_functions,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vmwatch.panel.call import Function

FUNCTIONS: Final[Mapping[str, Function]] = {
    **functions.FUNCTIONS,
    **installation_functions.FUNCTIONS,
    **node_functions.FUNCTIONS,
    **policy_functions.FUNCTIONS,
    **problem_functions.FUNCTIONS,
    **service_functions.FUNCTIONS,
    **statistics_functions.FUNCTIONS,
}
