"""What the shop knows and does; a real one asks its database and its mail server."""

CUSTOMERS = {"ada@example.com": {"name": "Ada", "since": 2019}}
ORDERS = {"ada@example.com": [{"number": 7, "state": "lost in the post", "price": 40}]}
SENT: list[tuple[str, str]] = []


def customer(email: str) -> dict[str, object]:
    """Who a customer is, by the address of the mail."""
    return {"email": email, **CUSTOMERS.get(email, {"name": "new customer"})}


def open_orders(email: str) -> list[dict[str, object]]:
    """The orders of a customer that have not arrived."""
    return ORDERS.get(email, [])


def send(email: str, text: str) -> bool:
    """Send a mail."""
    SENT.append((email, text))
    return True
