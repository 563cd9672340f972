"""The shell's settings for other servers, forgotten by this process.

libpq, boto3 and the clients of Vault take what they are not told from the environment. In a process that
talks to the embedded default alone, somebody's ``PGSSLMODE`` or ``AWS_PROFILE`` could only break it.
"""

from __future__ import annotations

import os

# PostgreSQL 18, 32.15 "Environment Variables"; AWS SDKs and Tools reference; Vault and OpenBao "Commands".
PREFIXES = ("PG", "AWS_", "BOTO_", "VAULT_", "BAO_")


def forget_other_servers() -> None:
    """Remove those variables from this process's environment, and so from what it starts."""
    for name in [name for name in os.environ if name.startswith(PREFIXES)]:
        del os.environ[name]
