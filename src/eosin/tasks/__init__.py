"""What an encoder is judged by: every module without a leading underscore is a task."""
