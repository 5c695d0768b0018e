"""Ask a model: providers, limiter, retries, budgets, structured output. Behind `core.ask.Model`."""
