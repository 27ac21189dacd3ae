"""Files and directories, whatever holds them; writing them out, and checking them against checksum files."""
