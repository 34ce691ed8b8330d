"""What can be set: schema.py has the settings, load.py reads them, checks.py has what does not go together."""

from reformer_cli.config.load import config_names, describe
from reformer_cli.config.schema import SECTIONS, RunConfig

__all__ = ["SECTIONS", "RunConfig", "config_names", "describe"]
