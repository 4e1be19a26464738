# SPDX-License-Identifier: MIT
"""Puts libwcx into the package, if there is one: WCX_LIBRARY, or the library that was built in the source tree.

Without one, the package uses the library that wcxfs has installed.
"""
import os
import pathlib
import shutil

from setuptools import setup
from setuptools.command.build_py import build_py

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:  # setuptools before 70
    from wheel.bdist_wheel import bdist_wheel

SONAME = "libwcx.so.0"  # as wcx/_library.py has it


def find_library():
    built = pathlib.Path(__file__).resolve().parents[2] / "build" / "libwcx.so"
    path = pathlib.Path(os.environ.get("WCX_LIBRARY") or built)
    return path if path.exists() else None


class build_with_library(build_py):
    def run(self):
        super().run()
        if find_library():
            shutil.copyfile(find_library(), os.path.join(self.build_lib, "wcx", SONAME))


class wheel_for_platform(bdist_wheel):
    """A wheel for any Python 3, and for this platform if the library is in it."""

    def finalize_options(self):
        super().finalize_options()
        self.root_is_pure = find_library() is None

    def get_tag(self):
        return "py3", "none", super().get_tag()[2]


setup(cmdclass={"build_py": build_with_library, "bdist_wheel": wheel_for_platform})
