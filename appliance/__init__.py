"""llm-appliance: turn a Linux server into an LLM appliance."""

__version__ = "0.1.0"
