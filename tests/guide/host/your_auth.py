"""How a host knows who calls: bearer tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

bearer = HTTPBearer(auto_error=False)


@dataclass(frozen=True)
class User:
    """Who calls."""

    id: int
    name: str
    role: str


TOKENS = {
    "ada-token": User(1, "Ada", "customer"),
    "root-token": User(2, "Root", "admin"),
    "doc-token": User(3, "Dora", "healthcare_provider"),
}
PASSWORDS = {("testuser", "testpass"): "ada-token"}


def get_current_user(credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> User:
    user = TOKENS.get(credentials.credentials) if credentials else None
    if user is None:
        raise HTTPException(401, "Who are you?", {"WWW-Authenticate": "Bearer"})
    return user


def require_role(role: str) -> Callable[[User], User]:
    """A dependency that lets one role in."""

    def check(user: Annotated[User, Depends(get_current_user)]) -> User:
        if user.role != role:
            raise HTTPException(403, f"Only for {role}")
        return user

    return check


require_admin_role = require_role("admin")
