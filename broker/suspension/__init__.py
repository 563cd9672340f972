"""The kill switch: what is stopped, for whom, by whom, and until when. Pure; the ledger keeps it."""
