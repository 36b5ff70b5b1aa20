"""The Lambda function, its stack, and the embedded cloud that runs both without an account."""
