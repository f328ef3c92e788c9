"""Who may post and listen: API keys or tokens, and how much each caller may send."""
