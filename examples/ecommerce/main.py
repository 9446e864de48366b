"""A shop: its routes keep orders in its database and let workflows process them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, HTTPException
from pydantic import BaseModel
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from agentmap_asgi import AgentMapContext, Call, agent, include_agentmap_routes


class Base(DeclarativeBase):
    pass


class Stock(Base):
    __tablename__ = "stock"
    product: Mapped[str] = mapped_column(primary_key=True)
    pieces: Mapped[int]


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    user: Mapped[str]
    product: Mapped[str]
    quantity: Mapped[int]
    status: Mapped[str] = mapped_column(default="new")
    workflow_execution_id: Mapped[str | None]


class OrderIn(BaseModel):
    product: str
    quantity: int


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    engine = create_engine(os.environ.get("DATABASE_URL", "sqlite:///shop.db"))
    Base.metadata.create_all(engine)
    app.state.sessions = sessionmaker(engine, expire_on_commit=False)
    yield
    engine.dispose()


app = FastAPI(title="E-commerce API", lifespan=lifespan)


def get_db() -> Iterator[Session]:
    """For routes through `Depends`, and for agents as the session factory: a generator function serves both."""
    with app.state.sessions() as session:
        yield session


def get_current_user(x_user: Annotated[str | None, Header()] = None) -> str:
    if x_user is None:
        raise HTTPException(401)
    return x_user


@agent(services=["database"])
def reserve(call: Call) -> bool:
    """Takes the pieces from the stock; not enough of them is an answer, not an error."""
    session: Session = call.service("database")
    stock = session.get(Stock, call.inputs["product"], with_for_update=True)
    if stock is None or stock.pieces < call.inputs["quantity"]:
        return False
    stock.pieces -= call.inputs["quantity"]
    session.commit()
    return True


agentmap_service = include_agentmap_routes(
    app,
    prefix="/internal/workflows",
    csv_file=Path(__file__).parent / "ecommerce_workflows.csv",
    context=AgentMapContext(database_session_factory=get_db, agents={"reserve": reserve}),
    principal=Depends(get_current_user),
    enable_docs=False,  # not for the public
)

Database = Annotated[Session, Depends(get_db)]
User = Annotated[str, Depends(get_current_user)]


@app.post("/orders", status_code=201)
async def create_order(order_data: OrderIn, user: User, db: Database) -> dict[str, Any]:
    order = Order(user=user, **order_data.model_dump())
    db.add(order)
    db.commit()  # the agents have sessions of their own, and see what is committed
    answer = await agentmap_service.execute_workflow(
        "OrderProcessing", {"order_id": order.id, **order_data.model_dump()}, {"principal": user}
    )
    order.workflow_execution_id = answer["execution_id"]
    order.status = answer["result"].get("status", "failed")
    db.commit()
    return {"id": order.id, "status": order.status, "message": answer["result"].get("message")}


@app.get("/orders/{order_id}/status")
async def get_order_status(order_id: int, user: User, db: Database) -> dict[str, Any]:
    order = db.get(Order, order_id)
    if order is None or order.user != user or order.workflow_execution_id is None:
        raise HTTPException(404)
    execution = await agentmap_service.get_execution_status(order.workflow_execution_id)
    return {"id": order.id, "status": order.status, "workflow_status": execution["status"]}
