# SPDX-License-Identifier: Apache-2.0
"""The reference panel: a small control panel that speaks the API of VMmanager 5."""
