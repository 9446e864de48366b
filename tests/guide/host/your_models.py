"""A host's tables, and what it does with them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON
from sqlalchemy.orm import Mapped, Session, mapped_column, sessionmaker
from your_database import Base, SessionLocal, engine


class User(Base):
    """Somebody who may log in."""

    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Product(Base):
    """Something to buy."""

    __tablename__ = "products"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Order(Base):
    """What somebody bought."""

    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int]
    data: Mapped[dict[str, Any]] = mapped_column(JSON)
    status: Mapped[str] = mapped_column(default="new")
    workflow_execution_id: Mapped[str | None]


class Item(Base):
    """Something a user made."""

    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    status: Mapped[str] = mapped_column(default="new")


class Patient(Base):
    """Somebody who is ill."""

    __tablename__ = "patients"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Doctor(Base):
    """Somebody who helps."""

    __tablename__ = "doctors"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Appointment(Base):
    """When they meet."""

    __tablename__ = "appointments"
    id: Mapped[int] = mapped_column(primary_key=True)
    patient_id: Mapped[int]
    doctor_id: Mapped[int]


class UserService:
    """What workflows ask about users."""

    def __init__(self, pool: sessionmaker[Session]) -> None:
        self._pool = pool

    def name_of(self, user_id: int) -> str:
        with self._pool() as session:
            return session.get_one(User, user_id).name


def create_order_in_db(data: dict[str, Any], user_id: int, db: Session) -> Order:
    order = Order(user_id=user_id, data=data)
    db.add(order)
    db.commit()
    return order


def get_order_by_id(order_id: int, user_id: int) -> Order:
    with SessionLocal() as session:
        return session.query(Order).filter_by(id=order_id, user_id=user_id).one()


def create_appointment(data: dict[str, Any], db: Session) -> Appointment:
    appointment = Appointment(patient_id=data["patient_id"], doctor_id=data["doctor_id"])
    db.add(appointment)
    db.commit()
    return appointment


def create_test_user(db: Session) -> User:
    Base.metadata.create_all(engine)
    user = User(name="Grace")
    db.add(user)
    db.commit()
    return user
