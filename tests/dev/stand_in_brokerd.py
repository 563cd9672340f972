"""Stands in for brokerd in tests of the stack: answers /readyz, notes its environment, ends at SIGTERM."""

from __future__ import annotations

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path


class Ready(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/readyz" else 404)
        self.end_headers()


config = json.loads(Path(sys.argv[sys.argv.index("--config") + 1]).read_text())
Path(config["notes"]).write_text(json.dumps(dict(os.environ)))
HTTPServer(("127.0.0.1", config["ops_port"]), Ready).serve_forever()
