"""Whether a program fits a chip and how fast it can be there, before it is attached."""
