"""The demo's webhooks: the receiver as a child process, and the ERP's side, which signs and sends."""

from __future__ import annotations

import base64
import json
import secrets
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import httpx
from standardwebhooks import Webhook

from demo.child import Child

SECRET_VARIABLE = "ERP_WEBHOOK_SECRET"  # noqa: S105 - its name
_START_TIMEOUT_S = 60.0
_LOOK_EVERY_S = 0.1


def new_secret() -> str:
    """A secret as Standard Webhooks writes it."""
    return f"whsec_{base64.b64encode(secrets.token_bytes(24)).decode()}"


class RunningReceiver(Child):
    """`sync-pipelines webhooks serve`.

    Args:
        folder: Where to start it.
        port: A free port of 127.0.0.1.
        environment: Its whole environment.
        log: The file that gets what it prints.
    """

    def __init__(self, folder: Path, port: int, environment: Mapping[str, str], log: Path) -> None:
        command = [sys.executable, "-m", "sync_pipelines.cli", "webhooks", "serve", "--port", str(port)]
        super().__init__(command, folder, environment, log)
        self.url = f"http://127.0.0.1:{port}"

    def wait_until_it_answers(self) -> None:
        """Waits until it takes deliveries.

        Raises:
            RuntimeError: It ended, or did not answer in a minute.
        """
        until = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < until:
            if self.has_ended():
                raise RuntimeError(f"the receiver ended at once; its last words:\n{self.last_lines()}")
            try:
                if httpx.get(f"{self.url}/readyz", timeout=5, trust_env=False).is_success:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(_LOOK_EVERY_S)
        raise RuntimeError(f"the receiver did not answer in {_START_TIMEOUT_S:g} s; see {self._log}")


def send_changed(url: str, secret: str, skus: Sequence[str]) -> list[int]:
    """Tells that products have changed, as the ERP would: one signed delivery for each.

    Args:
        url: Of the webhook.
        secret: What both sides know.
        skus: The products' codes; more than that the ERP does not say.

    Returns:
        The status codes of the answers.
    """
    signer = Webhook(secret)
    statuses = []
    with httpx.Client(timeout=30, trust_env=False) as client:
        for sku in skus:
            body, delivery, now = json.dumps({"type": "product.changed", "sku": sku}), str(uuid4()), datetime.now(UTC)
            headers = {
                "content-type": "application/json",
                "webhook-id": delivery,
                "webhook-timestamp": str(int(now.timestamp())),
                "webhook-signature": signer.sign(delivery, now, body),
            }
            statuses.append(client.post(url, content=body, headers=headers).status_code)
    return statuses
