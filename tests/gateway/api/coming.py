"""Who comes, for routes without a guard before them."""

from starlette.types import ASGIApp, Receive, Scope, Send

from trunkline.identity import Principal, operator


class As:
    def __init__(self, app: ASGIApp, principal: Principal | None = None) -> None:
        self._app, self._principal = app, principal or operator()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["state"] = {**scope.get("state", {}), "principal": self._principal}
        await self._app(scope, receive, send)
