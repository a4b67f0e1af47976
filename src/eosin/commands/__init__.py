"""The commands of `eosin`, a module each; none imports anything heavy before it runs."""
