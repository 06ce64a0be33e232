"""Addresses of stores, checked without what it takes to open them."""

from colotride.errors import ConfigurationError

TRACKING = ("sqlite:///", "http://", "https://", "postgresql", "mysql", "mssql", "databricks")
"""How the address of an MLflow store begins."""


def check_tracking_uri(uri: str) -> str:
    """The address itself.

    Raises:
        ConfigurationError: not one that MLflow knows.
    """
    if not uri.startswith(TRACKING):
        raise ConfigurationError(
            f"tracking URI {uri!r} is not one that MLflow knows; give sqlite:///FILE or http://HOST:PORT"
        )
    return uri
