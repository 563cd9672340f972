"""What a pipeline means to do: plans, what becomes of them, and who may carry out which step. Pure."""
