"""The names under which the document on TM transformers imports this project; a translator without code of its own."""
