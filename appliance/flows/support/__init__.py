"""A bundle for whoever helps: what this machine is, what runs and what was logged, without any secret."""
