"""A seeded simulation: the real core, ledger and revoker; simulated time, disk, network and upstream."""
