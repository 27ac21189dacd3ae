"""User interfaces: the command line, notebooks and terminals."""
