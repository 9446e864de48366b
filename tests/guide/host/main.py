"""The application that the guide's tests are about."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException
from sqlalchemy.orm import Session
from your_auth import PASSWORDS, User, get_current_user
from your_database import Base, SessionLocal, engine, get_db, get_db_session
from your_models import Item
from your_models import User as Person

from agentmap_asgi import AgentMapContext, Call, agent
from agentmap_asgi.services.fastapi import include_agentmap_routes

Base.metadata.create_all(engine)
app = FastAPI()


@app.get("/users/{user_id}")
async def get_user(user_id: int) -> dict[str, Any]:
    return {"user_id": user_id, "name": "John Doe"}


@app.post("/auth/login")
def login(credentials: dict[str, str]) -> dict[str, str]:
    token = PASSWORDS.get((credentials["username"], credentials["password"]))
    if token is None:
        raise HTTPException(401)
    return {"access_token": token}


@app.post("/items", status_code=201)
def create_item(
    item: dict[str, str], user: Annotated[User, Depends(get_current_user)], db: Annotated[Session, Depends(get_db)]
) -> dict[str, Any]:
    made = Item(name=item["name"])
    db.add(made)
    db.commit()
    return {"id": made.id, "status": made.status}


@app.get("/items/{item_id}")
def get_item(
    item_id: int, user: Annotated[User, Depends(get_current_user)], db: Annotated[Session, Depends(get_db)]
) -> dict[str, Any]:
    item = db.get_one(Item, item_id)
    return {"id": item.id, "name": item.name, "status": item.status}


@agent(services=["database"])
def load_user(call: Call) -> str:
    session: Session = call.service("database")
    return session.get_one(Person, call.inputs["user_id"]).name


@agent(services=["database"])
def process_item(call: Call) -> str:
    session: Session = call.service("database")
    session.get_one(Item, call.inputs["item_id"]).status = "processed"
    session.commit()
    return "processed"


include_agentmap_routes(
    app,
    prefix="/workflows",
    csv_file="main.csv",
    context=AgentMapContext(
        agents={"load_user": load_user, "process_item": process_item},
        database_session_factory=lambda: get_db_session(SessionLocal),
        public={"list"},
    ),
    dependencies=[Depends(get_current_user)],
)
