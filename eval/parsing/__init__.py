"""Reading an answer: its words, numbers, and the option it settles on."""
