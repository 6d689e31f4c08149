"""What all rooms agree on about labels."""

IGNORE_LABEL = 255  # pixels that neither train nor count, whatever the data set has
VOID_COLOUR = (224, 224, 192)  # of those pixels in the VOC devkit's palette
