"""``python -m vmvisor_image``."""

import sys

from vmvisor_image.cli import main

sys.exit(main())
