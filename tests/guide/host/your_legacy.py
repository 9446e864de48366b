"""What a host did before it had workflows."""

from __future__ import annotations

from typing import Any

from your_database import Base, SessionLocal, engine
from your_models import Order, create_order_in_db

FLAGS: dict[tuple[str, int], bool] = {}


def get_feature_flag(name: str, user_id: int) -> bool:
    return FLAGS.get((name, user_id), False)


def process_order_legacy(order_data: dict[str, Any], user: Any) -> Order:
    Base.metadata.create_all(engine)
    with SessionLocal() as session:
        return create_order_in_db(order_data, getattr(user, "id", 0), session)


async def onboard_user_legacy(data: dict[str, Any], context: Any) -> str:
    return f"welcomed {data['user_id']} by hand"
