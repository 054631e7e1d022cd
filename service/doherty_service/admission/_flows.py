"""Among whom slots are shared: priorities, in them keys, and in these requests that can wait about equally long."""

from dataclasses import dataclass

from doherty_service.admission._fairness import FairOrder, Share
from doherty_service.admission._ticket import Priority, Ticket

SHARES = {Priority.INTERACTIVE: 0.9, Priority.BATCH: 0.1}
"""Of the slots' time, while both wait. What one does not use is the other's."""


@dataclass(slots=True)
class Backlog:
    """What waits."""

    count: int = 0
    bytes: int = 0
    tokens: float = 0.0
    """That will likely be generated."""

    def add(self, ticket: Ticket, sign: int) -> None:
        """One more (1), or one less (-1)."""
        self.count += sign
        self.bytes += sign * ticket.size
        self.tokens += sign * ticket.tokens


class Flow(Share):
    """The requests of one key that can wait about equally long, the oldest first.

    If all requests of a key stood in one line, those that can wait long would make it too long for those that cannot.
    """

    def __init__(self, tenant: "Tenant", patience: int) -> None:
        super().__init__()
        self.tenant = tenant
        self.patience = patience
        self.backlog = Backlog()
        self.tickets: list[Ticket] = []
        self.running = 0


class Tenant:
    """What one key has waiting and running in one priority."""

    def __init__(self, tier: "Tier", key: str, number: int) -> None:
        self.tier = tier
        self.key = key
        self.number = number
        self.weight = 1.0
        self.backlog = Backlog()
        self.use = 0.0
        """The part of the queue that it uses, for its weight."""
        self.flows: dict[int, Flow] = {}
        self.waiting_flows = 0

    def youngest(self) -> Ticket:
        """The last of its requests; one must wait."""
        return max((flow.tickets[-1] for flow in self.flows.values() if flow.tickets), key=lambda one: one.since)

    def divide(self) -> None:
        """Divides its weight among those of its flows that wait."""
        for flow in self.flows.values():
            flow.weight = self.weight / max(self.waiting_flows, 1)


class Tier(Share):
    """All of one priority."""

    def __init__(self, priority: Priority) -> None:
        super().__init__(SHARES[priority])
        self.backlog = Backlog()
        self.tenants: dict[str, Tenant] = {}
        self.order: FairOrder[Flow] = FairOrder()
        self.weights = 0.0
        """Of the keys that wait."""
        self.by_use: list[tuple[float, int, Tenant]] = []
        """The keys that wait, in ascending order of `use`."""
