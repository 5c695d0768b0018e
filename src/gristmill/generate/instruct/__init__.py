"""Instructions, preferences and tool calls, as the research papers make them."""
