"""An application worth testing: it has logins, a database, and workflows that use both."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from agentmap_asgi import AgentMapContext, Call, agent, include_agentmap_routes


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    status: Mapped[str] = mapped_column(default="new")


class Login(BaseModel):
    username: str
    password: str


class ItemIn(BaseModel):
    name: str


engine = create_engine(os.environ.get("DATABASE_URL", "sqlite:///items.db"))
SessionLocal = sessionmaker(engine)


def get_db() -> Iterator[Session]:
    with SessionLocal() as session:
        yield session


def get_current_user(
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))],
) -> str:
    if credentials is None or not credentials.credentials.startswith("token-of-"):
        raise HTTPException(401, "Who are you?")
    return credentials.credentials.removeprefix("token-of-")


class Appraiser:
    """Asks somebody outside what a thing is worth; a test takes another."""

    def worth(self, name: str) -> int:
        raise ConnectionError("there is nobody outside")


@agent(services=["database", "appraiser"])
def appraise(call: Call) -> int:
    session: Session = call.service("database")
    item = session.get_one(Item, call.inputs["item_id"])
    worth: int = call.service("appraiser").worth(item.name)
    item.status = "processed"
    session.commit()
    return worth


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    Base.metadata.create_all(engine)
    yield
    engine.dispose()


app = FastAPI(lifespan=lifespan)
service = include_agentmap_routes(
    app,
    prefix="/workflows",
    csv_file=Path(__file__).parent / "workflows.csv",
    context=AgentMapContext({"appraiser": Appraiser}, database_session_factory=get_db, agents={"appraise": appraise}),
    principal=Depends(get_current_user),
)

User = Annotated[str, Depends(get_current_user)]
Database = Annotated[Session, Depends(get_db)]


@app.post("/auth/login")
def login(given: Login) -> dict[str, str]:
    if given.password != "testpass":
        raise HTTPException(401)
    return {"access_token": f"token-of-{given.username}"}


@app.post("/items", status_code=201)
def create_item(given: ItemIn, user: User, db: Database) -> dict[str, Any]:
    item = Item(name=given.name)
    db.add(item)
    db.commit()
    return {"id": item.id, "status": item.status}


@app.get("/items/{item_id}")
def get_item(item_id: int, user: User, db: Database) -> dict[str, Any]:
    item = db.get_one(Item, item_id)
    return {"id": item.id, "name": item.name, "status": item.status}
