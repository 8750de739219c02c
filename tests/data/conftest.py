import lkdn_basicsr  # noqa: F401  BasicSR 1.4.2 can be imported only after it
