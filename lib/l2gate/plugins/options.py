# SPDX-License-Identifier: MIT
"""The section [l2gate] of avocado.cfg, registered from the one table of options."""

from __future__ import annotations

from avocado.core.plugin_interfaces import Init
from avocado.core.settings import settings

from l2gate.foundation.settings import OPTIONS, SECTION
from l2gate.hosts import kinds


class Options(Init):  # type: ignore[misc]
    name = "l2gate"
    description = "settings of l2gate"

    def initialize(self) -> None:
        for option in OPTIONS:
            settings.register_option(
                section=SECTION,
                key=option.name,
                default=option.default,
                help_msg=kinds.told(option.help),
            )
