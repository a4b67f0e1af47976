"""Self-supervised methods: every module without a leading underscore is one."""
