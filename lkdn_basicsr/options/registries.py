"""BasicSR's registries by the names that option files use, and what a registered class may raise."""

# What a constructor raises for arguments that it refuses.
CONSTRUCTOR_ERRORS = (
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


def registered(known):
    """The entries of a registry, or a dict, by the names in option files; ``Registry.get`` prints on a miss."""
    entries = known.items() if isinstance(known, dict) else known
    return {key.removesuffix('_basicsr'): value for key, value in entries}
