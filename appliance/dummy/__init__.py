"""A stand-in engine that speaks OpenAI's HTTP API without any model, for tests and for trying out."""
