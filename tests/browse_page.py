"""The browser's picture in the docs; ``python -m tests.browse_page`` makes it."""

from __future__ import annotations

import asyncio
import html
import re
from typing import Final

from tests.support import REPOSITORY
from vmvisor_image import Image
from vmvisor_image.faces.browse import Browser
from vmvisor_image.testing import forge

PICTURE: Final = REPOSITORY / "docs/pictures/browse.svg"
NAME: Final = "VMware-VMvisor-big-3.5.0-67921.i386.dd"
SIZE: Final = (118, 30)


def disk() -> forge.SparseImage:
    """A disk in the layout of ESX 3i 3.5, with less in its modules."""
    return forge.esx35_disk(
        boot=forge.esx35_boot_files(),
        bank=forge.esx35_bank_files(payload=400_000),
        store=forge.esx35_store_files(payload=400_000),
    )


async def _draw() -> str:
    with Image.open(disk()) as image:
        app = Browser(image, NAME)
        async with app.run_test(size=SIZE) as pilot:
            for key in ("down", "down", "enter", "h"):
                await app.workers.wait_for_complete()
                await pilot.pause()
                await pilot.press(key)
            await app.workers.wait_for_complete()
            await pilot.pause()
            return app.export_screenshot(title=f"vmvisor-image browse {NAME}")


def draw() -> str:
    """The picture: a boot bank, opened, and the fields of its first sector; without fonts from elsewhere."""
    return re.sub(r"(@font-face \{.*?\}|<!--.*?-->)\s*", "", asyncio.run(_draw()), flags=re.DOTALL)


def words(picture: str) -> list[str]:
    """What can be read in a picture, however it is drawn."""
    texts = re.findall(r"<text[^>]*>(.*?)</text>", picture, re.DOTALL)
    return " ".join(html.unescape(text).replace("\xa0", " ") for text in texts).split()


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
