"""May they: the facts of a request, the Cedar policy set, and the decision with its reasons. Pure."""
