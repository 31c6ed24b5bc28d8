# SPDX-License-Identifier: Apache-2.0
"""Measurements with real processes, each beside its floor: docs/benchmarks.md. Run by script/bench."""
