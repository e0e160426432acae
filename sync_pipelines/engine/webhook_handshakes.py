"""What senders ask when a webhook is set up: pings, challenges and validation tokens, and the declared answers."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from sync_pipelines.engine.webhook_signatures import Secrets, is_header, problems_of_secrets

METHODS = ("POST", "GET", "HEAD", "OPTIONS")
PLACE = re.compile(r"(query|header|form|body):(.+)")
"""Where a value of a request is, e.g. `query:hub.challenge`."""


@dataclass(frozen=True, kw_only=True)
class Handshake:
    """A request by which a sender makes sure that a webhook is there, and the answer that it wants.

    Nothing is stored of it, and all that its sender gets is its own value back: whatever is to be applied needs the
    webhook's signature. There are ready ones: `Handshake.woocommerce()`, `.slack()`, `.microsoft_graph()`,
    `.meta(...)`, `.event_grid()`, `.cloud_events()`, `.dropbox()`, `.asana()`, `.okta()`, `.trello()`, `.github()`.

    A place in a request is `query:NAME`, `header:NAME`, `form:NAME` or `body:PATH`, a path into the JSON such as
    `body:data.code` or `body:0.data.code`.

    Args:
        method: `"POST"`, `"GET"`, `"HEAD"` or `"OPTIONS"`.
        when: What the request is known by: what these places hold, None for whatever it is. A form has no other fields.
        echo: The place whose value is sent back; None: the answer has no body.
        answer: Makes the answer of that value: text, or a mapping that is sent as JSON. By default the value as text.
        headers: Headers of the answer, each with the place whose value it gets.
        secrets: Names of the environment variables that hold the token that such a request must have.
        secret_in: The place of the token.
        signed: True if the sender signs it like its deliveries: without a good signature there is no answer.
    """

    method: Literal["POST", "GET", "HEAD", "OPTIONS"]
    when: Mapping[str, str | None] = field(default_factory=dict)
    echo: str | None = None
    answer: Callable[[str], Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    secrets: Secrets | None = None
    secret_in: str | None = None
    signed: bool = False

    @classmethod
    def woocommerce(cls) -> Self:
        """Declares WooCommerce's ping when a webhook is set up: a form with its `webhook_id`, which nobody signs.

        Source:
            https://github.com/woocommerce/woocommerce, `WC_Webhook::deliver_ping`
        """
        return cls(method="POST", when={"form:webhook_id": None})

    @classmethod
    def slack(cls) -> Self:
        """Declares Slack's `url_verification`, which is signed as its events are.

        Source:
            https://api.slack.com/events/url_verification
        """
        return cls(method="POST", when={"body:type": "url_verification"}, echo="body:challenge", signed=True)

    @classmethod
    def microsoft_graph(cls) -> Self:
        """Declares the `validationToken` of Microsoft Graph.

        Source:
            https://learn.microsoft.com/en-us/graph/change-notifications-delivery-webhooks
        """
        return cls(method="POST", when={"query:validationToken": None}, echo="query:validationToken")

    @classmethod
    def meta(cls, secrets: Secrets) -> Self:
        """Declares Meta's `hub.challenge` (Facebook, Instagram, WhatsApp), with the token that was agreed on.

        Source:
            https://developers.facebook.com/docs/graph-api/webhooks/getting-started
        """
        when = {"query:hub.mode": "subscribe", "query:hub.challenge": None}
        token = "query:hub.verify_token"  # noqa: S105 - the place of it
        return cls(method="GET", when=when, echo="query:hub.challenge", secrets=secrets, secret_in=token)

    @classmethod
    def event_grid(cls) -> Self:
        """Declares the subscription validation of Azure Event Grid, for its own schema of events.

        Source:
            https://learn.microsoft.com/en-us/azure/event-grid/end-point-validation-event-grid-events-schema
        """
        when = {"header:aeg-event-type": "SubscriptionValidation"}
        return cls(method="POST", when=when, echo="body:0.data.validationCode", answer=_validation_response)

    @classmethod
    def cloud_events(cls) -> Self:
        """Declares the abuse protection of CloudEvents: OPTIONS with `WebHook-Request-Origin`.

        Source:
            https://github.com/cloudevents/spec/blob/main/cloudevents/http-webhook.md, section 4
        """
        origin, rate = "header:WebHook-Request-Origin", "header:WebHook-Request-Rate"
        headers = {"WebHook-Allowed-Origin": origin, "WebHook-Allowed-Rate": rate}
        return cls(method="OPTIONS", when={origin: None}, headers=headers)

    @classmethod
    def dropbox(cls) -> Self:
        """Declares Dropbox's `challenge`.

        Source:
            https://www.dropbox.com/developers/reference/webhooks
        """
        return cls(method="GET", when={"query:challenge": None}, echo="query:challenge")

    @classmethod
    def asana(cls) -> Self:
        """Declares Asana's handshake, which wants its `X-Hook-Secret` back; it is the secret of the signatures, too.

        Source:
            https://developers.asana.com/docs/webhooks-guide
        """
        secret = "header:X-Hook-Secret"  # noqa: S105 - the place of it
        return cls(method="POST", when={secret: None}, headers={"X-Hook-Secret": secret})

    @classmethod
    def okta(cls) -> Self:
        """Declares Okta's one-time verification of event hooks.

        Source:
            https://developer.okta.com/docs/concepts/event-hooks/
        """
        challenge = "header:X-Okta-Verification-Challenge"
        return cls(method="GET", when={challenge: None}, echo=challenge, answer=_verification)

    @classmethod
    def trello(cls) -> Self:
        """Declares Trello's HEAD request when a webhook is set up.

        Source:
            https://developer.atlassian.com/cloud/trello/guides/rest-api/webhooks/
        """
        return cls(method="HEAD")

    @classmethod
    def github(cls) -> Self:
        """Declares GitHub's ping when a webhook is set up, which is signed as its deliveries are and has no item.

        Source:
            https://docs.github.com/en/webhooks/webhook-events-and-payloads#ping
        """
        return cls(method="POST", when={"header:X-GitHub-Event": "ping"}, signed=True)

    def problems(self) -> list[str]:
        """Lists what is wrong with the declaration."""
        problems = [] if self.method in METHODS else [f"method: {self.method!r} must be one of {', '.join(METHODS)}"]
        if self.method == "POST" and not self.when:
            problems.append("when: is missing; without it every delivery would be answered and none be stored")
        for name, places in (("when", self.when), ("headers", dict.fromkeys(self.headers.values()))):
            problems += [f"{name}: {_NO_PLACE.format(place)}" for place in places if not is_place(place)]
        for name in ("echo", "secret_in"):
            place = getattr(self, name)
            if place is not None and not is_place(place):
                problems.append(f"{name}: {_NO_PLACE.format(place)}")
        problems += [f"headers: {name!r} is no name of a header" for name in self.headers if not is_header(name)]
        if self.answer is not None and (not callable(self.answer) or self.echo is None):
            problems.append("answer: give a function of the value of `echo`, and echo itself")
        if inspect.iscoroutinefunction(self.answer):
            problems.append("answer: is async; nobody would wait for it: give a plain function")
        if (self.secrets is None) != (self.secret_in is None):
            problems.append("secret_in: secrets and the place of the token belong together; give both or none")
        return problems + (problems_of_secrets(self.secrets) if self.secrets is not None else [])


_NO_PLACE = "{!r} is no place in a request; write query:NAME, header:NAME, form:NAME or body:PATH"


def is_place(value: object) -> bool:
    """Returns True for what names a place in a request."""
    return isinstance(value, str) and PLACE.fullmatch(value) is not None


def _validation_response(code: str) -> dict[str, str]:
    return {"validationResponse": code}


def _verification(challenge: str) -> dict[str, str]:
    return {"verification": challenge}
