"""Decides which requests run, wait or are refused, before any work is done for them."""

from doherty_service.admission._admission import Admission
from doherty_service.admission._pace import Pace
from doherty_service.admission._shares import Shares
from doherty_service.admission._ticket import Priority, Progress, QueueBounds, Ticket

__all__ = ["Admission", "Pace", "Priority", "Progress", "QueueBounds", "Shares", "Ticket"]
