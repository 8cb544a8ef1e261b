"""A process that spends a budget of the day which others spend as well: python -m tests.store.spender URL.

It has its first slice when it says "ready". Each line on stdin leads on: to calls of a minute until one is refused,
and what they cost is printed; to the end, where what was not spent is given back.
"""

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

from trunkline.compliance.money.account import Account
from trunkline.compliance.money.treasury import Policy, Treasury, Wanted
from trunkline.ports import Budgets, Refuse, Usage
from trunkline.store.budgets import DatabaseBudgets
from trunkline.store.engine import Database, database_url
from trunkline.testing.clock import ManualClock
from trunkline.types import CallId

DAY_USD = Decimal("2.00")
MINUTE_USD = Decimal("0.0125")
LEG = ("twilio", "leg", "inbound-US")


@asynccontextmanager
async def opened(url: str) -> AsyncGenerator[Budgets]:
    """What one process asks by."""
    if url.startswith("redis:"):
        from trunkline.store.redis import RedisBudgets

        redis = RedisBudgets(url)
        yield redis
        await redis.close()
        return
    database = Database(database_url(url, Path()))
    await database.upgrade()
    yield DatabaseBudgets(database, ManualClock())
    await database.close()


def begin(treasury: Treasury, number: int) -> Account | Refuse:
    return treasury.open(Wanted(f"c{number}", "clinic", None, [LEG]))  # type: ignore[list-item]


def settle(account: Account) -> Decimal:
    account.take(Usage(CallId(account.call), *LEG[:2], "seconds", 30, LEG[2]), 30.0)  # type: ignore[arg-type]
    return account.close(30.0)


async def main(url: str) -> None:
    async with opened(url) as budgets:
        treasury = Treasury(Policy(tenant_day_usd=DAY_USD), budgets, ManualClock())
        account, calls, spent = begin(treasury, 0), 0, Decimal(0)
        await treasury.turn()
        print("ready", flush=True)
        sys.stdin.readline()
        while isinstance(account, Account):
            spent += settle(account)
            await treasury.turn()
            calls += 1
            account = begin(treasury, calls)
        print(spent, flush=True)
        sys.stdin.readline()
        await treasury.close()
    print("over", flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
