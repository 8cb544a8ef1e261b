"""The diallers as a call may use them: over a trunk whose price is not known, where it must be, there is no way out.
The next trunk is tried then, as after any other that takes no calls."""

from collections.abc import Callable, Sequence
from typing import overload

from trunkline.gateway.dialling import DialOrder
from trunkline.gateway.leg import Dialler, Plan
from trunkline.ports import Decision, Refuse


class Payable(Sequence[Dialler]):
    """Of diallers that may yet become more."""

    def __init__(self, diallers: Sequence[Dialler], may_pay: Callable[[Plan], Decision]) -> None:
        self._diallers, self._may_pay = diallers, may_pay

    @overload
    def __getitem__(self, at: int) -> Dialler: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[Dialler]: ...

    def __getitem__(self, at: int | slice) -> Dialler | Sequence[Dialler]:
        if isinstance(at, slice):
            return [_Priced(dialler, self._may_pay) for dialler in self._diallers[at]]
        return _Priced(self._diallers[at], self._may_pay)

    def __len__(self) -> int:
        return len(self._diallers)


class _Priced:
    def __init__(self, dialler: Dialler, may_pay: Callable[[Plan], Decision]) -> None:
        self._dialler, self._may_pay = dialler, may_pay
        self.routes, self.dial = dialler.routes, dialler.dial

    def plan(self, order: DialOrder) -> Plan | Refuse:
        plan = self._dialler.plan(order)
        if isinstance(plan, Refuse):
            return plan
        decision = self._may_pay(plan)
        return decision if isinstance(decision, Refuse) else plan
