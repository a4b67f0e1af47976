"""Named, versioned settings of the tasks: every module without a leading underscore is one."""
