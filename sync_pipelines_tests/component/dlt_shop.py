"""A dlt source and a resource, as a project has them."""

from __future__ import annotations

from typing import Any

import dlt


def articles(count: int) -> Any:
    return dlt.resource([{"sku": f"A-{number}"} for number in range(count)], name="articles")


@dlt.source
def shop() -> Any:
    return [dlt.resource([{"order": 1}], name="orders"), dlt.resource([{"customer": 1}], name="customers")]
