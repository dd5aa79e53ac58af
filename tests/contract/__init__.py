"""The contract, on a folder and on real S3 servers."""
