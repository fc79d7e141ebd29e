"""Names of version 0.5, for tests of layers of one's own."""
