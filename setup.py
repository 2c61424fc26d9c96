"""Puts the plotting library of the viewer's page into the wheel: npm brings the one that viewer/package-lock.json pins.

All else of the build is in pyproject.toml. Without npm the wheel is built as well, and the page shows tables for charts.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

_VIEWER = Path(__file__).parent / "viewer"


class _BuildWithPage(build_py):
    """Copies packages, once what the page needs of others is there."""

    def finalize_options(self) -> None:
        """Fetch it before the files of the packages are listed."""
        if not (_VIEWER / "node_modules/uplot/dist/uPlot.esm.js").is_file():
            command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(_VIEWER)]
            try:
                subprocess.run(command, check=True, capture_output=True, timeout=300)
            except (OSError, subprocess.SubprocessError) as error:
                self.warn(f"the viewer will have no charts: {' '.join(command)} did not run ({error})")
        super().finalize_options()


setup(cmdclass={"build_py": _BuildWithPage})
