"""The on-prem arm and the data set that both arms process."""
