"""Labelled data sets: every module without a leading underscore is one."""
