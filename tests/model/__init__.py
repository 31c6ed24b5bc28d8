# SPDX-License-Identifier: Apache-2.0
"""The protocol as an explicit-state model: every interleaving within bounds. See docs/decisions/0003."""
