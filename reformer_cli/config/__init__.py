"""What can be set: schema.py has the settings, checks.py what does not go together."""

from reformer_cli.config.schema import SECTIONS, RunConfig, config_names, describe

__all__ = ["SECTIONS", "RunConfig", "config_names", "describe"]
