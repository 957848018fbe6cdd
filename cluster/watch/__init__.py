"""What is to be seen of a running pipeline: its status, metrics and web page."""
