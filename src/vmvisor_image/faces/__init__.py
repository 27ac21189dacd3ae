"""What people see: the command line, notebooks and terminals."""
