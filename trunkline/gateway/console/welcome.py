"""What the doors look like (doors.py): signing in, the first admin, a link, another password."""

from starlette.requests import Request
from starlette.responses import Response

from trunkline.gateway.console.doors import Page, Render
from trunkline.gateway.console.pages import Pages

_TITLES = {
    "sign_in": "Sign in",
    "setup": "Create the first admin",
    "link": "Choose your password",
    "password": "Change your password",
}


def rendering(pages: Pages) -> Render:
    def render(request: Request, page: Page) -> Response:
        refused = page.refused
        headers = {"Retry-After": str(refused.wait_s)} if refused is not None and refused.wait_s else {}
        context = {
            "title": _TITLES[page.name],
            "page": page.name,
            "fields": {"email": "", "token": "", "next": "", **page.fields},
            "refused": refused,
            "is_over": refused is not None and refused.code in ("link", "exists") and not page.fields.get("token"),
            "has_oidc": page.has_oidc,
            "csrf": page.csrf,
        }
        return pages.answer(request, "door.html", context, page.status, headers)

    return render
