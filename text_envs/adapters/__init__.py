"""Other suites as tasks; needs the extra `text-envs[suites]`."""
