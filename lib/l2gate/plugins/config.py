# SPDX-License-Identifier: MIT
"""Makes Avocado read the checkout's avocado.cfg, whatever directory it is called from."""

from __future__ import annotations

from avocado.core.plugin_interfaces import Settings

from l2gate.foundation.settings import checkout


class ConfigPath(Settings):  # type: ignore[misc]
    """The last file that names a value wins: a user's own configuration may come after."""

    name = "l2gate"
    description = "reads avocado.cfg of the l2gate checkout"

    def adjust_settings_paths(self, paths: list[str]) -> None:
        ours = checkout() / "avocado.cfg"
        if ours.exists():
            paths.insert(0, str(ours))
