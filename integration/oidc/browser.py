"""A browser as far as a login needs one: it follows redirects, keeps cookies, and fills in forms as a person would."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.cookiejar import CookieJar
from urllib.error import HTTPError
from urllib.parse import urlencode, urljoin
from urllib.request import HTTPCookieProcessor, ProxyHandler, build_opener

from tests.patience import PATIENCE

_FORM = re.compile(r"<form[^>]*?action=\"(?P<action>[^\"]+)\"[^>]*>(?P<body>.*?)</form>", re.DOTALL)
_INPUT = re.compile(r"<input[^>]*>", re.DOTALL)
_MOST_PAGES = 8
_ATTRIBUTE = re.compile(r"(name|value)=\"([^\"]*)\"")


@dataclass(frozen=True)
class Page:
    """What is shown at ``url``."""

    url: str
    text: str
    status: int = 200

    @property
    def form(self) -> tuple[str, dict[str, str]] | None:
        """Where the only form goes, and its fields with what stands in them."""
        found = _FORM.search(self.text)
        if found is None:
            return None
        fields = [dict(_ATTRIBUTE.findall(each)) for each in _INPUT.findall(self.text)]
        named = {each["name"]: each.get("value", "") for each in fields if "name" in each}
        return urljoin(self.url, found["action"]), named


@dataclass
class Person:
    """Someone at a browser of their own. ``cancels``: says no where they are asked to log in."""

    login: str
    password: str
    otp: str = ""
    cancels: bool = False
    seen: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._opener = build_opener(HTTPCookieProcessor(CookieJar()), ProxyHandler({}))

    def visit(self, url: str) -> bool:
        """Opens ``url`` and does what each page asks, to the last; whether there was anything to open."""
        self._through(self._get(url))
        return True

    def enter(self, verification_uri: str, user_code: str) -> Page:
        """Types the code of a device, agrees that it is this device's, and logs in."""
        return self._through(self._get(verification_uri), user_code)

    def _through(self, page: Page, user_code: str = "") -> Page:
        """From page to page while there is something new to fill in."""
        for _ in range(_MOST_PAGES):
            if page.form is None or page.status != 200:
                return page
            action, fields = page.form
            if fields.get("user_code") == "":
                if not user_code:
                    # Asked again: the code was not taken, or somebody said no.
                    return page
                fields["user_code"], user_code = user_code, ""
            page = self._get(action, self._filled(fields))
        raise AssertionError(f"a login of more than {_MOST_PAGES} pages: {self.seen}")

    def _filled(self, fields: Mapping[str, str]) -> dict[str, str]:
        known = {"login": self.login, "password": self.password, "otp": self.otp, "consent": "yes"}
        filled = {name: value or known.get(name, "") for name, value in fields.items()}
        return {**filled, "cancel": "yes"} if self.cancels and "login" in fields else filled

    def _get(self, url: str, form: Mapping[str, str] | None = None) -> Page:
        self.seen.append(url)
        data = urlencode(form).encode() if form is not None else None
        try:
            with self._opener.open(url, data, timeout=PATIENCE) as response:
                return Page(response.url, response.read().decode())
        except HTTPError as error:
            with error:
                return Page(url, error.read().decode(), error.code)
