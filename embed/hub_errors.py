"""What talking to the Hub may raise."""

from huggingface_hub.errors import HfHubHTTPError

# A connection that fails raises the HTTP library's own error, and huggingface_hub has changed its library
# twice. That error is a base of HfHubHTTPError whichever it is.
HUB_ERRORS: tuple[type[Exception], ...] = (
    OSError,
    ValueError,
    RuntimeError,
    *(base for base in HfHubHTTPError.__bases__ if issubclass(base, Exception)),
)
