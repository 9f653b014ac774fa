"""Text that can go over the wire: Python's strings can hold what UTF-8 cannot."""


def sound(text: str) -> str:
    """Return text without halves of surrogate pairs (RFC 3629 section 3 forbids them).

    A model may cut an emoji in two, and a function of the user's own may yield anything.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
