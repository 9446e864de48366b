"""What a contact must be, and how it is mended."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from agentmap_asgi import Call, agent

DATES = ("%Y-%m-%d", "%d.%m.%Y", "%d/%m/%Y")


@agent(name="tidy contact", options={"country": str}, idempotent=True, inline=True)
def tidy(call: Call) -> dict[str, str]:
    """One contact with clean fields; raises for one that cannot be used."""
    contact = call.inputs["contact"]
    email = contact["email"].strip().lower()
    if not re.fullmatch(r"[^@\s]+@[^@\s]+\.[a-z]{2,}", email):
        raise ValueError(f"{email!r} is no address")
    phone = re.sub(r"[^\d+]", "", contact["phone"])
    if phone.startswith("00"):
        phone = f"+{phone[2:]}"
    elif phone.startswith("0"):
        phone = call.options["country"] + phone[1:]
    return {
        "email": email,
        "name": " ".join(contact["name"].split()).title(),
        "phone": phone,
        "since": date_of(contact["since"].strip()),
    }


def date_of(text: str) -> str:
    for form in DATES:
        try:
            return datetime.strptime(text, form).date().isoformat()  # a day, in no time zone
        except ValueError:
            continue
    raise ValueError(f"{text!r} is no date")


@agent(name="sort contacts", idempotent=True, inline=True)
def sort(call: Call) -> dict[str, Any]:
    """The contacts that can be used, each address once, and the rows that somebody must look at, with the reason."""
    good: dict[str, Any] = {}
    bad = []
    for row, result in zip(call.inputs["rows"], call.inputs["tidied"], strict=True):
        if "error" in result:
            bad.append({**row, "reason": result["error"]["message"]})
        else:
            good[result["email"]] = result
    return {"good": list(good.values()), "bad": bad}
