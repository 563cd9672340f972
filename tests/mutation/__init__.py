"""Whether the tests of the ideas would notice if the ideas were wrong."""
