# SPDX-License-Identifier: MIT
"""The vendors that l2gate knows: a class each, and a line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from l2gate.foundation.errors import HelperError
from l2gate.vendors.svm import Svm
from l2gate.vendors.vendor import Vendor
from l2gate.vendors.vmx import Vmx

VENDORS: tuple[Vendor, ...] = (Vmx(), Svm())

FORMATS = tuple(vendor.format for vendor in VENDORS)
NAMES = tuple(vendor.name for vendor in VENDORS)
#: KVM's modules of each, as lsmod(8) names them.
MODULES = tuple(vendor.module for vendor in VENDORS)
#: What may stand in a case table's column `where`.
WHERES = tuple(dict.fromkeys(("any", *FORMATS, *(w for v in VENDORS for w in v.properties))))


def named(format_: str) -> Vendor:
    """The vendor with that format. Raises HelperError: only the helper tells of one."""
    for vendor in VENDORS:
        if vendor.format == format_:
            return vendor
    raise HelperError(f"the helper tells of a virtualization {format_!r}, which is none that "
                      f"l2gate knows ({', '.join(FORMATS)})")  # fmt: skip


def of_flags(flags: Mapping[str, Any]) -> Vendor | None:
    """The vendor whose virtualization a CPU has, by the flags of the helper's probe; None if it has
    none that is known."""
    return next((vendor for vendor in VENDORS if flags.get(vendor.format)), None)
