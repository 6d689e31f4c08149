"""What all rooms agree on about labels."""

IGNORE_LABEL = 255  # pixels that neither train nor count, whatever the data set has
