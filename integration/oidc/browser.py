"""A browser as far as a login needs one: it follows redirects, keeps cookies, and fills in forms as a person would."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.cookiejar import CookieJar
from urllib.error import HTTPError
from urllib.parse import urlencode, urljoin
from urllib.request import HTTPCookieProcessor, ProxyHandler, build_opener

_FORM = re.compile(r"<form[^>]*?action=\"(?P<action>[^\"]+)\"[^>]*>(?P<body>.*?)</form>", re.DOTALL)
_INPUT = re.compile(r"<input[^>]*>", re.DOTALL)
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
        page = self._get(url)
        while (form := page.form) is not None and page.status == 200:
            action, fields = form
            page = self._get(action, self._filled(fields))
        return True

    def enter(self, verification_uri: str, user_code: str) -> Page:
        """Types the code of a device, agrees that it is this device's, and logs in."""
        page = self._get(verification_uri)
        while (form := page.form) is not None and page.status == 200:
            action, fields = form
            if "user_code" in fields and not fields["user_code"]:
                fields["user_code"] = user_code
            page = self._get(action, self._filled(fields))
        return page

    def _filled(self, fields: Mapping[str, str]) -> dict[str, str]:
        known = {"login": self.login, "password": self.password, "otp": self.otp, "consent": "yes"}
        filled = {name: value or known.get(name, "") for name, value in fields.items()}
        return {**filled, "cancel": "yes"} if self.cancels and "login" in fields else filled

    def _get(self, url: str, form: Mapping[str, str] | None = None) -> Page:
        self.seen.append(url)
        data = urlencode(form).encode() if form is not None else None
        try:
            with self._opener.open(url, data, timeout=20) as response:
                return Page(response.url, response.read().decode())
        except HTTPError as error:
            with error:
                return Page(url, error.read().decode(), error.code)
