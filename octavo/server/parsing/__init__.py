"""One incremental reader of a model's text: what is content, what is reasoning, what is a tool call."""
