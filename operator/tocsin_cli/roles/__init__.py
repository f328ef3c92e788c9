"""One module per role an image can play: read the settings, hand them to the role's package."""
