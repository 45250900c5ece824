"""People with known tastes who use a running server. How they behave is written in docs/explanation/simulation.md."""
