"""Published figures as pages, forms and explanations."""
