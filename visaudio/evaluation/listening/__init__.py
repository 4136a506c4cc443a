"""Parts of the listening test: who hears what, levels, the server, answers, and what they come to."""
