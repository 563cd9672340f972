"""Files that operators write: read safely, parsed strictly, and explained line by line when wrong.

Belongs here: what every such file has in common (permissions, the YAML subset, durations, problems
with file and line). Does not belong here: what any one of them says (``broker/config``,
``broker/deployfiles``).
"""

from broker.files.document import Document, Place
from broker.files.fields import Duration, Model, Reference, validated
from broker.files.problems import Problem, Problems
from broker.files.reading import check_directory, read_text
from broker.files.strict_yaml import parse_yaml

__all__ = [
    "Document",
    "Duration",
    "Model",
    "Place",
    "Problem",
    "Problems",
    "Reference",
    "check_directory",
    "parse_yaml",
    "read_text",
    "validated",
]
