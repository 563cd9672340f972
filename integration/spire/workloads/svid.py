"""Asks the Workload API, until it gives an SVID: which one? For at most half a minute."""

from __future__ import annotations

import json
import sys
import time

from spiffe import WorkloadApiClient
from spiffe.errors import PySpiffeError

_WITHIN_SECONDS, _BETWEEN_SECONDS = 120.0, 0.1


def main() -> None:
    end = time.monotonic() + _WITHIN_SECONDS
    with WorkloadApiClient() as client:
        while True:
            try:
                svid = client.fetch_x509_svid(timeout=60.0)
                break
            except PySpiffeError as error:
                if time.monotonic() > end:
                    sys.exit(f"no SVID: {error}")
                time.sleep(_BETWEEN_SECONDS)
    print(json.dumps({"id": str(svid.spiffe_id), "notAfter": svid.leaf.not_valid_after_utc.isoformat()}))


main()
