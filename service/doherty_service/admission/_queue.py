"""The requests that wait, in the order in which they get a slot."""

import itertools
import math
from bisect import bisect_left, bisect_right, insort

from doherty_service.admission._fairness import FairOrder
from doherty_service.admission._flows import SHARES, Backlog, Flow, Tenant, Tier
from doherty_service.admission._pace import Pace
from doherty_service.admission._ticket import Priority, QueueBounds, Ticket

_LEAST_PATIENCE, _MOST_PATIENCE = -3, 5
"""How many seconds a request can wait, as powers of 2; those that can wait less or more stand with these."""


class WaitQueue:
    """Shares slots between priorities, within them between keys, and within these by how long a request can wait.

    Every operation takes O(log n) steps for n that wait. Python moves a list's pointers besides, which takes
    microseconds for 10,000 of them.
    """

    def __init__(self, bounds: QueueBounds) -> None:
        """Nobody waits."""
        self.backlog = Backlog()
        self._bounds = bounds
        self._tiers = {priority: Tier(priority) for priority in Priority}
        self._order: FairOrder[Tier] = FairOrder()
        self._numbers = itertools.count()

    def find_flow(self, ticket: Ticket, patience: float) -> Flow:
        """Gives a request its flow, by the seconds that it can wait; `forget` follows unless it runs or waits then."""
        tier = self._tiers[ticket.priority]
        tenant = tier.tenants.get(ticket.key)
        if tenant is None:
            tenant = tier.tenants[ticket.key] = Tenant(tier, ticket.key, next(self._numbers))
        if tenant.weight != ticket.weight:
            tier.weights += ticket.weight - tenant.weight if tenant.backlog.count else 0.0
            tenant.weight = ticket.weight
            tenant.divide()
        level = _level(patience)
        flow = tenant.flows.get(level)
        if flow is None:
            flow = tenant.flows[level] = Flow(tenant, level)
            tenant.divide()
        ticket.flow = flow
        return flow

    def forget(self, ticket: Ticket) -> None:
        """Lets go of a flow that has nothing in it, and of its key."""
        flow = _flow(ticket)
        tenant = flow.tenant
        if not flow.running and not flow.tickets and flow.patience in tenant.flows:
            del tenant.flows[flow.patience]
            if not tenant.flows:
                del tenant.tier.tenants[tenant.key]

    def work_before(self, ticket: Ticket, pace: Pace) -> float:
        """The seconds of slot time of all that gets a slot before one that is not in line yet."""
        flow = _flow(ticket)
        rank = bisect_right(flow.tickets, ticket.since, key=_since)
        return self._work(flow, rank / max(len(flow.tickets), 1), pace)

    def work_with(self, ticket: Ticket, pace: Pace) -> float:
        """The same of the last one of its flow, if the request were in line."""
        return self._work(_flow(ticket), 1.0, pace) + pace.seconds(ticket.tokens)

    def _work(self, flow: Flow, part: float, pace: Pace) -> float:
        """What is done before one with so much of its flow before it.

        All others who wait get their share meanwhile, as far as they have so much to do.
        """
        tenant, tier = flow.tenant, flow.tenant.tier
        weights = tier.weights + (0.0 if tenant.backlog.count else tenant.weight)
        times = (tenant.waiting_flows + (not flow.tickets)) * weights / tenant.weight
        own = part * _seconds(flow.backlog, pace)
        same = min(own * times + tier.order.lead(flow) * (times - 1), _seconds(tier.backlog, pace))
        (other,) = (one for one in self._tiers.values() if one is not tier)
        theirs = (same + self._order.lead(tier)) * other.weight / tier.weight
        return same + min(theirs, _seconds(other.backlog, pace))

    def add(self, ticket: Ticket, seconds: float, slots: int) -> None:
        """Puts a request that likely takes so many seconds in the line of its flow.

        A key that had less than its share of the slots is first given what it lacks, so that it does not get one after
        the other in turn with those that have them. Batch waits for its first turn until the others had theirs.
        """
        flow = _flow(ticket)
        tenant, tier = flow.tenant, flow.tenant.tier
        insort(flow.tickets, ticket, key=_since)
        ticket.in_line = True
        self._count(flow, ticket, 1)
        if tenant.backlog.count == 1:
            tier.weights += tenant.weight
        if len(flow.tickets) == 1:
            tenant.waiting_flows += 1
            tenant.divide()
            tier.order.begin(flow, slots * seconds / tier.weights)
        if tier.backlog.count == 1:
            self._order.begin(tier, -seconds / tier.weight if ticket.priority is Priority.BATCH else 0.0)

    def pop(self) -> Ticket:
        """Takes the next one out of the line, where somebody waits; `charge` or `forget` must follow."""
        tier = self._order.first()
        flow = None if tier is None else tier.order.first()
        if flow is None:
            raise AssertionError("nobody waits")
        ticket = flow.tickets[0]
        self._take_out(ticket)
        return ticket

    def remove(self, ticket: Ticket) -> None:
        """Takes a request out of the line that does not wait any more."""
        self._take_out(ticket)
        self.forget(ticket)

    def _take_out(self, ticket: Ticket) -> None:
        flow = _flow(ticket)
        tenant, tier = flow.tenant, flow.tenant.tier
        index = bisect_left(flow.tickets, ticket.since, key=_since)
        while flow.tickets[index] is not ticket:
            index += 1
        del flow.tickets[index]
        ticket.in_line = False
        self._count(flow, ticket, -1)
        if not flow.tickets:
            flow.waits = False
            tenant.waiting_flows -= 1
            tenant.divide()
        if not tenant.backlog.count:
            tier.weights -= tenant.weight
        tier.waits = tier.backlog.count > 0

    def pass_by(self, ticket: Ticket, seconds: float) -> None:
        """A request gets a slot, for likely so many seconds, while nobody waits."""
        flow = _flow(ticket)
        flow.tenant.tier.order.catch_up(flow, 0.0)
        self._order.catch_up(flow.tenant.tier, 0.0)
        self.charge(ticket, seconds)

    def charge(self, ticket: Ticket, seconds: float) -> None:
        """A request that has waited gets a slot, for likely so many seconds."""
        flow = _flow(ticket)
        flow.running += 1
        ticket.charged, ticket.charged_for = seconds, flow.weight
        flow.tenant.tier.order.charge(flow, seconds)
        self._order.charge(flow.tenant.tier, seconds)

    def settle(self, ticket: Ticket, seconds: float) -> None:
        """A request gives its slot back, after so many seconds."""
        flow = _flow(ticket)
        flow.running -= 1
        more = seconds - ticket.charged
        flow.tenant.tier.order.correct(flow, more * flow.weight / ticket.charged_for)
        self._order.correct(flow.tenant.tier, more)
        self.forget(ticket)

    def has_room(self, ticket: Ticket) -> bool:
        """Whether one more fits beside all that wait; one alone is never too large."""
        waiting, bounds = self.backlog, self._bounds
        return waiting.count < bounds.requests and (not waiting.count or waiting.bytes + ticket.size <= bounds.bytes)

    def victim(self, ticket: Ticket) -> Ticket:
        """Who gives way where one more has no room: the youngest request of the key that uses most.

        Batch requests go first if that makes room, but not those within their share of the queue. It may be the one
        that has no room.
        """
        own_tier = tier = self._tiers[ticket.priority]
        batch = self._tiers[Priority.BATCH]
        allowed = SHARES[Priority.BATCH] * (self.backlog.count + 1)
        if tier is batch:
            tier = self._tiers[Priority.INTERACTIVE] if batch.backlog.count + 1 <= allowed else batch
        elif batch.backlog.count > allowed:
            is_enough = self.backlog.bytes - batch.backlog.bytes + ticket.size <= self._bounds.bytes
            tier = batch if is_enough else tier
        if not tier.by_use:
            return ticket
        most, _, tenant = tier.by_use[-1]
        own = _flow(ticket).tenant
        if tier is not own_tier or most > own.use + self._use(1, ticket.size, own.weight):
            return tenant.youngest()
        if not own.backlog.count or own.youngest().since <= ticket.since:
            return ticket
        return own.youngest()

    def _count(self, flow: Flow, ticket: Ticket, sign: int) -> None:
        tenant, tier = flow.tenant, flow.tenant.tier
        if tenant.backlog.count:
            del tier.by_use[bisect_left(tier.by_use, (tenant.use, tenant.number))]
        for backlog in (flow.backlog, tenant.backlog, tier.backlog, self.backlog):
            backlog.add(ticket, sign)
        tenant.use = self._use(tenant.backlog.count, tenant.backlog.bytes, tenant.weight)
        if tenant.backlog.count:
            insort(tier.by_use, (tenant.use, tenant.number, tenant))

    def _use(self, count: int, size: int, weight: float) -> float:
        return (count / max(self._bounds.requests, 1) + size / max(self._bounds.bytes, 1)) / weight


def _level(patience: float) -> int:
    if patience <= 0:
        return _LEAST_PATIENCE
    return (
        min(max(math.frexp(patience)[1] - 1, _LEAST_PATIENCE), _MOST_PATIENCE)
        if patience < math.inf
        else _MOST_PATIENCE
    )


def _seconds(backlog: Backlog, pace: Pace) -> float:
    return backlog.count * pace.delay + backlog.tokens * pace.per_token


def _since(ticket: Ticket) -> float:
    return ticket.since


def _flow(ticket: Ticket) -> Flow:
    if ticket.flow is None:
        raise AssertionError("it has no flow")
    return ticket.flow
