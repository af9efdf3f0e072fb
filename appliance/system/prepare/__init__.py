"""Sets up servers that take their model by a call, once they run; one module for each of them."""
