"""Books to read."""

from __future__ import annotations

import zipfile
from pathlib import Path


def epub(
    path: Path,
    pages: dict[str, bytes],
    spine: list[str] | None = None,
    container: str = "OPS/book.opf",
    guide: str = "",
) -> None:
    items = "".join(f'<item id="i{n}" href="{name}"/>' for n, name in enumerate(pages))
    order = "".join(f'<itemref idref="i{[*pages].index(name)}"/>' for name in spine or pages)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as book:
        book.writestr("META-INF/container.xml", f'<container><rootfile full-path="{container}"/></container>')
        package = f"<opf:package><manifest>{items}</manifest><spine>{order}</spine>{guide}</opf:package>"
        book.writestr("OPS/book.opf", package)
        for name, data in pages.items():
            book.writestr(f"OPS/{name}", data)
