"""Builds the package; everything but one copied file is said in setup.cfg."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithSettings(build_py):
    """Puts the top-level gunicorn.conf.py into the package, where `lockgate serve` finds it once installed."""

    def run(self) -> None:
        """Build, then copy."""
        super().run()
        if not getattr(self, "editable_mode", False):
            shutil.copyfile("gunicorn.conf.py", Path(self.build_lib) / "proxy" / "gunicorn.conf.py")


setup(cmdclass={"build_py": BuildWithSettings})
