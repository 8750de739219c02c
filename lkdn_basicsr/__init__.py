from lkdn_basicsr import compat

compat.apply()
