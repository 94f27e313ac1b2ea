"""The version of the installed package, read from its metadata: pyproject.toml is the only place where it is written."""

from importlib.metadata import version

__version__ = version("heatlas")
