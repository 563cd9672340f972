"""Named failpoints at the ports: before and after each commit, upstream call and send. None is in the package."""
