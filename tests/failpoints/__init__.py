"""Named failpoints at the ports: before and after each commit, upstream call and send. None of them is in the package."""
