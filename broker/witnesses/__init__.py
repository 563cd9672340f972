"""Checkpoints on their way out: signed, carried to witnesses, and held against the ledger when brokerd starts.

Belongs here: the signer, one pump per witness, and one adapter per kind of witness. What a checkpoint is, and how
somebody checks it, is ``broker/audit``.
"""
