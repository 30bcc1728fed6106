"""The worker of one core: from the media socket to the transceivers and back."""
