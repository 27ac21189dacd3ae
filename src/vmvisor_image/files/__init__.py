"""Files and directories of volumes and archives, with their extraction and the check against checksum files."""
