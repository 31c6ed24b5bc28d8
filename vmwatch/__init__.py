# SPDX-License-Identifier: Apache-2.0
"""Tells a hosting control panel, at once and truthfully, what every virtual machine of its cluster is doing."""

__version__ = "0.1.0"
