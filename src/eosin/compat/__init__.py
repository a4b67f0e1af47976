"""The programming interfaces of others, so that code written for them runs on Eosin's parts."""
