"""The host's own authentication guards the workflows, and says whose an execution is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel

from agentmap_asgi import AgentMapContext, Call, agent, include_agentmap_routes


class User(BaseModel):
    id: int
    name: str
    admin: bool = False


TOKENS = {"ada-token": User(id=1, name="Ada"), "root-token": User(id=2, name="Root", admin=True)}
bearer = HTTPBearer(auto_error=False)


def get_current_user(credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> User:
    user = TOKENS.get(credentials.credentials) if credentials else None
    if user is None:
        raise HTTPException(401, "Who are you?", {"WWW-Authenticate": "Bearer"})
    return user


def authorize(user: User, operation: str, graph: str | None, execution: str | None = None) -> bool:
    """Everybody may do everything, but close the books."""
    return user.admin or graph != "workflows::CloseBooks"


@agent(inline=True)
def who(call: Call) -> str | None:
    return call.context["principal"]


app = FastAPI()
include_agentmap_routes(
    app,
    prefix="/api/workflows",
    csv_file=Path(__file__).parent / "workflows.csv",
    context=AgentMapContext(agents={"who": who}, authorize=authorize, public={"health"}),
    principal=Depends(get_current_user),
)
