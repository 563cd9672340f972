"""Break-glass: who may pass over approvals in an emergency, and what that owes afterwards (pure)."""
