"""Who runs, who waits, and who is refused: decided before any work is done for a request."""

from doherty_service.admission._admission import Admission
from doherty_service.admission._pace import Pace
from doherty_service.admission._shares import Shares
from doherty_service.admission._ticket import Priority, Progress, QueueBounds, Ticket

__all__ = ["Admission", "Pace", "Priority", "Progress", "QueueBounds", "Shares", "Ticket"]
