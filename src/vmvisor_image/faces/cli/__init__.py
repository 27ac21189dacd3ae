"""The command line: ``vmvisor-image``. Exit status 0 done, 1 bad input, 2 misuse."""

from vmvisor_image.faces.cli.main import main as main
