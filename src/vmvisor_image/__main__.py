"""``python -m vmvisor_image``."""

import sys

from vmvisor_image.faces.cli import main

sys.exit(main())
