"""Images of 8 bits in, views of 8 bits out; numpy, OpenCV and Pillow, never torch."""
