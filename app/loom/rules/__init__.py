"""What a person asks to be changed in passing: `file` reads rules, `model` is what they are, `engine` applies them."""
