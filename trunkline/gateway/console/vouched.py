"""Which user of ours it is whom an OpenID provider vouches for, and with which role.

A user is found by the provider's subject. The first time there is none: then by the verified email, of a user who has
no subject yet, and that subject is theirs from then on. So an email that goes to somebody else later opens nothing.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trunkline.gateway.console.accounts import Accounts, Refused, SignedIn, Store
from trunkline.gateway.console.oidc import Vouched
from trunkline.identity import AccountError, NewUser, Role, User
from trunkline.types import DEFAULT_TENANT

log = logging.getLogger(__name__)

_HIGHEST_FIRST: tuple[Role, ...] = ("admin", "supervisor", "viewer")


@dataclass(frozen=True, slots=True)
class Mapped:
    """Of the settings: who may, and as what."""

    allowed_domains: tuple[str, ...] = ()
    role_claim: str | None = None
    role_map: Mapping[str, Role] = field(default_factory=dict)
    auto_create: bool = False

    def lets_in(self, vouched: Vouched) -> bool:
        if self.allowed_domains and (vouched.email or "").rpartition("@")[2] not in self.allowed_domains:
            return False
        return not self.role_map or self.role_of(vouched.claims) is not None

    def role_of(self, claims: Mapping[str, Any]) -> Role | None:
        """The highest that the claim has. None: none of the map's, or there is no map."""
        found = claims.get(self.role_claim) if self.role_claim else None
        values = found if isinstance(found, list) else [found]
        roles = {self.role_map[value] for value in values if isinstance(value, str) and value in self.role_map}
        return next((role for role in _HIGHEST_FIRST if role in roles), None)


_NOBODY = Refused("wrong", "Nobody with this account may sign in here. An admin can add you by your email.")


async def sign_in_vouched(
    accounts: Accounts, store: Store, mapped: Mapped, vouched: Vouched, agent: str = "", before: str | None = None
) -> SignedIn | Refused:
    """Raises StoreError."""
    if not mapped.lets_in(vouched):
        return await _refused(store, vouched, None)
    user = await store.by_subject(vouched.subject)
    try:
        if user is None:
            user = await _first_time(accounts, store, mapped, vouched)
        if user is None or not user.enabled:
            return await _refused(store, vouched, user)
        role = mapped.role_of(vouched.claims)
        if role is not None and role != user.role:
            user = await store.change_user(user.tenant, "oidc", user.name, {"role": role})
            accounts.forget()
    except AccountError as error:  # the last admin stays one
        if error.code != "last_admin":
            log.warning("nobody is signed in by OpenID: %s", error)
            return _NOBODY
    assert user is not None
    return await accounts.signed_in(user, "oidc", agent, before)


async def _first_time(accounts: Accounts, store: Store, mapped: Mapped, vouched: Vouched) -> User | None:
    if vouched.email is None:
        return None
    user = await store.by_email(vouched.email)
    if user is None:
        if not mapped.auto_create:
            return None
        role = mapped.role_of(vouched.claims) or "viewer"
        new = NewUser(vouched.email, role, label=vouched.label, oidc_subject=vouched.subject)
        made = await store.create_user(DEFAULT_TENANT, "oidc", new)
        accounts.changed()
        return made
    if user.oidc_subject is not None or not user.enabled:
        return None
    return await store.change_user(user.tenant, "oidc", user.name, {"oidc_subject": vouched.subject})


async def _refused(store: Store, vouched: Vouched, user: User | None) -> Refused:
    tenant, name = (DEFAULT_TENANT, "?") if user is None else (user.tenant, user.name)
    await store.note(tenant, "nobody", "sign_in_failed", "users", name, None, {"by": "oidc"})
    return _NOBODY
