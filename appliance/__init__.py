"""llm-appliance: turn a Linux server into an LLM appliance."""

from typing import Final

__version__: Final = "0.1.0"
