"""Packaging: the README as a package index shows it, where a relative link leads nowhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_LINK = re.compile(r'(\]\(|(?:src|srcset|href)=")(?![a-z][a-z+]*:|#)([^)"\s]+)')


class ReadmeHook(MetadataHookInterface):
    """Makes every relative link of the README absolute, below the `Repository` of `[project.urls]`."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set the project's readme."""
        repository = metadata["urls"]["Repository"]

        def absolute(link: re.Match[str]) -> str:
            kind = "raw" if link[2].endswith((".png", ".svg")) else "blob"
            return f"{link[1]}{repository}/{kind}/main/{link[2]}"

        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": _LINK.sub(absolute, text)}
