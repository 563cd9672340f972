"""A double of Google Cloud: IAM, the token service and Cloud Storage, as far as the connectors use them. It is not GCP.

It speaks the documented HTTP and enforces what it says: lifetimes, who may impersonate whom, disabled accounts (whose
tokens are accepted again once they are enabled), access boundaries, federation by a signed JWT. It proves nothing about
Google's own timing (how fast a disabled account's tokens are refused, the shortest lifetime), quotas, or IAM beyond
what stands in ``rules.py``.
"""
