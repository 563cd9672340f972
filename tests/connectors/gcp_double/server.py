"""The double's HTTP: Google's paths on one port of loopback, in a thread."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.connectors.gcp_double.rules import Cloud, Mishap, Refusal

_ACCOUNT = re.compile(r"/v1/projects/-/serviceAccounts/([^/:]+)([/:].*)?\Z")
_TOKEN_TYPE = "urn:ietf:params:oauth:token-type:access_token"
_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"


@contextmanager
def serve(cloud: Cloud) -> Iterator[str]:
    """The address of a double of ``cloud`` while the block lasts."""

    class Handler(_Handler):
        pass

    Handler.cloud = cloud
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.005}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer leaves in one piece
    cloud: Cloud

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        """Nothing of it."""

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        path = unquote(parts.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.cloud.calls.append(f"{self.command} {path}")
        mishap = self._mishap(path)
        try:
            if mishap is not None and mishap.before is not None:
                mishap.before()
            if mishap is not None and mishap.refuse is not None:
                raise mishap.refuse
            answer = self._done(path, {key: each[0] for key, each in parse_qs(parts.query).items()}, body)
        except Refusal as refusal:
            said: Any = refusal.code if path == "/v1/token" else {"code": refusal.status, "status": refusal.code}
            self._send(refusal.status, {"error": said}, refusal.headers)
            return
        if mishap is not None and mishap.lose:
            self.close_connection = True
            return
        if mishap is not None and mishap.change is not None:
            mishap.change(answer)
        self._send(200, answer, {})

    def _mishap(self, path: str) -> Mishap | None:
        found = next((each for each in self.cloud.mishaps if path.endswith(each.of)), None)
        if found is not None:
            self.cloud.mishaps.remove(found)
        return found

    def _send(self, status: int, answer: object, headers: dict[str, str]) -> None:
        text = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(text)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text)

    # ------------------------------------------------------------------ what is asked

    def _done(self, path: str, query: dict[str, str], body: bytes) -> dict[str, Any]:
        if path == "/v1/token":
            return self._exchange({key: each[0] for key, each in parse_qs(body.decode()).items()})
        token = self.cloud.bearer(self.headers.get("Authorization", "").removeprefix("Bearer "))
        if found := _ACCOUNT.match(path):
            return self._account(token, found[1], found[2] or "", json.loads(body or b"{}"))
        if found := re.match(r"/storage/v1/b/([^/]+)/iam\Z", path):
            self.cloud.storage(token, "storage.buckets.getIamPolicy", found[1])
            return {"bindings": [{"role": "r", "members": list(self.cloud.buckets[found[1]])}]}
        if found := re.match(r"/storage/v1/b/([^/]+)/o\Z", path):
            prefix = query.get("prefix", "")
            self.cloud.storage(token, "storage.objects.list", found[1], prefix=prefix)
            names = sorted(each for each in self.cloud.objects[found[1]] if each.startswith(prefix))
            return {"items": [{"name": each} for each in names]}
        if found := re.match(r"/storage/v1/b/([^/]+)/o/(.+)\Z", path):
            self.cloud.storage(token, "storage.objects.get", found[1], name=found[2])
            if found[2] not in self.cloud.objects[found[1]]:
                raise Refusal(404, "NOT_FOUND")
            return {"name": found[2]}
        raise Refusal(404, "NOT_FOUND")

    def _exchange(self, form: dict[str, str]) -> dict[str, Any]:
        if form.get("grant_type") != _EXCHANGE or form.get("requested_token_type") != _TOKEN_TYPE:
            raise Refusal(400, "unsupported_grant_type")
        if form.get("subject_token_type") == _TOKEN_TYPE:
            # "options": the boundary, as JSON, encoded once more than the form is. An answer has no expires_in: STS
            # "may not return the expiration field for some flows" (google-auth).
            text = self.cloud.downscope(form["subject_token"], json.loads(unquote(form.get("options", "{}"))))
            return {"access_token": text, "issued_token_type": _TOKEN_TYPE, "token_type": "Bearer"}
        text, seconds = self.cloud.federate(form["subject_token"], form.get("audience", ""))
        return {
            "access_token": text,
            "issued_token_type": _TOKEN_TYPE,
            "token_type": "Bearer",
            "expires_in": seconds,
        }

    def _account(self, token: Any, email: str, what: str, body: dict[str, Any]) -> dict[str, Any]:
        cloud = self.cloud
        match what:
            case ":generateAccessToken":
                lifetime = str(body.get("lifetime", "3600s"))
                seconds = int(lifetime.removesuffix("s"))
                text, ends = cloud.generate(token, email, seconds, body.get("scope", []))
                return {"accessToken": text, "expireTime": _moment(ends)}
            case ":disable":
                cloud.may(token, email, "iam.serviceAccounts.disable").disabled = True
                return {}
            case ":enable":
                cloud.may(token, email, "iam.serviceAccounts.enable").disabled = False
                return {}
            case ":testIamPermissions":
                if email not in cloud.accounts:
                    raise Refusal(404, "NOT_FOUND")
                has = cloud.accounts[email].rights.get(token.principal, set())
                return {"permissions": [each for each in body["permissions"] if each in has]}
            case ":getIamPolicy":
                account = cloud.may(token, email, "iam.serviceAccounts.getIamPolicy")
                return {"bindings": [{"role": "r", "members": sorted(account.rights)}], "etag": "x", "version": 1}
            case "/keys":
                account = cloud.may(token, email, "iam.serviceAccountKeys.list")
                return {"keys": [{"name": str(each)} for each in range(account.user_keys)]} if account.user_keys else {}
            case "":
                account = cloud.may(token, email, "iam.serviceAccounts.get")
                return {"email": email, "uniqueId": "1", **({"disabled": True} if account.disabled else {})}
        raise Refusal(404, "NOT_FOUND")


def _moment(at: datetime) -> str:
    # Google tells whole seconds.
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
