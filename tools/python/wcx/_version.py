# SPDX-License-Identifier: MIT
"""The version of the package, which is that of libwcx (fs/base/version.h)."""
__version__ = "0.1.0"
