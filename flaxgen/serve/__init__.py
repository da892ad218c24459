"""Models over HTTP: OpenAI's completions and embeddings, couplets, answers and images, and a page to try them on (extra `serve`)."""
