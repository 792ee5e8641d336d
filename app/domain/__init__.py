"""What a template is, what can go wrong, and what the use cases need from outside."""
