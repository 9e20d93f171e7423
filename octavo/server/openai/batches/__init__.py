"""/v1/batches and `octavo run-batch`: files of requests, executed line by line through the application."""
